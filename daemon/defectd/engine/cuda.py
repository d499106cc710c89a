"""CUDA parts: pooled events, frames on their way to the device, and graph capture that is checked."""

from __future__ import annotations

import logging
from typing import Callable, Sequence, Tuple

import numpy as np
import torch
from numpy.typing import NDArray

from defectd.workers.ring import FrameRing

log = logging.getLogger(__name__)

_MAX_REGISTERED_BYTES = 256 * 1024 * 1024  # registering makes every page of a ring resident, used or not

Outputs = Tuple[torch.Tensor, torch.Tensor]
Step = Callable[[], Outputs]


class Lap:
    """The events of one request, in order: begun, copied, preprocessed, decoded."""

    MARKS = 4

    def __init__(self) -> None:
        self._events = [_event() for _ in range(self.MARKS)]
        for event in self._events:
            event.record()  # torch creates an event when it is first recorded

    def mark(self, index: int) -> None:
        """Record event *index* on the current stream."""
        self._events[index].record()

    def wait(self) -> None:
        """Wait until the last event has happened. Raises RuntimeError if the device failed on the way."""
        self._events[-1].synchronize()

    def ms(self, first: int, last: int) -> float:
        """Milliseconds on the device's clock between two events that have happened."""
        return float(self._events[first].elapsed_time(self._events[last]))


def _event() -> torch.cuda.Event:
    """Blocking: a waiting engine leaves its core to the cameras, at the price of some microseconds."""
    return torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]


class EventRing:
    """Laps made once and used in turn: events made per frame have leaked until memory was gone."""

    def __init__(self, size: int = 8) -> None:
        self._laps = [Lap() for _ in range(size)]
        self._next = 0

    def next(self) -> Lap:
        """The lap that was used longest ago."""
        lap = self._laps[self._next]
        self._next = (self._next + 1) % len(self._laps)
        return lap


class FrameUpload:
    """Brings frames to the device by one asynchronous copy: straight from a ring if CUDA could register it as pinned
    memory, else through a pinned staging buffer. One frame at a time: the caller waits before the next."""

    def __init__(self, rings: Sequence[FrameRing], device: torch.device) -> None:
        self._device = device
        self._registered = [memory for memory in (ring.all_pixels() for ring in rings) if _register(memory)]
        self.note = f"{len(self._registered)} of {len(rings)} rings registered as pinned memory"
        self._on_device = torch.empty(0, dtype=torch.uint8, device=device)
        self._staging = torch.empty(0, dtype=torch.uint8)

    def __call__(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """*pixels* (height, width, 3), C-contiguous, on the device; queued, and valid until the next call."""
        source = torch.from_numpy(pixels).view(-1)
        size = source.numel()
        if self._on_device.numel() < size:
            self._on_device = torch.empty(size, dtype=torch.uint8, device=self._device)
        if not any(np.may_share_memory(memory, pixels) for memory in self._registered):
            if self._staging.numel() < size:
                self._staging = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            source = self._staging[:size].copy_(source)
        return self._on_device[:size].copy_(source, non_blocking=True).view(pixels.shape)


def _register(memory: NDArray[np.uint8]) -> bool:
    """Pin *memory* for this process, if CUDA can: not all drivers register shared mappings."""
    if memory.nbytes > _MAX_REGISTERED_BYTES:
        log.info("a ring of %d bytes is not registered: the limit is %d", memory.nbytes, _MAX_REGISTERED_BYTES)
        return False
    status = int(torch.cuda.cudart().cudaHostRegister(memory.ctypes.data, memory.nbytes, 0))  # type: ignore[no-untyped-call]
    if status != 0:
        log.info("cudaHostRegister refused a ring with error %d", status)
        _forget_last_error()
    return status == 0


def _forget_last_error() -> None:
    """A refused call stays CUDA's "last error", and torch would raise it at the next kernel. Let it do so here."""
    try:
        torch.ones(1, device="cuda").add_(1)
    except RuntimeError as error:
        log.debug("absorbed: %s", error)
    torch.cuda.synchronize()


def capture(step: Step, static_input: torch.Tensor, stream: torch.cuda.Stream) -> Step:
    """*step*, captured once and replayed from then on; warm on *stream* before the call, and reading nothing but
    *static_input*, which is left with noise in it. Raises RuntimeError if a replay differs from the step itself."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        outputs = step()

    def replay() -> Outputs:
        graph.replay()
        return outputs

    for _ in range(2):  # two inputs: a graph that recorded nothing would repeat its first answer
        static_input.copy_(torch.rand_like(static_input))
        expected, _ = step()
        for output in outputs:
            output.fill_(float("nan"))
        replayed, _ = replay()
        difference = float((replayed.float() - expected.float()).abs().max())
        if not torch.allclose(replayed.float(), expected.float(), rtol=1e-2, atol=1e-2):
            raise RuntimeError(f"replay differs from eager execution by up to {difference}")
    return replay
