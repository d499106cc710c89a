"""What a download does with a source that says and breaks what it likes; the sources themselves are real elsewhere."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectd.download import part as part_module
from defectd.download import patience as patience_module
from defectd.download.download import DownloadError, Limits, Stopped, download
from defectd.download.errors import MayPass, WrongBytes
from defectd.download.fetching import Opened
from defectd.errors import ModelError, StateError
from defectd.models.bundle import open_bundle
from defectd.models.manifest import ENVELOPE, MANIFEST, parse_manifest
from defectd.models.trust import TrustError
from support.bundles import ARTIFACTS, NOW, RELEASE_KEY, make_root, write_bundle

NAME = "model.torchscript"
NETWORK = ARTIFACTS[NAME][1]


class Bytes:
    """A stream of *data* that breaks with *trouble* instead of ending."""

    def __init__(self, data: bytes, trouble: Exception | None = None, piece: int = 3) -> None:
        self.data, self.trouble, self.piece, self.closed = data, trouble, piece, False

    def read(self, limit_bytes: int) -> bytes:
        chunk, self.data = self.data[: self.piece], self.data[self.piece :]
        if not chunk and self.trouble is not None:
            raise self.trouble
        return chunk

    def close(self) -> None:
        self.closed = True


Answer = Callable[[bytes, int, Any], Opened]


def whole(data: bytes, offset: int, etag: Any) -> Opened:
    begin = offset if etag in (None, '"1"') else 0
    return Opened(Bytes(data[begin:]), len(data), begin, '"1"')


def broken(at: int, total: bool = True) -> Answer:
    def answer(data: bytes, offset: int, etag: Any) -> Opened:
        return Opened(
            Bytes(data[offset : offset + at], MayPass("unreachable", "the cable is out")),
            len(data) if total else None,
            offset,
            '"1"',
        )

    return answer


class Scripted:
    """A source of *files*; the answers for a name are used up one by one, then it is honest."""

    def __init__(self, files: dict[str, bytes], **answers: list[Answer]) -> None:
        self.files, self.answers = files, {key.replace("__", "."): list(value) for key, value in answers.items()}
        self.asked: list[tuple[str, int]] = []
        self.streams: list[Any] = []

    @contextmanager
    def session(self, patience: Any) -> Iterator[Scripted]:
        yield self

    def fetch(self, path: str, name: str, offset: int = 0, etag: str | None = None) -> Opened:
        assert path == "models/pcb-7"
        self.asked.append((name, offset))
        waiting = self.answers.get(name)
        opened = (waiting.pop(0) if waiting else whole)(self.files[name], offset, etag)
        self.streams.append(opened.stream)
        return opened


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in write_bundle(tmp_path / "bundle", RELEASE_KEY).iterdir()}


@pytest.fixture(autouse=True)
def no_time_passes_but_in_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10**9]

    class Clock:
        @staticmethod
        def sleep(seconds: float) -> None:
            now[0] += round(seconds * 10**9)

    monkeypatch.setattr(patience_module, "time", Clock)
    monkeypatch.setattr(patience_module, "monotonic_ns", lambda: now[0])


def fetch(source: Scripted, directory: Path, **options: Any) -> Path:
    options = {
        "limits": Limits(max_bytes=1000),
        "say": lambda share, text: None,
        "stop": lambda: False,
        "free_bytes": lambda _: 10**12,
        "verify": lambda manifest, envelope: parse_manifest(manifest, MANIFEST),
        **options,
    }
    wanted = hashlib.sha256(source.files[MANIFEST]).hexdigest()
    directory.mkdir(exist_ok=True)
    path = download(source, "models/pcb-7", options.pop("wanted", wanted), directory, **options)
    open_bundle(path, make_root(), now=NOW)
    assert all(stream.closed for stream in source.streams)
    return path


def refusal(source: Scripted, directory: Path, **options: Any) -> tuple[str, str]:
    with pytest.raises(DownloadError) as caught:
        fetch(source, directory, **options)
    assert all(stream.closed for stream in source.streams)
    return caught.value.code, str(caught.value)


def test_what_arrives_is_a_bundle(files, tmp_path):
    path = fetch(Scripted(files), tmp_path / "here")
    assert {file.name: file.read_bytes() for file in path.iterdir()} == files


def test_a_broken_stream_goes_on_where_it_ended(files, tmp_path):
    source = Scripted(files, model__torchscript=[broken(6), broken(6, total=False)])
    fetch(source, tmp_path / "here")
    assert [offset for name, offset in source.asked if name == NAME] == [0, 6, 12]


def test_a_verifier_that_refuses_sees_the_very_bytes_and_ends_it(files, tmp_path):
    seen = []

    def verify(manifest: bytes, envelope: bytes) -> Any:
        seen.append((manifest, envelope))
        raise TrustError("signed by nobody")

    source = Scripted(files)
    assert refusal(source, tmp_path / "here", verify=verify) == (
        "signature",
        f"models/pcb-7/{ENVELOPE}: signed by nobody",
    )
    assert seen == [(files[MANIFEST], files[ENVELOPE])]
    assert len(source.asked) == 2


def test_a_signed_manifest_that_makes_no_sense_is_wrong(files, tmp_path):
    files[MANIFEST] = b"{}"
    code, text = refusal(Scripted(files), tmp_path / "here")
    assert code == "wrong_manifest"
    assert "schema" in text


def test_trouble_that_stays_ends_with_its_own_code(files, tmp_path):
    source = Scripted(files, **{MANIFEST.replace(".", "__"): [broken(0)] * 1000})
    code, text = refusal(source, tmp_path / "here", limits=Limits(1000, total_s=600.0))
    assert code == "unreachable"
    assert "the cable is out" in text
    assert "600 s" in text
    assert 10 < len(source.asked) < 40, "the pauses grow, and stay bounded"


def test_pauses_are_short_again_after_progress(files, tmp_path):
    source = Scripted(files, model__torchscript=[broken(0)] * 8 + [broken(3), broken(0)])
    pauses: list[str] = []
    fetch(source, tmp_path / "here", say=lambda share, text: pauses.append(text))
    assert "trying again in 1 s" in [text for text in pauses if "trying" in text][-2]


def test_room_is_wanted_for_what_is_missing_only(files, tmp_path):
    directory, reserve = tmp_path / "here", 64 << 20
    sizes = sum(len(data) for _, data in ARTIFACTS.values())
    assert refusal(Scripted(files), directory, free_bytes=lambda _: reserve + sizes)[0] == "disk_full"
    fetch(Scripted(files), directory, free_bytes=lambda _: reserve + sizes + sizes // 10)
    fetch(Scripted(files), directory, free_bytes=lambda _: reserve)
    assert refusal(Scripted(files), directory, free_bytes=lambda _: reserve - 1)[0] == "disk_full"


def test_a_disk_that_others_fill_meanwhile_gets_its_room_back(files, tmp_path, monkeypatch):
    monkeypatch.setattr(part_module, "_SYNC_BYTES", 4)
    free = iter([10**12, 64 << 20, (64 << 20) - 1])
    code, text = refusal(Scripted(files), tmp_path / "here", free_bytes=lambda _: next(free))
    assert code == "disk_full"
    assert "less than 67.1 MB are free" in text
    assert not list((tmp_path / "here/partial").glob("*.part"))


def test_a_disk_that_cannot_be_used_is_no_fault_of_the_bundle(files, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "partial").write_bytes(b"not a directory")
    with pytest.raises(StateError, match="here"):
        fetch(Scripted(files), tmp_path / "here")


def test_a_file_that_changes_in_mid_course_is_not_patched_together(files, tmp_path):
    def another(data: bytes, offset: int, etag: Any) -> Opened:
        return Opened(Bytes(data[offset:]), len(data), offset, '"2"')

    source = Scripted(files, model__torchscript=[broken(6), another])
    fetch(source, tmp_path / "here")
    assert [offset for name, offset in source.asked if name == NAME] == [0, 6, 0]


def test_a_file_that_ends_before_what_is_here_is_begun_anew_once(files, tmp_path):
    def shorter(data: bytes, offset: int, etag: Any) -> Opened:
        raise WrongBytes("ends before byte 6")

    source = Scripted(files, model__torchscript=[broken(6), shorter])
    fetch(source, tmp_path / "here")
    assert refusal(Scripted(files, model__onnx=[shorter, shorter]), tmp_path / "there")[0] == "wrong_bytes"


def test_one_content_under_two_names_is_two_files(tmp_path):
    fields = json.loads((write_bundle(tmp_path / "bundle", RELEASE_KEY) / MANIFEST).read_text())
    first, second = fields["artifacts"][:2]
    second.update(size=first["size"], sha256=first["sha256"])
    shutil.rmtree(tmp_path / "bundle")
    bundle = write_bundle(tmp_path / "bundle", RELEASE_KEY, artifacts=fields["artifacts"])
    (bundle / second["name"]).write_bytes(NETWORK)
    source = Scripted({file.name: file.read_bytes() for file in bundle.iterdir()})
    fetch(source, tmp_path / "here")
    fetch(source, tmp_path / "here")


Fault = st.sampled_from(["break", "lie", "restart", "flip", "stop", "other etag", "longer"])


@settings(max_examples=40, deadline=None)  # every one syncs its files to the disk
@given(st.lists(st.tuples(Fault, st.integers(0, 20)), max_size=8))
def test_whatever_happens_what_is_called_a_file_is_that_file(faults: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        bundle = write_bundle(Path(place) / "bundle", RELEASE_KEY)
        files = {file.name: file.read_bytes() for file in bundle.iterdir()}
        stopped: list[bool] = []
        source = Scripted(files, model__torchscript=[faulty(kind, at, stopped) for kind, at in faults])
        for _ in range(len(faults) + 1):
            stopped.clear()
            try:
                fetch(source, Path(place) / "here", stop=lambda: bool(stopped))
                break
            except (Stopped, ModelError):
                for file in (Path(place) / "here").glob("?" * 64 + "/*"):
                    assert file.read_bytes() == files[file.name]
        else:
            fetch(source, Path(place) / "here")


def faulty(kind: str, at: int, stopped: list[bool]) -> Answer:
    class Stops(Bytes):
        def read(self, limit_bytes: int) -> bytes:
            if len(self.data) <= len(NETWORK) - at:
                stopped.append(True)
            return super().read(limit_bytes)

    gone = MayPass("unreachable", "gone")

    def answer(data: bytes, offset: int, etag: Any) -> Opened:
        rest = data[offset:]
        return {
            "break": Opened(Bytes(rest[:at], gone), len(data), offset, '"1"'),
            "lie": Opened(Bytes(rest[:at]), len(data), offset, '"1"'),
            "restart": Opened(Bytes(data[:at], gone), len(data), 0, None),
            "flip": Opened(Bytes(bytes(byte ^ 1 for byte in rest)), None, offset, None),
            "stop": Opened(Stops(rest), len(data), offset, '"1"'),
            "other etag": Opened(Bytes(rest), len(data), offset, f'"{at}"'),
            "longer": Opened(Bytes(rest + b"more"), None, offset, '"1"'),
        }[kind]

    return answer
