"""A technician's command from its making to its signature. The controller's half of rollout/command.py."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Sequence

from pydantic import ValidationError

from defectd.errors import ModelError, SettingsError
from defectd.inspection.events import new_id
from defectd.models.manifest import ENVELOPE, MANIFEST, MAX_MANIFEST_BYTES, Manifest, parse_manifest
from defectd.models.signing import Signer, sign_command
from defectd.rollout.command import Action, Audience, Command, Target
from defectd.rollout.policy import Policy


class Chosen(NamedTuple):
    """The bundle to roll out, and where stations fetch it."""

    manifest: Manifest
    target: Target


class Order(NamedTuple):
    """What is asked for; it becomes a command when it is known of whom, and when."""

    request_id: str
    action: Action
    policy: Policy
    target: Target | None
    of: str | None


def order(action: Action, policy: Policy | None = None, target: Target | None = None, of: str | None = None) -> Order:
    """A new one, with a `request_id` of its own: a UUIDv7."""
    return Order(new_id(), action, policy or Policy(), target, of)


def signed(asked: Order, audience: Audience, seq: int, lives_s: int, now: datetime, signers: Sequence[Signer]) -> bytes:
    """The envelope to publish. Raises ModelError, of a key that cannot be used, too."""
    command = Command(
        request_id=asked.request_id, seq=seq, created=now, expires=now + timedelta(seconds=lives_s), audience=audience,
        action=asked.action, target=asked.target, of=asked.of, policy=asked.policy,
    )  # fmt: skip
    return sign_command(command.to_json(), signers)


def choose(bundle: Path, source: str, path: str, now: datetime) -> Chosen:
    """The bundle in the directory *bundle*, or the one whose manifest that file is, which stations find below their
    *source* at *path*. Raises ModelError for one that no station would take, SettingsError for a wrong place."""
    where = bundle / MANIFEST if bundle.is_dir() else bundle
    data = _read(where)
    manifest = parse_manifest(data, str(where))
    if bundle.is_dir() and not (bundle / ENVELOPE).exists():
        raise ModelError(f"{bundle}: is not signed, so no station takes it; first: defectd model sign {bundle} --key …")
    if manifest.expires is not None and now >= manifest.expires:
        raise ModelError(f"{where}: expired at {manifest.expires:%Y-%m-%d %H:%M %Z}; no station takes it: export anew")
    try:
        target = Target(
            manifest_sha256=hashlib.sha256(data).hexdigest(), release_seq=manifest.release_seq, source=source,
            path=path.strip("/"),
        )  # fmt: skip
    except ValidationError as error:
        raise SettingsError([f"--{problem['loc'][0]}: got {problem['input']!r}, {_said(problem['msg'])}"
                             for problem in error.errors()]) from None  # fmt: skip
    return Chosen(manifest, target)


def policy_of(given: dict[str, object]) -> Policy:
    """From command line flags. Raises SettingsError."""
    try:
        return Policy.model_validate(given)
    except ValidationError as error:
        raise SettingsError([_of_flag(problem) for problem in error.errors()]) from None


def _of_flag(problem: Any) -> str:
    name = str(problem["loc"][0])
    told = f"expected: {Policy.model_fields[name].description}"
    said = told if problem["type"] == "string_pattern_mismatch" else _said(problem["msg"])
    return f"--{name.replace('_', '-')}: got {problem['input']!r}, {said}"


def _said(message: str) -> str:
    message = message.replace("Value error, ", "")
    return message if message.startswith("expected") else f"expected: {message[0].lower()}{message[1:]}"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; expected a bundle's directory, or its {MANIFEST}") from error
