"""Does each format answer like the original? Raw heads, decoded boxes, and precision on labelled pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import numpy as np
from numpy.typing import NDArray

from defectd.errors import ModelError
from defectd.export.checkpoint import Original
from defectd.export.heads import Answer, Reference, difference, worst
from defectd.export.pictures import network_input, probes, read_picture
from defectd.export.precision import MeanPrecision, Truth, mean_precision
from defectd.export.progress import Progress, Say
from defectd.export.runners import Forward
from defectd.inspection.detections import Detections
from defectd.inspection.yolo import Decoder, HeadMismatch, MalformedOutput, NonFiniteOutput, Thresholds, resolve_head
from defectd.models.golden import compare
from defectd.models.manifest import AcceptanceLimits, Parity

Floats = NDArray[np.float32]
MAX_HEAD_MSE = 1e-5
"""Of a format that computes in fp32."""
MAX_DROP = 0.005
"""Of mAP50 and of mAP50-95: half a point."""
_LEAST_CONFIDENCE = 0.001  # what Ultralytics' validation counts from
_PICTURES_FOR_HEADS = 3


@dataclass(frozen=True)
class Exam:
    """What every format is shown: inputs for the raw head, and pictures, of which the last ones are labelled."""

    original: Original
    confidence: float
    nms_iou: float
    limits: AcceptanceLimits
    golden: Sequence[Path]
    labelled: Sequence[Path]
    truth: Sequence[Truth]
    """Of each labelled picture, its boxes."""

    @property
    def pictures(self) -> list[Path]:
        """All files, in the order of the detections."""
        return [*self.golden, *self.labelled]


@dataclass(frozen=True)
class Baseline:
    """What the original answered: per input of `inputs` its raw head, per picture its detections, from the least
    confidence on."""

    inputs: Sequence[Floats]
    answers: Sequence[Answer]
    found: Sequence[Detections]
    precision: MeanPrecision | None
    confidence: float

    @property
    def box_count(self) -> int:
        """At the default confidence."""
        return sum(len(above(one, self.confidence)) for one in self.found)


@dataclass(frozen=True)
class Verdict:
    """On one format. `broken`: it is another network, and no bundle may carry it. `worse`: a person may allow it."""

    parity: Parity
    broken: tuple[str, ...]
    worse: tuple[str, ...]


def take_baseline(exam: Exam, say: Say) -> Baseline:
    """The original's own answers. Raises ModelError if it gives none."""
    original = exam.original
    reference = Reference(original.module)
    inputs = probes(original.input_hw)
    inputs += [
        network_input(read_picture(path), original.input_hw).tensor for path in exam.pictures[:_PICTURES_FOR_HEADS]
    ]
    answers = [reference.answer(one) for one in inputs]
    if not all(np.isfinite(one.output).all() for one in answers):
        raise ModelError(f"{original.path}: the model answers NaN or infinity; train it again")
    found = _detect(exam, reference.forward, "original", say)
    return Baseline(inputs, answers, found, _precision(exam, found), exam.confidence)


def examine(exam: Exam, baseline: Baseline, name: str, forward: Forward, *, exact: bool, say: Say) -> Verdict:
    """One format against the original; *exact*: it computes in fp32, so its raw head is judged, too."""
    gap = worst([difference(answer, forward(one)) for one, answer in zip(baseline.inputs, baseline.answers)])
    broken = []
    if exact and not gap.mse <= MAX_HEAD_MSE:
        broken.append(f"the raw head differs by {gap.mse:.2g} (mean square), at most {MAX_HEAD_MSE:g} is allowed")
    try:
        found = _detect(exam, forward, name, say)
    except (HeadMismatch, MalformedOutput, NonFiniteOutput) as error:
        reasons = (*broken, str(error))
        return Verdict(Parity(format=name), reasons if exact else (), () if exact else reasons)
    expected = [above(one, exam.confidence) for one in baseline.found]
    boxes = compare(
        expected, [above(one, exam.confidence) for one in found], exam.original.classes, exam.confidence, exam.limits
    )
    precision = _precision(exam, found)
    compared = boxes.expected + boxes.found > 0
    parity = Parity(
        format=name,
        head_mse=_finite(gap.mse),
        head_max=_finite(gap.largest),
        recall=boxes.recall if compared else None,
        precision=boxes.precision if compared else None,
        map50=precision.map50 if precision else None,
        map50_95=precision.map50_95 if precision else None,
    )
    return Verdict(parity, tuple(broken), (*boxes.reasons, *drops(baseline.precision, precision)))


def drops(before: MeanPrecision | None, after: MeanPrecision | None) -> list[str]:
    """What fell by more than half a point, in words."""
    if before is None or after is None:
        return []
    pairs = (("mAP50", before.map50, after.map50), ("mAP50-95", before.map50_95, after.map50_95))
    return [
        f"{name} falls from {100 * one:.2f} to {100 * other:.2f}, at most {100 * MAX_DROP:g} points are allowed"
        for name, one, other in pairs
        if one - other > MAX_DROP
    ]


def above(found: Detections, confidence: float) -> Detections:
    """Those with more than *confidence*. What suppression would have left at that confidence: it works from the best
    down, so lower ones never removed any of them."""
    kept = found.scores > confidence
    return Detections(found.xyxy[kept], found.scores[kept], found.class_ids[kept])


def baseline_parity(baseline: Baseline) -> Parity:
    """The original's own line."""
    precision = baseline.precision
    return Parity(
        format="eager",
        map50=precision.map50 if precision else None,
        map50_95=precision.map50_95 if precision else None,
    )


def recorded(verdicts: Sequence[Verdict], allow_drop: bool) -> list[Parity]:
    """Their lines for the manifest, with what a person allowed."""
    return [
        verdict.parity.model_copy(update={"allowed_drop": True}) if verdict.worse and allow_drop else verdict.parity
        for verdict in verdicts
    ]


def refuse(verdicts: Sequence[Verdict], allow_drop: bool) -> list[str]:
    """What was allowed, in words. Raises ModelError for what was not, or cannot be."""
    broken = [f"{one.parity.format}: {reason}" for one in verdicts for reason in one.broken]
    if broken:
        raise ModelError(f"parity: {'; '.join(broken)}: it would not be your model, and nothing was written")
    worse = [f"{one.parity.format}: {reason}" for one in verdicts for reason in one.worse]
    if worse and not allow_drop:
        raise ModelError(f"parity: {'; '.join(worse)}; nothing was written (--allow-drop accepts and records it)")
    return [f"allowed by --allow-drop, and recorded: {reason}" for reason in worse]


def _detect(exam: Exam, forward: Forward, name: str, say: Say) -> list[Detections]:
    """Per picture of the exam, by the pre- and postprocessing of a station."""
    original, count = exam.original, len(exam.original.classes)
    thresholds = Thresholds(min(_LEAST_CONFIDENCE, exam.confidence), exam.nms_iou)
    pictures = exam.pictures
    progress = Progress(say, name, len(pictures))
    found = []
    for path in pictures:
        seen = network_input(read_picture(path), original.input_hw)
        output = forward(seen.tensor)
        decoder = Decoder(resolve_head(output.shape, count, original.end2end), count, thresholds)
        found.append(decoder.detections(decoder.candidates(output), seen.letterbox))
        progress.step()
    return found


def _precision(exam: Exam, found: Sequence[Detections]) -> MeanPrecision | None:
    if not exam.labelled:
        return None
    return mean_precision(found[len(exam.golden) :], exam.truth)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
