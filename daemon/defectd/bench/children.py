"""The measured processes that answer requests: the bare forward, and Ultralytics. JSON lines over pipes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Sequence

from defectd.bench.procfs import peak_mb
from defectd.errors import StartupError


@dataclass(frozen=True)
class Peer:
    """Where Ultralytics is installed, and a module that its interpreter imports first, if any."""

    python: str
    setup: str | None


class Child:
    """One of them. `greeting` is what it says of itself; it idles between requests."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.greeting = self._answer()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Its answer. Raises StartupError if it has died."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._answer()

    @property
    def peak_mb(self) -> float:
        """See procfs."""
        return peak_mb(self._process.pid)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise StartupError(f"{' '.join(map(str, self._process.args))} ended; its reason stands above")  # type: ignore[arg-type]
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def floor(model: Path) -> Iterator[Child]:
    """The bare forward, warm. Its threads are bound to cores, as those of `defectd` are."""
    with _child([sys.executable, "-m", "defectd.bench.floor", str(model)], OMP_PROC_BIND="true") as child:
        yield child


@contextlib.contextmanager
def peer(where: Peer, model: Path, images: Path, confidence: float) -> Iterator[Child]:
    """Ultralytics, warm, in its own interpreter."""
    script = Path(__file__).with_name("peer.py")
    setup = [] if where.setup is None else [where.setup]
    with _child([where.python, str(script), str(model), str(images), str(confidence), *setup]) as child:
        yield child


@contextlib.contextmanager
def _child(command: Sequence[str], **environment: str) -> Iterator[Child]:
    pipes = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipes, stdout=pipes, text=True, env={**os.environ, **environment})
    try:
        yield Child(process)
    finally:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # end of requests
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
