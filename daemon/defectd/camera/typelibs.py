"""What GObject introspection finds on this machine, without loading any of it into this process."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

_FOLDERS = ("lib/girepository-1.0", "lib/*/girepository-1.0")


def has_bindings() -> bool:
    """True if this Python can import `gi`."""
    return find_spec("gi") is not None


def has_typelib(namespace: str) -> bool:
    """True if *namespace*, such as Gst-1.0, is described where GObject introspection looks."""
    named = os.environ.get("GI_TYPELIB_PATH", "").split(os.pathsep)
    places = [Path(each) for each in named if each]
    for prefix in (Path("/usr"), Path("/usr/local")):
        places += [place for folder in _FOLDERS for place in prefix.glob(folder)]
    return any((place / f"{namespace}.typelib").is_file() for place in places)
