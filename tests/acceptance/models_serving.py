"""Bundles on a line: the same boxes by every runtime, the fastest by itself, and no second compilation."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from acceptance.loop_images import boxes_of, deeppcb, deeppcb_station
from acceptance.models_export import command, deeppcb_bundle, keys, network_bundle
from support.audit import audit
from support.boxes import Box, agreement
from support.brokers import NO_MOSQUITTO, MosquittoBroker, find_mosquitto
from support.collector import Collector
from support.proving import Proof, Setting, Short, Skipped
from support.station import CHECKOUT, DaemonProcess, merged, wait_until, write_config

_IMAGES, _QUICK_IMAGES = 60, 15
_LEAST_SHARE, _LEAST_IOU, _CONFIDENCE_WITHIN = 0.995, 0.95, 0.02
_AUTO_S = 900.0
_COMPILED = re.compile(r"(compiled|from cache) in ([\d.]+) s")
_CHOSEN = re.compile(r"runtime_chosen: (.*)")
_PAGE_LEAST_BYTES = 20_000


@dataclass(frozen=True)
class Run:
    """What one run of a station left. `ready_s` is the time from its start to READY."""

    boxes: dict[str, list[Box]]
    figure: str
    ready_s: float
    log: str
    runtimes: list[str]


def _inspect(
    setting: Setting,
    name: str,
    model: dict[str, Any],
    *,
    wait_for: Callable[[str], bool] | None = None,
    dev: bool = False,
) -> Run:
    """A station with *model* over some pictures of DeepPCB; with *wait_for*, until its log satisfies that and ten more
    units have been judged. Raises Short if a unit is missing."""
    if find_mosquitto() is None:
        raise Skipped(NO_MOSQUITTO)
    directory = setting.directory / name
    images = _some_images(setting)
    count = len(list(images.iterdir()))
    with MosquittoBroker(directory / "broker") as broker:
        collector = Collector(broker.host, broker.port)
        base = deeppcb_station(broker.port, deeppcb(), images)
        base["camera"][0]["loop"] = wait_for is not None
        model = {"trust": keys(setting) / "root.json", **model}
        config = write_config(
            directory, merged(base, {"model": model, "state": {"directory": setting.directory / "state"}})
        )
        daemon = DaemonProcess(config, arguments=["--dev"] if dev else [])
        try:
            daemon.start()
            ready_s = daemon.wait_ready(600)
            if wait_for is not None:
                wait_until(lambda: wait_for(daemon.log()), _AUTO_S, "the choice of a runtime", every_s=0.5)
                count = len(collector.inspections) + 10
            wait_until(lambda: len(collector.inspections) >= count, 600, f"{count} events")
            daemon.terminate()
            time.sleep(0.5)
        finally:
            daemon.end()
            collector.close()
    stems = None if wait_for is not None else [path.stem for path in sorted(images.iterdir())]
    result = audit(collector, setting.directory / "state" / "outbox.db", daemon.log(), stems)
    if result.problems or result.verdicts["error"]:
        raise Short("; ".join([*result.problems, result.figure()]))
    runtimes = list(dict.fromkeys(event["model"]["runtime"] for event in collector.inspections))
    boxes = {event["unit_id"]: boxes_of(event) for event in collector.inspections}
    (setting.directory / "state" / "outbox.db").unlink()  # the next run is audited by itself; the models stay
    return Run(boxes, result.figure(), ready_s, daemon.log(), runtimes)


def _some_images(setting: Setting) -> Path:
    few = setting.directory / "images"
    if not few.exists():
        few.mkdir()
        for path in sorted((deeppcb() / "images").glob("*.jpg"))[: _QUICK_IMAGES if setting.quick else _IMAGES]:
            (few / path.name).symlink_to(path)
    return few


def _agree(run: Run, reference: Run) -> str:
    there = agreement(run.boxes, reference.boxes, _LEAST_IOU, _CONFIDENCE_WITHIN)
    back = agreement(reference.boxes, run.boxes, _LEAST_IOU, _CONFIDENCE_WITHIN)
    figure = f"{there.matched} of {there.boxes} boxes, {back.matched} of {back.boxes} back"
    if min(there.share, back.share) < _LEAST_SHARE or not there.boxes:
        raise Short(f"{figure} agree with the TorchScript file; expected {_LEAST_SHARE:.1%}")
    return figure


def _same_boxes(setting: Setting) -> str:
    """Stock TorchScript, then the bundle by torchscript and twice by compiled."""
    bundle = deeppcb_bundle(setting)
    stock = _inspect(setting, "stock", {"path": deeppcb() / "deeppcb.torchscript", "trust": None})
    scripted = _inspect(setting, "torchscript", {"path": bundle, "runtime": "torchscript"})
    first = _inspect(setting, "compiled", {"path": bundle, "runtime": "compiled"})
    second = _inspect(setting, "compiled-again", {"path": bundle, "runtime": "compiled"})
    if (scripted.runtimes, first.runtimes) != (["torchscript-fp32-cpu"], ["compiled-fp32-cpu"]):
        raise Short(f"served by {scripted.runtimes} and {first.runtimes}")
    how = [_COMPILED.search(run.log) for run in (first, second)]
    if how[0] is None or how[1] is None or (how[0].group(1), how[1].group(1)) != ("compiled", "from cache"):
        raise Short(f"first start: {how[0]}, second start: {how[1]}; expected compiled, then from cache")
    return (
        f"torchscript: {_agree(scripted, stock)}; compiled: {_agree(first, stock)}; first start compiled in "
        f"{how[0].group(2)} s and READY after {first.ready_s:.1f} s, the second took {how[1].group(2)} s and "
        f"{second.ready_s:.1f} s: {first.ready_s / second.ready_s:.1f} times as long"
    )


def _auto(setting: Setting) -> str:
    """The line runs by the portable format; the others are tried beside it; then the fastest serves."""
    model = {"path": deeppcb_bundle(setting), "runtime": "auto"}
    trying = _inspect(setting, "auto", model, wait_for=_settled)
    (told,) = _CHOSEN.findall(trying.log)
    chosen = told.partition(":")[0]
    if trying.runtimes != list(dict.fromkeys(["torchscript-fp32-cpu", f"{chosen}-fp32-cpu"])):
        raise Short(f"{chosen} was chosen, but units were judged by {trying.runtimes}")
    later = _inspect(setting, "auto-later", model)
    if later.runtimes != [f"{chosen}-fp32-cpu"]:
        raise Short(f"{chosen} was chosen, but the next start is served by {later.runtimes}")
    return f"{told[:400]}; served by {' then '.join(trying.runtimes)}, {trying.figure}; next start: {later.runtimes[0]}"


def _settled(log: str) -> bool:
    """A runtime was chosen, and serves."""
    found = _CHOSEN.search(log)
    return found is not None and (found.group(1).startswith("torchscript:") or "swapped:" in log)


def _networks(setting: Setting) -> str:
    """Untrained: they find nothing, but every unit has its verdict."""
    told = []
    for network in ("yolov8n", "yolo11n", "yolov10n", "yolo26n"):
        bundle = network_bundle(setting, network)
        classes = json.loads((bundle / "manifest.json").read_text())["network"]["classes"]
        defects = [{"class_name": classes[0], "code": "FIRST", "min_confidence": 0.25}]
        run = _inspect_network(setting, network, bundle, defects)
        told.append(f"{network} {run}")
    return "; ".join(told)


def _inspect_network(setting: Setting, name: str, bundle: Path, defects: list[dict[str, Any]]) -> str:
    directory = setting.directory / name
    images = _some_images(setting)
    count = min(12, len(list(images.iterdir())))
    with MosquittoBroker(directory / "broker") as broker:
        collector = Collector(broker.host, broker.port)
        base = deeppcb_station(broker.port, deeppcb(), images)
        model = {"path": bundle, "device": "cpu", "hang_s": 60, "runtime": "torchscript"}
        base.update({"model": model, "inspection": {"deadline_ms": 60_000, "defect": defects}})
        daemon = DaemonProcess(write_config(directory, base), arguments=["--dev"])
        try:
            daemon.start()
            daemon.wait_ready(300)
            wait_until(lambda: len(collector.inspections) >= count, 300, f"{count} events")
            daemon.terminate()
        finally:
            daemon.end()
            collector.close()
    verdicts = {event["verdict"] for event in collector.inspections}
    if "error" in verdicts:
        raise Short(f"{name}: {collector.inspections[0]}")
    return f"{len(collector.inspections)} units"


def _bench_page(setting: Setting) -> str:
    """`defectd bench` writes a page that a browser shows without a complaint."""
    out = setting.directory / "bench"
    done = command(
        "bench", deeppcb_bundle(setting), "--root", keys(setting) / "root.json", "--device", "cpu", "--out", out,
        "--calls", "50" if setting.quick else "200", "--batches", "1,2,4",
    )  # fmt: skip
    if done.returncode != 0:
        raise Short(f"exit {done.returncode}: {done.stderr[-300:]}")
    page = out / "bench.html"
    text = page.read_text()
    if len(text) < _PAGE_LEAST_BYTES or text.count("<svg") < 3 or re.search(r'(src|href)="https?:', text):
        raise Short(f"{len(text)} bytes, {text.count('<svg')} plots; expected plots, and nothing from elsewhere")
    kept = os.environ.get("DEFECTD_KEEP_PAGE")
    if kept:
        Path(kept).write_text(text)
    chosen = re.search(r"^.*(chosen|fastest).*$", done.stdout, re.MULTILINE)
    return f"{len(text) // 1000} kB, {text.count('<svg')} plots; {chosen.group(0).strip()[:160] if chosen else ''}"


def _stubs(setting: Setting) -> str:
    """The TensorRT modules against the vendor's own bindings, where these can be had."""
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "tests" / "tensorrt-stubs")],
        capture_output=True, text=True, timeout=1200, check=False, cwd=CHECKOUT,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode != 0:
        raise Short("; ".join(lines)[-500:] or done.stderr[-300:])
    return "; ".join(lines)[-400:]


SERVING = (
    Proof("serve.same-boxes", "the bundle by torchscript and compiled: the boxes of the stock file", _same_boxes),
    Proof("serve.auto", "auto serves the fastest that is proven, without missing a unit", _auto),
    Proof("serve.networks", "yolov8n, yolo11n, yolov10n and yolo26n are served from their bundles", _networks),
    Proof("bench.page", "defectd bench: every runtime, and a page with plots", _bench_page),
    Proof("tensorrt.bindings", "the TensorRT modules fit the vendor's bindings", _stubs),
)
