from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

from defectd.export.privacy import paths_in, places, without_debug_records


def archive(**records: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, content in records.items():
            file.writestr(name.replace("__", "/"), content)
    return data.getvalue()


def test_debug_records_are_gone_and_the_rest_is_as_it_was() -> None:
    old = archive(**{"m__data.pkl": b"weights", "m__code__a.py": b"x", "m__code__a.py.debug_pkl": b"/home/eve/a.py"})
    new = without_debug_records(old)
    with zipfile.ZipFile(io.BytesIO(new)) as file:
        assert file.namelist() == ["m/data.pkl", "m/code/a.py"]
        assert file.read("m/data.pkl") == b"weights"
    assert b"eve" not in new


def test_records_stay_aligned_so_that_they_can_be_mapped() -> None:
    new = without_debug_records(archive(**{f"m__data__{index}": bytes(7 * index) for index in range(20)}))
    with zipfile.ZipFile(io.BytesIO(new)) as file:
        for entry in file.infolist():
            name_bytes, extra_bytes = struct.unpack("<HH", new[entry.header_offset + 26 : entry.header_offset + 30])
            assert (entry.header_offset + 30 + name_bytes + extra_bytes) % 64 == 0


def test_the_same_network_gives_the_same_bytes() -> None:
    old = archive(**{"m__data.pkl": b"weights"})
    assert without_debug_records(old) == without_debug_records(old)


def test_paths_of_this_machine_are_found() -> None:
    data = b'\x00\x01/home/eve/runs/best.pt\x00 and "/opt/py/lib/x.py"'
    assert paths_in(data, ["/home/eve"]) == ["/home/eve/runs/best.pt", "/opt/py/lib/x.py"]


def test_names_inside_an_archive_are_no_paths() -> None:
    data = b"model/code/__torch__/ultralytics/nn/modules/conv.py /model.0/conv/Conv_output_0"
    assert paths_in(data, ["/home/eve"]) == []


def test_the_working_directory_and_that_of_the_checkpoint_are_places(tmp_path: Path) -> None:
    found = places(tmp_path / "best.pt")
    assert str(tmp_path) in found
    assert str(Path.home()) in found
    assert "/" not in found
