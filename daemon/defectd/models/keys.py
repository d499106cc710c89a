"""Ed25519 keys as files: PKCS #8 under a passphrase, and the public half beside it. Never on a station."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from defectd.errors import ModelError
from defectd.models.ed25519 import (
    ENCRYPTED,
    private_from_pem,
    private_to_pem,
    public_from_pem,
    public_of,
    public_to_pem,
)
from defectd.models.trust import keyid_of
from defectd.storage import sync_directory

MIN_PASSPHRASE = 12
_MAX_KEY_BYTES = 16 * 1024
_REMEDY = "make one: defectd model keygen"


def keygen(path: Path, passphrase: str | None, *, unencrypted: bool = False) -> str:
    """A new key: private at *path* (mode 0600, under *passphrase*), public at *path*.pub. Returns its id.

    Without a passphrase, *unencrypted* must be said. Nothing is ever replaced. Raises ModelError.
    """
    _judge_passphrase(passphrase, unencrypted)
    private = os.urandom(32)
    public, pem = public_of(private), private_to_pem(private, passphrase)
    if private_from_pem(pem, passphrase) != private:
        raise ModelError(f"{path}: the key could not be read back; it was not written")
    _create(path, pem, 0o600)
    try:
        _create(path.with_name(path.name + ".pub"), public_to_pem(public), 0o644)
    except ModelError:
        path.unlink()
        raise
    return keyid_of(public)


def read_public(path: Path) -> bytes:
    """The 32 bytes of a public key. Raises ModelError."""
    data = _read(path)
    if b"PRIVATE KEY" in data:
        raise ModelError(f"{path}: is a private key; name the public one beside it, {path.name}.pub")
    try:
        return public_from_pem(data)
    except ValueError as error:
        raise ModelError(f"{path}: {error}; {_REMEDY}") from error


def read_private(path: Path, passphrase: str | None) -> bytes:
    """The 32 bytes of a key to sign with; one without a passphrase must be readable by its owner only. Raises
    ModelError."""
    data = _read(path)
    if b"PUBLIC KEY" in data:
        private = path.name[: -len(".pub")] if path.name.endswith(".pub") else "the private one"
        raise ModelError(f"{path}: is the public half of a key, which signs nothing; name the private one, {private}")
    if ENCRYPTED not in data and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ModelError(f"{path}: is not encrypted, and others may read it: chmod 600 {path}, or make a new key")
    try:
        return private_from_pem(data, passphrase)
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error


def is_encrypted(path: Path) -> bool:
    """Whether a passphrase must be asked for. Raises ModelError if the file cannot be read."""
    return ENCRYPTED in _read(path)


def _judge_passphrase(passphrase: str | None, unencrypted: bool) -> None:
    if passphrase is None and not unencrypted:
        raise ModelError("a private key is not written without a passphrase unless that is asked for by name")
    if passphrase is not None and unencrypted:
        raise ModelError("a passphrase was given for a key that is to be unencrypted: choose one")
    if passphrase is not None and len(passphrase) < MIN_PASSPHRASE:
        raise ModelError(
            f"passphrase: {len(passphrase)} characters; expected {MIN_PASSPHRASE} or more, like four words"
        )


def _create(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise ModelError(f"{path}: exists already; a key is never replaced, choose another name") from error
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; the key was not written") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)
    except OSError as error:
        path.unlink()
        raise ModelError(f"{path}: {error.strerror}; the key was not written") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEY_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; expected a key in PEM form") from error
    if len(data) > _MAX_KEY_BYTES:
        raise ModelError(f"{path}: over {_MAX_KEY_BYTES} bytes; expected a key in PEM form")
    return data
