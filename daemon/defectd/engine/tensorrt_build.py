"""From ONNX to a TensorRT plan for this device: minutes of work and gigabytes of memory, in a process of its own.

TensorRT 8.5 to 10 choose the precision while building. 11 is strongly typed: it takes what the file says. Not yet
proven on hardware: docs/adr/0007-tensorrt.md.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Sequence, SupportsInt

import cv2
import tensorrt as trt
import torch

from defectd.engine.build_order import BuildOrder, Say
from defectd.engine.preprocess import CpuLetterbox
from defectd.engine.tensorrt import Log, sides, started
from defectd.inspection.letterbox import fit
from defectd.storage import write_durably
from defectd.workers.child import Unusable

log = logging.getLogger(__name__)


def build_plan(order: BuildOrder, say: Say, device: torch.device | None = None) -> tuple[bytes, dict[str, str]]:
    """The plan, and the version of what made it. *device* holds calibration pictures; None is the GPU.

    Raises Unusable, RuntimeError.
    """
    trt_log = Log()
    say("reading the network", None)
    builder = started(trt.Builder, trt_log)
    network = builder.create_network(_network_flags())
    parser = trt.OnnxParser(network, trt_log)
    if not parser.parse(order.source.read_bytes()):
        problems = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise Unusable(f"{order.source}: TensorRT {trt.__version__} cannot read this network: {problems}")
    _check_input(network, order)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, order.workspace_mb << 20)
    pictures = Pictures(order, say, device or torch.device("cuda")) if order.precision == "int8" else None
    calibrator = _choose_precision(config, network, order, pictures)
    _choose_core(config, builder, order)
    timings = _use_timings(config, order.timing_cache)
    monitor = _report_progress(config, say)
    say("choosing kernels", None)
    plan: Any = builder.build_serialized_network(network, config)  # Any: a buffer, which no stub says
    del calibrator, monitor, timings  # TensorRT used them until here, and holds no reference
    if pictures is not None:
        pictures.check()
    if plan is None:
        raise trt_log.failure(f"{order.source}: no plan could be built")
    _keep_timings(config, order.timing_cache)
    return bytes(plan), {"tensorrt": trt.__version__}


def _network_flags() -> int:
    """Before TensorRT 10, a batch dimension must be asked for."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    return 0 if flag is None else 1 << int(flag)


def _check_input(network: trt.INetworkDefinition, order: BuildOrder) -> None:
    shapes = [sides(network.get_input(index).shape) for index in range(network.num_inputs)]
    if len(shapes) != 1 or shapes[0][1:] != (3, *order.input_hw) or shapes[0][0] < 1:
        raise Unusable(
            f"{order.source}: expected one input of the fixed shape (1, 3, {order.input_hw[0]}, {order.input_hw[1]}), "
            f"found {shapes}; export it without dynamic=True"
        )


def _choose_precision(
    config: trt.IBuilderConfig, network: trt.INetworkDefinition, order: BuildOrder, pictures: Pictures | None
) -> object:
    """Set the flags for it. What is returned must live until the plan is built."""
    if order.precision == "fp32":
        return None
    if not hasattr(trt.BuilderFlag, "FP16"):
        if order.precision == "fp16" and network.get_input(0).dtype == trt.DataType.HALF:
            return None
        raise Unusable(
            f"TensorRT {trt.__version__} takes the precision from the ONNX file, and {order.source.name} has none of "
            f'{order.precision}; set precision = "fp32", or export ONNX in half precision'
        )
    config.set_flag(trt.BuilderFlag.FP16)  # with int8, too: for layers that have no faster int8 kernel
    if pictures is None:
        return None
    if not order.calibration:
        raise Unusable('precision = "int8" needs pictures to calibrate with; export the bundle with golden pictures')
    config.set_flag(trt.BuilderFlag.INT8)
    config.int8_calibrator = calibrator = _calibrator(pictures)
    return calibrator


def _calibrator(pictures: Pictures) -> trt.IInt8EntropyCalibrator2:
    """How TensorRT before 11 asks for pictures. No exception may leave get_batch: older bindings end the process then,
    newer ones go on with the pictures they had."""

    class Calibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: Sequence[str]) -> list[int]:  # noqa: ARG002
            try:
                picture = pictures.next()
            except Exception as error:  # noqa: BLE001 - raised again by `check`
                pictures.failure = error
                return []
            return [] if picture is None else [picture.data_ptr()]

        def read_calibration_cache(self) -> None:
            return None

        def write_calibration_cache(self, cache: object) -> None:
            """The plan is kept; what led to it need not be."""

    return Calibrator()


def _choose_core(config: trt.IBuilderConfig, builder: trt.Builder, order: BuildOrder) -> None:
    if order.dla is None:
        return
    if not 0 <= order.dla < builder.num_DLA_cores:
        raise Unusable(f"dla = {order.dla}: this device has {builder.num_DLA_cores} such cores; leave it out")
    if order.precision == "fp32":
        raise Unusable('a DLA core does not compute in fp32; set precision = "fp16" or "int8"')
    config.default_device_type, config.DLA_core = trt.DeviceType.DLA, order.dla
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _use_timings(config: trt.IBuilderConfig, path: Path | None) -> object:
    """What earlier builds on this device measured. A cache that does not fit is left aside."""
    if path is None:
        return None
    for data in ([path.read_bytes()] if path.is_file() else []) + [b""]:
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return cache
        log.warning("%s is of another device or another TensorRT: kernels are measured anew", path)
    return None


def _keep_timings(config: trt.IBuilderConfig, path: Path | None) -> None:
    cache = config.get_timing_cache() if path else None
    if path is None or cache is None:
        return
    try:
        timings: Any = cache.serialize()  # see build_plan
        write_durably(path, bytes(timings))
    except OSError as error:  # the plan is worth more
        log.warning("%s: %s: the next build will take as long", path, error.strerror)


def _report_progress(config: trt.IBuilderConfig, say: Say) -> object:
    """TensorRT tells how far it is from 10.0 on. What is returned must live until the plan is built."""
    if not hasattr(trt, "IProgressMonitor"):
        return None
    progress = Progress()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: SupportsInt) -> None:
            progress.start(phase_name, parent_phase, int(num_steps))

        def step_complete(self, phase_name: str, step: SupportsInt) -> bool:
            say("choosing kernels", progress.step(phase_name, int(step)))
            return True

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    config.progress_monitor = monitor = Monitor()
    return monitor


class Progress:
    """The share of nested phases that is done: an inner phase is part of its outer one's current step."""

    def __init__(self) -> None:
        self._phases: dict[str, tuple[str | None, int, int]] = {}  # parent, steps, steps done
        self._share = 0.0

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """*phase* begins, within *parent* if that is running."""
        self._phases[phase] = (parent, max(1, steps), 0)

    def step(self, phase: str, step: int) -> float:
        """Step number *step* of *phase* is done; the share of the whole, which never falls."""
        if phase in self._phases:
            parent, steps, _ = self._phases[phase]
            self._phases[phase] = (parent, steps, step + 1)
        shares = [self._share_of(name) for name, (parent, _, _) in self._phases.items() if parent not in self._phases]
        self._share = min(1.0, max([self._share, *shares]))
        return self._share

    def finish(self, phase: str) -> None:
        """*phase* ends."""
        self._phases.pop(phase, None)

    def _share_of(self, phase: str) -> float:
        _, steps, done = self._phases[phase]
        inner = [self._share_of(name) for name, (parent, _, _) in self._phases.items() if parent == phase]
        return min(1.0, (done + max(inner, default=0.0)) / steps)


class Pictures:
    """Typical pictures in the network's input, one by one, prepared as the engine prepares frames."""

    def __init__(self, order: BuildOrder, say: Say, device: torch.device) -> None:
        self._paths, self._input_hw, self._say, self._done = order.calibration, order.input_hw, say, 0
        self.failure: Exception | None = None
        self._on_host = torch.zeros(1, 3, *order.input_hw)
        self._on_device = self._on_host.to(device)
        self._letterbox = CpuLetterbox(self._on_host[0].permute(1, 2, 0).numpy())

    def check(self) -> None:
        """Raises what made the pictures end before the last one."""
        if self.failure is not None:
            raise self.failure

    def next(self) -> torch.Tensor | None:
        """The next one, (1, 3, height, width) float32 on the device, valid until the next call; None after the last."""
        if self._done == len(self._paths):
            return None
        self._say("calibrating", self._done / len(self._paths))
        path = self._paths[self._done]
        self._done += 1
        pixels: Any = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if pixels is None:
            raise Unusable(f"{path}: expected a picture to calibrate with; import the bundle again")
        self._letterbox.write(pixels, fit((pixels.shape[0], pixels.shape[1]), self._input_hw))
        return self._on_device.copy_(self._on_host)
