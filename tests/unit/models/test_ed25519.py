from __future__ import annotations

import sys

import pytest

from defectd.errors import ModelError
from defectd.models.ed25519 import (
    private_from_pem,
    private_to_pem,
    public_from_pem,
    public_of,
    public_to_pem,
    sign,
    verifies,
)

PASSPHRASE = "Prüfstraße, vier Wörter"
PRIVATE = bytes(range(32))

# RFC 8032, section 7.1, tests 1 to 3: private, public, message, signature
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655"
        "141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00"
        "d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc02"
        "7beceea1ec40a",
    ),
]


@pytest.mark.parametrize("vector", VECTORS)
def test_keys_and_signatures_are_those_of_the_standard(vector: tuple[str, str, str, str]) -> None:
    private, public, message, signature = (bytes.fromhex(part) for part in vector)
    assert public_of(private) == public
    assert sign(private, message) == signature
    assert verifies(public, signature, message)
    assert not verifies(public, signature, message + b".")


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), b"\xff" * 32])
def test_what_is_no_key_verifies_nothing(public: bytes) -> None:
    assert not verifies(public, bytes(64), b"")


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65), b"\xff" * 64])
def test_what_is_no_signature_fits_nothing(signature: bytes) -> None:
    assert not verifies(public_of(PRIVATE), signature, b"")


def test_a_signature_with_the_order_of_the_group_added_does_not_fit() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    signature = sign(PRIVATE, b"message")
    other = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    assert not verifies(public_of(PRIVATE), signature[:32] + other, b"message")


def test_a_public_key_is_read_as_it_was_written() -> None:
    assert public_from_pem(public_to_pem(public_of(PRIVATE))) == public_of(PRIVATE)
    with pytest.raises(ValueError, match="no public key"):
        public_from_pem(b"junk")


def test_an_unencrypted_private_key_is_read_as_it_was_written() -> None:
    assert private_from_pem(private_to_pem(PRIVATE, None), None) == PRIVATE
    assert private_from_pem(private_to_pem(PRIVATE, None), PASSPHRASE) == PRIVATE
    with pytest.raises(ValueError, match="no private key"):
        private_from_pem(b"junk", None)


def test_an_encrypted_private_key_opens_with_its_passphrase_only() -> None:
    pem = private_to_pem(PRIVATE, PASSPHRASE)
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert private_from_pem(pem, PASSPHRASE) == PRIVATE
    with pytest.raises(ValueError, match="wrong passphrase"):
        private_from_pem(pem, PASSPHRASE + " ")
    for nothing in (None, ""):
        with pytest.raises(ValueError, match="its passphrase is needed"):
            private_from_pem(pem, nothing)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(ModelError, match="pip install 'cryptography"):
        verifies(bytes(32), bytes(64), b"")
