"""The chain: checkpoint → three formats → parity → bundle. Nothing of it exists under the bundle's name until all of it
does."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Sequence

from defectd.clock import utc_now
from defectd.errors import ModelError
from defectd.export.checkpoint import Original, load_checkpoint
from defectd.export.choice import GoldenSource, choose_golden, choose_labelled
from defectd.export.formats import ultralytics_metadata
from defectd.export.networks import FILE_NAMES, write_formats
from defectd.export.options import ExportOptions
from defectd.export.parity import (
    Baseline,
    Exam,
    Verdict,
    above,
    baseline_parity,
    examine,
    recorded,
    refuse,
    take_baseline,
)
from defectd.export.pictures import to_png
from defectd.export.progress import Say
from defectd.export.release import Release, release_of
from defectd.export.report import parity_table
from defectd.export.runners import run_exported_program, run_onnx, run_rounded_to_fp16, run_torchscript
from defectd.inspection.detections import Detections
from defectd.models.manifest import MANIFEST, Artifact, Box, GoldenPicture, Manifest, Role
from defectd.storage import sync_directory, write_durably

FP16 = "torchscript-fp16-weights"
_RUNNERS = {"torchscript": run_torchscript, "exported_program": run_exported_program, "onnx": run_onnx}


def export(checkpoint: Path, out: Path, options: ExportOptions, say: Say) -> Manifest:
    """Write the bundle *out*, unsigned, from *checkpoint*; *say* gets a line for a person now and then, and the parity
    table. Raises ModelError, and leaves nothing behind then."""
    _check_vacant(out)
    say(f"loading {checkpoint}")
    original = load_checkpoint(checkpoint, options.imgsz, end2end=options.end2end)
    release = release_of(original, options, utc_now())
    say(_introduction(original))
    labelled = choose_labelled(original, options, say)
    golden = choose_golden(original, labelled, options, say)
    with _appearing(out) as directory:
        exam = Exam(
            original=original,
            confidence=options.confidence,
            nms_iou=options.nms_iou,
            limits=release.limits,
            golden=_write_golden(directory, golden),
            labelled=[picture.path for picture in labelled],
            truth=[picture.truth for picture in labelled],
        )
        roles = write_formats(original, directory, _metadata(original, release), say)
        say(f"parity on {len(exam.pictures)} pictures: the original")
        baseline = take_baseline(exam, say)
        verdicts = [verdict for role in roles for verdict in _judge(exam, baseline, role, directory, say)]
        manifest = _manifest(exam, baseline, verdicts, release, roles, directory, options.allow_drop)
        say(parity_table(manifest))
        for warning in refuse(verdicts, options.allow_drop):
            say(f"WARNING: {warning}")
        write_durably(directory / MANIFEST, manifest.to_json())
    say(f"wrote {out}: {release.name} {release.version}, not signed yet")
    return manifest


def _check_vacant(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise ModelError(f"{out}: exists already; choose another directory, or remove it")


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A directory that gets the name *out* at the end, and that is gone after an error. Raises ModelError where it
    cannot be written."""
    temporary = None
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
        yield temporary
        temporary.chmod(0o755)
        sync_directory(temporary)
        _check_vacant(out)
        temporary.rename(out)
        sync_directory(out.absolute().parent)
    except OSError as error:
        raise ModelError(
            f"{out}: cannot be written: {error.strerror or error}; free space or choose another place"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)  # gone already if it was renamed


def _introduction(original: Original) -> str:
    height, width = original.input_hw
    names = ", ".join(original.classes[:8]) + (", …" if len(original.classes) > 8 else "")
    head = "end-to-end head" if original.end2end else "head that needs suppression"
    return f"{len(original.classes)} classes ({names}); input {width}x{height} px, stride {original.stride}, {head}"


def _metadata(original: Original, release: Release) -> dict[str, object]:
    return ultralytics_metadata(
        description=f"{release.name} {release.version}",
        version=original.ultralytics,
        stride=original.stride,
        head=original.head,
        input_hw=original.input_hw,
        classes=original.classes,
        end2end=original.end2end,
    )


def _write_golden(directory: Path, golden: Sequence[GoldenSource]) -> list[Path]:
    paths = [directory / f"golden-{number:04d}.png" for number in range(1, len(golden) + 1)]
    for path, one in zip(paths, golden):
        write_durably(path, to_png(one.pixels()))
    return paths


def _judge(exam: Exam, baseline: Baseline, role: Role, directory: Path, say: Say) -> list[Verdict]:
    """The verdict on a format as it lies in *directory*; on TorchScript, also with weights rounded to fp16."""
    data = (directory / FILE_NAMES[role]).read_bytes()
    say(f"parity: {role}")
    verdicts = [examine(exam, baseline, role, _RUNNERS[role](data), exact=True, say=say)]
    if role == "torchscript":
        say("parity: torchscript, weights rounded to fp16 but computed in fp32 (a GPU's fp16 is judged on the station)")
        verdicts.append(examine(exam, baseline, FP16, run_rounded_to_fp16(data), exact=False, say=say))
    return verdicts


def _manifest(
    exam: Exam, baseline: Baseline, verdicts: Sequence[Verdict], release: Release, roles: Sequence[Role],
    directory: Path, allow_drop: bool,
) -> Manifest:  # fmt: skip
    golden = [
        GoldenPicture(image=path.name, boxes=_boxes(above(found, exam.confidence)))
        for path, found in zip(exam.golden, baseline.found)
    ]
    artifacts = [_artifact(directory / FILE_NAMES[role], role) for role in roles]
    artifacts += [_artifact(path, "golden_image") for path in exam.golden]
    return release.manifest(artifacts, golden, [baseline_parity(baseline), *recorded(verdicts, allow_drop)])


def _boxes(found: Detections) -> list[Box]:
    """To a hundredth of a pixel and a ten-thousandth of confidence."""
    return [
        (*(round(float(side), 2) for side in box), round(float(score), 4), int(label))  # type: ignore[misc]
        for box, score, label in zip(found.xyxy, found.scores, found.class_ids)
    ]


def _artifact(path: Path, role: Role) -> Artifact:
    data = path.read_bytes()
    return Artifact(role=role, name=path.name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
