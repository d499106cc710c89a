from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectd.errors import ModelError
from defectd.models.bundle import as_json, check_compatible, describe, open_bundle
from defectd.models.envelope import PAYLOAD_COMMAND
from defectd.models.manifest import ENVELOPE, MANIFEST, MAX_MANIFEST_BYTES, Manifest
from defectd.models.trust import Root, TrustError
from support.bundles import NOW, OPS_KEY, RELEASE_KEY, STRANGER, keyid, make_root, manifest_fields, sign, write_bundle


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", RELEASE_KEY)


def refusal(directory: Path, root: Root | None = None, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        open_bundle(directory, root or make_root(), now=NOW, **options)
    message = str(caught.value)
    assert str(directory) in message
    return message


# -- what is opened


def test_a_signed_bundle_is_opened(directory: Path) -> None:
    bundle = open_bundle(directory, make_root(), now=NOW)
    assert bundle.manifest.name == "pcb"
    assert bundle.signed_by == (keyid(RELEASE_KEY),)
    assert bundle.path("onnx") == directory / "model.onnx"
    assert bundle.path("exported_program") is None


def test_every_byte_of_every_file_counts(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory, root = write_bundle(tmp_path_factory.mktemp("flip") / "bundle", RELEASE_KEY), make_root()
    originals = {path.name: path.read_bytes() for path in sorted(directory.iterdir())}
    assert set(originals) == {MANIFEST, ENVELOPE, "model.torchscript", "model.onnx", "golden-0001.png"}

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from(sorted(originals)), st.integers(0, 2**20), st.integers(1, 255))
    def flip(name: str, position: int, mask: int) -> None:
        data = bytearray(originals[name])
        data[position % len(data)] ^= mask
        (directory / name).write_bytes(data)
        try:
            with pytest.raises(ModelError):
                open_bundle(directory, root, now=NOW)
        finally:
            (directory / name).write_bytes(originals[name])

    flip()
    open_bundle(directory, root, now=NOW)


def test_every_file_is_needed_in_full(directory: Path) -> None:
    for path in directory.iterdir():
        whole = path.read_bytes()
        for data in (b"", whole[:-1], whole + b"\n"):
            path.write_bytes(data)
            refusal(directory)
        path.unlink()
        refusal(directory)
        path.write_bytes(whole)
    open_bundle(directory, make_root(), now=NOW)


# -- whose it is


def test_the_signature_is_judged_before_the_manifest_is_parsed(tmp_path: Path) -> None:
    directory = write_bundle(tmp_path / "bundle", STRANGER)
    (directory / MANIFEST).write_bytes(b"[" * 1000)
    assert "signed by 0 key(s)" in refusal(directory)


def test_a_manifest_replaced_after_signing_is_refused(directory: Path) -> None:
    other = json.dumps(manifest_fields(release_seq=8)).encode()
    (directory / MANIFEST).write_bytes(other)
    assert f"was changed since {ENVELOPE} was signed" in refusal(directory)
    assert "was changed since" in refusal(directory, allow_unsigned=True)


def test_the_same_manifest_in_other_bytes_is_refused(directory: Path) -> None:
    fields = json.loads((directory / MANIFEST).read_bytes())
    (directory / MANIFEST).write_text(json.dumps(fields, indent=2))
    assert "was changed since" in refusal(directory)


def test_a_signed_command_is_no_signed_manifest(directory: Path) -> None:
    data = (directory / MANIFEST).read_bytes()
    (directory / ENVELOPE).write_bytes(sign(data, PAYLOAD_COMMAND, RELEASE_KEY).to_json())
    assert "signed for something else" in refusal(directory)


def test_a_key_of_another_role_does_not_release(tmp_path: Path) -> None:
    assert "of the role 'ops'" in refusal(write_bundle(tmp_path / "bundle", OPS_KEY))


def test_an_expired_bundle_is_refused_only_where_the_time_is_known(tmp_path: Path) -> None:
    directory = write_bundle(tmp_path / "bundle", RELEASE_KEY, expires="2026-06-01T12:00:00Z")
    assert "expired at 2026-06-01 12:00 UTC" in refusal(directory)
    open_bundle(directory, make_root(), now=NOW - timedelta(seconds=1))
    open_bundle(directory, make_root(), now=None)


def test_an_expired_root_verifies_no_bundle(directory: Path) -> None:
    assert "root, version 1: expired" in refusal(directory, make_root(expires=NOW - timedelta(days=1)))


def test_an_unsigned_bundle_is_opened_only_where_that_is_asked_for(tmp_path: Path) -> None:
    directory = write_bundle(tmp_path / "bundle")
    assert "is not signed" in refusal(directory)
    with pytest.raises(TrustError, match=r"no root\.json"):
        open_bundle(directory, None, now=NOW)
    for root in (None, make_root()):
        bundle = open_bundle(directory, root, now=NOW, allow_unsigned=True)
        assert (bundle.signed_by, bundle.claimed_by) == ((), ())


def test_a_signature_that_can_be_judged_must_be_good_even_where_none_is_needed(tmp_path: Path) -> None:
    directory = write_bundle(tmp_path / "bundle", STRANGER)
    assert "signed by 0 key(s)" in refusal(directory, allow_unsigned=True)
    bundle = open_bundle(directory, None, now=NOW, allow_unsigned=True)
    assert (bundle.signed_by, bundle.claimed_by) == ((), (keyid(STRANGER),))


# -- the files


def test_a_missing_file_is_named(directory: Path) -> None:
    (directory / "model.onnx").unlink()
    assert "missing: 'model.onnx'" in refusal(directory)


def test_a_file_too_many_is_named_whatever_it_is(directory: Path) -> None:
    for name in ("payload.so", ".DS_Store", "\x1b[2J", os.fsdecode(b"\xff")):
        (directory / name).touch()
        message = refusal(directory)
        assert f"not in the manifest: {name!r}" in message
        assert message.isprintable()
        (directory / name).unlink()
    (directory / "sub").mkdir()
    assert "not in the manifest: 'sub'" in refusal(directory)


def test_a_thousand_files_too_many_make_a_short_message(directory: Path) -> None:
    for index in range(1000):
        (directory / f"x{index:04}").touch()
    assert refusal(directory).count("'x") == 5


@pytest.mark.parametrize("name", ["model.onnx", MANIFEST, ENVELOPE])
def test_a_symbolic_link_is_no_file_of_the_bundle(directory: Path, tmp_path: Path, name: str) -> None:
    (directory / name).rename(tmp_path / "elsewhere")
    (directory / name).symlink_to(tmp_path / "elsewhere")
    assert f"{name}: is a symbolic link" in refusal(directory)


def test_a_link_to_nowhere_is_not_an_unsigned_bundle(directory: Path) -> None:
    (directory / ENVELOPE).unlink()
    (directory / ENVELOPE).symlink_to("nowhere")
    refusal(directory, allow_unsigned=True)


@pytest.mark.parametrize("name", ["model.onnx", MANIFEST, ENVELOPE])
def test_a_pipe_is_not_waited_for(directory: Path, name: str) -> None:
    (directory / name).unlink()
    os.mkfifo(directory / name)
    assert f"{name}: is not a regular file" in refusal(directory)


def test_a_directory_in_place_of_a_file_is_refused(directory: Path) -> None:
    (directory / "model.onnx").unlink()
    (directory / "model.onnx").mkdir()
    assert "model.onnx: is not a regular file" in refusal(directory)


def test_a_bundle_may_be_reached_through_a_link(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(directory)
    assert open_bundle(tmp_path / "current", make_root(), now=NOW).signed_by


def test_sizes_are_judged_before_anything_is_hashed(directory: Path) -> None:
    with (directory / "model.onnx").open("r+b") as file:
        file.truncate(3 * 1024**3)  # sparse; to hash it would take seconds
    (directory / "golden-0001.png").write_bytes(b"A PICTURE")
    assert "model.onnx: 3221225472 bytes; the manifest says 16" in refusal(directory)


@pytest.mark.parametrize(("name", "limit"), [(MANIFEST, MAX_MANIFEST_BYTES), (ENVELOPE, MAX_MANIFEST_BYTES)])
def test_an_endless_manifest_or_envelope_is_not_read(directory: Path, name: str, limit: int) -> None:
    with (directory / name).open("r+b") as file:
        file.truncate(1024**4)
    assert "1099511627776 bytes; expected at most" in refusal(directory)


def artifacts(**changes: Any) -> list[dict[str, Any]]:
    first, *others = manifest_fields()["artifacts"]
    return [{**first, **changes}, *others]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"artifacts": artifacts(size=10 * 1024**3)}, r"artifacts\.0\.size"),
        ({"artifacts": artifacts(size=0)}, r"artifacts\.0\.size"),
        ({"artifacts": artifacts(name="../model.torchscript")}, r"artifacts\.0\.name"),
        ({"artifacts": artifacts(name="/etc/passwd")}, r"artifacts\.0\.name"),
        ({"artifacts": artifacts(name="..")}, r"artifacts\.0\.name"),
        ({"artifacts": artifacts(name="a/b")}, r"artifacts\.0\.name"),
        ({"artifacts": artifacts(name="model.torchscript\n")}, r"artifacts\.0\.name"),
        ({"artifacts": artifacts(name=MANIFEST)}, "names that differ"),
    ],
)
def test_what_a_signer_must_not_declare_is_refused_even_signed(tmp_path: Path, changes: Any, message: str) -> None:
    directory = write_bundle(tmp_path / "bundle", RELEASE_KEY, **changes)
    with pytest.raises(ModelError, match=message):
        open_bundle(directory, make_root(), now=NOW)


def test_what_is_no_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "best.pt").touch()
    for name in ("best.pt", "nothing"):
        assert "expected a bundle: a directory with manifest.json" in refusal(tmp_path / name)
    assert "manifest.json: No such file" in refusal(tmp_path)


# -- where it may run


def manifest(**changes: Any) -> Manifest:
    return Manifest.model_validate(manifest_fields(**changes))


@pytest.mark.parametrize("compatible", [["*"], ["sm_87"], ["sm_72", "aarch64"], ["l4t-36*"], ["x86_64", "l4t-*"]])
def test_a_bundle_for_this_kind_of_device_may_run(compatible: list[str]) -> None:
    check_compatible(manifest(compatible=compatible), {"aarch64", "sm_87", "l4t-36.4"}, "0.1.0")


@pytest.mark.parametrize("compatible", [["sm_72"], ["x86_64", "l4t-35*"], ["sm_8"]])
def test_a_bundle_for_other_hardware_says_for_which(compatible: list[str]) -> None:
    with pytest.raises(ModelError) as caught:
        check_compatible(manifest(compatible=compatible), {"aarch64", "sm_87", "l4t-36.4"}, "0.1.0")
    message = f"pcb 1.4.0: compatible: it is for {', '.join(compatible)}; this device is aarch64, l4t-36.4, sm_87"
    assert message in str(caught.value)


def test_a_device_of_no_known_kind_takes_what_is_for_any() -> None:
    check_compatible(manifest(), set(), "0.1.0")
    with pytest.raises(ModelError, match="of no known kind"):
        check_compatible(manifest(compatible=["cpu"]), set(), "0.1.0")


@pytest.mark.parametrize(
    ("least", "version"), [("0.1.0", "0.1"), ("0.9", "0.10.0"), ("0.2.0", "0.2.0rc1"), ("1", "1.0.1")]
)
def test_a_version_is_compared_number_by_number(least: str, version: str) -> None:
    check_compatible(manifest(min_defectd=least), set(), version)


@pytest.mark.parametrize("least", ["0.1.1", "0.10", "1"])
def test_an_older_defectd_is_told_what_it_needs(least: str) -> None:
    with pytest.raises(ModelError, match=f"needs defectd {least}; this is 0.1.0"):
        check_compatible(manifest(min_defectd=least), set(), "0.1.0")


def test_a_version_that_is_none_is_named() -> None:
    with pytest.raises(ModelError, match=r"expected a version like 0\.1\.0, got 'newest'"):
        check_compatible(manifest(min_defectd="newest"), set(), "0.1.0")


# -- shown


EXPECTED = """\
pcb 1.4.0, release 7
  signed by   {keyid}
  created     2026-05-01 10:00 UTC
  expires     never
  for         any device, defectd 0.1.0 or newer
  classes     2: open, short
  input       640 x 480 px (width x height), stride 32
  thresholds  confidence 0.25, NMS IoU 0.7
  golden set  1 pictures with 1 boxes; recall at least 0.98, precision 0.98 at IoU 0.8
  made from   best.pt, SHA-256 abababababab…
  made by     defectd 0.1.0, torch 2.13.0, Ultralytics 8.4.190
  manifest    SHA-256 {sha256}

  formats
    torchscript       model.torchscript           0.0 MB
    onnx              model.onnx                  0.0 MB
    golden_image      1 pictures                  0.0 MB

  parity with the original
                             head MSE   head max     recall  precision      mAP50   mAP50-95
    torchscript               1.2e-12          -     1.0000          -     0.9810          -"""


def test_a_bundle_is_described_for_a_person(directory: Path) -> None:
    bundle = open_bundle(directory, make_root(), now=NOW)
    assert describe(bundle) == EXPECTED.format(keyid=keyid(RELEASE_KEY)[:12], sha256=bundle.manifest_sha256)


def descriptions(tmp_path: Path) -> Iterator[str]:
    for index, signers in enumerate(((), (STRANGER,))):
        directory = write_bundle(tmp_path / str(index), *signers)
        yield describe(open_bundle(directory, None, now=NOW, allow_unsigned=True))


def test_what_nobody_verified_is_said_aloud(tmp_path: Path) -> None:
    unsigned, unverified = descriptions(tmp_path)
    assert "NOBODY: this bundle is not signed" in unsigned
    assert f"NOT VERIFIED (no root.json was given); it says {keyid(STRANGER)[:12]}" in unverified


def test_a_bundle_cannot_steer_the_terminal_it_is_shown_on(tmp_path: Path) -> None:
    network = {**manifest_fields()["network"], "classes": ["open\x1b[2J", "short\n  signed by   the boss\u202e"]}
    directory = write_bundle(tmp_path / "bundle", network=network)
    text = describe(open_bundle(directory, None, now=NOW, allow_unsigned=True))
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.count("\n") == EXPECTED.count("\n")


def test_a_bundle_is_described_for_a_machine(directory: Path) -> None:
    fields = as_json(open_bundle(directory, make_root(), now=NOW))
    assert json.loads(json.dumps(fields)) == fields
    assert fields["signed_by"] == [keyid(RELEASE_KEY)]
    assert Manifest.model_validate(fields["manifest"]).release_seq == 7
