from __future__ import annotations

import json
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectd.errors import ModelError
from defectd.models.envelope import MAX_PAYLOAD_BYTES, PAYLOAD_COMMAND, PAYLOAD_MANIFEST, TrustError
from defectd.models.keys import keygen, read_public
from defectd.models.signing import Signer, sign_command
from defectd.models.trust import Role, Root, keyid_of
from defectd.rollout.command import Audience, Command, CommandError, Target, parse_command, read_command
from defectd.rollout.policy import Policy
from fuzz.mutations import mutate
from fuzz.targets import TARGETS, FuzzTarget
from support.bundles import NOW, OPS_KEY, RELEASE_KEY, make_root, sign

PYTHON_KEYS = {"schema": "schema_"}


def fields(**changes: Any) -> dict[str, Any]:
    """A deploy as it is written."""
    return {
        "schema": "defectd.command/1.0",
        "request_id": "0197-a",
        "seq": 12,
        "created": "2026-06-01T12:00:00Z",
        "expires": "2026-06-02T12:00:00Z",
        "audience": {"kind": "station", "value": "plant-1/smt/line-2/aoi-1"},
        "action": "deploy",
        "target": {"manifest_sha256": "ab" * 32, "release_seq": 7, "source": "server", "path": "pcb/1.4.0"},
        "policy": {"approval": True, "window": "22:00-04:30"},
        **changes,
    }


def parse(**changes: Any) -> Command:
    return parse_command(json.dumps(fields(**changes)).encode())


def refusal(payload: bytes) -> str:
    with pytest.raises(CommandError) as caught:
        parse_command(payload)
    message = str(caught.value)
    assert message.startswith("command: ")
    assert len(message) < 1000
    return message


def test_a_deploy_is_read() -> None:
    command = parse()
    assert command.audience == Audience(kind="station", value="plant-1/smt/line-2/aoi-1")
    assert command.target == Target(manifest_sha256="ab" * 32, release_seq=7, source="server", path="pcb/1.4.0")
    assert command.created == NOW
    assert (command.policy.approval, command.policy.shadow_units) == (True, 300)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"action": "rollback", "target": None},
        {"action": "rollback", "target": None, "of": "0197-z"},
        {"action": "cancel", "target": None, "of": "0197-z"},
        {"action": "approve", "target": None, "of": "0197-z"},
        {"created": "2026-06-01T14:00:00+02:00"},
        {"seq": 2**53},
    ],
)
def test_what_is_written_is_what_is_read(changes: dict[str, Any]) -> None:
    command = parse(**changes)
    assert parse_command(command.to_json()) == command


def test_the_same_command_is_always_the_same_bytes() -> None:
    assert parse(created="2026-06-01T14:00:00+02:00").to_json() == parse().to_json()


def test_a_time_made_here_is_written_in_whole_seconds_of_utc() -> None:
    here = timezone(timedelta(hours=2))
    given_fields = {PYTHON_KEYS.get(key, key): value for key, value in fields().items()}
    given_fields["created"] = datetime(2026, 6, 1, 14, 0, 0, 999_999, tzinfo=here)
    assert Command(**given_fields).to_json() == parse().to_json()


@given(
    st.builds(
        Command,
        request_id=st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
        seq=st.integers(1, 2**53),
        created=st.datetimes(datetime(2000, 1, 2), datetime(2500, 1, 1), timezones=st.just(timezone.utc)),
        expires=st.datetimes(datetime(2500, 1, 2), datetime(2999, 12, 30), timezones=st.just(timezone.utc)),
        audience=st.sampled_from([Audience(kind="site", value="plant-1"), Audience(kind="group", value="canary")]),
        action=st.sampled_from(["approve", "cancel"]),
        of=st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
        policy=st.builds(Policy, shadow_units=st.integers(0, 1_000_000), approval=st.booleans()),
    )
)
def test_whatever_can_be_said_survives_the_way(command: Command) -> None:
    assert parse_command(command.to_json()) == command


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        ("{'ä': 1}".encode(), "is not JSON"),
        (b"[" * 60_000, "nested too deeply"),
        (b'{"a":' * 10_000, "nested too deeply"),
        (b" " * (MAX_PAYLOAD_BYTES[PAYLOAD_COMMAND] + 1), "expected at most"),
        (b'{"seq": 1, "seq": 2}', "stands twice"),
        (b'{"seq": 1.5}', "whole numbers only"),
        (b'{"seq": NaN}', "whole numbers only"),
        (b'{"seq": ' + b"9" * 5000 + b"}", "5000 digits"),
        (b"[]", "got 'list'"),
        (b"null", "got 'NoneType'"),
        (b"{}", "schema: expected 'defectd.command/1.0', got None"),
        (json.dumps(fields(schema="defectd.command/2.0")).encode(), "update defectd"),
        (json.dumps(fields(schema="x" * 50_000)).encode(), "schema: expected"),
    ],
)
def test_what_is_no_command_is_said(payload: bytes, message: str) -> None:
    assert message in refusal(payload)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, "surprise: "),
        ({"schema_": "defectd.command/1.0"}, "schema_: "),
        ({"\x1b[2J" + "k" * 10_000: 1}, r"\x1b[2J"),
        ({"request_id": "a b"}, "request_id: "),
        ({"request_id": "a\n"}, "request_id: "),
        ({"request_id": ""}, "request_id: "),
        ({"request_id": "a" * 65}, "request_id: "),
        ({"request_id": "\ud800"}, "JSON"),
        ({"seq": 0}, "seq: "),
        ({"seq": 2**53 + 1}, "seq: "),
        ({"seq": "12"}, "seq: "),
        ({"seq": True}, "seq: "),
        ({"created": "2026-06-01T12:00:00"}, "created: expected a time with its zone"),
        ({"created": "2026-06-01"}, "created: expected a time with its zone"),
        ({"created": "1780315200"}, "created: expected a time with its zone"),
        ({"created": 1780315200}, "created: "),
        ({"created": "2026-06-31T12:00:00Z"}, "created: "),
        ({"created": "1970-01-01T00:00:00Z"}, "created: expected a year"),
        ({"created": "0001-01-01T00:00:00+23:59"}, "created: expected a year"),
        ({"expires": "9999-12-31T23:59:59-23:59"}, "expires: expected a year"),
        ({"expires": "2026-06-01T12:00:00Z"}, "expires: expected a time after `created`"),
        ({"audience": {"kind": "planet", "value": "earth"}}, "audience.kind: "),
        ({"audience": {"kind": "station", "value": "plant-1/smt/line-2"}}, "expected site/area/line/station"),
        ({"audience": {"kind": "line", "value": "plant-1/smt/line-2/aoi-1"}}, "expected site/area/line for a line"),
        ({"audience": {"kind": "site", "value": "plant-1/smt"}}, "expected site for a site"),
        ({"audience": {"kind": "group", "value": "#"}}, "expected group for a group"),
        ({"audience": {"kind": "line", "value": "plant-1//line-2"}}, "expected site/area/line"),
        ({"audience": {"kind": "site", "value": "+"}}, "expected site"),
        ({"action": "explode"}, "action: "),
        ({"target": None}, "target: needed for deploy"),
        ({"of": "x"}, "of: does not belong to deploy"),
        ({"action": "rollback"}, "target: does not belong to rollback"),
        ({"action": "approve", "target": None}, "of: expected the request_id of the rollout to approve"),
        ({"action": "cancel", "target": None}, "of: expected the request_id of the rollout to cancel"),
        ({"policy": {"approval": "yes"}}, "policy.approval: "),
        ({"policy": {"shadow_units": "300"}}, "policy.shadow_units: "),
        ({"policy": {"window": "25:00-01:00"}}, "policy.window: "),
        ({"policy": {"be_quick": True}}, "policy.be_quick: "),
        ({"policy": None}, "policy: "),
    ],
)
def test_a_mistake_is_named_by_its_key(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(json.dumps(fields(**changes)).encode())


@pytest.mark.parametrize(
    "path", ["", "/etc", "..", "a/../b", "a/./b", ".", "a//b", "a/", "a b", "a\\b", "https://x/y", "a" * 257, "a\n"]
)
def test_a_path_stays_below_its_source(path: str) -> None:
    assert "target.path: " in refusal(json.dumps(fields(target={**fields()["target"], "path": path})).encode())


@pytest.mark.parametrize(
    ("key", "value"),
    [("manifest_sha256", "AB" * 32), ("release_seq", 0), ("source", "https://x"), ("source", "a/b"), ("url", "x")],
)
def test_a_target_names_a_release_and_a_configured_source(key: str, value: object) -> None:
    assert f"target.{key}: " in refusal(json.dumps(fields(target={**fields()["target"], key: value})).encode())


# -- signed ------------------------------------------------------------------------------------------------------


def test_a_signed_command_is_read_with_the_bytes_that_were_signed() -> None:
    payload = json.dumps(fields()).encode()
    command, signed = read_command(sign(payload, PAYLOAD_COMMAND, OPS_KEY).to_json(), make_root(), NOW)
    assert (command, signed) == (parse(), payload)


def test_a_release_key_commands_nobody() -> None:
    envelope = sign(parse().to_json(), PAYLOAD_COMMAND, RELEASE_KEY).to_json()
    with pytest.raises(TrustError, match=r"role 'ops'.*of the role 'release'"):
        read_command(envelope, make_root(), NOW)


def test_a_signed_manifest_is_no_command() -> None:
    envelope = sign(parse().to_json(), PAYLOAD_MANIFEST, OPS_KEY).to_json()
    with pytest.raises(TrustError, match="payloadType"):
        read_command(envelope, make_root(), NOW)


def test_a_root_without_ops_keys_takes_no_commands() -> None:
    full = make_root()
    roles = {name: role for name, role in full.roles.items() if name != "ops"}
    root = Root(1, None, full.keys, roles)
    with pytest.raises(TrustError, match="names no keys for the role 'ops'"):
        read_command(sign(parse().to_json(), PAYLOAD_COMMAND, OPS_KEY).to_json(), root, NOW)


def test_what_was_signed_wrongly_is_not_parsed() -> None:
    envelope = sign(b"not even JSON", PAYLOAD_COMMAND, RELEASE_KEY).to_json()
    with pytest.raises(TrustError):
        read_command(envelope, make_root(), NOW)


def test_nonsense_of_the_right_signer_is_a_command_error() -> None:
    with pytest.raises(CommandError, match="is not JSON"):
        read_command(sign(b"nonsense", PAYLOAD_COMMAND, OPS_KEY).to_json(), make_root(), NOW)


def test_an_expired_root_commands_nothing_unless_the_clock_is_unknown() -> None:
    root = make_root(expires=NOW)
    envelope = sign(parse().to_json(), PAYLOAD_COMMAND, OPS_KEY).to_json()
    with pytest.raises(TrustError, match="expired"):
        read_command(envelope, root, NOW)
    assert read_command(envelope, root, None).command == parse()


def root_of(*keys: Path) -> Root:
    """All of these must sign a command."""
    publics = [read_public(key.with_name(key.name + ".pub")) for key in keys]
    known = make_root()
    roles = {**known.roles, "ops": Role(tuple(keyid_of(one) for one in publics), len(keys))}
    return Root(1, None, {**known.keys, **{keyid_of(one): one for one in publics}}, roles)


def test_several_people_sign_one_command(tmp_path: Path) -> None:
    for name in ("anna", "ben"):
        keygen(tmp_path / name, None, unencrypted=True)
    root = root_of(tmp_path / "anna", tmp_path / "ben")
    payload = parse().to_json()
    anna, ben = Signer(tmp_path / "anna", None), Signer(tmp_path / "ben", None)
    assert read_command(sign_command(payload, [anna, ben]), root, NOW).payload == payload
    with pytest.raises(TrustError, match="signed by 1 key"):
        read_command(sign_command(payload, [anna]), root, NOW)


def test_signing_the_same_command_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    keygen(tmp_path / "anna", None, unencrypted=True)
    signers = [Signer(tmp_path / "anna", None)]
    assert sign_command(parse().to_json(), signers) == sign_command(parse().to_json(), signers)


@pytest.mark.parametrize("size", [0, MAX_PAYLOAD_BYTES[PAYLOAD_COMMAND] + 1])
def test_what_no_station_would_read_is_not_signed(tmp_path: Path, size: int) -> None:
    keygen(tmp_path / "anna", None, unencrypted=True)
    with pytest.raises(ModelError, match=f"{size} bytes"):
        sign_command(b" " * size, [Signer(tmp_path / "anna", None)])


def test_a_command_without_a_signer_is_not_made() -> None:
    with pytest.raises(ModelError, match=r"0 key\(s\)"):
        sign_command(parse().to_json(), [])


def test_a_key_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        sign_command(parse().to_json(), [Signer(tmp_path / "nobody", None)])


# -- a slice of the fuzzing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_seeds_of_the_fuzzing_are_read(target: FuzzTarget) -> None:
    assert all(target.accepts(seed) for seed in target.seeds)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_whatever_arrives_ends_in_an_error_for_people_or_in_nothing(target: FuzzTarget) -> None:
    chance = random.Random(20_260_601)
    accepted = sum(target.accepts(mutate(chance.choice(target.seeds), chance)) for _ in range(1500))
    assert accepted < 1500
