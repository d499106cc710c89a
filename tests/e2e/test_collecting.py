"""A real station that collects what it doubts, and inspects a recording as it inspected the line."""

from __future__ import annotations

import json
import subprocess

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch: make setup")

from support.audit import read_outbox
from support.brokers import free_port
from support.coded_pictures import HEIGHT_PX, WIDTH_PX, misjudged, write_pictures
from support.models import NAMES, save
from support.station import DaemonProcess, defectd, environment, merged, wait_until, write_config

UNITS = 9
DOUBTED = "unit-0042"


@pytest.fixture
def settings(tmp_path):
    pictures = write_pictures(tmp_path / "pictures", UNITS)
    faint = np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    faint[16:24, 16:24, 2] = 102  # scored 0.4: below the limit, inside the band
    cv2.imwrite(str(pictures / f"{DOUBTED}.png"), faint)
    return {
        "station": {"site": "plant1", "area": "smt", "line": "line1", "station": "aoi1"},
        "mqtt": {"port": free_port()},
        "model": {"path": save(tmp_path / "model.torchscript"), "device": "cpu", "threads": 1},
        "camera": [{"name": "top", "kind": "replay", "path": pictures, "rate_hz": 20.0}],
        "inspection": {
            "deadline_ms": 5000,
            "defect": [{"class_name": "open", "code": "PCB-OPEN", "min_confidence": 0.5, "review_from": 0.3}],
        },
        "state": {"directory": tmp_path / "state"},
        "evidence": {"collect": "needs_review", "collect_as": "png"},
    }


@pytest.fixture
def inspected(tmp_path):
    daemons = []

    def inspected(settings, count=UNITS + 1):
        """The events of one run."""
        daemons.append(DaemonProcess(write_config(tmp_path, settings)))
        daemon, path = daemons[-1], settings["state"]["directory"] / "outbox.db"

        def events():
            return [row.event for row in read_outbox(path) if row.event["schema"].startswith("defectd.inspection/")]

        daemon.start()
        daemon.wait_ready()
        wait_until(lambda: len(events()) >= count, 60, f"{count} inspections\n{daemon.log()[-2000:]}")
        daemon.terminate()
        return events()

    yield inspected
    for daemon in daemons:
        daemon.end()


def run(*arguments):
    done = subprocess.run(
        defectd(*arguments), env=environment(), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_doubted_unit_alone_is_collected_and_exported_with_its_faint_box(settings, inspected, tmp_path):
    events = inspected(settings)
    doubted = [event for event in events if event["needs_review"]]
    assert [event["unit_id"] for event in doubted] == [DOUBTED] and doubted[0]["verdict"] == "passed"
    said = run("collected", "export", "--state", settings["state"]["directory"], "--out", tmp_path / "dataset")
    assert "1 picture(s)" in said and "1 need review; labels: open 1" in said
    (label,) = (tmp_path / "dataset" / "labels").rglob("*.txt")
    class_id, *box = label.read_text().split()
    assert NAMES[int(class_id)] == "open" and [round(float(share), 3) for share in box] == [
        round(value, 3) for value in (20 / WIDTH_PX, 20 / HEIGHT_PX, 16 / WIDTH_PX, 16 / HEIGHT_PX)
    ]
    (picture,) = (tmp_path / "dataset" / "images").rglob("*.png")
    assert np.array_equal(cv2.imread(str(picture)), cv2.imread(str(tmp_path / "pictures" / f"{DOUBTED}.png")))


def test_failed_and_review_collects_the_failed_ones_too(settings, inspected):
    events = inspected(merged(settings, {"evidence": {"collect": "failed_and_review"}, "camera": [
        {**settings["camera"][0], "rate_hz": 4.0}
    ]}))  # fmt: skip
    wanted = {event["id"] for event in events if event["verdict"] == "failed" or event["needs_review"]}
    kept = {path.stem for path in (settings["state"]["directory"] / "collected").rglob("*.json")}
    assert kept == wanted and len(wanted) == 7
    about = json.loads(next((settings["state"]["directory"] / "collected").rglob("*.json")).read_text())
    assert about["names"] == list(NAMES) and about["model"]["name"]


def test_a_recording_is_inspected_as_the_line_was(settings, inspected, tmp_path):
    config = write_config(tmp_path, settings)
    said = run("record", "--config", config, "--camera", "top", "--out", tmp_path / "yesterday", "--format", "png")
    assert f"{UNITS + 1} picture(s)" in said
    camera = {"name": "top", "kind": "replay", "path": tmp_path / "yesterday", "pace": "recorded"}
    events = inspected(merged(settings, {"camera": [camera], "state": {"directory": tmp_path / "desk"}}))
    assert [event["unit_id"] for event in events] == sorted(path.stem for path in (tmp_path / "pictures").iterdir())
    assert [misjudged(event) for event in events if event["unit_id"] != DOUBTED] == [""] * UNITS


def test_check_says_what_would_collect_nothing_and_what_is_no_recording(settings, tmp_path):
    unsure = [{"class_name": "open", "code": "PCB-OPEN"}]
    camera = [{**settings["camera"][0], "pace": "recorded"}]
    config = write_config(tmp_path, merged(settings, {"inspection": {"defect": unsure}, "camera": camera}))
    done = subprocess.run(
        defectd("check", "--config", config), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert 'evidence.collect: "needs_review" collects nothing' in done.stderr
    assert f"camera[1].pace: {tmp_path / 'pictures'} is no recording" in done.stderr
