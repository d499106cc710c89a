"""What a process does to its files, call by call, as strace sees it."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from support.proving import Short, Skipped
from support.station import environment

_TRACED = (
    "open,openat,openat2,creat,close,close_range,dup,dup2,dup3,fcntl,read,readv,write,writev,pwrite64,pwritev,pwritev2,"
    "lseek,truncate,ftruncate,fallocate,fsync,fdatasync,sync,syncfs,sync_file_range,rename,renameat,renameat2,link,"
    "linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,mmap,sendfile,copy_file_range,splice,clone,clone3,"
    "fork,vfork"
)
_HOW = ("-qq", "-xx", "-s", str(1 << 28), "-e", f"trace={_TRACED}")
_ATTACHED_WITHIN_S, _SETTLES_S, _ENDS_WITHIN_S = 15.0, 0.3, 120.0
_PR_SET_PTRACER, _ANYBODY = 0x59616D61, ctypes.c_ulong(-1)
_LINE = re.compile(r"(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+|\?)(.*)$", re.DOTALL)
_ARGUMENT = re.compile(r'\s*("(?:\\x[0-9a-f]{2})*"(?:\.\.\.)?|\{[^}]*\}|\[[^\]]*\]|[^,"{\[]+)(?:,|$)')


def await_recorder() -> None:
    """In the child: all is imported; go on when every call is seen."""
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)
    print("ready", flush=True)
    sys.stdin.readline()


def record(module: str, directory: Path) -> list[Call]:
    """What `python -m module directory` does from `await_recorder` on. Raises Skipped where nobody may look on."""
    strace = shutil.which("strace")
    if strace is None:
        raise Skipped("needs strace: apt-get install strace")
    trace = directory / "trace"
    child = subprocess.Popen(
        [sys.executable, "-m", module, str(directory)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(PYTHONPATH=os.pathsep.join(sys.path)),
    )  # fmt: skip
    assert child.stdin is not None and child.stdout is not None
    tracer = None
    try:
        if child.stdout.readline() != "ready\n":
            raise Short(f"{module} does not begin: {child.communicate()[1][-1000:]}")
        tracer = subprocess.Popen(
            [strace, "-p", str(child.pid), *_HOW, "-o", str(trace)], stderr=subprocess.PIPE, text=True
        )  # fmt: skip
        _await_attached(child.pid, tracer)
        _, said = child.communicate("go\n", _ENDS_WITHIN_S)
        if child.returncode != 0:
            raise Short(f"{module} ended with {child.returncode}: {said[-2000:]}")
        tracer.wait(_ENDS_WITHIN_S)
    finally:
        for process in filter(None, (child, tracer)):
            if process.poll() is None:
                process.kill()
            process.communicate()
    return [call for line in trace.read_text("ascii").splitlines() for call in _parsed(line)]


def _await_attached(pid: int, tracer: subprocess.Popen[str]) -> None:
    give_up_s = time.monotonic() + _ATTACHED_WITHIN_S
    while time.monotonic() < give_up_s:
        if tracer.poll() is not None:
            raise Skipped(f"strace may not look on here: {tracer.communicate()[1].strip()}")
        status = Path(f"/proc/{pid}/status").read_text()
        if "TracerPid:\t0\n" not in status:
            time.sleep(_SETTLES_S)  # attached, it still has to be told to look at calls
            return
        time.sleep(0.01)
    raise Skipped("strace does not attach")


@dataclass(frozen=True)
class Call:
    """One system call that succeeded. *result* is its number; strings among *arguments* are decoded."""

    name: str
    arguments: tuple[str | bytes, ...]
    result: int

    def fd(self, index: int = 0) -> int:
        """An argument that is a descriptor, or AT_FDCWD as -100."""
        text = self.arguments[index]
        assert isinstance(text, str)
        return -100 if text.startswith("AT_FDCWD") else int(text)

    def number(self, index: int) -> int:
        """An argument that is a number."""
        text = self.arguments[index]
        assert isinstance(text, str)
        return int(text, 0)

    def data(self, index: int) -> bytes:
        """An argument that is a path, or what is written."""
        text = self.arguments[index]
        assert isinstance(text, bytes), f"{self.name}: {text!r}"
        return text

    def has(self, index: int, flag: str) -> bool:
        """Whether *flag* is set in an argument."""
        text = self.arguments[index] if index < len(self.arguments) else ""
        return isinstance(text, str) and flag in text.split("|")


def _parsed(line: str) -> Iterator[Call]:
    """Nothing for what failed or is no call. Raises Short for what cannot be understood."""
    if line.startswith(("+++", "---")):
        return
    found = _LINE.match(line)
    if found is None:
        raise Short(f"strace says what is not understood: {line[:200]}")
    name, arguments, result, _ = found.groups()
    if result.startswith("-") or result == "?":
        return
    yield Call(name, tuple(_argument(text) for text in _ARGUMENT.findall(arguments)), int(result, 0))


def _argument(text: str) -> str | bytes:
    text = text.strip()
    if not text.startswith('"'):
        return text
    if text.endswith("..."):
        raise Short("strace has cut what was written")
    return bytes.fromhex(text[1:-1].replace("\\x", ""))
