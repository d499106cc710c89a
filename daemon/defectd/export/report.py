"""The parity report as a table for a terminal. Pure text."""

from __future__ import annotations

from typing import Sequence

from defectd.models.manifest import Manifest, Parity

_HEADINGS = ("format", "head MSE", "head max", "recall", "precision", "mAP50", "mAP50-95", "")
_TITLES = {
    "eager": "original (eager)",
    "torchscript": "TorchScript",
    "exported_program": "torch.export",
    "onnx": "ONNX",
    "torchscript-fp16-weights": "TorchScript, fp16 weights",
}
_NOT_MEASURED = "–"


def parity_table(manifest: Manifest) -> str:
    """The table, and below it what it rests on."""
    boxes = sum(len(picture.boxes) for picture in manifest.golden.pictures)
    lines = [render(manifest.parity)]
    if boxes:
        lines.append(f"golden set: {boxes} boxes in {len(manifest.golden.pictures)} pictures")
    else:
        lines.append(
            f"golden set: {len(manifest.golden.pictures)} pictures, and no boxes above "
            f"{manifest.network.confidence:g}: a station can compare no boxes"
        )
    return "\n".join(lines)


def render(parity: Sequence[Parity]) -> str:
    """Aligned columns: a format per line, mAP in points with the distance to the original."""
    original = next((one for one in parity if one.format == "eager"), None)
    rows = [_HEADINGS, *(_row(one, original) for one in parity)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "─" * max(len(line) for line in lines))
    if not any(one.recall is not None for one in parity):
        lines.append("The original found no boxes to compare: parity rests on the raw head.")
    if not any(one.map50 is not None for one in parity):
        lines.append("No labelled pictures were given (--data): mAP was not measured.")
    return "\n".join(lines)


def _row(one: Parity, original: Parity | None) -> tuple[str, ...]:
    return (
        _TITLES.get(one.format, one.format),
        _scientific(one.head_mse),
        _scientific(one.head_max),
        _share(one.recall),
        _share(one.precision),
        _points(one.map50, original.map50 if original and one is not original else None),
        _points(one.map50_95, original.map50_95 if original and one is not original else None),
        "drop allowed" if one.allowed_drop else "",
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """The first column to the left, figures to the right."""
    cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
    return "  ".join(cells).rstrip()


def _scientific(value: float | None) -> str:
    return _NOT_MEASURED if value is None else f"{value:.1e}" if value else "0"


def _share(value: float | None) -> str:
    return _NOT_MEASURED if value is None else f"{value:.4f}"


def _points(value: float | None, original: float | None) -> str:
    if value is None:
        return _NOT_MEASURED
    return f"{100 * value:.2f}" if original is None else f"{100 * value:.2f} ({100 * (value - original):+.2f})"
