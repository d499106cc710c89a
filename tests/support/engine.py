"""A real engine process, spoken to as the daemon does."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import numpy as np
from numpy.typing import NDArray

from defectd.models.metadata import read_metadata
from defectd.workers.channel import Channel
from defectd.workers.protocol import Alive, Infer, Inferred, Kind, Note, Record, Refused
from defectd.workers.ring import FrameRing, RingLayout


class EngineProcess:
    """`python -m defectd.engine.worker` with one ring; `alive` counts its ALIVE records."""

    def __init__(self, ring: FrameRing, engine: dict[str, Any], module: str = "defectd.engine.worker") -> None:
        self.ring, self.alive, self.stages = ring, 0, []
        self.channel, theirs = Channel.pair()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno(), ring.fd],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        layout = {"fd": ring.fd, "slots": ring.layout.slots, "frame_bytes": ring.layout.frame_bytes}
        body = {"log_level": "WARNING", "nice": 0, "rings": [layout], "engine": engine}
        self.channel.send(Note(Kind.CONFIGURE, body))
        self._requests = 0

    def next(self, timeout_s: float = 60.0) -> Record:
        """The next record that is no sign of life, nor says how far its start is."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            record = self.channel.receive(timeout_s=1.0)
            if isinstance(record, Alive):
                self.alive += 1
            elif isinstance(record, Note) and record.kind is Kind.STAGE:
                self.stages.append(record.body["stage"])
            elif record is not None:
                return record
        raise TimeoutError("the engine says nothing")

    def ready(self) -> dict[str, Any]:
        """The body of READY; fails with the worker's last words instead."""
        record = self.next()
        assert isinstance(record, Note), record
        assert record.kind is Kind.READY, record.body
        return record.body

    def last_words(self) -> dict[str, Any]:
        """The body of the FAULT that ends the process."""
        record = self.next()
        assert isinstance(record, Note), record
        assert record.kind is Kind.FAULT, record.body
        return record.body

    def put(self, pixels: NDArray[np.uint8], slot: int = 0) -> int:
        """Write a frame as a camera does; its generation."""
        self.ring.begin_write(slot)
        self.ring.pixels(slot, *pixels.shape[:2])[:] = pixels
        return self.ring.end_write(slot)

    def ask(self, height_px: int, width_px: int, generation: int, slot: int = 0, ring: int = 0) -> Inferred | Refused:
        """One request and its answer."""
        self.request(height_px, width_px, generation, slot, ring)
        record = self.next()
        assert isinstance(record, (Inferred, Refused)), record
        assert record.request == self._requests
        return record

    def request(self, height_px: int, width_px: int, generation: int, slot: int = 0, ring: int = 0) -> None:
        """One request."""
        self._requests += 1
        self.channel.send(Infer(self._requests, ring, slot, generation, width_px, height_px))

    def infer(self, pixels: NDArray[np.uint8], slot: int = 0) -> Inferred | Refused:
        """Put and ask."""
        return self.ask(*pixels.shape[:2], self.put(pixels, slot), slot)

    def close(self) -> int:
        """Let it end; its exit code."""
        self.channel.close()
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()


def order(path: Path, **changes: Any) -> dict[str, Any]:
    """The `engine` part of CONFIGURE for a good model on the CPU; *changes* win."""
    body: dict[str, Any] = {
        "path": str(path),
        "device": "cpu",
        "precision": "fp16",
        "confidence": 0.25,
        "keep_warm_s": None,
        "threads": 1,
        **changes,
    }
    if "sha256" not in body:
        body["sha256"] = read_metadata(path).sha256
    return body


@contextlib.contextmanager
def running(engine: dict[str, Any], slots: int = 2, frame_bytes: int = 640 * 640 * 3) -> Iterator[EngineProcess]:
    """An engine process and its ring, both gone afterwards."""
    ring = FrameRing.create(RingLayout(slots, frame_bytes))
    process = EngineProcess(ring, engine)
    try:
        yield process
    finally:
        process.close()
        ring.close()
