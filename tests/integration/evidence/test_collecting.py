"""Training data through a real evidence worker and a real ring, and out again as a dataset."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from datetime import datetime, timezone

import numpy as np
import pytest

from defectd.camera.feed import CameraFeed, CameraPlan, SlotLease
from defectd.clock import monotonic_ns
from defectd.evidence.collected import read_collected
from defectd.evidence.keeper import CollectPlan, EvidenceKeeper, EvidencePlan, Kept
from defectd.inspection.detections import Detections, EngineTimings
from defectd.inspection.events import Recipe
from defectd.inspection.frame import Frame, Trigger
from defectd.inspection.record import EngineAnswer, StationIdentity, record
from defectd.inspection.verdict import Judgement
from support.station import defectd, environment

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'defectd[camera]'")

HEIGHT_PX, WIDTH_PX = 120, 160
DOUBTED = Judgement("passed", needs_review=True)
STATION = StationIdentity("aoi1", "boot", "0" * 64, Recipe(name="pcb", revision="1"))
SEEN = Detections(
    np.array([[10, 20, 50, 60], [100, 100, 170, 130]], np.float32),
    np.array([0.9, 0.4], np.float32),
    np.array([1, 0], np.int32),
)
ANSWER = EngineAnswer(0.0, EngineTimings(1, 1, 1, "monotonic"), SEEN, ("open", "short"))


class Bench:
    """The loop's half: units with pictures of their own, handed to the keeper; leases must all come back."""

    def __init__(self, state, policy="needs_review", picture_format="png", max_bytes=10_000_000):
        plan = CameraPlan(
            "top", "simulated", "triggered", "counter", True, False, HEIGHT_PX * WIDTH_PX * 3, 5, 1, 1, {}
        )
        self.feed, self.state, self.kept = CameraFeed(plan, 0, "CRITICAL"), state, []
        collect = CollectPlan(policy, state / "collected", picture_format, max_bytes)
        evidence = EvidencePlan(state / "evidence", 90, 10_000_000, 86_400.0, collect)
        self.keeper = EvidenceKeeper(evidence, (self.feed.ring,), "CRITICAL")
        self.keeper.worker.start()
        self.until(lambda: self.keeper.worker.ready)

    def until(self, true):
        due_s = time.monotonic() + 20
        while not true():
            assert time.monotonic() < due_s, self.kept
            news = [*self.keeper.receive(), *self.keeper.tick(monotonic_ns())]
            self.kept += [each for each in news if isinstance(each, Kept)]
            time.sleep(0.002)

    def unit(self, number, judgement=DOUBTED, evidence=False):
        """True if the keeper took it."""
        picture = np.random.default_rng(number).integers(0, 256, (HEIGHT_PX, WIDTH_PX, 3), np.uint8)
        slot = self.feed.lend()
        self.feed.ring.pixels(slot, HEIGHT_PX, WIDTH_PX)[:] = picture
        frame = Frame(slot, 2, WIDTH_PX, HEIGHT_PX, None)
        lease = SlotLease(self.feed, frame)
        trigger = Trigger("top", number, f"u{number}", 0, datetime.now(timezone.utc))
        event = record(
            STATION, trigger, [], judgement, None,
            is_single=True, verdict_ns=0, unit_id_source="counter", simulated=True,
        )  # fmt: skip
        if evidence:
            assert self.keeper.keep(event.id, "2026-05-04", lease, [])
        taken = self.keeper.collect(event.id, event, number, judgement, ANSWER, lease)
        lease.release()
        return taken, picture

    @property
    def is_settled(self):
        return self.feed._leases.free == 12

    def collected(self):
        return read_collected(self.state / "collected")

    def close(self):
        self.keeper.worker.stop()
        self.keeper.worker.reap(2.0)


@pytest.fixture
def bench(tmp_path):
    benches = []

    def bench(**changes):
        benches.append(Bench(tmp_path, **changes))
        return benches[-1]

    yield bench
    for each in benches:
        each.close()


def export(state, out, *arguments):
    command = defectd("collected", "export", "--state", state, "--out", out, *arguments)
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=60)


def test_a_picture_whose_name_is_being_written_already_is_refused_and_every_slot_comes_back(bench):
    station = bench()
    leases = [SlotLease(station.feed, Frame(station.feed.lend(), 2, WIDTH_PX, HEIGHT_PX, None)) for _ in range(2)]
    taken = [station.keeper.keep("u1", "2026-05-04", lease, []) for lease in leases]
    for lease in leases:
        lease.release()
    station.until(lambda: station.kept)
    assert taken == [True, False] and station.is_settled
    assert [kept.is_collected for kept in station.kept] == [False]


def test_a_doubted_unit_is_kept_as_it_was_with_all_that_the_model_saw(bench):
    station = bench()
    taken, picture = station.unit(1)
    station.until(lambda: station.kept)
    ((file, about),) = station.collected()
    assert taken and np.array_equal(cv2.imread(str(file)), picture)
    assert station.kept[0].is_collected
    assert (about.unit_id, about.trigger, about.camera) == ("u1", 1, "top")
    assert about.boxes == [(1, 0.9, 10.0, 20.0, 40.0, 40.0), (0, 0.4, 100.0, 100.0, 70.0, 30.0)]
    assert station.is_settled and station.kept[0].trouble == ""


def test_a_unit_that_nobody_wants_costs_nothing(bench):
    station = bench()
    assert station.unit(1, Judgement("passed"))[0] and station.unit(2, Judgement("failed"))[0]
    assert station.is_settled and not station.keeper._collecting


def test_when_too_many_wait_the_newest_go_without_and_that_is_said(bench):
    station = bench()
    taken = [station.unit(number)[0] for number in range(1, 7)]
    assert taken == [True, True, False, False, False, False]
    station.until(lambda: station.is_settled)
    assert [about.unit_id for _, about in station.collected()] == ["u1", "u2"]


def test_evidence_is_written_before_what_was_collected_earlier(bench):
    station = bench(policy="failed_and_review")
    station.unit(1, Judgement("failed"), evidence=True)
    station.unit(2, Judgement("failed"), evidence=True)
    station.until(lambda: len(station.kept) == 4)
    is_evidence = [bool(kept.images) for kept in station.kept]
    assert is_evidence.index(False) >= 1 and sorted(is_evidence) == [False, False, True, True]


def test_the_oldest_pictures_go_with_what_was_written_about_them(bench):
    station = bench(max_bytes=150_000)
    for number in range(1, 8):
        station.unit(number)
        station.until(lambda: station.is_settled)

    def files():
        return [path for path in (station.state / "collected").rglob("*") if path.is_file()]

    station.until(lambda: len(files()) == 4)
    assert sum(path.stat().st_size for path in files()) <= 150_000
    assert {path.stem for path in files() if path.suffix == ".json"} == {
        path.stem for path in files() if path.suffix == ".png"
    }
    assert station.collected()[-1][1].unit_id == "u7"


def test_without_a_policy_there_is_no_directory(bench):
    station = bench(policy="none")
    assert station.unit(1)[0] and not (station.state / "collected").exists()


def test_the_export_says_how_many_of_which_class(bench, tmp_path):
    station = bench(picture_format="jpeg")
    for number in range(1, 6):
        station.unit(number)
        station.until(lambda: station.is_settled)
    done = export(tmp_path, tmp_path / "dataset")
    assert done.returncode == 0, done.stderr
    assert "5 picture(s)" in done.stdout and "5 need review; labels: open 5, short 5" in done.stdout
    again = export(tmp_path, tmp_path / "dataset")
    assert again.returncode == 4 and "exists" in again.stderr


def test_an_export_of_nothing_says_what_to_set(tmp_path):
    done = export(tmp_path, tmp_path / "dataset")
    assert done.returncode == 4 and 'collect = "needs_review"' in done.stderr and not (tmp_path / "dataset").exists()


LOADS = """
import json, sys
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset
data = check_det_dataset(sys.argv[1])
found = {}
for split in ("train", "val"):
    dataset = YOLODataset(data[split], data=data, imgsz=160, augment=False, task="detect")
    found[split] = [[dataset.get_labels()[i]["cls"].ravel().tolist(), dataset[i]["bboxes"].shape[0]]
                    for i in range(len(dataset))]
print(json.dumps({"names": list(data["names"].values()), **found}))
"""


def test_ultralytics_loads_the_export(bench, tmp_path):
    python = sys.executable if importlib.util.find_spec("ultralytics") else os.environ.get("DEFECTD_PEER_PYTHON")
    if python is None:
        pytest.skip("needs Ultralytics: pip install 'defectd[export]', or DEFECTD_PEER_PYTHON = a Python that has it")
    station = bench()
    for number in range(1, 13):
        station.unit(number)
        station.until(lambda: station.is_settled)
    assert export(tmp_path, tmp_path / "dataset", "--val-share", "0.4").returncode == 0
    done = subprocess.run(
        [python, "-c", LOADS, str(tmp_path / "dataset" / "data.yaml")],
        capture_output=True, text=True, check=False, cwd=str(tmp_path),
        env={**environment(), "YOLO_CONFIG_DIR": str(tmp_path), "YOLO_OFFLINE": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded["names"] == ["open", "short"]
    assert len(loaded["train"]) + len(loaded["val"]) == 12 and loaded["val"]
    assert all(sorted(classes) == [0.0, 1.0] and boxes == 2 for classes, boxes in loaded["train"] + loaded["val"])
