"""Whose bytes are these? Keys and roles of a `root.json`, and the verification of envelopes against them.

The rules are The Update Framework's: a kind of payload per purpose, a threshold of distinct keys per role, expiry, and
a root that only the keys of its predecessor can replace. This is the device's half: no private key is ever here.

`root.json` is what a device trusts to begin with. Its own signatures guard it against damage, not against somebody who
may replace the file: it belongs to the superuser and is not writable for the daemon.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Iterator, Literal, Mapping, NamedTuple

from pydantic import Field, ValidationError, field_validator
from typing_extensions import Annotated

from defectd.models.ed25519 import verifies
from defectd.models.envelope import (
    PAYLOAD_COMMAND,
    PAYLOAD_MANIFEST,
    PAYLOAD_ROOT,
    Envelope,
    TrustError,
    max_envelope_bytes,
    read_envelope,
    strict_json,
)
from defectd.models.manifest import Sha256, Strict

__all__ = [
    "PAYLOAD_COMMAND", "PAYLOAD_MANIFEST", "PAYLOAD_ROOT", "Role", "RoleName", "Root", "TrustError", "Verified",
    "check_signatures", "keyid_of", "next_root", "parse_root", "read_root", "short", "verify", "verify_envelope",
]  # fmt: skip

ROOT_SCHEMA: Final = "defectd.root/1.0"
KEY_BYTES = 32
MAX_KEYS = 32
RoleName = Literal["root", "release", "ops"]
"""Who may replace the root; who may release bundles; who may command a station (a bundle's signer must not)."""


class Role(NamedTuple):
    """`threshold` of these keys must sign."""

    keyids: tuple[str, ...]
    threshold: int


@dataclass(frozen=True)
class Root:
    """Whom to believe. One that would believe nobody, or anybody, cannot be made: TrustError."""

    version: int
    expires: datetime | None
    keys: Mapping[str, bytes]
    roles: Mapping[RoleName, Role]

    def __post_init__(self) -> None:
        problems = list(_inconsistencies(self))
        if problems:
            raise TrustError(f"root, version {self.version}: {'; '.join(problems)}")


class Verified(NamedTuple):
    """Bytes that enough keys of a role signed, whose these are, and the signatures of keys that it does not name."""

    payload: bytes
    keyids: tuple[str, ...]
    ignored: tuple[str, ...]


class RoleEntry(Strict):
    """As `Role`."""

    keyids: list[Sha256] = Field(min_length=1, max_length=MAX_KEYS)
    threshold: int = Field(ge=1, le=MAX_KEYS, strict=True)


class RootFile(Strict):
    """The payload of `root.json`. A key's id is the SHA-256 of its 32 bytes."""

    schema_: Literal["defectd.root/1.0"] = Field(default=ROOT_SCHEMA, alias="schema")
    version: int = Field(ge=1, le=2**53, strict=True)
    expires: datetime | None = None
    keys: dict[Sha256, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(min_length=1, max_length=3 * MAX_KEYS)
    roles: dict[RoleName, RoleEntry]

    @field_validator("expires")
    @classmethod
    def _aware(cls, moment: datetime | None) -> datetime | None:
        if moment is not None and moment.tzinfo is None:
            raise ValueError("expected a time with its zone, like 2030-01-31T12:00:00Z")
        return moment


def keyid_of(public: bytes) -> str:
    """The id of a raw Ed25519 key: nobody can give it another, or one id to two keys."""
    return hashlib.sha256(public).hexdigest()


def short(keyid: str) -> str:
    """For people."""
    return keyid[:12]


def read_root(path: Path) -> Root:
    """What this device trusts. Whether it has expired is judged where it is used. Raises TrustError."""
    try:
        with path.open("rb") as file:
            data = file.read(max_envelope_bytes(PAYLOAD_ROOT) + 1)
    except OSError as error:
        raise TrustError(f"{path}: {error.strerror}; expected the root.json of whoever signs your bundles") from error
    try:
        envelope = read_envelope(data, PAYLOAD_ROOT)
        root = parse_root(envelope.payload)
        check_signatures(envelope, root, "root")
    except TrustError as error:
        raise TrustError(f"{path}: {error}") from error
    return root


def next_root(current: Root, envelope: bytes, now: datetime | None) -> Root:
    """The successor of *current*, if enough root keys of both signed it. Raises TrustError.

    The successor's expiry is judged at *now*; None for an unknown clock, or for one of several to be taken in a row,
    of which only the last must still be valid. That *current* has expired is no obstacle, it is the reason.
    """
    opened = read_envelope(envelope, PAYLOAD_ROOT)
    check_signatures(opened, current, "root")
    following = parse_root(opened.payload)
    if following.version != current.version + 1:
        raise TrustError(f"root: version {following.version}; expected {current.version + 1}, one after the current")
    check_signatures(opened, following, "root")
    check_not_expired(following, now)
    return following


def verify_envelope(envelope: bytes, payload_type: str, root: Root, role: RoleName, now: datetime | None) -> bytes:
    """The exact bytes that enough keys of *role* signed as *payload_type*; only these may be parsed.

    *now* is None if the clock is not known to be right: then expiry is not judged. Raises TrustError.
    """
    return verify(envelope, payload_type, root, role, now).payload


def verify(envelope: bytes, payload_type: str, root: Root, role: RoleName, now: datetime | None) -> Verified:
    """As `verify_envelope`, and who signed."""
    check_not_expired(root, now)
    return check_signatures(read_envelope(envelope, payload_type), root, role)


def check_not_expired(root: Root, now: datetime | None) -> None:
    """Raises TrustError if it has."""
    if now is not None and root.expires is not None and now >= root.expires:
        raise TrustError(f"root, version {root.version}: expired at {root.expires:%Y-%m-%d %H:%M %Z}; install the next")


def check_signatures(envelope: Envelope, root: Root, role: RoleName) -> Verified:
    """Enough distinct keys of *role* signed exactly these bytes. Raises TrustError.

    Signatures of other keys do not count and do not harm: a root is rotated with keys that not every device knows. One
    of a key of the role that does not fit is an error even if the others suffice: something changed after signing.
    """
    if role not in root.roles:
        raise TrustError(f"root, version {root.version}: names no keys for the role {role!r}; install one that does")
    keyids, threshold = root.roles[role]
    message = envelope.message()
    good = [one for one in envelope.signatures if one.keyid in keyids]
    ignored = tuple(one.keyid for one in envelope.signatures if one.keyid not in keyids)
    for keyid, signature in good:
        if not verifies(root.keys[keyid], signature, message):
            raise TrustError(f"the signature of key {short(keyid)} does not fit: what it signed was changed since")
    if len({root.keys[keyid] for keyid, _ in good}) < threshold:
        raise TrustError(_too_few(len(good), ignored, root, role))
    return Verified(envelope.payload, tuple(keyid for keyid, _ in good), ignored)


def parse_root(payload: bytes) -> Root:
    """The inside of a root's envelope. Raises TrustError."""
    try:
        parsed = RootFile.model_validate(strict_json(payload))
    except ValidationError as error:
        problems = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:5]]
        raise TrustError(f"root: {'; '.join(problems)}") from error
    except ValueError as error:
        raise TrustError(f"root: is not JSON ({error})") from error
    return Root(
        parsed.version,
        parsed.expires,
        {keyid: bytes.fromhex(public) for keyid, public in parsed.keys.items()},
        {name: Role(tuple(role.keyids), role.threshold) for name, role in parsed.roles.items()},
    )


def root_to_json(root: Root) -> bytes:
    """The payload that `parse_root` reads."""
    parsed = RootFile(
        version=root.version,
        expires=root.expires,
        keys={keyid: public.hex() for keyid, public in root.keys.items()},
        roles={
            name: RoleEntry(keyids=list(role.keyids), threshold=role.threshold) for name, role in root.roles.items()
        },
    )
    return (parsed.model_dump_json(by_alias=True, indent=1) + "\n").encode()


def _too_few(count: int, ignored: tuple[str, ...], root: Root, role: RoleName) -> str:
    keyids, threshold = root.roles[role]
    others = [f"{short(keyid)}{_known_as(keyid, root)}" for keyid in ignored]
    return (
        f"signed by {count} key(s) of the role {role!r}; expected at least {threshold} of "
        f"{', '.join(short(keyid) for keyid in keyids)} (root, version {root.version})"
        + (f"; not counted: {', '.join(others)}" if others else "")
    )


def _known_as(keyid: str, root: Root) -> str:
    roles = [name for name, role in root.roles.items() if keyid in role.keyids]
    return f" (of the role {roles[0]!r})" if roles else " (unknown)"


def _inconsistencies(root: Root) -> Iterator[str]:
    if root.version < 1:
        yield "version: expected 1 or more"
    if not {"root", "release"} <= set(root.roles):
        yield "roles: expected keys for 'root' and 'release'"
    for keyid, public in root.keys.items():
        if len(public) != KEY_BYTES or keyid_of(public) != keyid:
            yield f"keys: {short(keyid)} is not the SHA-256 of its key"
    users: dict[str, str] = {}
    for name, (keyids, threshold) in root.roles.items():
        if not 1 <= threshold <= len(set(keyids)) or len(set(keyids)) != len(keyids):
            yield f"roles.{name}: expected a threshold from 1 to the number of its keys, each named once"
        for keyid in set(keyids):
            if keyid not in root.keys:
                yield f"roles.{name}: there is no key {short(keyid)}"
            if keyid in users:
                yield f"roles.{name}: key {short(keyid)} is of {users[keyid]!r}, too; a role needs keys of its own"
            users[keyid] = name
