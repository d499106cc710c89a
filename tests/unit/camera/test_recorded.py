from __future__ import annotations

from datetime import datetime, timezone

import pytest

from defectd.camera.recorded import INDEX, RecordedUnit, RecordingHeader, read_recording
from defectd.errors import CameraError

NOON = datetime(2026, 5, 4, 12, tzinfo=timezone.utc)
HEADER = RecordingHeader(defectd="1.0", station="aoi1", started_at=NOON, camera={"name": "top"})


def unit(trigger, **changes):
    known = {"unit_id": f"u{trigger}", "captured_at": NOON, "offset_ms": 250.0 * trigger, "file": f"{trigger}.bmp"}
    return RecordedUnit(trigger=trigger, **{**known, **changes})


def index(folder, *lines):
    (folder / INDEX).write_bytes(b"".join([HEADER.to_line(), *lines]))
    return folder


def test_what_was_written_is_read_again_in_the_order_of_the_triggers(tmp_path):
    first, lost = unit(1, frame_id=7, bytes=99, width_px=4, height_px=3), unit(2, file=None, lost="frame_incomplete")
    assert read_recording(index(tmp_path, lost.to_line(), first.to_line())) == [first, lost]


def test_a_last_line_without_its_end_is_left_out(tmp_path):
    assert read_recording(index(tmp_path, unit(1).to_line(), unit(2).to_line()[:-9])) == [unit(1)]


def test_a_line_in_the_middle_that_is_no_unit_is_an_error_that_names_it(tmp_path):
    with pytest.raises(CameraError, match=r"recording.jsonl: line 3: Invalid JSON"):
        read_recording(index(tmp_path, unit(1).to_line(), b"{torn\n", unit(2).to_line()))


def test_a_recording_of_another_format_is_not_guessed_at(tmp_path):
    (tmp_path / INDEX).write_bytes(HEADER.to_line().replace(b"recording/1", b"recording/2") + unit(1).to_line())
    with pytest.raises(CameraError, match="line 1: format"):
        read_recording(tmp_path)


def test_a_picture_outside_of_the_folder_is_refused(tmp_path):
    with pytest.raises(CameraError, match=r"line 2: file: .*the name of a file beside the index"):
        read_recording(index(tmp_path, unit(1).to_line().replace(b"1.bmp", b"../1.bmp")))


def test_what_a_newer_recorder_adds_is_ignored(tmp_path):
    newer = unit(1).to_line().replace(b'{"trigger"', b'{"lens":"8mm","trigger"')
    assert read_recording(index(tmp_path, newer)) == [unit(1)]


def test_a_recording_without_units_is_an_error(tmp_path):
    with pytest.raises(CameraError, match="no units"):
        read_recording(index(tmp_path))
