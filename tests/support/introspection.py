"""Lends Debian's PyGObject to the interpreter that runs the tests, and to the processes that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

_DEBIAN = Path("/usr/lib/python3/dist-packages/gi")


@contextmanager
def lent_gi(directory: Path) -> Iterator[None]:
    """Put `gi` on PYTHONPATH, by a link in *directory*, if it is there only for /usr/bin/python3 and of this Python's
    version."""
    before = os.environ.get("PYTHONPATH")
    version = f"{sys.version_info[0]}{sys.version_info[1]}"
    if not has_typelib() and any(_DEBIAN.glob(f"_gi.cpython-{version}-*.so")):
        place = directory / "lent"
        place.mkdir(parents=True)
        (place / "gi").symlink_to(_DEBIAN)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [before, str(place)]))
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = before


def has_typelib(namespace: str = "GLib", version: str = "2.0") -> bool:
    """True if a process that we start can load it."""
    program = f"import gi; gi.require_version({namespace!r}, {version!r})"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
