"""The download, against a real web server with TLS that misbehaves, a real folder, and a real disk that is full."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from defectd.download.download import DownloadError, Limits, Stopped, download
from defectd.download.errors import Code
from defectd.download.sources import open_source
from defectd.models.bundle import open_bundle
from defectd.models.envelope import PAYLOAD_MANIFEST
from defectd.models.manifest import ENVELOPE, MANIFEST, Manifest, parse_manifest
from defectd.models.trust import verify_envelope
from defectd.rollout_settings import RolloutSource
from support import bundle_server as misbehaving
from support.bundle_server import BundleServer, Deaf, make_certificates
from support.bundles import NOW, RELEASE_KEY, STRANGER, make_root, manifest_fields, sign

NETWORK = bytes(range(256)) * 2000  # 512 kB
FILES = {
    "model.torchscript": ("torchscript", NETWORK),
    "model.onnx": ("onnx", b"the same network" * 100),
    "golden-0001.png": ("golden_image", b"a picture" * 50),
}
BIG = "model.torchscript"
LIMITS = Limits(max_bytes=10_000_000, total_s=20.0, stall_s=1.0, first_retry_s=0.05, longest_retry_s=0.2)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    make_certificates(directory)
    return directory


@pytest.fixture
def server(certificates: Path, bundle: Path) -> Iterator[BundleServer]:
    with BundleServer(certificates / "server.crt") as made:
        made.offer(bundle, "models/pcb-7")
        yield made


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write(tmp_path / "stick/models/pcb-7")


def write(directory: Path, *signers: int) -> Path:
    directory.mkdir(parents=True)
    artifacts = [
        {"role": role, "name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, (role, data) in FILES.items()
    ]
    for name, (_, data) in FILES.items():
        (directory / name).write_bytes(data)
    manifest = json.dumps(manifest_fields(artifacts=artifacts)).encode()
    (directory / MANIFEST).write_bytes(manifest)
    (directory / ENVELOPE).write_bytes(sign(manifest, PAYLOAD_MANIFEST, *(signers or (RELEASE_KEY,))).to_json())
    return directory


def verify(manifest: bytes, envelope: bytes) -> Manifest:
    payload = verify_envelope(envelope, PAYLOAD_MANIFEST, make_root(), "release", NOW)
    assert payload == manifest
    return parse_manifest(payload, MANIFEST)


class Station:
    """A disk to download to, and what was said."""

    def __init__(self, directory: Path, bundle: Path) -> None:
        self.directory, self.said = directory, []
        self.wanted = hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()
        self.stopped = False

    def fetch(self, settings: RolloutSource, limits: Limits = LIMITS, **options: Any) -> Path:
        options = {
            "say": lambda share, text: self.said.append((share, text)),
            "stop": lambda: self.stopped,
            "verify": verify,
            **options,
        }
        path = download(
            open_source(settings), "models/pcb-7", self.wanted, self.directory, limits=limits, **options
        )  # fmt: skip
        assert open_bundle(path, make_root(), now=NOW).manifest_sha256 == self.wanted
        assert not list((self.directory / "partial").iterdir())
        return path

    def part(self, name: str = BIG) -> Path:
        return self.directory / "partial" / f"{hashlib.sha256(FILES[name][1]).hexdigest()}.part"


@pytest.fixture
def station(tmp_path: Path, bundle: Path) -> Station:
    directory = tmp_path / "download"
    directory.mkdir()
    return Station(directory, bundle)


@pytest.fixture
def web(server: BundleServer, certificates: Path) -> RolloutSource:
    return RolloutSource(alias="depot", url=server.url, ca=certificates / "ca.crt")


def refusal(station: Station, settings: RolloutSource, limits: Limits = LIMITS, **options: Any) -> tuple[Code, str]:
    with pytest.raises(DownloadError) as caught:
        station.fetch(settings, limits, **options)
    return caught.value.code, str(caught.value)


def asked_for(server: BundleServer, name: str = BIG) -> list[tuple[str | None, str | None]]:
    return [(one.range, one.if_range) for one in server.asked if one.name == name]


# -- when all is well


def test_a_bundle_is_fetched_over_one_connection_manifest_first(station, server, web):
    station.fetch(web)
    assert server.names() == [MANIFEST, ENVELOPE, *FILES]
    assert len({one.connection for one in server.asked}) == 1
    assert {one.encoding for one in server.asked} == {"identity"}
    assert station.said[-1] == (1.0, "everything is here")
    shares = [share for share, _ in station.said]
    assert shares == sorted(shares)


def test_a_folder_of_the_url_is_the_place_where_paths_begin(station, server, certificates, bundle):
    server.files.clear()
    server.offer(bundle, "below/here/models/pcb-7")
    station.fetch(RolloutSource(alias="depot", url=f"{server.url}/below/here/", ca=certificates / "ca.crt"))


def test_a_stick_is_as_good_as_a_server(station, tmp_path):
    station.fetch(RolloutSource(alias="stick", directory=tmp_path / "stick"))


def test_what_is_here_already_is_not_fetched_again(station, server, web):
    station.fetch(web)
    del server.asked[:]
    station.fetch(web)
    assert server.names() == [MANIFEST, ENVELOPE]


def test_what_an_earlier_bundle_left_is_deleted_and_nothing_else(station, web):
    old, foreign = station.directory / ("ab" * 32), station.directory / "notes.txt"
    (station.directory / "partial").mkdir()
    for leftover in (station.directory / "partial" / f"{'cd' * 32}.part", foreign):
        leftover.write_bytes(b"rubbish")
    old.mkdir()
    (old / "model.onnx").write_bytes(b"rubbish")
    station.fetch(web)
    assert foreign.exists()
    assert not old.exists()


def test_the_rate_limit_holds(station, web):
    began_s = time.monotonic()
    station.fetch(web, Limits(10_000_000, rate_bytes_per_s=400_000.0))
    assert 1.0 < time.monotonic() - began_s < 5.0


# -- going on where it stopped


@pytest.mark.parametrize(
    "trouble",
    [
        misbehaving.closes_after(100_000),
        misbehaving.stalls_after(100_000),
        misbehaving.drips(100_000, 60.0),
        misbehaving.no_etag_and_closes_after(100_000),
    ],
    ids=["closes early", "stalls", "drips", "has no ETag"],
)
def test_a_broken_download_is_resumed_where_it_stopped(station, server, web, trouble):
    server.script(BIG, trouble)
    station.fetch(web)
    (first, _), (resumed, if_range) = asked_for(server)
    assert (first, resumed) == (None, "bytes=100000-")
    assert if_range in (misbehaving.etag_of(NETWORK), None)


def test_a_download_of_a_daemon_that_died_is_resumed_where_it_stopped(station, server, web):
    server.script(BIG, misbehaving.stalls_after(200_000))
    with pytest.raises(Stopped):
        station.fetch(web, stop=lambda: station.part().exists() and station.part().stat().st_size >= 190_000)
    here = station.part().stat().st_size
    assert 190_000 <= here <= 200_000
    del server.asked[:]
    station.fetch(web)
    assert asked_for(server) == [(f"bytes={here}-", misbehaving.etag_of(NETWORK))]


def test_a_connection_that_always_breaks_gets_there_piece_by_piece(station, server, web):
    server.script(BIG, *[misbehaving.closes_after(60_000)] * 8)
    station.fetch(web)
    assert asked_for(server)[-1][0] == "bytes=480000-"


def test_a_changed_file_is_fetched_from_the_beginning(station, server, web):
    other = b"older" * 50_000
    station.part().parent.mkdir()
    station.part().write_bytes(other)
    station.part().with_suffix(".etag").write_text('"of-an-older-one"')
    station.fetch(web)
    assert asked_for(server) == [("bytes=250000-", '"of-an-older-one"')]


@pytest.mark.parametrize(
    "trouble", [misbehaving.whole_to_a_range, misbehaving.ignores_if_range('"another"')], ids=["200", "206"]
)
def test_a_server_that_does_not_know_ranges_begins_anew(station, server, web, trouble):
    server.script(BIG, misbehaving.closes_after(100_000), trouble)
    station.fetch(web)


def test_a_damaged_part_is_noticed_and_fetched_anew(station, server, web):
    station.part().parent.mkdir()
    station.part().write_bytes(b"\0" * 100_000)
    station.fetch(web)
    assert asked_for(server) == [("bytes=100000-", None), (None, None)]


def test_a_part_that_is_longer_than_the_file_is_fetched_anew(station, server, web):
    station.part().parent.mkdir()
    station.part().write_bytes(b"\0" * (len(NETWORK) + 100_000))
    station.fetch(web)
    assert asked_for(server) == [(None, None)]


def test_a_damaged_file_that_was_finished_is_fetched_anew(station, server, web):
    path = station.fetch(web)
    (path / "model.onnx").write_bytes(b"x" * 1600)
    del server.asked[:]
    station.fetch(web)
    assert asked_for(server, "model.onnx") == [(None, None)]


# -- trouble that passes


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_server_that_is_busy_is_asked_again(station, server, web, code):
    server.script(MANIFEST, misbehaving.status(code))
    server.script(BIG, misbehaving.status(code), misbehaving.status(code))
    station.fetch(web)
    assert any(f"answers {code}; trying again in" in text for _, text in station.said)


def test_one_wrong_byte_is_forgiven_once(station, server, web):
    server.script(BIG, misbehaving.flips(400_000))
    station.fetch(web)


def test_a_body_without_a_length_will_do(station, server, web):
    server.script(BIG, misbehaving.says_no_length)
    station.fetch(web)


def test_a_server_that_never_comes_back_ends_in_time(station, web, server):
    server.script(BIG, *[misbehaving.status(503)] * 1000)
    began_s = time.monotonic()
    code, text = refusal(station, web, Limits(10_000_000, total_s=1.5, first_retry_s=0.1, longest_retry_s=0.2))
    assert code == "unreachable"
    assert "503" in text
    assert time.monotonic() - began_s < 3.0


def test_a_slow_drip_is_given_up_although_it_never_stops(station, server, web):
    server.script(BIG, *[misbehaving.drips(10, 0.05)] * 1000)
    code, _ = refusal(station, web, Limits(10_000_000, total_s=3.0, stall_s=1.0, first_retry_s=0.1))
    assert code in ("stalled", "timed_out")
    assert any("bytes came in 1 s" in said for _, said in station.said)


def test_what_is_slow_but_not_too_slow_is_ended_by_the_total_time(station, server, web):
    server.script(BIG, misbehaving.drips(2_000, 0.1))
    code, text = refusal(station, web, Limits(10_000_000, total_s=2.0))
    assert code == "timed_out"
    assert "rollout.download_s" in text


def test_nobody_at_that_port_is_unreachable(station, certificates):
    with Deaf() as gone:
        url = gone.url
    settings = RolloutSource(alias="depot", url=url, ca=certificates / "ca.crt")
    code, text = refusal(station, settings, Limits(10_000_000, total_s=0.5))
    assert code == "unreachable"
    assert "refused" in text


# -- trouble that does not


def test_a_bundle_that_is_not_there_ends_at_once(station, server, web):
    server.files.clear()
    code, text = refusal(station, web)
    assert code == "not_found"
    assert "models/pcb-7/manifest.json" in text


def test_a_redirect_is_not_followed(station, server, web):
    server.script(MANIFEST, misbehaving.status(302, Location="http://elsewhere.example/\x1b[31m"))
    code, text = refusal(station, web)
    assert code == "redirect"
    assert "elsewhere.example" in text
    assert "\x1b" not in text
    assert server.names() == [MANIFEST]


def test_a_password_is_not_asked_for(station, server, web):
    server.script(MANIFEST, misbehaving.status(401))
    assert refusal(station, web)[0] == "refused"


def test_a_compressed_answer_is_not_unpacked(station, server, web):
    server.script(BIG, misbehaving.gzips)
    code, text = refusal(station, web)
    assert code == "wrong_bytes"
    assert "gzip" in text


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (misbehaving.flips(5), "SHA-256"),
        (misbehaving.sends(b"other bytes"), "has 11 bytes there"),
        (misbehaving.claims(len(NETWORK) + 1), "bytes there"),
        (misbehaving.endless, "longer than"),
    ],
    ids=["another byte", "another file", "lies about length", "endless"],
)
def test_wrong_bytes_twice_are_the_end(station, server, web, trouble, why):
    server.script(BIG, trouble, trouble)
    code, text = refusal(station, web)
    assert code == "wrong_bytes"
    assert BIG in text
    assert why in text
    assert not station.part().exists()


def test_a_server_that_always_closes_early_ends_when_the_time_is_over(station, server, web):
    server.script(MANIFEST, *[misbehaving.claims(10_000)] * 1000)
    code, _ = refusal(station, web, Limits(10_000_000, total_s=1.0, first_retry_s=0.1, longest_retry_s=0.2))
    assert code == "unreachable"


def test_another_range_than_asked_for_is_refused(station, server, web):
    server.script(BIG, misbehaving.closes_after(100_000), misbehaving.another_range)
    code, text = refusal(station, web)
    assert code == "wrong_bytes"
    assert "from byte 100000 on" in text


def test_an_endless_manifest_is_not_read(station, server, web):
    server.script(MANIFEST, misbehaving.endless)
    assert refusal(station, web)[0] == "too_large"


def test_another_manifest_than_the_commands_is_refused_before_anything_else_is_asked_for(station, server, web):
    station.wanted = "ab" * 32
    code, text = refusal(station, web)
    assert code == "wrong_manifest"
    assert "abababababab" in text
    assert server.names() == [MANIFEST]


def test_no_artifact_is_asked_for_before_the_signature_is_verified(station, server, web, tmp_path):
    stranger = write(tmp_path / "stranger", STRANGER)
    server.offer(stranger, "models/pcb-7")
    code, text = refusal(station, web)
    assert code == "signature"
    assert "release" in text
    assert server.names() == [MANIFEST, ENVELOPE]
    assert not list(station.directory.iterdir())


def test_a_bundle_over_the_limit_is_not_begun(station, server, web):
    code, text = refusal(station, web, Limits(max_bytes=500_000))
    assert code == "too_large"
    assert "0.5 MB" in text
    assert server.names() == [MANIFEST, ENVELOPE]


# -- whom to talk to


@pytest.mark.parametrize(
    ("certificate", "ca", "why"),
    [
        ("server.crt", "other-ca.crt", "not accepted"),
        ("elsewhere.crt", "ca.crt", "elsewhere|mismatch"),
        ("server.crt", "server.key", "holds no certificate"),
        ("server.crt", "missing.crt", "No such file"),
    ],
    ids=["another CA", "another name", "no CA", "no file"],
)
def test_only_the_named_server_with_the_pinned_ca_will_do(station, certificates, certificate, ca, why):
    with BundleServer(certificates / certificate) as server:
        code, text = refusal(station, RolloutSource(alias="depot", url=server.url, ca=certificates / ca))
    assert code == "tls"
    assert server.asked == []
    assert any(one in text for one in why.split("|")) or "Hostname" in text


def test_a_server_may_be_named_by_its_address_if_its_certificate_says_so(station, bundle, certificates):
    for certificate, good in (("address.crt", True), ("server.crt", False)):
        with BundleServer(certificates / certificate) as server:
            server.offer(bundle, "models/pcb-7")
            url = server.url.replace("localhost", "127.0.0.1")
            settings = RolloutSource(alias="depot", url=url, ca=certificates / "ca.crt")
            if good:
                station.fetch(settings)
            else:
                assert refusal(station, settings)[0] == "tls"


def test_the_environment_has_no_say(station, web, monkeypatch, tmp_path):
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    station.fetch(web)
    assert not (tmp_path / "keys").exists()


# -- stopping


@pytest.mark.parametrize(
    "trouble",
    [
        misbehaving.never_answers,
        misbehaving.stalls_after(1000),
        misbehaving.drips(1, 0.05),
        misbehaving.status(503),
    ],
    ids=["before the answer", "in the middle", "while it drips", "while it waits to try again"],
)
def test_a_stop_is_heard_within_a_second(station, server, web, trouble):
    server.script(BIG, *[trouble] * 10)
    limits = Limits(10_000_000, min_bytes_per_s=0.1, first_retry_s=30.0)
    assert stopping_s(station, web, limits) < 1.0


@pytest.mark.parametrize("full", [False, True], ids=["in the handshake", "while it connects"])
def test_a_stop_is_heard_while_nobody_answers(station, certificates, full):
    with Deaf(full=full) as deaf:
        settings = RolloutSource(alias="depot", url=deaf.url, ca=certificates / "ca.crt")
        assert stopping_s(station, settings, LIMITS) < 1.0


def test_a_stop_is_heard_while_the_rate_limit_waits(station, web):
    assert stopping_s(station, web, Limits(10_000_000, rate_bytes_per_s=1000.0)) < 1.0


def stopping_s(station: Station, settings: RolloutSource, limits: Limits) -> float:
    """How long it took from the stop to its end."""
    stopped_s: list[float] = []

    def stop() -> None:
        station.stopped = True
        stopped_s.append(time.monotonic())

    timer = threading.Timer(1.0, stop)
    timer.start()
    with pytest.raises(Stopped):
        station.fetch(settings, limits)
    took_s = time.monotonic() - stopped_s[0]
    timer.join()
    return took_s


# -- the stick


@pytest.mark.parametrize("name", ["models", "models/pcb-7", f"models/pcb-7/{BIG}"])
def test_no_link_leads_off_the_stick(station, tmp_path, name):
    stick, real = tmp_path / "stick", tmp_path / "real"
    (stick / name).rename(real)
    (stick / name).symlink_to(real)
    code, text = refusal(station, RolloutSource(alias="stick", directory=stick))
    assert code == "not_found"
    assert "link" in text


def test_a_pipe_on_the_stick_is_not_waited_for(station, bundle, tmp_path):
    (bundle / BIG).unlink()
    os.mkfifo(bundle / BIG)
    code, text = refusal(station, RolloutSource(alias="stick", directory=tmp_path / "stick"))
    assert code == "not_found"
    assert "regular file" in text


def test_a_stick_that_is_not_plugged_in_is_missed(station, tmp_path):
    code, text = refusal(station, RolloutSource(alias="stick", directory=tmp_path / "nowhere"))
    assert code == "source_missing"
    assert "plug the stick in" in text


def test_a_cut_off_file_on_the_stick_is_refused(station, bundle, tmp_path):
    (bundle / BIG).write_bytes(NETWORK[:1000])
    code, text = refusal(station, RolloutSource(alias="stick", directory=tmp_path / "stick"))
    assert code == "wrong_bytes"
    assert "1000 bytes" in text


# -- the disk


def test_no_room_is_said_before_an_artifact_is_asked_for(station, server, web):
    code, text = refusal(station, web, free_bytes=lambda _: 60_000_000)
    assert code == "disk_full"
    assert "60.0 MB are free, 67.7 MB are needed" in text
    assert server.names() == [MANIFEST, ENVELOPE]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    mounted = []

    def mount(size_kb: int) -> Path:
        directory = tmp_path / "small"
        directory.mkdir()
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "none", str(directory)], capture_output=True, check=False
        )
        if made.returncode:
            pytest.skip(f"needs a small file system: {made.stderr.decode().strip()}")
        mounted.append(directory)
        return directory

    yield mount
    for directory in mounted:
        subprocess.run(["umount", str(directory)], check=True)


def test_a_disk_that_fills_up_is_told_and_gets_its_room_back(station, web, small_disk):
    station.directory = small_disk(300)
    code, text = refusal(station, web, free_bytes=lambda _: 10**12)
    assert code == "disk_full"
    assert "free some space" in text
    assert not station.part().exists()


def test_a_disk_that_has_room_again_is_written_to(station, web, small_disk):
    station.directory = small_disk(800)
    ballast = station.directory / "ballast"
    ballast.write_bytes(b"x" * 500_000)
    assert refusal(station, web, free_bytes=lambda _: 10**12)[0] == "disk_full"
    ballast.unlink()
    station.fetch(web, free_bytes=lambda _: 10**12)
