"""Ed25519 (RFC 8032) on bare bytes, and its keys as PEM: the one module that imports `cryptography`, when it is needed.

A private key is its 32-byte seed, a public key 32 bytes, a signature 64. Every function raises ModelError if the
package is missing.
"""
# ruff: noqa: PLC0415 (a station that trusts no root needs no cryptography)

from __future__ import annotations

import base64
import hashlib
import os
import warnings

from defectd.errors import ModelError

ENCRYPTED = b"BEGIN ENCRYPTED PRIVATE KEY"
_SCRYPT = {"n": 2**14, "r": 8, "p": 5}  # 0.3 s and 16 MB a guess; OpenSSL reads no larger n
_OID_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_OID_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_OID_AES_256_CBC = bytes.fromhex("060960864801650304012a")


def verifies(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether *signature* is one of the key over *message*; False for what is no key or no signature, too."""
    _require()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def sign(private: bytes, message: bytes) -> bytes:
    """64 bytes, the same each time."""
    _require()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private).sign(message)


def public_of(private: bytes) -> bytes:
    """The key that verifies what *private* signs."""
    _require()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = Ed25519PrivateKey.from_private_bytes(private).public_key()
    return public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def public_to_pem(public: bytes) -> bytes:
    """As SubjectPublicKeyInfo, which OpenSSL and key services read."""
    _require()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(public)
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_from_pem(pem: bytes) -> bytes:
    """The other way. Raises ValueError, which says what the key is instead."""
    _require()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise ValueError("is no public key in PEM form") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("is not an Ed25519 key")  # noqa: TRY004 (of the file, not of an argument)
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def private_to_pem(private: bytes, passphrase: str | None) -> bytes:
    """As PKCS #8; under *passphrase*, if there is one, with scrypt and AES-256."""
    _require()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(private)
    form = serialization.PrivateFormat.PKCS8
    if passphrase is None:
        return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    plain = key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())
    return _encrypted_pem(plain, passphrase.encode())


def private_from_pem(pem: bytes, passphrase: str | None) -> bytes:
    """The other way, also for what OpenSSL wrote. Raises ValueError, which says what is wrong."""
    _require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    encrypted = ENCRYPTED in pem
    if encrypted and not passphrase:
        raise ValueError("is encrypted; its passphrase is needed")
    try:
        key = serialization.load_pem_private_key(pem, passphrase.encode() if encrypted and passphrase else None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("wrong passphrase, or damaged" if encrypted else "is no private key in PEM form") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("is not an Ed25519 key")  # noqa: TRY004 (of the file, not of an argument)
    raw = serialization.Encoding.Raw, serialization.PrivateFormat.Raw
    return key.private_bytes(*raw, serialization.NoEncryption())


def _encrypted_pem(plain: bytes, passphrase: bytes) -> bytes:
    """EncryptedPrivateKeyInfo (RFC 5958) by PBES2 (RFC 8018) with scrypt (RFC 7914, section 7).

    By hand, because the library derives the key with 2048 rounds of PBKDF2, of which a graphics card tries millions of
    passphrases a second. It reads this form, as OpenSSL does.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    salt, initial = os.urandom(16), os.urandom(16)
    key = hashlib.scrypt(passphrase, salt=salt, dklen=32, maxmem=64 * 1024**2, **_SCRYPT)
    padding = 16 - len(plain) % 16
    cipher = Cipher(algorithms.AES(key), modes.CBC(initial)).encryptor()
    encrypted = cipher.update(plain + bytes([padding]) * padding) + cipher.finalize()
    derivation = _sequence(_OID_SCRYPT, _sequence(_octets(salt), *(_integer(value) for value in _SCRYPT.values())))
    encryption = _sequence(_OID_AES_256_CBC, _octets(initial))
    der = _sequence(_sequence(_OID_PBES2, _sequence(derivation, encryption)), _octets(encrypted))
    text = base64.b64encode(der)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return b"\n".join(
        [b"-----" + ENCRYPTED + b"-----", *lines, b"-----" + ENCRYPTED.replace(b"BEGIN", b"END") + b"-----\n"]
    )


def _sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, b"".join(parts))


def _octets(data: bytes) -> bytes:
    return _tagged(0x04, data)


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tagged(tag: int, data: bytes) -> bytes:
    """DER of less than 256 bytes."""
    return bytes([tag, len(data)] if len(data) < 128 else [tag, 0x81, len(data)]) + data


def _require() -> None:
    try:
        with warnings.catch_warnings():  # the last release for Python 3.8 says at each start that it is the last
            warnings.filterwarnings("ignore", "Python 3.8 is no longer supported")
            import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"signatures need the package cryptography ({error}): pip install 'cryptography>=41'"
        ) from error
