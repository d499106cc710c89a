from __future__ import annotations

from defectd.export.report import render
from defectd.models.manifest import Parity

MEASURED = [
    Parity(format="eager", map50=0.8678, map50_95=0.512),
    Parity(
        format="torchscript", head_mse=1.5e-9, head_max=0.002, recall=1, precision=1, map50=0.8678, map50_95=0.5121
    ),
    Parity(
        format="torchscript-fp16-weights", head_mse=0.01, head_max=1.5, recall=0.99, precision=0.98, map50=0.86,
        map50_95=0.5, allowed_drop=True,
    ),
]  # fmt: skip


def test_columns_are_aligned() -> None:
    lines = render(MEASURED).splitlines()
    ends = [line.index("mAP50") + 5 for line in lines[:1]]
    assert lines[0].startswith("format")
    assert len({line[: ends[0]].count("\t") for line in lines}) == 1
    assert lines[3].index("1.0000") == lines[0].index("recall")


def test_precision_is_in_points_beside_its_distance_to_the_original() -> None:
    _, _, original, exact, rounded = render(MEASURED).splitlines()
    assert original.split()[-2:] == ["86.78", "51.20"]
    assert exact.split()[-4:] == ["86.78", "(+0.00)", "51.21", "(+0.01)"]
    assert rounded.endswith("86.00 (-0.78)  50.00 (-1.20)  drop allowed")


def test_what_was_not_measured_is_said() -> None:
    text = render([Parity(format="eager"), Parity(format="onnx", head_mse=0, head_max=0)])
    assert "no boxes to compare: parity rests on the raw head" in text
    assert "mAP was not measured" in text


def test_nothing_is_said_to_be_missing_when_all_is_there() -> None:
    assert len(render(MEASURED).splitlines()) == 2 + len(MEASURED)
