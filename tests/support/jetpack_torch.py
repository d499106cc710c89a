"""The torch that JetPack puts into the system's Python of a Jetson; here that of a Python on this machine.

DEFECTD_TORCH_PYTHONS names more of them than the one that runs, separated by colons: for hosts with another Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_ASK = """
import json, re, sys, importlib.metadata as metadata
entries, seen, todo = {}, set(), ["torch"]
while todo:
    name = re.sub("[-_.]+", "-", todo.pop()).lower()
    if name in seen or name in ("numpy", "setuptools"):
        continue
    seen.add(name)
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        if name == "torch":
            raise
        continue
    for file in found.files or ():
        top = file.parts[0]
        if top not in ("..", "__pycache__"):
            entries[top] = str(found.locate_file(top))
    for one in found.requires or ():
        if "extra ==" not in one:
            todo.append(re.match("[A-Za-z0-9._-]+", one).group())
print(json.dumps([list(sys.version_info[:2]), sys.base_prefix, metadata.version("torch"), entries]))
"""


@dataclass(frozen=True)
class Torch:
    """*entries*: what belongs into site-packages, name to path here. *prefix*: of the Python itself."""

    python: tuple[int, int]
    prefix: Path
    version: str
    entries: dict[str, str]

    def binds(self, packages: str) -> dict[str, str]:
        """For a host that has its packages in the directory *packages*."""
        return {here: f"{packages}/{name}" for name, here in self.entries.items() if Path(here).exists()}


def torch_of(python: tuple[int, int]) -> Torch | None:
    """Of the Python that runs, or of one that DEFECTD_TORCH_PYTHONS names."""
    named = os.environ.get("DEFECTD_TORCH_PYTHONS", "")
    for candidate in (sys.executable, *filter(None, named.split(os.pathsep))):
        told = subprocess.run([candidate, "-c", _ASK], capture_output=True, text=True, check=False, timeout=120)
        if told.returncode == 0:
            version, prefix, torch, entries = json.loads(told.stdout)
            if tuple(version) == python:
                return Torch(python, Path(prefix), torch, entries)
    return None
