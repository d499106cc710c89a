"""Is a refusal one that a person can act on? And places that a test can make too small, or read-only."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Iterator, Sequence

from support.proving import Short, Skipped
from support.station import defectd, environment


def ended(*arguments: str | Path, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """`defectd` with *arguments*, which is to end by itself. Raises Short if it does not."""
    try:
        return subprocess.run(
            defectd(*arguments), capture_output=True, text=True, timeout=within_s, check=False, env=environment()
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Short(f"defectd {arguments[0]} did not end within {within_s:.0f} s: it was not refused") from error


def refusal(done: subprocess.CompletedProcess[str], exit_code: int, *words: str) -> str:
    """What it said, in one line that starts with `defectd: ` and has all *words*, without a traceback. Raises Short."""
    said = [line for line in done.stderr.splitlines() if line.startswith("defectd: ")]
    if done.returncode != exit_code:
        told = " | ".join(said) or done.stderr.strip()[-300:]
        raise Short(f"{_command(done)}: exit {done.returncode}, expected {exit_code}: {told}")
    if "Traceback" in done.stderr:
        raise Short(f"{_command(done)}: a traceback: {done.stderr.strip()[-300:]}")
    fit = [line for line in said if all(word in line for word in words)]
    if not fit:
        raise Short(f"{_command(done)}: {' | '.join(said)}; expected a line with {words}")
    return fit[0][len("defectd: ") :]


def _command(done: subprocess.CompletedProcess[str]) -> str:
    arguments: Sequence[str] = [str(argument) for argument in done.args]
    return " ".join(argument for argument in arguments[3:5] if "/" not in argument)


@contextlib.contextmanager
def file_system(mount_point: Path, options: str) -> Iterator[Path]:
    """A tmpfs with these mount *options* (size=8m, nr_inodes=30, ro). Raises Skipped."""
    mount_point.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", options, "tmpfs", str(mount_point))
    try:
        yield mount_point
    finally:
        subprocess.run(["umount", "-l", str(mount_point)], check=False, capture_output=True)


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Nobody, not even root, may write below *directory* meanwhile. Raises Skipped."""
    _mount("--bind", str(directory), str(directory))
    try:
        _mount("-o", "remount,ro,bind", str(directory))
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=False, capture_output=True)


def _mount(*arguments: str) -> None:
    if os.geteuid() != 0:
        raise Skipped("needs root, to mount a file system: sudo -E make prove-models")
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise Skipped(f"no file system may be mounted here: {done.stderr.strip()}")
