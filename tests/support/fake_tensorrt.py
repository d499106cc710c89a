"""TensorRT's Python package as far as we use it, with the vendor's signatures, and with CPU memory for the GPU's.

A "plan" is JSON: its tensors, and what made it. Running one writes the mean of the input into each output, really:
through the addresses that were set. `release("8.5.2.2")` gives the package as that version has it; test_tensorrt_api
holds it against the vendor's bindings.
"""

from __future__ import annotations

import ctypes
import enum
import json
import math
import types
from typing import Any, Callable

import numpy as np

NAME = "tensorrt"
_NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32}


class _Behaviour:
    """What the tests let go wrong, and what they want to know afterwards."""

    def __init__(self) -> None:
        self.version = "10.3.0"
        self.no_cuda = self.no_context = self.no_enqueue = self.no_address = self.no_plan = self.no_timing_cache = False
        self.complaint = "Error Code 1: Internal Error (for a test)"
        self.dla_cores = 0
        self.input_dtype, self.input_shape = "FLOAT", (1, 3, 64, 96)
        self.streams: list[int] = []
        self.calibrated: list[float] = []
        self.configs: list[Any] = []
        self.config_class: Any = None


behaviour = _Behaviour()


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self) -> None:
        self.is_constructed = True

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


def _complain(logger: ILogger, text: str | None = None) -> None:
    logger.log(ILogger.Severity.ERROR, text or behaviour.complaint)


def _start(logger: ILogger) -> None:
    """What TensorRT 8.5.2.2 itself did on a machine without a GPU."""
    assert logger.is_constructed
    if behaviour.no_cuda:
        logger.log(ILogger.Severity.WARNING, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5


class TensorIOMode(enum.IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class DeviceType(enum.IntEnum):
    GPU = 0
    DLA = 1


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0


class BuilderFlag(enum.IntEnum):
    FP16 = 0
    INT8 = 1
    GPU_FALLBACK = 3


class Dims:
    """Has length and items, as the vendor's, and nothing else of a tuple."""

    def __init__(self, sides: tuple[int, ...]) -> None:
        self._sides = sides

    def __len__(self) -> int:
        return len(self._sides)

    def __getitem__(self, arg0: int) -> int:
        return self._sides[arg0]


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        _start(logger)
        self._logger, self._dla_core = logger, 0

    @property
    def DLA_core(self) -> int:
        return self._dla_core

    @DLA_core.setter
    def DLA_core(self, core: int) -> None:
        self._dla_core = core

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        try:
            plan = json.loads(bytes(serialized_engine))
        except ValueError:
            _complain(self._logger, "Error Code 1: Serialization (Magic tag does not match)")
            return None
        if plan["version"] != behaviour.version:
            _complain(self._logger, "Error Code 1: Serialization (Version tag does not match)")
            return None
        return ICudaEngine(plan, self._logger)


class ICudaEngine:
    def __init__(self, plan: dict[str, Any], logger: ILogger) -> None:
        self._tensors: dict[str, dict[str, Any]] = plan["tensors"]
        self._logger = logger

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode[self._tensors[name]["mode"]]

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims(tuple(self._tensors[name]["shape"]))

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self._tensors[name]["dtype"]]

    def create_execution_context(self) -> IExecutionContext | None:
        if behaviour.no_context:
            _complain(self._logger)
            return None
        return IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine, self._addresses = engine, dict.fromkeys(engine._tensors, 0)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if behaviour.no_address or name not in self._addresses:
            _complain(self._engine._logger)
            return False
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if behaviour.no_enqueue or not all(self._addresses.values()):
            _complain(self._engine._logger)
            return False
        behaviour.streams.append(stream_handle)
        memory = {name: self._array(name) for name in self._addresses}
        modes = {name: self._engine.get_tensor_mode(name) for name in memory}
        mean = np.mean([memory[name].mean() for name in memory if modes[name] is TensorIOMode.INPUT])
        for name, array in memory.items():
            if modes[name] is TensorIOMode.OUTPUT:
                array.fill(mean)
        return True

    def _array(self, name: str) -> Any:
        dtype = np.dtype(_NUMPY[self._engine.get_tensor_dtype(name).name])
        shape = self._engine.get_tensor_shape(name)._sides
        buffer = (ctypes.c_char * (math.prod(shape) * dtype.itemsize)).from_address(self._addresses[name])
        return np.frombuffer(buffer, dtype).reshape(shape)


class ITensor:
    def __init__(self, shape: tuple[int, ...], dtype: DataType) -> None:
        self._shape, self._dtype = shape, dtype

    @property
    def shape(self) -> Dims:
        return Dims(self._shape)

    @property
    def dtype(self) -> DataType:
        return self._dtype


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self._flags, self._inputs = flags, [ITensor(behaviour.input_shape, DataType[behaviour.input_dtype])]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]


class ITimingCache:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> bytes:
        return self._data or b"timings"


class IBuilderConfig:
    def __init__(self) -> None:
        self._pools: dict[MemoryPoolType, int] = {}
        self._flags: list[BuilderFlag] = []
        self._calibrator: Any = None
        self._monitor: Any = None
        self._core = (DeviceType.GPU, -1)
        self._timings: ITimingCache | None = None
        behaviour.configs.append(self)

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self._pools[pool] = pool_size

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.append(flag)

    @property
    def int8_calibrator(self) -> Any:
        return self._calibrator

    @int8_calibrator.setter
    def int8_calibrator(self, calibrator: Any) -> None:
        self._calibrator = calibrator

    @property
    def progress_monitor(self) -> Any:
        return self._monitor

    @progress_monitor.setter
    def progress_monitor(self, monitor: Any) -> None:
        self._monitor = monitor

    @property
    def default_device_type(self) -> DeviceType:
        return self._core[0]

    @default_device_type.setter
    def default_device_type(self, device_type: DeviceType) -> None:
        self._core = (device_type, self._core[1])

    @property
    def DLA_core(self) -> int:
        return self._core[1]

    @DLA_core.setter
    def DLA_core(self, core: int) -> None:
        self._core = (self._core[0], core)

    def create_timing_cache(self, serialized_timing_cache: Any) -> ITimingCache | None:
        return None if behaviour.no_timing_cache and serialized_timing_cache else ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self._timings = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._timings


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._errors: list[ParserError] = []

    def parse(self, model: Any, path: str | None = None) -> bool:
        if not bytes(model).startswith(b"\x08"):
            self._errors = [ParserError("ModelImporter: failed to parse ONNX"), ParserError("node 3: no such operator")]
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


class IInt8EntropyCalibrator2:
    def __init__(self) -> None:
        self.is_constructed = True

    def get_batch_size(self) -> int:
        raise NotImplementedError

    def get_batch(self, names: list[str]) -> list[int]:
        raise NotImplementedError

    def read_calibration_cache(self) -> Any:
        raise NotImplementedError

    def write_calibration_cache(self, cache: Any) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def __init__(self) -> None:
        self.is_constructed = True

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class Builder:
    def __init__(self, logger: ILogger) -> None:
        _start(logger)
        self._logger = logger

    @property
    def num_DLA_cores(self) -> int:
        return behaviour.dla_cores

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        config: IBuilderConfig = behaviour.config_class()
        return config

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        if config._calibrator is not None:
            self._calibrate(config._calibrator)
        if config._monitor is not None:
            self._report(config._monitor)
        if behaviour.no_plan:
            _complain(self._logger)
            return None
        head = (network.get_input(0).shape[0], 7, 96)
        return plan({"images": network.get_input(0).shape._sides}, {"output0": head}, behaviour.input_dtype)

    def _calibrate(self, calibrator: Any) -> None:
        assert calibrator.is_constructed
        assert calibrator.get_batch_size() == 1
        assert calibrator.read_calibration_cache() is None
        count = math.prod(behaviour.input_shape)
        while addresses := _as_the_vendor_calls(calibrator.get_batch, ["images"]):
            behaviour.calibrated.append(float(np.mean((ctypes.c_float * count).from_address(addresses[0]))))
        calibrator.write_calibration_cache(b"ranges")

    def _report(self, monitor: Any) -> None:
        assert monitor.is_constructed
        monitor.phase_start("Building", None, 2)
        monitor.step_complete("Building", 0)
        monitor.phase_start("Timing", "Building", 4)
        for step in range(4):
            assert monitor.step_complete("Timing", step)
        monitor.phase_finish("Timing")
        monitor.step_complete("Building", 1)
        monitor.phase_finish("Building")


def plan(
    inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]], dtype: str = "FLOAT", version: str = ""
) -> bytes:
    """What Builder makes."""
    modes: list[tuple[str, dict[str, tuple[int, ...]]]] = [("INPUT", inputs), ("OUTPUT", outputs)]
    tensors = {name: {"mode": mode, "shape": shape, "dtype": dtype} for mode, of in modes for name, shape in of.items()}
    return json.dumps({"version": version or behaviour.version, "tensors": tensors}).encode()


def _as_the_vendor_calls(callback: Callable[..., Any], *arguments: Any) -> Any:
    """The bindings print what a callback raises, and go on (older ones end the process)."""
    try:
        return callback(*arguments)
    except Exception:  # noqa: BLE001
        return None


def not_there(_: Any) -> Any:
    """The getter of a property that a release does not have."""
    raise AttributeError("not in this release")


_PUBLIC: tuple[Callable[..., Any], ...] = (
    ILogger, Dims,
    DataType, TensorIOMode, MemoryPoolType, DeviceType, NetworkDefinitionCreationFlag, BuilderFlag, Runtime,
    ICudaEngine, IExecutionContext, ITensor, INetworkDefinition, ITimingCache, IBuilderConfig, ParserError, OnnxParser,
    IInt8EntropyCalibrator2, IProgressMonitor, Builder,
)  # fmt: skip


def release(version: str) -> types.ModuleType:
    """The package `tensorrt` as *version* has it; `behaviour` is as new."""
    behaviour.__init__()  # type: ignore[misc]
    behaviour.version = version
    module: Any = types.ModuleType(NAME)
    module.__version__ = version
    module.__dict__.update({one.__name__: one for one in _PUBLIC})
    major = int(version.split(".", maxsplit=1)[0])
    absent = []
    if major < 10:
        del module.IProgressMonitor
        absent.append("progress_monitor")
    if major >= 11:  # strongly typed
        del module.IInt8EntropyCalibrator2
        absent.append("int8_calibrator")
        module.BuilderFlag = enum.IntEnum("BuilderFlag", {"GPU_FALLBACK": 3})
        module.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
    module.IBuilderConfig = type("IBuilderConfig", (IBuilderConfig,), dict.fromkeys(absent, property(not_there)))
    behaviour.config_class = module.IBuilderConfig
    return module
