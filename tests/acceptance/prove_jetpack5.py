"""`make test-jetpack5`: a bundle that a new torch exported, on a line of JetPack 5's torch and Python.

PYTHONPATH=daemon:tests python -m acceptance.prove_jetpack5 --bundle DIR
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from support.brokers import MosquittoBroker, NatsBroker, find_mosquitto
from support.collector import Collector
from support.proving import Proof, Setting, Short, main
from support.station import DaemonProcess, wait_until, write_config

_UNITS = 40


def _serve(setting: Setting, bundle: Path) -> str:
    """Its golden pictures again and again, as if a camera saw them: READY only if it finds in them what it should."""
    manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    pictures = setting.directory / "pictures"
    pictures.mkdir()
    for picture in manifest["golden"]["pictures"]:
        (pictures / picture["image"]).symlink_to(bundle / picture["image"])
    broker_kind = NatsBroker if find_mosquitto() is None else MosquittoBroker
    with broker_kind(setting.directory / "broker") as broker:
        collector = Collector(broker.host, broker.port)
        daemon = DaemonProcess(
            write_config(setting.directory, _station(broker.port, bundle, pictures, manifest)), ["--dev"]
        )
        try:
            daemon.start()
            ready_s = daemon.wait_ready(300)
            wait_until(lambda: len(collector.inspections) >= _UNITS, 300, f"{_UNITS} units")
            daemon.terminate()
            time.sleep(0.5)
        finally:
            daemon.end()
            collector.close()
    verdicts = [event["verdict"] for event in collector.inspections]
    runtimes = {event["model"]["runtime"] for event in collector.inspections}
    golden = next((line for line in daemon.log().splitlines() if "golden: recall" in line), "")
    if "error" in verdicts or not golden:
        raise Short(f"{verdicts.count('error')} errors; golden check: {golden or 'none'}")
    exporter = manifest["exporter"]["torch"]
    return (
        f"exported by torch {exporter}, served by torch {torch.__version__} on Python {platform.python_version()}: "
        f"READY after {ready_s:.1f} s, {len(verdicts)} units by {', '.join(runtimes)}; "
        f"{golden[golden.index('golden: ') :].split(chr(39))[0]}"
    )


def _station(port: int, bundle: Path, pictures: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    defects = [{"class_name": name, "code": name, "min_confidence": 0.25} for name in manifest["network"]["classes"]]
    return {
        "station": {"site": "prove", "area": "smt", "line": "line1", "station": "aoi1"},
        "mqtt": {"host": "127.0.0.1", "port": port},
        "model": {"path": bundle, "device": "cpu", "runtime": "torchscript", "hang_s": 60},
        "camera": [{"name": "top", "kind": "replay", "path": pictures, "rate_hz": 4.0, "loop": True}],
        "inspection": {"deadline_ms": 60_000, "defect": defects},
        "state": {"directory": "state"},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", type=Path, required=True)
    options, rest = parser.parse_known_args()
    proof = Proof("jetpack5.serve", "a new bundle on old torch", lambda setting: _serve(setting, options.bundle))
    sys.exit(main("prove-jetpack5", [proof], rest))
