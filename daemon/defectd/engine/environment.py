"""What must stand in the environment before torch is loaded, because torch reads it only then. No torch here."""

from __future__ import annotations

import ctypes
import logging
import os
import stat
import tempfile
from pathlib import Path

from defectd.engine.base import EngineOrder
from defectd.engine.seal import clear_unless_sealed, seal
from defectd.workers.child import Unusable

log = logging.getLogger(__name__)

CORES = frozenset(os.sched_getaffinity(0))
"""The cores of this process, before OMP_PROC_BIND leaves its main thread one of them."""


def prepare(order: EngineOrder) -> list[str]:
    """Set what *order* needs; call it before anything imports torch. Returns what a person should know, in words.
    Raises Unusable."""
    if order.device == "cpu" or not _cuda_driver_is_here():
        os.environ.setdefault("OMP_PROC_BIND", "true")  # see CpuEngine; libgomp reads it when torch loads it
    if order.runtime != "compiled":
        return []
    os.environ["TORCHINDUCTOR_FX_GRAPH_CACHE"] = os.environ["TORCHINDUCTOR_AUTOGRAD_CACHE"] = "1"
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no pool of processes that each load torch: memory is shared
    directory, notes = cache_directory(order.cache)
    notes += clear_unless_sealed(directory)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(directory)
    os.environ["TRITON_CACHE_DIR"] = str(directory / "triton")
    return notes


def keep(order: EngineOrder) -> None:
    """The engine is warm and answers as it should: what was compiled for it may be used at the next start."""
    if order.runtime == "compiled":
        seal(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]))


def cache_directory(wanted: Path | None) -> tuple[Path, list[str]]:
    """*wanted* if it can be used, else a directory of this user that lasts until the next boot, and why. What lies in
    a compiler's cache is run: nobody else may write there. Raises Unusable if there is neither."""
    obstacle = "none is configured" if wanted is None else _obstacle(wanted)
    if wanted is not None and obstacle is None:
        return wanted, []
    spare = Path(tempfile.gettempdir()) / f"defectd-compiled-{os.geteuid()}"
    second = _obstacle(spare)
    if second is not None:
        raise Unusable(f"no directory for what is compiled: {wanted}: {obstacle}; {spare}: {second}; free one of them")
    note = f"no cache that lasts ({obstacle if wanted is None else f'{wanted}: {obstacle}'}): {spare}"
    log.warning(note)
    return spare, [note]


def _obstacle(directory: Path) -> str | None:
    """Why nothing may be compiled into *directory*; None if it is there, ours alone, and can be written."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode):
            return "is a link"
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return "can be written by others; make it this user's own, with mode 0700"
        with tempfile.TemporaryFile(dir=str(directory)):
            return None
    except OSError as error:
        return str(error.strerror)


def _cuda_driver_is_here() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
