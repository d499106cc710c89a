"""The engine on CUDA, whatever runs the network: everything queued on one stream, one wait per request."""

from __future__ import annotations

import logging
from typing import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from defectd.clock import monotonic_ns, ms_between
from defectd.engine.base import EngineOrder, VerifiedModel
from defectd.engine.cuda import EventRing, FrameUpload, Outputs, capture
from defectd.engine.fastest import fastest_of, first_variant
from defectd.engine.faults import Fault, classify, essence
from defectd.engine.kernels import DeviceLetterbox, pack
from defectd.engine.programs import Decoders, Program, Runtime, open_runtime
from defectd.inspection.detections import CUDA_EVENT, Detections, EngineTimings
from defectd.inspection.letterbox import fit
from defectd.inspection.yolo import NonFiniteOutput, Thresholds
from defectd.workers.ring import FrameRing

log = logging.getLogger(__name__)

_BEGUN, _COPIED, _PREPROCESSED, _DECODED = range(4)


class CudaEngine:
    """Replays a CUDA graph of network and decoding where one could be captured, else launches their kernels."""

    device = "cuda"

    def __init__(self, model: VerifiedModel, order: EngineOrder, rings: Sequence[FrameRing]) -> None:
        self.runtime = f"{order.runtime}-{order.precision}-cuda"
        self.device_name = torch.cuda.get_device_name()
        torch.backends.cudnn.benchmark = True  # shapes are static: search the fastest algorithms once
        self._device = torch.device("cuda", torch.cuda.current_device())
        self._input_hw, self._decoder = model.metadata.input_hw, Decoders(model.metadata, order.thresholds)
        # Not the default stream: graphs are captured on this one, warm with the same workspaces.
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        torch.cuda.set_stream(self._stream)
        self._events, self._upload = EventRing(), FrameUpload(rings, self._device)
        self._on_host = torch.empty(0)
        dtype = torch.float16 if order.precision == "fp16" else torch.float32
        self._source: Runtime | None = open_runtime(order, model, self._device, dtype)
        self._known = order.variant
        self._use(self._source.program(first_variant(self._source, order.variant)))

    @property
    def variant(self) -> str:
        """See Engine."""
        return self._active.variant

    def infer(self, pixels: NDArray[np.uint8]) -> tuple[Detections, EngineTimings]:
        """See Engine. The first two stages are timed by events on the device, the last by the monotonic clock."""
        letterbox = fit((pixels.shape[0], pixels.shape[1]), self._input_hw)
        lap = self._events.next()
        with torch.inference_mode():
            lap.mark(_BEGUN)
            frame = self._upload(pixels)
            lap.mark(_COPIED)
            self._letterbox.write(frame, letterbox)
            lap.mark(_PREPROCESSED)
            output, packed = self._step()
            host = self._to_host(packed)
            lap.mark(_DECODED)
        lap.wait()
        waited_ns = monotonic_ns()
        if host[0, -1] != 1:
            raise NonFiniteOutput("the model's output has a NaN or an infinity")
        detections = self._decoder(output).detections(host[:, :-1], letterbox)
        timings = EngineTimings(
            preprocess_ms=lap.ms(_BEGUN, _PREPROCESSED),
            inference_ms=lap.ms(_PREPROCESSED, _DECODED),
            postprocess_ms=ms_between(waited_ns, monotonic_ns()),
            inference_clock=CUDA_EVENT,
        )
        return detections, timings

    def judge_by(self, thresholds: Thresholds) -> None:
        """See Engine."""
        self._decoder.judge_by(thresholds)

    def settle(self, breathe: Callable[[], None]) -> list[str]:
        """See Engine."""
        assert self._source is not None
        with torch.inference_mode():
            chosen, notes = fastest_of(self._active, self._source, torch.cuda.synchronize, breathe, self._known)
            notes += self._source.notes()
            self._source = None  # made for good: what it holds is not needed any more
            self._use(chosen)
            torch.cuda.empty_cache()
            return [*notes, self._upload.note, self._capture()]

    def check(self) -> None:
        """See Engine."""
        torch.cuda.synchronize()

    def _capture(self) -> str:
        """Replay a graph from now on, if there can be one. What happened, in words."""
        if not self._active.graphable:
            return "no CUDA graph of our own: the program has its own, or cannot be in one"
        try:
            self._step = capture(self._eager, self._active.input, self._stream)
            note = "CUDA graph, replay verified"
        except (RuntimeError, TypeError) as error:  # TypeError: a torch without capture_error_mode
            if classify(error) is Fault.OUT_OF_MEMORY:
                raise
            torch.cuda.synchronize()  # raises if the context did not survive the attempt
            note = f"no CUDA graph, kernels are launched one by one: {essence(error)}"
            log.warning(note)
        self._letterbox = DeviceLetterbox(self._active.input)  # the input has noise in it: draw the padding anew
        return note

    def _eager(self) -> Outputs:
        output = self._active.forward()
        return output, pack(output, self._decoder(output).head)

    def _to_host(self, packed: torch.Tensor) -> NDArray[np.float32]:
        """Queue the copy of the results; valid after waiting, and until the next request."""
        if self._on_host.shape != packed.shape:
            self._on_host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
        return self._on_host.copy_(packed, non_blocking=True).numpy()

    def _use(self, program: Program) -> None:
        self._active, self._step = program, self._eager
        self._letterbox = DeviceLetterbox(program.input)
