from __future__ import annotations

import json
from datetime import timedelta

import pytest

from defectd.errors import ModelError, SettingsError
from defectd.models import ed25519
from defectd.models.signing import Signer
from defectd.rollout.command import read_command
from defectd.technician.order import choose, order, policy_of, signed
from defectd.technician.places import audience
from support.bundles import NOW, OPS_KEY, make_root, manifest_fields, private


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "bundle" / "manifest.json"
    path.parent.mkdir()
    path.write_text(json.dumps(manifest_fields()))
    return path


def test_a_command_is_what_was_chosen_and_stations_believe_it(tmp_path, manifest):
    key = tmp_path / "ops.key"
    key.write_bytes(ed25519.private_to_pem(private(OPS_KEY), None))
    key.chmod(0o600)
    chosen = choose(manifest, "usb", "/pcb/1.4.0/", NOW)
    asked = order("deploy", policy_of({"approval": True}), chosen.target)
    envelope = signed(asked, audience("line", "a/b/c"), 8, 3600, NOW, [Signer(key, None)])
    command = read_command(envelope, make_root(), NOW).command
    assert (command.request_id, command.seq, command.action) == (asked.request_id, 8, "deploy")
    assert command.target == chosen.target and command.target.path == "pcb/1.4.0" and command.policy.approval
    assert command.expires - command.created == timedelta(hours=1)


def test_a_bundle_that_nobody_signed_is_not_offered(manifest):
    with pytest.raises(ModelError, match="is not signed, so no station takes it; first: defectd model sign"):
        choose(manifest.parent, "usb", "pcb", NOW)
    (manifest.parent / "manifest.sig.json").write_text("{}")
    assert choose(manifest.parent, "usb", "pcb", NOW).manifest.name == "pcb"


def test_a_bundle_that_has_expired_is_not_offered(manifest):
    manifest.write_text(json.dumps(manifest_fields(expires="2026-05-02T00:00:00Z")))
    with pytest.raises(ModelError, match="expired at 2026-05-02"):
        choose(manifest, "usb", "pcb", NOW)


@pytest.mark.parametrize(("source", "path", "named"), [("usb", "../pcb", "--path"), ("a b", "pcb", "--source")])
def test_a_wrong_place_of_the_bundle_is_named(manifest, source, path, named):
    with pytest.raises(SettingsError, match=f"^{named}: got .*expected"):
        choose(manifest, source, path, NOW)


def test_a_missing_bundle_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere: No such file.*expected a bundle's directory, or its manifest.json"):
        choose(tmp_path / "nowhere", "usb", "pcb", NOW)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shadow_units": -1}, "--shadow-units: got -1, expected: input should be greater than or equal to 0"),
        ({"window": "9"}, "--window: got '9', expected: begin only then"),
    ],
)
def test_a_wrong_policy_is_named_by_its_flag(given, message):
    with pytest.raises(SettingsError, match=message):
        policy_of(given)
