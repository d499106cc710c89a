"""A GigE Vision camera that serves our pictures over a real stream: as from the folder, killed, cut off, lossy."""

from __future__ import annotations

import functools
import signal
import time
from collections import Counter
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Mapping

import cv2

from defectd.camera.boards import BoardLine
from defectd.demo.station import CODES, DEFECT_RATE, HEIGHT_PX, MIN_CONFIDENCE, MODEL, SEED, WIDTH_PX
from support import coded_pictures
from support.collector import Event
from support.gige import NO_ARAVIS, GigeCamera, has_aravis
from support.introspection import lent_gi
from support.networks import NoNetwork, alone
from support.proving import Proof, Setting, Short, Skipped
from support.proving_ground import Ground, ground
from support.sniffer import Sniffer
from support.station import wait_until

_RATE_HZ = 4.0
_BUSY_RATE_HZ = 15.0
_SCALE = 4  # a coded picture is 216 packets then
_OFF_S = 3.0
_CUT_S = 8.0
_BEFORE = 12
_NOTICED_WITHIN_S = 4.0


def _in_own_network(prove: Callable[[Setting], str]) -> Callable[[Setting], str]:
    """Its broadcasts stay here."""

    @functools.wraps(prove)
    def run(setting: Setting) -> str:
        with lent_gi(setting.directory):
            if not has_aravis():
                raise Skipped(NO_ARAVIS)
            try:
                return alone(lambda: prove(setting))
            except NoNetwork as error:
                raise Skipped(str(error)) from None

    return run


@contextmanager
def _station(
    setting: Setting, units: int, *, rate_hz: float = _RATE_HZ, lose: float = 0.0, pictures: int = 0, **changes: Any
) -> Iterator[tuple[GigeCamera, Ground]]:
    """A camera that shows *pictures* coded pictures (0: one for each unit), and a station that has it."""
    size = {"width_px": coded_pictures.WIDTH_PX * _SCALE, "height_px": coded_pictures.HEIGHT_PX * _SCALE}
    shown = coded_pictures.write_pictures(setting.directory / "shown", pictures or units, _SCALE)
    with GigeCamera(setting.directory, shown, rate_hz=rate_hz, lose=lose) as camera:
        settings = {"camera": [_settings(camera, **{**size, **changes})]}
        with ground(setting.directory, units, rate_hz, settings) as here:
            yield camera, here


def _settings(camera: GigeCamera, **changes: Any) -> dict[str, Any]:
    return {
        "name": "top", "kind": "aravis", "address": camera.address, "pixel_format": "RGB8", "trigger_source": "Line0",
        "stall_s": 8.0, "max_pixels": WIDTH_PX * HEIGHT_PX, **changes,
    }  # fmt: skip


# -- items -------------------------------------------------------------------------------------------------------


@_in_own_network
def _same_verdicts(setting: Setting) -> str:
    """The same boards out of a folder, and over GVSP by a hardware trigger: the same boxes to the last digit."""
    units = 16 if setting.quick else 60
    boards = setting.directory / "boards"
    boards.mkdir()
    line = BoardLine(SEED, WIDTH_PX, HEIGHT_PX, DEFECT_RATE)
    for number in range(1, units + 1):
        cv2.imwrite(str(boards / f"unit-{number:04d}.png"), line.board(number).image)
    replayed = {
        "name": "top",
        "kind": "replay",
        "path": boards,
        "rate_hz": _RATE_HZ,
        "max_pixels": WIDTH_PX * HEIGHT_PX,
    }
    from_folder, _ = _judged(setting, "folder", replayed, units)
    with GigeCamera(setting.directory, boards, rate_hz=_RATE_HZ) as camera:
        streamed = _settings(camera, width_px=WIDTH_PX, height_px=HEIGHT_PX)
        from_camera, figure = _judged(setting, "camera", streamed, units)
    different = [number for number, verdict in from_folder.items() if from_camera.get(number) != verdict]
    if different or len(from_camera) != units:
        number = different[0] if different else 0
        raise Short(f"{len(different)} of {units} differ: {from_folder.get(number)} and {from_camera.get(number)}")
    verdicts = Counter(verdict for verdict, _ in from_camera.values())
    boxes = sum(len(found) for _, found in from_camera.values())
    return f"{units} boards, {dict(verdicts)} with {boxes} boxes, all as from the folder; {figure}"


def _judged(
    setting: Setting, name: str, camera: Mapping[str, Any], units: int
) -> tuple[dict[int, tuple[str, list[Any]]], str]:
    """Verdict and boxes of each board by its number."""
    defects = [
        {"class_name": class_name, "code": code, "description": text, "min_confidence": MIN_CONFIDENCE}
        for class_name, (code, text) in CODES.items()
    ]
    changes = {
        "camera": [camera],
        "model": {"path": MODEL, "device": "cpu", "threads": 1},
        "inspection": {"deadline_ms": 5000, "defect": defects},
    }
    directory = setting.directory / name
    directory.mkdir()
    with ground(directory, units, _RATE_HZ, changes) as here:
        here.finish()
        figure = here.report(once=False, coded=False)
        return {_number(event): (event["verdict"], _boxes(event)) for event in here.collector.inspections}, figure


def _number(event: Event) -> int:
    return int(str(event["unit_id"]).rpartition("-")[2])


def _boxes(event: Event) -> list[Any]:
    return sorted((found["class_name"], found["confidence"], tuple(found["bbox_px"])) for found in event["defects"])


@_in_own_network
def _software_trigger(setting: Setting) -> str:
    """The daemon fires: each command gives one picture, its own, and one verdict."""
    units = 30 if setting.quick else 120
    commanded = {"trigger_source": "Software", "trigger": "interval", "interval_ms": 250}
    with _station(setting, units, pictures=units + 20, **commanded) as (camera, here):
        here.await_units(units)
        here.terminate()
        told, taken = len(here.collector.inspections), camera.shown
        if told != taken:
            raise Short(f"{told} verdicts for {taken} pictures that the camera took")
        took_ms = sorted(event["timing_ms"]["capture_to_verdict"] for event in here.collector.inspections)
        here.notes.append(f"command to verdict p50 {took_ms[len(took_ms) // 2]:.0f} ms")
        return f"{taken} software triggers; {here.report(once=False)}"


@_in_own_network
def _killed(setting: Setting) -> str:
    """Switched off and on again: it is opened anew, which Aravis' old handle never could."""
    return _away(setting, signal.SIGKILL, _OFF_S)


@_in_own_network
def _cut(setting: Setting) -> str:
    """Its cable is out for a while: it neither answers nor refuses."""
    return _away(setting, signal.SIGSTOP, _CUT_S)


def _away(setting: Setting, how: signal.Signals, for_s: float) -> str:
    units = 40 if setting.quick else 80
    with _station(setting, units) as (camera, here):
        here.await_units(_BEFORE)
        camera.hold_line()
        wait_until(lambda: len(here.collector.inspections) == camera.shown, 10, "all that passed is judged")
        camera.signal(how)
        here.struck_at_s = time.time()
        noticed_s = wait_until(lambda: _fault(here, "raised"), 30, "the fault camera_lost")
        if noticed_s > _NOTICED_WITHIN_S:
            raise Short(f"noticed after {noticed_s:.1f} s, expected {_NOTICED_WITHIN_S:.0f} s at most")
        time.sleep(max(0.0, for_s - noticed_s))
        camera.start() if how is signal.SIGKILL else camera.signal(signal.SIGCONT)
        here.struck_at_s = time.time()
        back_s = wait_until(lambda: _fault(here, "cleared"), 60, "the fault's end")
        camera.run_line()
        here.await_good_units()
        here.finish()
        told = [event["unit_id"] for event in here.collector.inspections]
        if len(told) != camera.shown or len(set(told)) != len(told):
            raise Short(f"{len(told)} verdicts ({len(set(told))} different units) for {camera.shown} pictures")
        here.notes.append(f"noticed after {noticed_s:.1f} s, open again {back_s:.1f} s after it was back")
        return here.report(once=False)


def _fault(here: Ground, state: str) -> bool:
    faults = [event for event in here.collector.events.values() if event["schema"].startswith("defectd.fault/")]
    return any((event["code"], event["state"]) == ("camera_lost", state) for event in faults)


@_in_own_network
def _packet_loss(setting: Setting) -> str:
    """One packet in a thousand is never sent; what was sent is counted on the wire."""
    units = 150 if setting.quick else 600
    with Sniffer() as network, _station(setting, units, rate_hz=_BUSY_RATE_HZ, lose=0.001) as (_, here):
        here.finish()
        events = here.collector.inspections
        reasons = Counter(event["error"] for event in events if event["verdict"] == "error")
        sent, holes = sum(network.frames.values()), len(network.incomplete)
        if len(network.frames) != units or reasons != {"frame_incomplete": holes} or not holes:
            raise Short(f"{len(network.frames)} frames on the wire, {holes} with holes; errors {dict(reasons)}")
        return f"{holes} of {units} frames lacked some of {sent} packets, {holes} errors; {here.report(once=False)}"


GIGE = (
    Proof("gige.same-verdicts", "boards over GVSP are judged as from the folder, box for box", _same_verdicts),
    Proof("gige.software-trigger", "each software trigger has one verdict, of its own picture", _software_trigger),
    Proof("gige.killed", "a camera that is killed and comes back is opened anew; no picture lacks a verdict", _killed),
    Proof("gige.cut", "a camera whose cable is out for a while, too", _cut),
    Proof("gige.packet-loss", "frames that lost packets are errors, counted exactly", _packet_loss),
)
