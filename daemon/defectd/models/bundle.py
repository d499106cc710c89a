"""A bundle as it lies on a disk: verified from the outside in, and then shown.

Nothing is parsed before its signature is verified, nothing hashed before its size is known to be right. What is
verified here may be replaced a moment later by whoever can write the directory: the store copies artifacts while it
hashes them, and an engine hashes the very bytes that it loads.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Iterator

from defectd.errors import ModelError
from defectd.models.bundle_files import REMEDY, BundleFiles, opened
from defectd.models.envelope import PAYLOAD_MANIFEST, TrustError, max_envelope_bytes, read_envelope
from defectd.models.manifest import ENVELOPE, MANIFEST, MAX_MANIFEST_BYTES, Manifest, Parity, Role, parse_manifest
from defectd.models.trust import Root, check_not_expired, check_signatures, short


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were as its manifest says when it was opened.

    `signed_by` are the key ids that a root vouches for, none if it is not signed; `claimed_by` those of an envelope
    that nobody could verify.
    """

    directory: Path
    manifest: Manifest
    manifest_sha256: str
    signed_by: tuple[str, ...]
    claimed_by: tuple[str, ...] = ()

    def path(self, role: Role) -> Path | None:
        """The network in that format, if it is there."""
        artifact = self.manifest.artifact(role)
        return None if artifact is None else self.directory / artifact.name


def open_bundle(directory: Path, root: Root | None, *, now: datetime | None, allow_unsigned: bool = False) -> Bundle:
    """The bundle in *directory*: signed by enough release keys of *root*, not expired at *now*, every file as declared.

    *now* is None if the clock is not known to be right: then expiry is not judged. With *allow_unsigned* a bundle
    without an envelope will do, and any if there is no *root*; a signature that can be judged must still be good.
    Raises TrustError (whose it is) or ModelError (what it is); both name the file and say what to do.
    """
    with opened(directory) as files:
        data = files.read(MANIFEST, MAX_MANIFEST_BYTES)
        signed_by, claimed_by = _judge_envelope(files, data, root, now, allow_unsigned)
        manifest = parse_manifest(data, str(directory / MANIFEST))
        if now is not None and manifest.expires is not None and now >= manifest.expires:
            raise TrustError(
                f"{directory / MANIFEST}: expired at {_moment(manifest.expires)}; sign a newer release, "
                "or set this machine's clock"
            )
        files.check(manifest)
    return Bundle(directory, manifest, hashlib.sha256(data).hexdigest(), signed_by, claimed_by)


def check_compatible(manifest: Manifest, device_tags: set[str], defectd_version: str) -> None:
    """Whether this device may serve it. An entry of `compatible` is a tag, or a pattern with `*`. Raises ModelError."""
    where = f"{manifest.name} {manifest.version}"
    if not any(entry == "*" or fnmatch.filter(device_tags, entry) for entry in manifest.compatible):
        raise ModelError(
            f"{where}: compatible: it is for {', '.join(manifest.compatible)}; this device is "
            f"{', '.join(sorted(device_tags)) or 'of no known kind'}: bring a bundle for it"
        )
    if _version(manifest.min_defectd, f"{where}: min_defectd") > _version(defectd_version, "defectd"):
        raise ModelError(f"{where}: min_defectd: needs defectd {manifest.min_defectd}; this is {defectd_version}")


def _judge_envelope(
    files: BundleFiles, data: bytes, root: Root | None, now: datetime | None, allow_unsigned: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The key ids that vouch for *data*, the manifest's bytes, and those that nobody verified."""
    if root is None and not allow_unsigned:
        raise TrustError(f"{files.directory}: no root.json to verify it with; name the one of who signs your bundles")
    if not files.has(ENVELOPE):
        if allow_unsigned:
            return (), ()
        raise TrustError(f"{files.directory}: is not signed: there is no {ENVELOPE}; sign it: defectd model sign")
    raw = files.read(ENVELOPE, max_envelope_bytes(PAYLOAD_MANIFEST))
    try:
        envelope = read_envelope(raw, PAYLOAD_MANIFEST)
        verified: tuple[str, ...] = ()
        if root is not None:
            check_not_expired(root, now)
            verified = check_signatures(envelope, root, "release").keyids
    except TrustError as error:
        raise TrustError(f"{files.directory / ENVELOPE}: {error}") from error
    if envelope.payload != data:
        raise TrustError(f"{files.directory / MANIFEST}: was changed since {ENVELOPE} was signed; {REMEDY}")
    return (verified, ()) if root is not None else ((), tuple(one.keyid for one in envelope.signatures))


def _version(text: str, where: str) -> tuple[int, ...]:
    """Its numbers: 0.2.0rc1 counts as 0.2, as 0.2.0 does."""
    found = re.match(r"\d{1,9}(\.\d{1,9})*", text)
    if found is None:
        raise ModelError(f"{where}: expected a version like 0.1.0, got {text[:40]!r}")
    numbers = [int(part) for part in found.group().split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def as_json(bundle: Bundle) -> dict[str, Any]:
    """What `describe` tells, for machines: who signed, and the manifest as it is."""
    return {
        "directory": str(bundle.directory),
        "manifest_sha256": bundle.manifest_sha256,
        "signed_by": list(bundle.signed_by),
        "claimed_by": list(bundle.claimed_by),
        "manifest": bundle.manifest.model_dump(mode="json", by_alias=True),
    }


def describe(bundle: Bundle) -> str:
    """A bundle as a person wants to read it. Nothing in it can steer a terminal."""
    manifest, network = bundle.manifest, bundle.manifest.network
    height, width = network.input_hw
    rows = [
        ("signed by", _signers(bundle)),
        ("created", _moment(manifest.created)),
        ("expires", "never" if manifest.expires is None else _moment(manifest.expires)),
        ("for", f"{', '.join('any device' if tag == '*' else tag for tag in manifest.compatible)}, {_needs(manifest)}"),
        ("classes", f"{len(network.classes)}: {', '.join(network.classes)}"),
        ("input", f"{width} x {height} px (width x height), stride {network.stride}"),
        ("thresholds", f"confidence {network.confidence:g}, {_suppression(manifest)}"),
        ("golden set", _golden(manifest)),
        ("made from", f"{manifest.exporter.checkpoint}, SHA-256 {manifest.exporter.checkpoint_sha256[:12]}…"),
        ("made by", _exporter(manifest)),
        ("manifest", f"SHA-256 {bundle.manifest_sha256}"),
    ]
    lines = [f"{manifest.name} {manifest.version}, release {manifest.release_seq}"]
    lines += [f"  {label:<11} {text}" for label, text in rows]
    lines += ["", "  formats", *(f"    {line}" for line in _formats(manifest))]
    lines += ["", "  parity with the original", *(f"    {line}" for line in _parity(manifest.parity))]
    return "\n".join("".join(char if char.isprintable() else "\ufffd" for char in line) for line in lines)


def _signers(bundle: Bundle) -> str:
    if bundle.signed_by:
        return ", ".join(short(keyid) for keyid in bundle.signed_by)
    if bundle.claimed_by:
        return f"NOT VERIFIED (no root.json was given); it says {', '.join(short(one) for one in bundle.claimed_by)}"
    return "NOBODY: this bundle is not signed"


def _needs(manifest: Manifest) -> str:
    needs = [f"defectd {manifest.min_defectd} or newer"]
    needs += [f"{manifest.requires.mem_mb} MB of free memory"] * (manifest.requires.mem_mb > 0)
    needs += [f"{manifest.requires.disk_mb} MB of free disk"] * (manifest.requires.disk_mb > 0)
    return ", ".join(needs)


def _suppression(manifest: Manifest) -> str:
    return "the head suppresses by itself" if manifest.network.end2end else f"NMS IoU {manifest.network.nms_iou:g}"


def _golden(manifest: Manifest) -> str:
    golden, limits = manifest.golden, manifest.golden.limits
    if not golden.pictures:
        return "NONE: a device cannot tell whether an engine still sees what the model saw"
    boxes = sum(len(picture.boxes) for picture in golden.pictures)
    critical = f", never missing {', '.join(limits.critical_classes)}" if limits.critical_classes else ""
    return (
        f"{len(golden.pictures)} pictures with {boxes} boxes; recall at least {limits.recall:g}, precision "
        f"{limits.precision:g} at IoU {limits.iou:g}{critical}"
    )


def _exporter(manifest: Manifest) -> str:
    made = manifest.exporter
    return f"defectd {made.defectd}, torch {made.torch}, Ultralytics {made.ultralytics}"


def _formats(manifest: Manifest) -> Iterator[str]:
    for artifact in manifest.artifacts:
        if artifact.role != "golden_image":
            yield f"{artifact.role:<17} {artifact.name:<22} {artifact.size / 1e6:8.1f} MB"
    pictures = [artifact.size for artifact in manifest.artifacts if artifact.role == "golden_image"]
    if pictures:
        yield f"{'golden_image':<17} {f'{len(pictures)} pictures':<22} {sum(pictures) / 1e6:8.1f} MB"


def _parity(rows: list[Parity]) -> Iterator[str]:
    if not rows:
        yield "not measured"
        return
    columns = ("head MSE", "head max", "recall", "precision", "mAP50", "mAP50-95")
    yield f"{'':<22}" + "".join(f"{column:>11}" for column in columns)
    for row in rows:
        errors = [_number(value, "{:.2g}") for value in (row.head_mse, row.head_max)]
        shares = [_number(value, "{:.4f}") for value in (row.recall, row.precision, row.map50, row.map50_95)]
        drop = "  drop allowed by a person" if row.allowed_drop else ""
        yield f"{row.format:<22}" + "".join(f"{text:>11}" for text in (*errors, *shares)) + drop


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M %Z}"
