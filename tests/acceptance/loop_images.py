"""Real PCB images through the whole house give what Ultralytics' `predict` gives, one event for each."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Mapping

from support.audit import audit
from support.boxes import Agreement, Box, agreement
from support.brokers import NO_MOSQUITTO, MosquittoBroker, find_mosquitto
from support.collector import Collector, Event, wall_time_s
from support.proving import Proof, Setting, Short, Skipped
from support.station import DaemonProcess, wait_until, write_config

LEAST_SHARE, LEAST_IOU, CONFIDENCE_WITHIN = 0.995, 0.95, 0.02
_RATE_HZ = 4.0
_CLASSES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
_PEER = Path(__file__).with_name("ultralytics_boxes.py")


def deeppcb() -> Path:
    """The folder with `images/` and `deeppcb.torchscript`. Raises Skipped."""
    folder = os.environ.get("DEFECTD_DEEPPCB")
    if not folder:
        raise Skipped("set DEFECTD_DEEPPCB to the folder that holds images/ and deeppcb.torchscript")
    return Path(folder)


def deeppcb_station(port: int, folder: Path, images: Path) -> dict[str, Any]:
    """A recipe with all classes at the lowest threshold, so that every box is in the event. Time is not the point
    here: a machine that is busy with something else may take seconds for an inference."""
    defects = [{"class_name": name, "code": f"PCB-{name.upper()}", "min_confidence": 0.25} for name in _CLASSES]
    return {
        "station": {"site": "prove", "area": "smt", "line": "line1", "station": "aoi1"},
        "mqtt": {"host": "127.0.0.1", "port": port},
        "model": {"path": folder / "deeppcb.torchscript", "device": "cpu", "hang_s": 60},
        "camera": [{"name": "top", "kind": "replay", "path": images, "rate_hz": _RATE_HZ}],
        "inspection": {"deadline_ms": 60_000, "defect": defects},
        "state": {"directory": "state"},
    }


def _images_at_4_hz(setting: Setting) -> str:
    """One event for each image, in sequence, at the pace that was asked for."""
    folder, images = _inputs(setting)
    collector = _inspected(setting, folder, images)
    stems = [path.stem for path in sorted(images.glob("*.jpg"))]
    log = (setting.directory / "daemon.log").read_text()
    result = audit(collector, setting.directory / "state" / "outbox.db", log, stems)
    if result.problems or result.verdicts["error"]:
        raise Short("; ".join([*result.problems, result.figure()]))
    events = collector.inspections
    seqs = [event["seq"] for event in events]
    latencies_ms = sorted(event["timing_ms"]["capture_to_verdict"] for event in events)
    (setting.directory.parent / "deeppcb-events.json").write_text(json.dumps(events))
    began_s, ended_s = (wall_time_s(events[index]["started_at"]) for index in (0, -1))
    return (
        f"{len(stems)} images, {result.figure()}; seq {seqs[0]}..{seqs[-1]} without a hole; "
        f"{(len(events) - 1) / (ended_s - began_s):.2f} Hz, "
        f"capture to verdict p50 {latencies_ms[len(latencies_ms) // 2]:.1f} ms"
    )


def _boxes_agree(setting: Setting) -> str:
    """Boxes of the events against `predict` on the same file, in both directions."""
    python = os.environ.get("DEFECTD_PEER_PYTHON")
    folder, images = _inputs(setting)
    if not python:
        raise Skipped("set DEFECTD_PEER_PYTHON to an interpreter that has Ultralytics (pip install ultralytics)")
    kept = setting.directory.parent / "deeppcb-events.json"
    events = json.loads(kept.read_text()) if kept.exists() else _inspected(setting, folder, images).inspections
    kept.unlink(missing_ok=True)
    ours = {event["unit_id"]: boxes_of(event) for event in events}
    theirs = _predicted(setting, python, folder / "deeppcb.torchscript", images)
    found = agreement(ours, theirs, LEAST_IOU, CONFIDENCE_WITHIN)
    sought = agreement(theirs, ours, LEAST_IOU, CONFIDENCE_WITHIN)
    figure = f"{_share(found)} of defectd's, {_share(sought)} of Ultralytics' boxes matched; {_worst(found)}"
    if min(found.share, sought.share) < LEAST_SHARE or not found.boxes:
        raise Short(f"{figure}; expected {LEAST_SHARE:.1%}")
    return figure


def _inputs(setting: Setting) -> tuple[Path, Path]:
    """The DeepPCB folder and the images to use."""
    if find_mosquitto() is None:
        raise Skipped(NO_MOSQUITTO)
    folder = deeppcb()
    images = folder / "images"
    if not setting.quick:
        return folder, images
    few = setting.directory / "images"
    few.mkdir()
    for path in sorted(images.glob("*.jpg"))[:40]:
        (few / path.name).symlink_to(path)
    return folder, few


def _inspected(setting: Setting, folder: Path, images: Path) -> Collector:
    """Run the station over *images* once; what the MES received."""
    count = len(list(images.glob("*.jpg")))
    with MosquittoBroker(setting.directory / "broker") as broker:
        collector = Collector(broker.host, broker.port)
        config = write_config(setting.directory, deeppcb_station(broker.port, folder, images))
        daemon = DaemonProcess(config)
        try:
            daemon.start()
            daemon.wait_ready()
            wait_until(lambda: len(collector.inspections) >= count, count / _RATE_HZ + 300, f"{count} events")
            daemon.terminate()
            time.sleep(0.5)
        finally:
            daemon.end()
            collector.close()
    return collector


def _predicted(setting: Setting, python: str, model: Path, images: Path) -> dict[str, list[Box]]:
    output = setting.directory / "ultralytics.json"
    peer = subprocess.run(
        [python, str(_PEER), str(model), str(images), str(output)],
        capture_output=True, text=True, timeout=900, check=False, cwd=setting.directory,
    )  # fmt: skip
    if peer.returncode != 0:
        raise Short(f"the peer failed: {peer.stderr.strip().splitlines()[-1:]}")
    return {stem: [tuple(row) for row in rows] for stem, rows in json.loads(output.read_text()).items()}


def boxes_of(event: Mapping[str, Any] | Event) -> list[Box]:
    """The defects of an inspection."""
    boxes: list[Box] = []
    for defect in event["defects"]:
        x, y, width, height = defect["bbox_px"]
        boxes.append((x, y, x + width, y + height, defect["confidence"], defect["class_name"]))
    return boxes


def _share(one_way: Agreement) -> str:
    return f"{one_way.matched} of {one_way.boxes} ({one_way.share:.2%})"


def _worst(one_way: Agreement) -> str:
    return f"lowest IoU {one_way.worst_iou:.4f}, confidence at most {one_way.worst_confidence:.4f} apart"


IMAGES = (
    Proof("images.one-event-each", "DeepPCB at 4 Hz: one evt/inspection each, seq contiguous", _images_at_4_hz),
    Proof("images.boxes-agree", "boxes agree with Ultralytics predict on the same file", _boxes_agree),
)
