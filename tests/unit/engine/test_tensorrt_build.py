"""Building a plan against a fake with the vendor's signatures. No GPU has seen it yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")

from defectd.engine.build_order import BuildOrder  # noqa: E402
from defectd.workers.child import Unusable  # noqa: E402
from support.fake_tensorrt import behaviour  # noqa: E402
from support.tensorrt_modules import Import, engine_on  # noqa: E402

__all__ = ["engine_on"]

ONNX = b"\x08\x0a\x12\x07pytorch"
CPU = torch.device("cpu")


def ordered(tmp_path: Path, **changes: Any) -> BuildOrder:
    (tmp_path / "model.onnx").write_bytes(ONNX)
    body = {
        "kind": "tensorrt",
        "source": str(tmp_path / "model.onnx"),
        "out": str(tmp_path / "model.plan"),
        "precision": "fp16",
        "workspace_mb": 512,
        "input_hw": [64, 96],
        **changes,
    }
    return BuildOrder.of(body)


class Said:
    """Say, remembered."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, float | None]] = []

    def __call__(self, stage: str, share: float | None) -> None:
        self.lines.append((stage, share))

    def shares(self, stage: str) -> list[float]:
        return [share for said, share in self.lines if said == stage and share is not None]


def flags() -> list[str]:
    return [flag.name for flag in behaviour.configs[-1]._flags]


@pytest.mark.parametrize("version", ["8.5.2.2", "8.6.1", "10.3.0", "10.16.1.11"])
def test_a_plan_is_built_in_half_precision_with_a_cap_on_its_workspace(
    engine_on: Import, tmp_path: Path, version: str
) -> None:
    data, versions = engine_on(version, "tensorrt_build").build_plan(ordered(tmp_path), Said(), CPU)
    assert json.loads(data)["tensors"]["images"]["shape"] == [1, 3, 64, 96]
    assert versions == {"tensorrt": version}
    assert flags() == ["FP16"]
    assert list(behaviour.configs[-1]._pools.values()) == [512 * 1024 * 1024]


def test_full_precision_sets_no_flag(engine_on: Import, tmp_path: Path) -> None:
    engine_on("10.3.0", "tensorrt_build").build_plan(ordered(tmp_path, precision="fp32"), Said(), CPU)
    assert flags() == []


def test_progress_is_told_where_tensorrt_tells_it(engine_on: Import, tmp_path: Path) -> None:
    said = Said()
    engine_on("10.3.0", "tensorrt_build").build_plan(ordered(tmp_path), said, CPU)
    assert [stage for stage, share in said.lines if share is None] == ["reading the network", "choosing kernels"]
    assert said.shares("choosing kernels") == [0.5, 0.625, 0.75, 0.875, 1.0, 1.0]


def test_before_tensorrt_10_only_the_stages_are_told(engine_on: Import, tmp_path: Path) -> None:
    said = Said()
    engine_on("8.5.2.2", "tensorrt_build").build_plan(ordered(tmp_path), said, CPU)
    assert said.lines == [("reading the network", None), ("choosing kernels", None)]


def test_int8_is_calibrated_with_pictures_that_are_prepared_as_frames_are(engine_on: Import, tmp_path: Path) -> None:
    pictures = []
    for level in (0, 255):
        path = tmp_path / f"golden-{level}.png"
        cv2.imwrite(str(path), np.full((64, 96, 3), level, np.uint8))
        pictures.append(str(path))
    said = Said()
    order = ordered(tmp_path, precision="int8", calibration=pictures)
    engine_on("8.5.2.2", "tensorrt_build").build_plan(order, said, CPU)
    assert behaviour.calibrated == [0.0, 1.0]
    assert flags() == ["FP16", "INT8"]
    assert said.shares("calibrating") == [0.0, 0.5]


def test_int8_without_pictures_is_refused(engine_on: Import, tmp_path: Path) -> None:
    module = engine_on("10.3.0", "tensorrt_build")
    with pytest.raises(Unusable, match="needs pictures to calibrate with"):
        module.build_plan(ordered(tmp_path, precision="int8"), Said(), CPU)


def test_a_calibration_picture_that_cannot_be_read_is_named(engine_on: Import, tmp_path: Path) -> None:
    module = engine_on("10.3.0", "tensorrt_build")
    cv2.imwrite(str(tmp_path / "golden-0001.png"), np.zeros((64, 96, 3), np.uint8))
    (tmp_path / "golden-0002.png").write_bytes(b"not a picture")
    pictures = [str(tmp_path / f"golden-000{number}.png") for number in (1, 2)]
    with pytest.raises(Unusable, match=r"golden-0002\.png: expected a picture"):
        module.build_plan(ordered(tmp_path, precision="int8", calibration=pictures), Said(), CPU)
    assert behaviour.calibrated == [0.0], "the vendor's bindings would have gone on with that one"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tensorrt_11_has_no_precision_flags_and_that_is_said(engine_on: Import, tmp_path: Path, precision: str) -> None:
    module = engine_on("11.4.0.106", "tensorrt_build")
    with pytest.raises(Unusable, match=rf"takes the precision from the ONNX file.*none of {precision}"):
        module.build_plan(ordered(tmp_path, precision=precision, calibration=["golden.png"]), Said(), CPU)


def test_tensorrt_11_builds_what_the_file_is_written_in(engine_on: Import, tmp_path: Path) -> None:
    module = engine_on("11.4.0.106", "tensorrt_build")
    module.build_plan(ordered(tmp_path, precision="fp32"), Said(), CPU)
    behaviour.input_dtype = "HALF"
    data, _ = module.build_plan(ordered(tmp_path, precision="fp16"), Said(), CPU)
    assert json.loads(data)["tensors"]["images"]["dtype"] == "HALF"


def test_without_a_driver_the_error_says_what_tensorrt_said(engine_on: Import, tmp_path: Path) -> None:
    module = engine_on("10.3.0", "tensorrt_build")
    behaviour.no_cuda = True
    with pytest.raises(RuntimeError, match="it cannot start: CUDA initialization failure"):
        module.build_plan(ordered(tmp_path), Said(), CPU)


def test_an_unreadable_network_is_refused_with_the_parsers_reasons(engine_on: Import, tmp_path: Path) -> None:
    module = engine_on("10.3.0", "tensorrt_build")
    order = ordered(tmp_path)
    order.source.write_bytes(b"garbage")
    with pytest.raises(Unusable, match=r"model\.onnx: TensorRT 10\.3\.0 cannot.*failed to parse.*no such operator"):
        module.build_plan(order, Said(), CPU)


@pytest.mark.parametrize("shape", [(-1, 3, 64, 96), (1, 3, -1, -1), (1, 3, 640, 640)])
def test_a_network_without_that_one_fixed_input_is_refused(
    engine_on: Import, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    module = engine_on("10.3.0", "tensorrt_build")
    behaviour.input_shape = shape  # type: ignore[assignment]
    with pytest.raises(Unusable, match=r"fixed shape \(1, 3, 64, 96\), found"):
        module.build_plan(ordered(tmp_path), Said(), CPU)


def test_a_build_that_gives_no_plan_fails_with_tensorrts_reason(engine_on: Import, tmp_path: Path) -> None:
    module = engine_on("10.3.0", "tensorrt_build")
    behaviour.no_plan, behaviour.complaint = True, "Error Code 10: Could not find any implementation for node conv"
    with pytest.raises(RuntimeError, match=r"no plan could be built: .*Could not find any implementation"):
        module.build_plan(ordered(tmp_path), Said(), CPU)


def test_measurements_are_kept_for_the_next_build(engine_on: Import, tmp_path: Path) -> None:
    module = engine_on("10.3.0", "tensorrt_build")
    order = ordered(tmp_path, timing_cache=str(tmp_path / "timings"))
    module.build_plan(order, Said(), CPU)
    assert (tmp_path / "timings").read_bytes() == b"timings"
    (tmp_path / "timings").write_bytes(b"from last time")
    module.build_plan(order, Said(), CPU)
    assert (tmp_path / "timings").read_bytes() == b"from last time"


def test_measurements_of_another_device_are_left_aside(engine_on: Import, tmp_path: Path) -> None:
    module = engine_on("10.3.0", "tensorrt_build")
    (tmp_path / "timings").write_bytes(b"of another device")
    behaviour.no_timing_cache = True
    module.build_plan(ordered(tmp_path, timing_cache=str(tmp_path / "timings")), Said(), CPU)
    assert (tmp_path / "timings").read_bytes() == b"timings"


def test_a_read_only_directory_costs_the_measurements_and_not_the_plan(engine_on: Import, tmp_path: Path) -> None:
    module = engine_on("10.3.0", "tensorrt_build")
    order = ordered(tmp_path, timing_cache=str(tmp_path / "missing" / "timings"))
    assert module.build_plan(order, Said(), CPU)[0]


def test_a_dla_core_is_used_where_there_is_one_and_in_a_precision_that_it_has(
    engine_on: Import, tmp_path: Path
) -> None:
    module = engine_on("8.5.2.2", "tensorrt_build")
    with pytest.raises(Unusable, match="this device has 0 such cores"):
        module.build_plan(ordered(tmp_path, dla=1), Said(), CPU)
    behaviour.dla_cores = 2
    with pytest.raises(Unusable, match="does not compute in fp32"):
        module.build_plan(ordered(tmp_path, dla=1, precision="fp32"), Said(), CPU)
    module.build_plan(ordered(tmp_path, dla=1), Said(), CPU)
    config = behaviour.configs[-1]
    assert (config.default_device_type.name, config.DLA_core) == ("DLA", 1)
    assert flags() == ["FP16", "GPU_FALLBACK"]
