from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Callable

import pytest

from defectd.errors import ModelError
from defectd.models import ed25519
from defectd.models.envelope import MAX_SIGNATURES, Envelope, Signature, max_envelope_bytes, read_envelope
from defectd.models.trust import (
    PAYLOAD_COMMAND,
    PAYLOAD_MANIFEST,
    PAYLOAD_ROOT,
    Role,
    Root,
    TrustError,
    next_root,
    parse_root,
    read_root,
    root_to_json,
    verify,
    verify_envelope,
)
from support.bundles import (
    NOW,
    OPS_KEY,
    RELEASE_KEY,
    ROOT_KEY,
    STRANGER,
    keyid,
    make_root,
    private,
    public,
    sign,
    signed_root,
)

PAYLOAD = b'{"any": "bytes"}\n'


def refusal(envelope: bytes, root: Root | None = None, role: Any = "release", kind: str = PAYLOAD_MANIFEST) -> str:
    with pytest.raises(TrustError) as caught:
        verify_envelope(envelope, kind, root or make_root(), role, NOW)
    return str(caught.value)


def signed(*signers: int, kind: str = PAYLOAD_MANIFEST) -> bytes:
    return sign(PAYLOAD, kind, *signers).to_json()


def changed(envelope: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    fields = json.loads(envelope)
    change(fields)
    return (json.dumps(fields, indent=1) + "\n").encode()


# -- what is signed


def test_the_signed_bytes_are_those_of_the_dsse_specification() -> None:
    envelope = Envelope("http://example.com/HelloWorld", b"hello world")
    assert envelope.message() == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_the_exact_bytes_come_back_and_the_keys_that_signed_them() -> None:
    verified = verify(signed(RELEASE_KEY), PAYLOAD_MANIFEST, make_root(), "release", NOW)
    assert verified == (PAYLOAD, (keyid(RELEASE_KEY),), ())


def test_an_envelope_is_read_as_it_was_written() -> None:
    envelope = sign(PAYLOAD, PAYLOAD_MANIFEST, RELEASE_KEY, STRANGER)
    assert read_envelope(envelope.to_json(), PAYLOAD_MANIFEST) == envelope


def test_no_byte_of_an_envelope_can_be_changed() -> None:
    envelope, root = sign(b"{}", PAYLOAD_MANIFEST, RELEASE_KEY).to_json(), make_root()
    for index, byte in enumerate(envelope):
        for other in {byte ^ (1 << bit) for bit in range(8)} | set(b" \t\n") - {byte}:
            with pytest.raises(TrustError):
                verify_envelope(
                    envelope[:index] + bytes([other]) + envelope[index + 1 :], PAYLOAD_MANIFEST, root, "release", NOW
                )


def test_no_byte_of_an_envelope_can_be_missing_and_none_added() -> None:
    envelope = signed(RELEASE_KEY)
    assert len({refusal(envelope[:length]) for length in range(0, len(envelope), 7)}) > 1
    refusal(envelope + b"\n")
    refusal(b" " + envelope)


# -- what is no envelope


def test_size_is_judged_before_the_json() -> None:
    assert "bytes; expected at most" in refusal(b"[" * (max_envelope_bytes(PAYLOAD_MANIFEST) + 1))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"\xff\xfe[",
        b"[" * 100_000,
        b'{"payload":' * 100_000,
        b'{"a":' * 60 + b"[1]" + b"}" * 60,
        b'{"payload": ' + b"1" * 1_000_000 + b', "signatures": []}',
        b'{"payload": 1e999999, "signatures": []}',
        b'{"payload": NaN, "signatures": []}',
        b'{"payloadType": 1, "payload": 2, "signatures": [3]}',
        b'{"payloadType": "application/vnd.defectd.manifest+json", "payload": 2, "signatures": [3]}',
        b'{"payloadType": "application/vnd.defectd.manifest+json", "payload": "\\ud800", "signatures": []}',
    ],
)
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    refusal(data)
    refusal(data.decode("latin-1").encode("utf-16"))


def test_a_key_that_stands_twice_is_refused_whatever_a_parser_would_take() -> None:
    text = signed(RELEASE_KEY).decode()
    assert "twice" in refusal(text.replace('"payload":', '"payload": "AAAA",\n "payload":', 1).encode())


def test_base64_must_be_the_one_form() -> None:
    fields = json.loads(sign(b"1234", PAYLOAD_MANIFEST, RELEASE_KEY).to_json())
    assert fields["payload"] == "MTIzNA=="
    for other in ("MTIzNB==", "MTIzNA", "MTIz\nNA==", "MTIzNA==="):  # the first decodes to the same bytes
        refusal(changed(signed(RELEASE_KEY), lambda fields, other=other: fields.update(payload=other)))  # type: ignore[misc]


def test_unknown_fields_are_refused() -> None:
    refusal(changed(signed(RELEASE_KEY), lambda fields: fields.update(comment="x")))


def test_too_many_signatures_are_refused_before_any_is_verified() -> None:
    many = Envelope(
        PAYLOAD_MANIFEST, PAYLOAD, tuple(Signature(f"{index:064x}", bytes(64)) for index in range(MAX_SIGNATURES + 1))
    )
    assert "at most 64 signatures" in refusal(many.to_json())
    with pytest.raises(TrustError, match="at most 64"):
        Envelope(PAYLOAD_MANIFEST, PAYLOAD, many.signatures[:-1]).signed(keyid(1), bytes(64))


# -- whose signature it is


def test_a_signature_for_one_kind_of_bytes_is_none_for_another() -> None:
    command = signed(RELEASE_KEY, kind=PAYLOAD_COMMAND)
    assert "signed for something else" in refusal(command)
    relabelled = changed(command, lambda fields: fields.update(payloadType=PAYLOAD_MANIFEST))
    assert "does not fit" in refusal(relabelled)


def test_an_unknown_key_counts_for_nothing_and_is_named() -> None:
    message = refusal(signed(STRANGER))
    assert "signed by 0 key(s)" in message
    assert f"not counted: {keyid(STRANGER)[:12]} (unknown)" in message
    assert keyid(RELEASE_KEY)[:12] in message


def test_an_unknown_key_beside_a_known_one_does_no_harm() -> None:
    assert verify(signed(RELEASE_KEY, STRANGER), PAYLOAD_MANIFEST, make_root(), "release", NOW).ignored == (
        keyid(STRANGER),
    )


def test_who_commands_cannot_release_and_who_releases_cannot_command() -> None:
    assert f"{keyid(OPS_KEY)[:12]} (of the role 'ops')" in refusal(signed(OPS_KEY))
    assert "of the role 'release'" in refusal(
        signed(RELEASE_KEY, kind=PAYLOAD_COMMAND), role="ops", kind=PAYLOAD_COMMAND
    )


def test_a_root_without_the_role_verifies_nothing_for_it() -> None:
    whole = make_root()
    root = Root(1, None, whole.keys, {name: role for name, role in whole.roles.items() if name != "ops"})
    assert "no keys for the role 'ops'" in refusal(signed(OPS_KEY, kind=PAYLOAD_COMMAND), root, "ops", PAYLOAD_COMMAND)


def test_a_bad_signature_of_a_known_key_is_an_error_even_if_others_suffice() -> None:
    root = make_root(release=(RELEASE_KEY, 4))
    good = sign(PAYLOAD, PAYLOAD_MANIFEST, RELEASE_KEY)
    assert "does not fit" in refusal(good.signed(keyid(4), bytes(64)).to_json(), root)
    assert "does not fit" in refusal(
        good.signed(keyid(4), ed25519.sign(private(STRANGER), good.message())).to_json(), root
    )


# -- thresholds


def test_a_threshold_needs_so_many_keys() -> None:
    root = make_root(release=(2, 4, 5), thresholds=(1, 2, 1))
    assert "signed by 1 key(s) of the role 'release'; expected at least 2" in refusal(signed(2), root)
    assert verify_envelope(signed(5, 2), PAYLOAD_MANIFEST, root, "release", NOW) == PAYLOAD


def test_one_key_twice_in_an_envelope_is_refused() -> None:
    root = make_root(release=(2, 4), thresholds=(1, 2, 1))
    one = sign(PAYLOAD, PAYLOAD_MANIFEST, 2)
    doubled = Envelope(PAYLOAD_MANIFEST, PAYLOAD, one.signatures * 2)
    assert "two signatures of one key" in refusal(doubled.to_json(), root)


def test_one_key_cannot_have_two_ids() -> None:
    root = make_root()
    with pytest.raises(TrustError, match="is not the SHA-256 of its key"):
        Root(1, None, {**root.keys, "0" * 64: public(RELEASE_KEY)}, root.roles)


@pytest.mark.parametrize("threshold", [0, -1, 3])
def test_a_threshold_that_nobody_or_anybody_meets_makes_no_root(threshold: int) -> None:
    with pytest.raises(TrustError, match=r"roles\.release: expected a threshold from 1"):
        make_root(release=(2, 4), thresholds=(1, threshold, 1))


def test_a_key_counted_twice_in_a_role_makes_no_root() -> None:
    with pytest.raises(TrustError, match="each named once"):
        make_root(release=(2, 2), thresholds=(1, 2, 1))


def test_a_key_of_two_roles_makes_no_root() -> None:
    with pytest.raises(TrustError, match="a role needs keys of its own"):
        make_root(release=(2,), ops=(2,))


def test_a_role_with_a_key_that_is_not_there_makes_no_root() -> None:
    root = make_root()
    with pytest.raises(TrustError, match="there is no key"):
        Root(1, None, root.keys, {**root.roles, "ops": Role((keyid(STRANGER),), 1)})


def test_a_root_needs_keys_for_itself_and_for_releases() -> None:
    root = make_root()
    with pytest.raises(TrustError, match="expected keys for 'root' and 'release'"):
        Root(1, None, root.keys, {"root": root.roles["root"]})


# -- time


def test_an_expired_root_verifies_nothing() -> None:
    root = make_root(expires=NOW)
    assert "expired at 2026-06-01 12:00 UTC" in refusal(signed(RELEASE_KEY), root)
    assert verify_envelope(signed(RELEASE_KEY), PAYLOAD_MANIFEST, root, "release", NOW - timedelta(seconds=1))


def test_without_a_clock_expiry_is_not_judged() -> None:
    root = make_root(expires=NOW - timedelta(days=9))
    assert verify_envelope(signed(RELEASE_KEY), PAYLOAD_MANIFEST, root, "release", None) == PAYLOAD


# -- root.json


def test_a_root_is_read_back(tmp_path: Path) -> None:
    root = make_root(version=3, expires=NOW, release=(2, 4), thresholds=(1, 2, 1))
    (tmp_path / "root.json").write_bytes(signed_root(root, ROOT_KEY))
    assert read_root(tmp_path / "root.json") == root
    assert parse_root(root_to_json(root)) == root


def test_a_root_that_its_own_keys_did_not_sign_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "root.json"
    for signers in ((), (RELEASE_KEY,), (STRANGER,)):
        path.write_bytes(signed_root(make_root(), *signers))
        with pytest.raises(TrustError, match=f"{path}: signed by 0 key"):
            read_root(path)


def test_a_missing_root_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=r"No such file or directory; expected the root\.json"):
        read_root(tmp_path / "root.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 0}, "version"),
        ({"version": True}, "version"),
        ({"schema": "defectd.root/2.0"}, "schema"),
        ({"expires": "2030-01-01T00:00:00"}, "with its zone"),
        ({"keys": {}}, "keys"),
        ({"keys": {"AB" * 32: "00" * 32}}, "keys"),
        ({"roles": {"admin": {"keyids": ["00" * 32], "threshold": 1}}}, "roles"),
        ({"roles": {"root": {"keyids": ["00" * 32], "threshold": 0}}}, "threshold"),
        ({"more": 1}, "more"),
    ],
)
def test_the_error_in_a_root_is_named(change: dict[str, Any], message: str) -> None:
    fields = {**json.loads(root_to_json(make_root())), **change}
    with pytest.raises(TrustError, match=message):
        parse_root(json.dumps(fields).encode())


@pytest.mark.parametrize("payload", [b"", b"[" * 60_000, b'{"version": 1, "version": 2}', b"\xff", b"1" * 50_000])
def test_what_is_no_root_is_refused(payload: bytes) -> None:
    with pytest.raises(TrustError, match="root: "):
        parse_root(payload)


# -- rotation


def test_a_root_is_replaced_by_one_that_the_old_and_the_new_keys_sign() -> None:
    following = make_root(version=2, root=(11,), release=(12,))
    assert next_root(make_root(), signed_root(following, ROOT_KEY, 11), NOW) == following


@pytest.mark.parametrize(("signers", "version"), [((11,), 1), ((ROOT_KEY,), 2), ((), 1), ((STRANGER, 11), 1)])
def test_the_old_keys_alone_or_the_new_alone_do_not_suffice(signers: tuple[int, ...], version: int) -> None:
    following = make_root(version=2, root=(11,))
    with pytest.raises(TrustError, match=rf"signed by 0 key.*\(root, version {version}\)"):
        next_root(make_root(), signed_root(following, *signers), NOW)


def test_both_thresholds_are_needed() -> None:
    current = make_root(root=(1, 4), thresholds=(2, 1, 1))
    following = make_root(version=2, root=(4, 11, 12), thresholds=(2, 1, 1))
    with pytest.raises(TrustError, match=r"version 1\)"):
        next_root(current, signed_root(following, 4, 11), NOW)
    with pytest.raises(TrustError, match=r"version 2\)"):
        next_root(current, signed_root(following, 1, 4), NOW)
    assert next_root(current, signed_root(following, 1, 4, 11), NOW) == following


@pytest.mark.parametrize("version", [1, 3, 2**40])
def test_no_version_is_skipped_or_repeated(version: int) -> None:
    with pytest.raises(TrustError, match="one after the current"):
        next_root(make_root(version=1), signed_root(make_root(version=version), ROOT_KEY), NOW)


def test_an_older_root_does_not_come_back() -> None:
    with pytest.raises(TrustError, match="one after the current"):
        next_root(make_root(version=2), signed_root(make_root(version=1), ROOT_KEY), NOW)


def test_an_expired_root_is_replaced_by_a_valid_one_but_not_by_an_expired_one() -> None:
    current = make_root(expires=NOW - timedelta(days=400))
    stale = make_root(version=2, expires=NOW - timedelta(days=30))
    fresh = make_root(version=3, expires=NOW + timedelta(days=300))
    with pytest.raises(TrustError, match="version 2: expired"):
        next_root(current, signed_root(stale, ROOT_KEY), NOW)
    between = next_root(current, signed_root(stale, ROOT_KEY), None)
    assert next_root(between, signed_root(fresh, ROOT_KEY), NOW) == fresh


def test_a_key_that_the_next_root_leaves_out_releases_nothing_more() -> None:
    following = next_root(make_root(), signed_root(make_root(version=2, release=(12,)), ROOT_KEY), NOW)
    assert "signed by 0 key(s)" in refusal(signed(RELEASE_KEY), following)
    assert verify_envelope(signed(12), PAYLOAD_MANIFEST, following, "release", NOW) == PAYLOAD


def test_a_manifest_is_no_root() -> None:
    payload = root_to_json(make_root(version=2))
    with pytest.raises(TrustError, match="signed for something else"):
        next_root(make_root(), sign(payload, PAYLOAD_MANIFEST, ROOT_KEY).to_json(), NOW)
    with pytest.raises(TrustError, match="expected at most"):
        next_root(make_root(), b" " * (max_envelope_bytes(PAYLOAD_ROOT) + 1), NOW)


# -- the library


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    envelope, root = signed(RELEASE_KEY), make_root()
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(ModelError, match="pip install 'cryptography") as caught:
        verify_envelope(envelope, PAYLOAD_MANIFEST, root, "release", NOW)
    assert not isinstance(caught.value, TrustError)
