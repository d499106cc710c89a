"""A real RTSP server, killed, frozen and started anew: how soon that is noticed, and that nothing stale is judged."""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import dataclass
from typing import Any, Iterator

from support.collector import Event, wall_time_s
from support.proving import Proof, Setting, Short, Skipped
from support.proving_ground import Ground, ground
from support.rtsp import BITS, HEIGHT_PX, TICK_NS, WIDTH_PX, Network, RtspCamera, age_s
from support.station import wait_until

_TIMEOUT_S = 1.5
_DEADLINE_MS = 800
_STALE_S = _DEADLINE_MS / 1000  # a verdict about an older picture would have been too late, had it been known
_NOTICE_KILL_S, _RECOVER_S = 1.0, 15.0
_NOTICE_FREEZE_S = _TIMEOUT_S + 1.0
_BEFORE = 30
_TICK_S = 2 * TICK_NS / 1e9  # what stands in a picture is as exact, and so are two clocks


@dataclass
class _Stream:
    """A station that looks at a stream, and what was done to it."""

    here: Ground
    camera: RtspCamera
    network: Network

    def lost_since(self, wall_s: float) -> float:
        """Seconds from *wall_s* until the station says that its camera is lost."""

        def told() -> list[Event]:
            return [
                event for event in list(self.here.collector.events.values())
                if event.get("code") == "camera_lost" and event["state"] == "raised"
                and wall_time_s(event["created_at"]) >= wall_s
            ]  # fmt: skip

        wait_until(told, 30, "evt/fault camera_lost")
        return wall_time_s(told()[0]["created_at"]) - wall_s

    def back_since(self, wall_s: float) -> float:
        """Seconds from *wall_s* until the first unit that was passed or failed."""
        self.here.struck_at_s = wall_s
        self.here.await_good_units(1)
        first = min(wall_time_s(event["started_at"]) for event in _good(self.here) if _after(event, wall_s))
        self.here.await_good_units()
        return first - wall_s

    def report(self) -> str:
        """The figure of the run, with the oldest picture that was judged. Raises Short."""
        self.here.terminate()
        figure = self.here.report(once=False, coded=False, free_run=True)
        ages_s = [_age_at_verdict_s(event) for event in _good(self.here)]
        stale = [age for age in ages_s if not -0.1 < age < _STALE_S]
        if stale:
            raise Short(f"{len(stale)} of {len(ages_s)} judged pictures were stale, up to {max(stale):.2f} s; {figure}")
        return f"{len(ages_s)} pictures judged, the oldest {max(ages_s):.2f} s after it was drawn; {figure}"


@contextlib.contextmanager
def _stream(setting: Setting, **changes: Any) -> Iterator[_Stream]:
    """READY, and some pictures on; *changes* are of the camera."""
    camera = RtspCamera()
    try:
        camera.start()
    except RuntimeError as missing:
        raise Skipped(str(missing)) from None
    network = Network(camera)
    settings: dict[str, Any] = {
        "name": "top", "kind": "rtsp", "url": network.url, "mode": "free_run", "timeout_s": _TIMEOUT_S,
        "max_pixels": WIDTH_PX * HEIGHT_PX, **changes,
    }  # fmt: skip
    try:
        station = {"camera": [settings], "inspection": {"deadline_ms": _DEADLINE_MS}}
        with ground(setting.directory, 0, 25.0, station) as here:
            here.await_units(_BEFORE)
            yield _Stream(here, camera, network)
    finally:
        network.close()
        camera.kill()


def _killed(setting: Setting) -> str:
    """kill -9 of the server, and another one in its place."""
    with _stream(setting) as stream:
        noticed_s, back_s = [], []
        for _ in range(1 if setting.quick else 3):
            killed_s = time.time()
            stream.camera.kill()
            noticed_s.append(stream.lost_since(killed_s))
            time.sleep(2.0)
            started_s = time.time()
            stream.camera.start()
            back_s.append(stream.back_since(started_s))
        stream.here.expect_fault("camera/top", "camera_lost")
        return _within(noticed_s, _NOTICE_KILL_S, back_s, stream.report())


def _frozen(setting: Setting) -> str:
    """SIGSTOP for longer than timeout_s: lost, and opened anew when it goes on."""
    with _stream(setting) as stream:
        noticed_s, back_s = [], []
        for _ in range(1 if setting.quick else 3):
            frozen_s = time.time()
            stream.camera.signal(signal.SIGSTOP)
            noticed_s.append(stream.lost_since(frozen_s))
            time.sleep(2.0)
            thawed_s = time.time()
            stream.camera.signal(signal.SIGCONT)
            back_s.append(stream.back_since(thawed_s))
        stream.here.expect_fault("camera/top", "camera_lost")
        return _within(noticed_s, _NOTICE_FREEZE_S, back_s, stream.report())


def _held_up(setting: Setting) -> str:
    """The network keeps the stream for less than timeout_s, then delivers all of it; and so does a worker that stood
    still: what was saved up is dropped, and counted."""
    with _stream(setting) as stream:
        for _ in range(2 if setting.quick else 6):
            stream.network.hold()
            time.sleep(_TIMEOUT_S - 0.4)
            stream.network.let_go()
            time.sleep(2.0)
        stream.here.stall("camera", 1.2)
        stream.here.await_good_units()
        dropped = sum(event["frame"]["dropped_before"] for event in stream.here.collector.inspections)
        return f"{dropped} frames dropped; {stream.report()}"


def _commanded(setting: Setting) -> str:
    """The station takes a picture every 300 ms, of a server that freezes: each was exposed after its command."""
    with _stream(setting, mode="triggered", trigger="interval", interval_ms=300) as stream:
        frozen_s = time.time()
        stream.camera.signal(signal.SIGSTOP)
        time.sleep(1.0)
        stream.camera.signal(signal.SIGCONT)
        stream.here.struck_at_s = frozen_s
        stream.here.await_good_units(20 if setting.quick else 60)
        figure = stream.report()
        ages_s = [_age_s(event, wall_time_s(event["started_at"])) for event in _good(stream.here)]
        if max(ages_s) > _TICK_S:
            raise Short(f"a picture was drawn {max(ages_s):.2f} s before its command; {figure}")
        return f"drawn {-max(ages_s):.2f} to {-min(ages_s):.2f} s after the command; {figure}"


def _within(noticed_s: list[float], notice_s: float, back_s: list[float], figure: str) -> str:
    told = (
        f"noticed after {_seconds(noticed_s)}, the next verdict {_seconds(back_s)} after it was there again; {figure}"
    )
    if max(noticed_s) > notice_s or max(back_s) > _RECOVER_S:
        raise Short(f"{told}; expected {notice_s} s and {_RECOVER_S} s at most")
    return told


def _seconds(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values) + " s"


def _good(here: Ground) -> list[Event]:
    return [event for event in here.collector.inspections if event["verdict"] in ("passed", "failed")]


def _after(event: Event, wall_s: float) -> bool:
    return wall_time_s(event["started_at"]) > wall_s


def _age_at_verdict_s(event: Event) -> float:
    return _age_s(event, wall_time_s(event["ended_at"]))


def _age_s(event: Event, wall_s: float) -> float:
    """How long before *wall_s* the picture was drawn, by the time that stands in it."""
    said, block_px = 0, event["frame"]["width_px"] / BITS
    for defect in event["defects"]:
        x, _, width, _ = defect["bbox_px"]
        said |= 1 << int((x + width / 2) / block_px)
    return age_s(said, time.monotonic_ns() - int((time.time() - wall_s) * 1e9))


RTSP = (
    Proof("rtsp.killed", "an RTSP server is killed and started again", _killed),
    Proof("rtsp.frozen", "an RTSP server stands still for longer than its timeout", _frozen),
    Proof("rtsp.held-up", "a stream that stood still delivers what it had saved up", _held_up),
    Proof("rtsp.commanded", "pictures that the station asks for, of a stream", _commanded),
)
