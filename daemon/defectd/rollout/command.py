"""A technician's command, as it is signed: which stations, what to do, and until when.

Its bytes are verified before they are parsed here; parsed, they are still checked, because a signer can err, too.
Whether this station obeys is judged in admission.py.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError, field_validator, model_validator

from defectd.errors import ModelError
from defectd.models.envelope import MAX_PAYLOAD_BYTES, PAYLOAD_COMMAND, strict_json
from defectd.models.manifest import Sha256, Strict
from defectd.models.trust import Root, verify
from defectd.rollout.policy import Policy
from defectd.section import TOPIC_LEVEL, TopicLevel

SCHEMA: Literal["defectd.command/1.0"] = "defectd.command/1.0"
MAX_SEQ = 2**53
REQUEST_ID = r"^[A-Za-z0-9._-]{1,64}$"
Action = Literal["deploy", "rollback", "cancel", "approve"]
AudienceKind = Literal["station", "line", "group", "site"]

_LEVELS = {"station": ("site", "area", "line", "station"), "line": ("site", "area", "line"), "site": ("site",)}
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=timezone.utc), datetime(3000, 1, 1, tzinfo=timezone.utc)
_WIRE_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})")
_MAX_BRACKETS = 16  # a command has four objects; what is nested deeper is not worth parsing
_REMEDY = "make it anew: defectd rollout send"


class CommandError(ModelError):
    """Signed by the right key, and still no command: whoever signed it must make it anew."""


class Audience(Strict):
    """Who is meant. `value` is a place from the site down to `kind`, such as plant-1/smt/line-2, or a group's name."""

    kind: AudienceKind
    value: str = Field(max_length=259)

    @model_validator(mode="after")
    def _levels(self) -> Audience:
        expected = _LEVELS.get(self.kind, ("group",))
        levels = self.value.split("/")
        if len(levels) != len(expected) or not all(re.fullmatch(TOPIC_LEVEL, level) for level in levels):
            raise ValueError(f"value: expected {'/'.join(expected)} for a {self.kind}, as in its configuration")
        return self


class Target(Strict):
    """Which bundle, and where it lies: `path` is its folder below what the station calls `source`."""

    manifest_sha256: Sha256
    release_seq: int = Field(ge=1, le=MAX_SEQ, strict=True)
    source: TopicLevel
    path: str = Field(pattern=r"^[A-Za-z0-9._/-]{1,256}$")

    @field_validator("path")
    @classmethod
    def _below(cls, path: str) -> str:
        if {"", ".", ".."} & set(path.split("/")):
            raise ValueError("expected a folder below the source, such as pcb/1.4.0")
        return path


class Command(Strict):
    """See the fields. Times have whole seconds, in UTC. The defaults are those of a command that only names another."""

    schema_: Literal["defectd.command/1.0"] = Field(default=SCHEMA, alias="schema")
    request_id: str = Field(pattern=REQUEST_ID)
    seq: int = Field(ge=1, le=MAX_SEQ, strict=True, description="higher than any that these stations have accepted")
    created: datetime
    expires: datetime
    audience: Audience
    action: Action
    target: Target | None = Field(default=None, description="of deploy, and of nothing else")
    of: str | None = Field(default=None, pattern=REQUEST_ID, description="the request that is approved, ended …")
    policy: Policy = Policy()

    @field_validator("created", "expires", mode="before")
    @classmethod
    def _written(cls, moment: Any) -> Any:
        if not isinstance(moment, str):
            return moment
        if not _WIRE_TIME.fullmatch(moment):
            raise ValueError("expected a time with its zone, like 2026-01-31T12:00:00Z")
        return datetime.fromisoformat(moment.replace("Z", "+00:00"))

    @field_validator("created", "expires")
    @classmethod
    def _utc(cls, moment: datetime) -> datetime:
        if moment.utcoffset() is None:
            raise ValueError("expected a time with its zone, like 2026-01-31T12:00:00Z")
        if not _EARLIEST <= moment < _LATEST:
            raise ValueError("expected a year from 2000 to 2999")
        return moment.astimezone(timezone.utc).replace(microsecond=0)

    @model_validator(mode="after")
    def _consistent(self) -> Command:
        if self.created >= self.expires:
            raise ValueError("expires: expected a time after `created`")
        if (self.action == "deploy") != (self.target is not None):
            raise ValueError(f"target: {'needed for' if self.target is None else 'does not belong to'} {self.action}")
        if self.action == "deploy" and self.of is not None:
            raise ValueError("of: does not belong to deploy")
        if self.action in {"approve", "cancel"} and self.of is None:
            raise ValueError(f"of: expected the request_id of the rollout to {self.action}")
        return self

    def to_json(self) -> bytes:
        """As it is signed and hashed: ASCII, whole numbers only."""
        return (json.dumps(self.model_dump(mode="json", by_alias=True), indent=1) + "\n").encode("ascii")


class SignedCommand(NamedTuple):
    """A command, and the exact bytes that were signed."""

    command: Command
    payload: bytes


def read_command(envelope: bytes, root: Root, now: datetime | None) -> SignedCommand:
    """What enough ops keys of *root* signed. *now* judges the root's expiry only, not the command's; None: it is not.

    Raises TrustError (not signed by whom it should be) or CommandError.
    """
    payload = verify(envelope, PAYLOAD_COMMAND, root, "ops", now).payload
    return SignedCommand(parse_command(payload), payload)


def parse_command(payload: bytes) -> Command:
    """*payload* as a command. Raises CommandError, which names the key."""
    limit = MAX_PAYLOAD_BYTES[PAYLOAD_COMMAND]
    if len(payload) > limit:
        raise CommandError(f"command: {len(payload)} bytes; expected at most {limit}")
    if payload.count(b"{") + payload.count(b"[") > _MAX_BRACKETS:
        raise CommandError(f"command: is nested too deeply; {_REMEDY}")
    try:
        fields = strict_json(payload)
    except ValueError as error:
        raise CommandError(f"command: is not JSON ({error}); {_REMEDY}") from error
    if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
        found = fields.get("schema") if isinstance(fields, dict) else type(fields).__name__
        raise CommandError(f"command: schema: expected {SCHEMA!r}, got {found!a:.60}; update defectd here or there")
    try:
        # Not the payload itself: two parsers that read the same bytes differently are how signed things get forged.
        return Command.model_validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        problems = [_problem(one["loc"], one["msg"]) for one in error.errors(include_input=False)[:5]]
        raise CommandError(f"command: {'; '.join(problems)}; {_REMEDY}") from error


def _problem(location: tuple[Any, ...], message: str) -> str:
    """An unknown key is the signer's own text: short, and nothing that steers a terminal."""
    path = ".".join(ascii(part)[1:-1][:40] if isinstance(part, str) else str(part) for part in location)
    return (f"{path}: " if path else "") + re.sub("^Value error, ", "", message)
