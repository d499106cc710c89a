"""The real `defectd run` over a belt that nobody triggers: births by presence, names from codes, unfit pictures."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs torch: make setup")
pytest.importorskip("cv2", reason="needs OpenCV: make setup")
pytest.importorskip("zxingcpp", reason="needs zxing-cpp: pip install 'defectd[codes]'")

import cv2

from support import conveyor
from support.audit import read_outbox
from support.brokers import free_port
from support.codes import label, stick
from support.models import save
from support.station import DaemonProcess, wait_until, write_config


@pytest.fixture
def settings(tmp_path):
    plain = conveyor.boards(5)
    labelled = [stick(board, label(f"SN-{unit}", "QRCode", 3), 20, 20) for unit, board in enumerate(plain, 1)]
    passing = [labelled[0], labelled[1], plain[2], cv2.GaussianBlur(labelled[3], (0, 0), 1.5), labelled[4]]
    return {
        "station": {"site": "plant1", "area": "smt", "line": "line1", "station": "aoi1"},
        "mqtt": {"port": free_port()},
        "model": {"path": save(tmp_path / "model.torchscript"), "device": "cpu", "threads": 1},
        "camera": [
            {
                "name": "top",
                "kind": "replay",
                "path": conveyor.film(tmp_path / "frames", passing),
                "rate_hz": 40.0,
                "trigger": "presence",
                "presence": {"min_share": 0.15},
                "code": {"formats": ["QRCode"]},
                "health": {"min_focus": 280.0, "after": 1, "reject": True},
            }
        ],
        "inspection": {
            "deadline_ms": 5000,
            "defect": [{"class_name": "open", "code": "PCB-OPEN", "min_confidence": 0.5}],
        },
        "state": {"directory": tmp_path / "state"},
    }


def test_each_board_is_one_unit_under_the_name_on_its_label(tmp_path, settings):
    daemon = DaemonProcess(write_config(tmp_path, settings))

    def stored(stream):
        rows = read_outbox(tmp_path / "state" / "outbox.db")
        return [row.event for row in rows if row.event["schema"].startswith(f"defectd.{stream}/")]

    daemon.start()
    try:
        daemon.wait_ready()
        wait_until(lambda: len(stored("inspection")) >= 5, 60, f"5 inspections\n{daemon.log()[-2000:]}")
        assert daemon.terminate() < 10
    finally:
        daemon.end()
    units = stored("inspection")
    assert [(unit["unit_id"], unit["unit_id_source"]) for unit in units] == [
        ("SN-1", "code"),
        ("SN-2", "code"),
        ("top-00000003", "counter"),
        ("SN-4", "code"),
        ("SN-5", "code"),
    ]
    assert [unit["error"] for unit in units] == [None, None, None, "image_unfit", None]
    assert "expected min_focus = 280" in units[3]["error_detail"]
    said = [(fault["code"], fault["state"]) for fault in stored("fault") if fault["component"] == "camera/top"]
    assert said == [("image_blurred", "raised"), ("image_blurred", "cleared")]
