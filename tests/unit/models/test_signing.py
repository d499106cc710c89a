from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from defectd.errors import ModelError
from defectd.models.bundle import open_bundle
from defectd.models.ed25519 import sign
from defectd.models.keys import keygen, read_private, read_public
from defectd.models.manifest import ENVELOPE, MANIFEST
from defectd.models.signing import (
    RoleKeys,
    Signer,
    attach_signature,
    make_root,
    message_to_sign,
    rotate_root,
    sign_bundle,
    sign_root,
)
from defectd.models.trust import TrustError, keyid_of, next_root, read_root
from support.bundles import NOW, write_bundle

PASSPHRASE = "four words are enough"
ANOTHER_KIND_OF_KEY = b"""\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEpt6B3Ys9qBL6KrNZ6Lyn/oSbSs59
XJPql5sXETC/Jzy5/FSEOlH5E9wsaWGSPGrQiZMx67zQK5Orzmw8NEzvqg==
-----END PUBLIC KEY-----
"""  # ECDSA, P-256


class Keys:
    """Key files by name, made when they are asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __getitem__(self, name: str) -> Path:
        path = self.directory / name
        if not path.exists():
            keygen(path, None, unencrypted=True)
        return path

    def public(self, *names: str, threshold: int = 1) -> RoleKeys:
        return RoleKeys([self[name].with_name(f"{name}.pub") for name in names], threshold)

    def signers(self, *names: str) -> list[Signer]:
        return [Signer(self[name], None) for name in names]

    def id(self, name: str) -> str:
        return keyid_of(read_public(self[name].with_name(f"{name}.pub")))


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    (tmp_path / "keys").mkdir()
    return Keys(tmp_path / "keys")


@pytest.fixture
def root(keys: Keys, tmp_path: Path) -> Path:
    path = tmp_path / "root.json"
    roles: Any = {"root": keys.public("root"), "release": keys.public("release")}
    assert make_root(path, roles, expires=None, signers=keys.signers("root")) == ()
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


# -- keys


def test_a_private_key_is_encrypted_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "release.key"
    keyid = keygen(path, PASSPHRASE)
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keyid_of(read_public(tmp_path / "release.key.pub")) == keyid
    read_private(path, PASSPHRASE)
    for wrong, message in (("four words are not", "wrong passphrase"), ("", "passphrase is needed")):
        with pytest.raises(ModelError, match=message):
            read_private(path, wrong)


def test_an_unencrypted_key_is_written_only_if_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "release.key"
    for passphrase, unencrypted in ((None, False), ("", False), ("", True), ("too short", False), (PASSPHRASE, True)):
        with pytest.raises(ModelError, match="passphrase"):
            keygen(path, passphrase, unencrypted=unencrypted)
    assert list(tmp_path.iterdir()) == []
    keygen(path, None, unencrypted=True)
    read_private(path, None)


def test_an_unencrypted_key_that_others_may_read_signs_nothing(keys: Keys) -> None:
    keys["release"].chmod(0o644)
    with pytest.raises(ModelError, match="others may read it: chmod 600"):
        read_private(keys["release"], None)


def test_the_public_half_given_to_sign_with_is_called_so_whoever_may_read_it(keys: Keys) -> None:
    public = keys["release"].with_name("release.pub")
    for mode in (0o644, 0o600):
        public.chmod(mode)
        with pytest.raises(ModelError, match=r"is the public half of a key, .*; name the private one, release$"):
            read_private(public, None)


def test_no_key_is_ever_replaced(keys: Keys, tmp_path: Path) -> None:
    before = keys["release"].read_bytes()
    with pytest.raises(ModelError, match="exists already"):
        keygen(keys["release"], None, unencrypted=True)
    assert keys["release"].read_bytes() == before
    (tmp_path / "new.pub").touch()
    with pytest.raises(ModelError, match=r"new\.pub: exists already"):
        keygen(tmp_path / "new", None, unencrypted=True)
    assert not (tmp_path / "new").exists()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError):
        keygen(tmp_path / "link", None, unencrypted=True)
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file or directory; the key was not written"):
        keygen(tmp_path / "nowhere" / "key", None, unencrypted=True)


def test_what_is_no_key_is_named(keys: Keys, tmp_path: Path) -> None:
    junk, big, other = tmp_path / "junk", tmp_path / "big", tmp_path / "other"
    junk.write_bytes(b"junk")
    big.write_bytes(bytes(100_000))
    junk.chmod(0o600)
    other.write_bytes(ANOTHER_KIND_OF_KEY)
    for path, message in (
        (junk, "no public key"),
        (big, "over 16384 bytes"),
        (other, "not an Ed25519 key"),
        (keys["release"], r"name the public one beside it, release\.pub"),
        (tmp_path / "none", "No such file"),
    ):
        with pytest.raises(ModelError, match=message):
            read_public(path)
    with pytest.raises(ModelError, match="no private key"):
        read_private(junk, None)


# -- bundles


def test_a_signed_bundle_opens_with_the_root(keys: Keys, root: Path, directory: Path) -> None:
    assert sign_bundle(directory, keys["release"], None) == (keys.id("release"),)
    assert open_bundle(directory, read_root(root), now=NOW).signed_by == (keys.id("release"),)
    assert {path.name for path in directory.iterdir()} >= {MANIFEST, ENVELOPE}


def test_to_sign_again_changes_nothing(keys: Keys, directory: Path) -> None:
    sign_bundle(directory, keys["release"], None)
    before = (directory / ENVELOPE).read_bytes()
    sign_bundle(directory, keys["release"], None)
    assert (directory / ENVELOPE).read_bytes() == before


def test_two_people_sign_one_bundle(keys: Keys, tmp_path: Path, directory: Path) -> None:
    roles: Any = {"root": keys.public("root"), "release": keys.public("anna", "ben", "cem", threshold=2)}
    make_root(tmp_path / "two.json", roles, expires=None, signers=keys.signers("root"))
    root = read_root(tmp_path / "two.json")
    sign_bundle(directory, keys["ben"], None)
    with pytest.raises(TrustError, match="expected at least 2"):
        open_bundle(directory, root, now=NOW)
    assert set(sign_bundle(directory, keys["anna"], None)) == {keys.id("anna"), keys.id("ben")}
    assert set(open_bundle(directory, root, now=NOW).signed_by) == {keys.id("anna"), keys.id("ben")}


def test_a_bundle_that_is_not_whole_is_not_signed(keys: Keys, directory: Path) -> None:
    (directory / "model.onnx").write_bytes(b"the same n3twork")
    with pytest.raises(ModelError, match="its SHA-256 is not the manifest's"):
        sign_bundle(directory, keys["release"], None)
    assert not (directory / ENVELOPE).exists()


def test_an_envelope_of_another_manifest_is_not_signed_on(keys: Keys, directory: Path) -> None:
    sign_bundle(directory, keys["release"], None)
    (directory / MANIFEST).write_bytes((directory / MANIFEST).read_bytes() + b"\n")
    before = (directory / ENVELOPE).read_bytes()
    with pytest.raises(ModelError, match="remove it to sign anew"):
        sign_bundle(directory, keys["anna"], None)
    (directory / ENVELOPE).write_bytes(b"{}")
    with pytest.raises(ModelError, match="remove it to sign anew"):
        sign_bundle(directory, keys["anna"], None)
    assert before


def test_a_key_that_never_leaves_its_module_can_sign(keys: Keys, directory: Path, root: Path, tmp_path: Path) -> None:
    signature = sign(read_private(keys["release"], None), message_to_sign(directory))
    public = keys.public("release").public[0]
    assert attach_signature(directory, public, signature) == (keys.id("release"),)
    assert open_bundle(directory, read_root(root), now=NOW)
    with pytest.raises(ModelError, match="is not one of key"):
        attach_signature(directory, public, bytes(64))
    with pytest.raises(ModelError, match="is not one of key"):
        attach_signature(directory, public, b"")
    signature = sign(read_private(keys["root"], None), message_to_sign(root))
    attach_signature(root, keys.public("root").public[0], signature)
    read_root(root)


# -- roots


def test_a_root_waits_for_the_signatures_that_it_needs(keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "root2.json"
    roles: Any = {"root": keys.public("anna", "ben", "cem", threshold=2), "release": keys.public("release")}
    (lacking,) = make_root(path, roles, expires=NOW, signers=keys.signers("anna"))
    assert lacking == f"1 more of the root keys of version 1: {keys.id('ben')[:12]}, {keys.id('cem')[:12]}"
    with pytest.raises(TrustError, match="expected at least 2"):
        read_root(path)
    assert sign_root(path, Signer(keys["cem"], None)) == ()
    assert read_root(path).expires == NOW


def test_a_root_is_rotated_with_old_and_new_keys(keys: Keys, root: Path, tmp_path: Path) -> None:
    following, current = tmp_path / "2.root.json", read_root(root)
    roles: Any = {"root": keys.public("newroot"), "ops": keys.public("ops")}
    expires = NOW + timedelta(days=365)
    (lacking,) = rotate_root(root, following, roles, expires=expires, signers=keys.signers("newroot"))
    assert "of version 1" in lacking
    with pytest.raises(TrustError):
        next_root(current, following.read_bytes(), NOW)
    assert sign_root(following, Signer(keys["root"], None), root) == ()
    rotated = next_root(current, following.read_bytes(), NOW)
    assert read_root(following) == rotated
    assert (rotated.version, rotated.roles["release"]) == (2, current.roles["release"])
    assert keys.id("root") not in rotated.keys
    assert set(rotated.roles) == {"root", "release", "ops"}


def test_a_release_key_is_revoked_by_leaving_it_out(keys: Keys, root: Path, directory: Path, tmp_path: Path) -> None:
    sign_bundle(directory, keys["release"], None)
    roles: Any = {"release": keys.public("newrelease")}
    rotate_root(root, tmp_path / "2.json", roles, expires=None, signers=keys.signers("root"))
    rotated = next_root(read_root(root), (tmp_path / "2.json").read_bytes(), NOW)
    with pytest.raises(TrustError, match="signed by 0 key"):
        open_bundle(directory, rotated, now=NOW)


def test_a_root_of_a_later_version_is_signed_beside_the_current_one(keys: Keys, root: Path, tmp_path: Path) -> None:
    rotate_root(root, tmp_path / "2.json", {}, expires=None, signers=[])
    with pytest.raises(ModelError, match="is version 2; name the root of version 1 with it"):
        sign_root(tmp_path / "2.json", Signer(keys["root"], None))


def test_no_root_is_replaced_and_none_signed_by_a_stranger(keys: Keys, root: Path, tmp_path: Path) -> None:
    roles: Any = {"root": keys.public("root"), "release": keys.public("release")}
    before = root.read_bytes()
    with pytest.raises(ModelError, match="exists already"):
        make_root(root, roles, expires=None, signers=[])
    for out in (root, tmp_path / "2.json"):
        with pytest.raises(ModelError, match=r"is no root key|exists already"):
            rotate_root(root, out, {}, expires=None, signers=keys.signers("stranger"))
    assert root.read_bytes() == before and not (tmp_path / "2.json").exists()


def test_one_key_for_two_roles_makes_no_root(keys: Keys, tmp_path: Path) -> None:
    roles: Any = {"root": keys.public("root"), "release": keys.public("root")}
    with pytest.raises(TrustError, match="a role needs keys of its own"):
        make_root(tmp_path / "x.json", roles, expires=None, signers=[])


def test_what_is_no_root_is_not_signed(keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"{}")
    for path in (tmp_path / "x.json", tmp_path / "none.json"):
        with pytest.raises(ModelError, match=str(path)):
            sign_root(path, Signer(keys["root"], None))
