"""To sign: bundles with release keys, commands with ops keys, and the root that says whose these are. The controller's
half; see trust.py.

Whoever holds one of several keys signs on a machine of their own: what is not yet signed by enough is written all the
same, every function that signs says who is still missing, and no device takes it before. A key in an HSM or a KMS signs
`message_to_sign` there, and `attach_signature` puts the result where it belongs.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple, Sequence

from defectd.errors import ModelError
from defectd.models.bundle_files import opened
from defectd.models.ed25519 import public_of, sign, verifies
from defectd.models.envelope import (
    MAX_PAYLOAD_BYTES,
    PAYLOAD_COMMAND,
    PAYLOAD_MANIFEST,
    PAYLOAD_ROOT,
    Envelope,
    TrustError,
    max_envelope_bytes,
    read_envelope,
)
from defectd.models.keys import is_encrypted, keygen, read_private, read_public
from defectd.models.manifest import ENVELOPE, MANIFEST, MAX_MANIFEST_BYTES, parse_manifest
from defectd.models.trust import Role, RoleName, Root, keyid_of, parse_root, read_root, root_to_json, short
from defectd.storage import write_durably

__all__ = [
    "RoleKeys", "Signer", "attach_signature", "is_encrypted", "keygen", "make_root", "message_to_sign", "rotate_root",
    "sign_bundle", "sign_command", "sign_root",
]  # fmt: skip


class RoleKeys(NamedTuple):
    """The public keys of a role, as files, and how many of them must sign."""

    public: Sequence[Path]
    threshold: int = 1


class Signer(NamedTuple):
    """A private key, as a file, and what opens it."""

    key: Path
    passphrase: str | None


def make_root(
    out: Path, roles: Mapping[RoleName, RoleKeys], *, expires: datetime | None, signers: Sequence[Signer]
) -> tuple[str, ...]:
    """Write version 1 of a root.json. Returns whose signatures it still needs, in words; none: it is complete.

    Roles are "root" and "release", and "ops" where stations take commands; no key may have two. Raises ModelError.
    """
    keys, named = _read_roles(roles)
    return _write_root(out, Root(1, expires, keys, named), None, signers)


def rotate_root(
    current: Path, out: Path, roles: Mapping[RoleName, RoleKeys], *, expires: datetime | None,
    signers: Sequence[Signer],
) -> tuple[str, ...]:  # fmt: skip
    """Write the successor of *current*; roles that are not named keep their keys. Returns as `make_root`.

    It needs the signatures of enough root keys of both. A key that it leaves out is revoked on every device that has
    taken it. Raises ModelError.
    """
    before = read_root(current)
    keys, named = _read_roles(roles)
    kept = {name: role for name, role in before.roles.items() if name not in named}
    keys.update({keyid: before.keys[keyid] for role in kept.values() for keyid in role.keyids})
    return _write_root(out, Root(before.version + 1, expires, keys, {**kept, **named}), before, signers)


def sign_root(path: Path, signer: Signer, current: Path | None = None) -> tuple[str, ...]:
    """Add a signature to a root that `make_root` or `rotate_root` wrote, on the machine of one more key holder.

    From version 2 on *current* is the root that it replaces. Returns as `make_root`. Raises ModelError.
    """
    before = None if current is None else read_root(current)
    envelope = _of_root(path)
    root = parse_root(envelope.payload)
    if root.version != (1 if before is None else before.version + 1):
        raise ModelError(f"{path}: is version {root.version}; name the root of version {root.version - 1} with it")
    envelope = _sign_root(envelope, root, before, [signer])
    _write(path, envelope)
    return tuple(_lacking(envelope, root, before))


def sign_bundle(directory: Path, key_path: Path, passphrase: str | None) -> tuple[str, ...]:
    """Sign the manifest of a bundle whose files are all as it says. Returns the ids of all keys that signed so far.

    Raises ModelError; the envelope is then as it was.
    """
    private = read_private(key_path, passphrase)
    envelope = _of_bundle(directory)
    return _attach(directory / ENVELOPE, envelope, public_of(private), sign(private, envelope.message()))


def sign_command(payload: bytes, signers: Sequence[Signer]) -> bytes:
    """The envelope of a command with the signatures of all *signers*: what is published to a station.

    Whether these are ops keys of a station's root is known there alone. Raises ModelError.
    """
    limit = MAX_PAYLOAD_BYTES[PAYLOAD_COMMAND]
    if not signers or not 0 < len(payload) <= limit:
        raise ModelError(
            f"a command of {len(payload)} bytes, {len(signers)} key(s); expected 1..{limit} and at least 1"
        )
    envelope = Envelope(PAYLOAD_COMMAND, payload)
    for signer in signers:
        private = read_private(signer.key, signer.passphrase)
        envelope = envelope.signed(keyid_of(public_of(private)), sign(private, envelope.message()))
    return envelope.to_json()


def message_to_sign(target: Path) -> bytes:
    """The bytes that a key outside of this program must sign (plain Ed25519): of a bundle's directory, or of a root."""
    return (_of_bundle(target) if target.is_dir() else _of_root(target)).message()


def attach_signature(target: Path, public: Path, signature: bytes) -> tuple[str, ...]:
    """Put *signature*, 64 bytes made over `message_to_sign`, into the envelope. Returns as `sign_bundle`.

    Raises ModelError if it is not one of the key *public* over these bytes.
    """
    if target.is_dir():
        return _attach(target / ENVELOPE, _of_bundle(target), read_public(public), signature)
    return _attach(target, _of_root(target), read_public(public), signature)


def _attach(path: Path, envelope: Envelope, public: bytes, signature: bytes) -> tuple[str, ...]:
    if not verifies(public, signature, envelope.message()):
        raise ModelError(f"{path}: the signature is not one of key {short(keyid_of(public))} over these bytes")
    envelope = envelope.signed(keyid_of(public), signature)
    _write(path, envelope)
    return tuple(one.keyid for one in envelope.signatures)


def _of_bundle(directory: Path) -> Envelope:
    """What is there to be signed, with the signatures that it has."""
    with opened(directory) as files:
        data = files.read(MANIFEST, MAX_MANIFEST_BYTES)
        files.check(parse_manifest(data, str(directory / MANIFEST)))
        raw = files.read(ENVELOPE, max_envelope_bytes(PAYLOAD_MANIFEST)) if files.has(ENVELOPE) else None
    if raw is None:
        return Envelope(PAYLOAD_MANIFEST, data)
    where = directory / ENVELOPE
    try:
        envelope = read_envelope(raw, PAYLOAD_MANIFEST)
    except TrustError as error:
        raise TrustError(f"{where}: {error}; remove it to sign anew") from error
    if envelope.payload != data:
        raise ModelError(f"{where}: signs another {MANIFEST} than the one beside it; remove it to sign anew")
    return envelope


def _of_root(path: Path) -> Envelope:
    try:
        with path.open("rb") as file:
            return read_envelope(file.read(max_envelope_bytes(PAYLOAD_ROOT) + 1), PAYLOAD_ROOT)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; expected a bundle's directory or a root.json") from error
    except TrustError as error:
        raise TrustError(f"{path}: {error}") from error


def _read_roles(roles: Mapping[RoleName, RoleKeys]) -> tuple[dict[str, bytes], dict[RoleName, Role]]:
    keys: dict[str, bytes] = {}
    named: dict[RoleName, Role] = {}
    for name, (paths, threshold) in roles.items():
        found = [read_public(path) for path in paths]
        keys.update({keyid_of(public): public for public in found})
        named[name] = Role(tuple(keyid_of(public) for public in found), threshold)
    return keys, named


def _write_root(path: Path, root: Root, before: Root | None, signers: Sequence[Signer]) -> tuple[str, ...]:
    if path.exists():
        raise ModelError(f"{path}: exists already; a root is never replaced, choose another name")
    envelope = _sign_root(Envelope(PAYLOAD_ROOT, root_to_json(root)), root, before, signers)
    _write(path, envelope)
    return tuple(_lacking(envelope, root, before))


def _sign_root(envelope: Envelope, root: Root, before: Root | None, signers: Sequence[Signer]) -> Envelope:
    useful = {keyid for one in (root, before) if one for keyid in one.roles["root"].keyids}
    for signer in signers:
        private = read_private(signer.key, signer.passphrase)
        keyid = keyid_of(public_of(private))
        if keyid not in useful:
            raise ModelError(
                f"{signer.key}: key {short(keyid)} is no root key, neither of this root nor of the current"
            )
        envelope = envelope.signed(keyid, sign(private, envelope.message()))
    return envelope


def _lacking(envelope: Envelope, root: Root, before: Root | None) -> Iterator[str]:
    for one in (before, root):
        if one is not None:
            keyids, threshold = one.roles["root"]
            signed = {signature.keyid for signature in envelope.signatures}
            absent = [short(keyid) for keyid in keyids if keyid not in signed]
            if len(keyids) - len(absent) < threshold:
                count = threshold - len(keyids) + len(absent)
                yield f"{count} more of the root keys of version {one.version}: {', '.join(absent)}"


def _write(path: Path, envelope: Envelope) -> None:
    try:
        write_durably(path, envelope.to_json())
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; it was not signed") from error
