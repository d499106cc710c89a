"""What reads bytes of strangers and of careless signers, and what must never come out of it.

Only ModelError may escape. What is accepted must survive being written and read again, and nothing is accepted as
signed that was not.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Callable, NamedTuple

from defectd.errors import ModelError
from defectd.models.bundle import check_compatible
from defectd.models.envelope import (
    MAX_PAYLOAD_BYTES,
    PAYLOAD_COMMAND,
    PAYLOAD_MANIFEST,
    TrustError,
    read_envelope,
)
from defectd.models.manifest import parse_manifest
from defectd.models.trust import parse_root, root_to_json
from defectd.rollout.admission import Known, Place, admit
from defectd.rollout.command import Audience, Command, Target, parse_command, read_command
from defectd.rollout.policy import Policy
from support.bundles import NOW, OPS_KEY, RELEASE_KEY, ROOT_KEY, make_root, manifest_fields, sign, signed_root

ROOT = make_root()
PLACE = Place("plant-1", "smt", "line-2", "aoi-1", ("canary",))
KNOWN = Known(floor_release_seq=6, floor_command_seq=3, current="c" * 64, previous="d" * 64, sources=("server",))
TAGS = {"cpu", "aarch64", "sm_87", "l4t-36", "l4t-36.4"}


class FuzzTarget(NamedTuple):
    """`read` takes anything; a ModelError is its way to say no, any other exception is a finding."""

    name: str
    read: Callable[[bytes], None]
    seeds: tuple[bytes, ...]

    def accepts(self, data: bytes) -> bool:
        """Whether *data* was read. Raises what was found."""
        try:
            self.read(data)
        except ModelError:
            return False
        return True


def _command(action: str, **changes: Any) -> bytes:
    fields = {
        "request_id": "0197a3e2-7c1f-7d1e-9a51-3f6d5b0c9a11", "seq": 4, "created": NOW,
        "expires": NOW + timedelta(hours=24), "audience": Audience(kind="group", value="canary"), "action": action,
    }  # fmt: skip
    return Command(**{**fields, **changes}).to_json()


_DEPLOY = Target(manifest_sha256="ab" * 32, release_seq=7, source="server", path="pcb/1.4.0")
COMMANDS = (
    _command("deploy", target=_DEPLOY, audience=Audience(kind="station", value="plant-1/smt/line-2/aoi-1")),
    _command("deploy", target=_DEPLOY, policy=Policy(approval=True, window="22:00-04:30", allow_downgrade=True)),
    _command("rollback", audience=Audience(kind="site", value="plant-1")),
    _command("cancel", of="0197-a", audience=Audience(kind="line", value="plant-1/smt/line-2")),
    _command("approve", of="0197-a"),
)
SIGNED_COMMANDS = tuple(sign(payload, PAYLOAD_COMMAND, OPS_KEY).to_json() for payload in COMMANDS)
MANIFESTS = tuple(
    (json.dumps(fields, indent=1) + "\n").encode()
    for fields in (
        manifest_fields(),
        manifest_fields(expires="2027-01-01T00:00:00+02:00", compatible=["sm_87", "l4t-36*"], min_defectd="0.2.0rc1"),
    )
)
SIGNED_MANIFESTS = tuple(sign(payload, PAYLOAD_MANIFEST, RELEASE_KEY).to_json() for payload in MANIFESTS)
ROOTS = (root_to_json(ROOT), root_to_json(make_root(version=2, expires=NOW, ops=(3, 4), thresholds=(1, 1, 2))))


def _read_command(data: bytes) -> None:
    command = parse_command(data)
    assert parse_command(command.to_json()) == command
    admission = admit(command, "5" * 64, PLACE, KNOWN, NOW)
    assert admission.code and admission.detail


def _read_signed_command(data: bytes) -> None:
    signed = read_command(data, ROOT, NOW)
    assert signed.payload in COMMANDS, "a signature was forged"


def _read_manifest(data: bytes) -> None:
    manifest = parse_manifest(data, "manifest.json")
    written = json.dumps(manifest.model_dump(mode="json", by_alias=True)).encode()
    again = parse_manifest(written, "manifest.json")
    assert json.dumps(again.model_dump(mode="json", by_alias=True)).encode() == written  # not ==: there may be a NaN
    check_compatible(manifest, TAGS, "0.2.0")


def _read_envelope(data: bytes) -> None:
    refused = 0
    for kind in MAX_PAYLOAD_BYTES:
        try:
            envelope = read_envelope(data, kind)
        except TrustError:
            refused += 1
        else:
            assert envelope.to_json() == data, "an envelope has two forms"
    assert refused >= len(MAX_PAYLOAD_BYTES) - 1, "an envelope is of two kinds"
    if refused == len(MAX_PAYLOAD_BYTES):
        raise TrustError("no kind of envelope")


def _read_root(data: bytes) -> None:
    root = parse_root(data)
    assert parse_root(root_to_json(root)) == root


TARGETS = (
    FuzzTarget("command", _read_command, COMMANDS),
    FuzzTarget("signed-command", _read_signed_command, SIGNED_COMMANDS),
    FuzzTarget("manifest", _read_manifest, MANIFESTS),
    FuzzTarget("envelope", _read_envelope, (*SIGNED_COMMANDS, *SIGNED_MANIFESTS, signed_root(ROOT, ROOT_KEY))),
    FuzzTarget("root", _read_root, ROOTS),
)
