"""No artifact tells where it was made: paths of the exporting machine are removed, and what is left is found."""

from __future__ import annotations

import io
import re
import struct
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Iterable

_ALIGNMENT = 64  # of a record's data in torch's archives, so that it can be mapped into memory
_PADDING_ID = 0x4246  # "FB": the extra field that torch itself pads with
_LOCAL_HEADER_BYTES = 30
_SOURCE = re.compile(rb"(?<![\w.)-])(?:/[\w.+@-]+)+\.pyc?\b")


def without_debug_records(archive: bytes) -> bytes:
    """A TorchScript archive less its `*.debug_pkl`: source lines with absolute paths, for error messages only. The
    rest keeps its order, alignment and bytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            if name.endswith(".debug_pkl"):
                continue
            entry = zipfile.ZipInfo(name)  # dated 1980, as torch does: the same network gives the same bytes
            ahead = target.tell() + _LOCAL_HEADER_BYTES + len(name.encode()) + 4
            padding = -ahead % _ALIGNMENT
            entry.extra = struct.pack("<HH", _PADDING_ID, padding) + b"Z" * padding
            new.writestr(entry, old.read(name))
    return target.getvalue()


def places(*files: Path) -> list[str]:
    """Folders of this machine that no artifact may name: those of *files*, of Python and its packages, of the user."""
    folders = {Path.cwd(), Path.home(), Path(sys.prefix), Path(sys.base_prefix), Path(tempfile.gettempdir())}
    folders |= {Path(entry) for entry in sys.path if entry}
    folders |= {parent for file in files for parent in (file.absolute().parent, file.resolve().parent)}
    return sorted(str(folder) for folder in folders if len(folder.parts) > 1 and folder.is_absolute())


def paths_in(data: bytes, folders: Iterable[str]) -> list[str]:
    """The paths in *data* that begin with one of *folders* or lead to Python source; the first few of each."""
    found = {match.group().decode(errors="replace") for match in _SOURCE.finditer(data)}
    for folder in folders:
        start = data.find(folder.encode() + b"/")
        if start >= 0:
            end = re.compile(rb"[^\x21-\x7e]|[\"']").search(data, start)
            found.add(data[start : end.start() if end else start + 200][:200].decode(errors="replace"))
    return sorted(found)[:5]
