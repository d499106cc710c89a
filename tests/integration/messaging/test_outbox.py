"""The outbox on a real file system: bounds, full disks, damage, kill -9."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from defectd.errors import StateError
from defectd.examples import EXAMPLES
from defectd.faults import Faults
from defectd.inspection.events import FaultEvent, GapEvent, InspectionEvent, new_id
from defectd.messaging.outbox import Outbox

BIG = 100 << 20


def inspection(number: int, verdict: str = "passed") -> InspectionEvent:
    return EXAMPLES[InspectionEvent].model_copy(
        update={"id": new_id(), "unit_id": str(number), "verdict": verdict, "epoch": "", "seq": 0}
    )


def fault(detail: str) -> FaultEvent:
    return EXAMPLES[FaultEvent].model_copy(update={"id": new_id(), "detail": detail})


@pytest.fixture()
def open_outbox(tmp_path: Path) -> Iterator[Callable[..., Outbox]]:
    """Opens outboxes, all in one place unless told otherwise; all are closed at the end."""
    opened: list[Outbox] = []

    def make(path: Path = tmp_path / "outbox.db", faults: Faults | None = None, **options: Any) -> Outbox:
        settings = {"boot_id": "boot", "station": "aoi1", "max_bytes": BIG, "keep_acked_s": 3600.0, **options}
        outbox = Outbox(path, **settings)
        if faults is not None:
            outbox.report_to(faults)
        outbox.start()
        opened.append(outbox)
        return outbox

    yield make
    for outbox in opened:
        outbox.close(5.0)


@pytest.fixture()
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MB."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(directory)], capture_output=True, text=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs (needs root): {mount.stderr.strip()}")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def stored(outbox: Outbox) -> list[dict[str, Any]]:
    """All that is still to be delivered, as it would go on the wire."""
    return [json.loads(row.payload) for row in outbox.fetch(0, 1_000_000)]


def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return bool(condition())


def told_and_kept(events: list[dict[str, Any]], stream: str) -> list[int]:
    """The seq that are there and those that gap events explain, sorted, repeated ones too."""
    kept = [event["seq"] for event in events if event["schema"].startswith(f"defectd.{stream}/")]
    lost = [
        seq
        for event in events
        if event["schema"].startswith("defectd.gap/") and event["of_stream"] == stream
        for first, last in event["ranges"]
        for seq in range(first, last + 1)
    ]
    return sorted(kept + lost)


def test_events_come_out_in_order_numbered_per_stream_with_the_epoch(open_outbox):
    outbox = open_outbox()
    for number in range(5):
        outbox.put(inspection(number), {"top": number})
    outbox.put(fault("x"))
    assert outbox.flush(5.0)
    rows = outbox.fetch(0, 100)
    assert [(row.stream, row.seq) for row in rows] == [*(("inspection", n) for n in range(1, 6)), ("fault", 1)]
    assert {json.loads(row.payload)["epoch"] for row in rows} == {outbox.epoch}
    assert outbox.positions() == {"top": 4}
    assert outbox.next_seq() == {"inspection": 6, "fault": 2}
    assert [row.seq for row in outbox.fetch(rows[1].row_id, 2)] == [3, 4]


def test_what_is_acknowledged_is_not_fetched_again_not_even_before_that_is_on_disk(open_outbox):
    outbox = open_outbox()
    for number in range(5):
        outbox.put(inspection(number))
    outbox.flush(5.0)
    rows = outbox.fetch(0, 100)
    outbox.acked([row.row_id for row in rows[:3]])
    assert [row.seq for row in outbox.fetch(0, 100)] == [4, 5]
    assert until(lambda: outbox.depth().pending == 2)
    assert [row.seq for row in outbox.fetch(0, 100)] == [4, 5]


def test_a_restart_continues_where_it_was(open_outbox):
    first = open_outbox()
    first.put(inspection(0), {"top": 7})
    first.set_positions({"clean": 1})
    first.close(5.0)
    second = open_outbox()
    second.put(inspection(1))
    second.flush(5.0)
    assert second.epoch == first.epoch
    assert second.positions() == {"top": 7, "clean": 1}
    assert [event["seq"] for event in stored(second)] == [1, 2]


def test_a_lone_event_is_on_disk_at_once(open_outbox):
    outbox = open_outbox()
    time.sleep(0.1)
    started_s = time.monotonic()
    outbox.put(inspection(0))
    assert until(lambda: outbox.depth().pending == 1)
    assert time.monotonic() - started_s < 0.5


def test_delivered_events_are_kept_for_replay_until_they_are_too_old(open_outbox, monkeypatch):
    monkeypatch.setattr("defectd.messaging.outbox.PURGE_EVERY_NS", 0)
    outbox = open_outbox(keep_acked_s=0.3)
    outbox.put(inspection(0))
    outbox.flush(5.0)
    outbox.acked([row.row_id for row in outbox.fetch(0, 10)])
    assert until(lambda: outbox.depth().pending == 0)
    assert outbox.depth().bytes > 0
    assert until(lambda: outbox.depth().bytes == 0)


def test_at_the_bound_history_goes_first_and_nothing_is_lost(open_outbox):
    outbox = open_outbox(max_bytes=200_000)
    for start in range(0, 1000, 50):
        for number in range(start, start + 50):
            outbox.put(inspection(number))
        assert outbox.flush(5.0)
        outbox.acked([row.row_id for row in outbox.fetch(0, 100)])
    assert until(lambda: outbox.depth().pending == 0)
    assert outbox.depth().bytes <= 200_000
    assert outbox.depth().dropped == 0
    assert stored(outbox) == []


def test_at_the_bound_passed_units_go_first_oldest_first_and_every_hole_is_told(open_outbox):
    outbox = open_outbox(max_bytes=400_000)
    failed = []
    for number in range(1000):
        event = inspection(number, "failed" if number % 10 == 0 else "passed")
        failed += [event.id] if event.verdict == "failed" else []
        outbox.put(event)
        if number % 50 == 0:
            outbox.flush(5.0)
    outbox.flush(5.0)
    events = stored(outbox)
    assert outbox.depth().bytes <= 400_000
    assert told_and_kept(events, "inspection") == list(range(1, 1001))
    assert [event["id"] for event in events if event.get("verdict") == "failed"] == failed
    passed = [event["seq"] for event in events if event.get("verdict") == "passed"]
    assert passed == sorted(passed)
    assert passed[-1] == 1000
    gaps = [event for event in events if event["schema"].startswith("defectd.gap/")]
    assert {gap["reason"] for gap in gaps} == {"outbox_full"}
    assert sum((Counter(gap["lost_by_verdict"]) for gap in gaps), Counter()) == {"passed": 900 - len(passed)}
    assert outbox.depth().dropped == sum(gap["lost"] for gap in gaps)


def test_weeks_without_a_broker_cost_a_bounded_number_of_gap_events(open_outbox):
    outbox = open_outbox(max_bytes=300_000)
    for number in range(5_000):
        outbox.put(inspection(number, "failed" if number % 3 == 0 else "passed"))
        if number % 50 == 0:
            outbox.flush(5.0)
    outbox.flush(5.0)
    events = stored(outbox)
    gaps = [event for event in events if event["schema"].startswith("defectd.gap/")]
    assert told_and_kept(events, "inspection") == list(range(1, 5_001))
    assert sum(len(json.dumps(gap)) for gap in gaps) < 30_000
    assert outbox.depth().bytes <= 300_000


def test_a_gap_event_that_was_fetched_is_never_rewritten(open_outbox):
    outbox = open_outbox(max_bytes=100_000)
    seen: dict[str, dict[str, Any]] = {}
    for number in range(2000):
        outbox.put(inspection(number))
        if number % 100 == 0:
            outbox.flush(5.0)
            seen.update({event["id"]: event for event in stored(outbox)})
    outbox.flush(5.0)
    now = {event["id"]: event for event in stored(outbox)}
    gaps = [event for event in now.values() if event["schema"].startswith("defectd.gap/")]
    assert len(gaps) > 5
    assert all(now[each] == seen[each] for each in seen if each in now)
    assert told_and_kept(list(now.values()), "inspection") == list(range(1, 2001))


def test_a_refused_event_is_kept_aside_and_told_but_a_refused_gap_is_not_told_again(open_outbox):
    outbox = open_outbox()
    outbox.put(inspection(0, "failed"))
    outbox.flush(5.0)
    outbox.dead_letter(outbox.fetch(0, 1)[0].row_id, "rejected_by_broker")
    assert until(lambda: outbox.depth().dead_letters == 1)
    (gap,) = stored(outbox)
    assert (gap["of_stream"], gap["ranges"], gap["reason"]) == ("inspection", [[1, 1]], "rejected_by_broker")
    assert gap["lost_by_verdict"] == {"failed": 1}
    outbox.dead_letter(outbox.fetch(0, 1)[0].row_id, "rejected_by_broker")
    assert until(lambda: outbox.depth().dead_letters == 2)
    assert stored(outbox) == []


def test_a_full_disk_is_survived_in_memory_and_written_later(open_outbox, tiny_disk):
    told: list[tuple[str, str]] = []
    outbox = open_outbox(tiny_disk / "outbox.db", Faults(lambda _c, code, state, *_: told.append((code, state))))
    outbox.put(inspection(0))
    assert outbox.flush(5.0)
    ballast = (tiny_disk / "ballast").open("wb", buffering=0)
    with pytest.raises(OSError, match="No space left"):
        while True:
            ballast.write(b"x" * 4096)
    ballast.close()
    for number in range(1, 3000):
        outbox.put(inspection(number))
        if number % 100 == 0:
            time.sleep(0.01)
    assert not outbox.flush(0.5)
    assert ("disk_full", "raised") in told
    subprocess.run(["mount", "-o", "remount,size=64m", str(tiny_disk)], check=True)
    assert outbox.flush(20.0)
    assert [event["seq"] for event in stored(outbox)] == list(range(1, 3001))
    assert told == [("disk_full", "raised"), ("disk_full", "cleared")]


def test_a_place_that_is_full_at_start_says_so(open_outbox, tiny_disk):
    with (tiny_disk / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError, match="No space left"):
        while True:
            ballast.write(b"x" * 4096)
    with pytest.raises(StateError, match="free some space"):
        open_outbox(tiny_disk / "outbox.db")


def test_a_place_that_is_read_only_says_so(open_outbox, tiny_disk):
    open_outbox(tiny_disk / "outbox.db").close(5.0)
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with pytest.raises(StateError, match="may write to"):
        open_outbox(tiny_disk / "outbox.db")


def test_a_path_that_cannot_be_says_so(open_outbox, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="must be a directory"):
        open_outbox(tmp_path / "file" / "outbox.db")
    (tmp_path / "directory.db").mkdir()
    with pytest.raises(StateError, match=r"directory\.db"):
        open_outbox(tmp_path / "directory.db")


def test_a_file_of_a_newer_version_is_refused_and_left_alone(open_outbox, tmp_path):
    open_outbox().close(5.0)
    database = sqlite3.connect(str(tmp_path / "outbox.db"))
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StateError, match="newer defectd"):
        open_outbox()
    assert not list(tmp_path.glob("*.corrupt-*"))


def test_overflowing_memory_on_a_full_disk_is_told_by_gap_events(tmp_path):
    """The disk is made full by a limit on the size of files, in a process of its own."""
    script = textwrap.dedent("""
        import json, resource, sys, time
        from pathlib import Path
        from defectd.examples import EXAMPLES
        from defectd.faults import Faults
        from defectd.inspection.events import InspectionEvent, new_id
        from defectd.messaging import outbox as module
        from defectd.messaging.outbox import Outbox
        module.MAX_HELD_EVENTS = 1000
        told = []
        outbox = Outbox(Path(sys.argv[1]), boot_id="b", station="s", max_bytes=1 << 30, keep_acked_s=1.0)
        outbox.report_to(Faults(lambda c, code, state, *_: told.append((code, state))))
        outbox.start()
        outbox.flush(5.0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
        for number in range(5000):
            verdict = "failed" if number % 50 == 0 else "passed"
            outbox.put(EXAMPLES[InspectionEvent].model_copy(update={"id": new_id(), "verdict": verdict}))
            if number % 100 == 0:
                time.sleep(0.01)
        full = not outbox.flush(1.0)
        deadline = time.monotonic() + 5.0
        while outbox.depth().queued > 1000 and time.monotonic() < deadline:
            time.sleep(0.05)
        held = outbox.depth().queued
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        written = outbox.flush(20.0)
        time.sleep(0.2)
        rows = [json.loads(row.payload) for row in outbox.fetch(0, 100000)]
        outbox.close(5.0)
        print(json.dumps({"full": full, "held": held, "written": written, "told": told, "rows": rows}))
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "outbox.db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    result = json.loads(done.stdout)
    assert result["full"]
    assert result["written"]
    assert result["held"] <= 1000
    assert told_and_kept(result["rows"], "inspection") == list(range(1, 5001))
    assert sum(row.get("verdict") == "failed" for row in result["rows"]) == 100
    gaps = [row for row in result["rows"] if row["schema"].startswith("defectd.gap/")]
    assert {gap["reason"] for gap in gaps} == {"disk_full"}
    assert ["disk_error", "raised"] in result["told"]
    assert ["disk_error", "cleared"] in result["told"]


def test_a_damaged_file_is_put_aside_at_start_and_a_new_epoch_begins(open_outbox, tmp_path):
    first = open_outbox()
    first.put(inspection(0))
    first.close(5.0)
    path = tmp_path / "outbox.db"
    path.write_bytes(b"\xff" * 8192)
    told: list[str] = []
    second = open_outbox(faults=Faults(lambda _c, code, *_: told.append(code)))
    second.put(inspection(1))
    assert second.flush(5.0)
    assert second.epoch != first.epoch
    assert told == ["recreated"]
    (aside,) = tmp_path.glob("outbox.corrupt-*")
    assert aside.read_bytes() == b"\xff" * 8192


def test_a_file_that_breaks_in_use_is_replaced_and_later_events_are_kept(open_outbox, tmp_path):
    first = open_outbox()
    for number in range(500):
        first.put(inspection(number), {"top": number})
    first.close(5.0)
    told: list[str] = []
    outbox = open_outbox(faults=Faults(lambda _c, code, *_: told.append(code)))
    path = tmp_path / "outbox.db"
    with path.open("r+b") as file:
        file.seek(4096 * 8)
        file.write(
            random.Random(1).randbytes(path.stat().st_size - 4096 * 8)
            if sys.version_info >= (3, 9)
            else os.urandom(path.stat().st_size - 4096 * 8)
        )
    outbox.fetch(0, 1000)
    assert until(lambda: "recreated" in told)
    outbox.put(inspection(1000), {"top": 1000})
    assert outbox.flush(5.0)
    assert outbox.epoch != first.epoch
    (event,) = [each for each in stored(outbox) if each["schema"].startswith("defectd.inspection/")]
    assert (event["unit_id"], event["seq"], event["epoch"]) == ("1000", 1, outbox.epoch)
    assert outbox.positions() == {"top": 1000}


def test_after_kill_9_all_that_was_reported_written_is_there_and_seq_has_no_hole(open_outbox, tmp_path):
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from defectd.examples import EXAMPLES
        from defectd.inspection.events import InspectionEvent, new_id
        from defectd.messaging.outbox import Outbox
        outbox = Outbox(Path(sys.argv[1]), boot_id="b", station="s", max_bytes=1 << 30, keep_acked_s=1.0)
        outbox.start()
        number = outbox.positions().get("top", 0)
        while True:
            for _ in range(20):
                number += 1
                outbox.put(EXAMPLES[InspectionEvent].model_copy(update={"id": new_id(), "unit_id": str(number)}),
                           {"top": number})
            outbox.flush(5.0)
            print(number, flush=True)
    """)
    path = tmp_path / "outbox.db"
    reported = 0
    for run in range(3):
        process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(15 + 7 * run):
            reported = int(process.stdout.readline())
        time.sleep(0.003 * run)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        process.stdout.close()
        process.wait()
        reported = int(rest[-1]) if rest else reported
    outbox = open_outbox(path)
    events = stored(outbox)
    assert len(events) >= reported > 0
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["unit_id"] for event in events] == [str(n) for n in range(1, len(events) + 1)]
    assert outbox.positions() == {"top": len(events)}
    assert len({event["id"] for event in events}) == len(events)


def test_an_event_that_cannot_be_json_neither_stops_the_others_nor_takes_a_number(open_outbox):
    told: list[str] = []
    outbox = open_outbox(faults=Faults(lambda _c, code, *_: told.append(code)))
    outbox.put(fault("x").model_copy(update={"data": {"bad": object()}}))
    outbox.put(fault("good"))
    assert outbox.flush(5.0)
    assert [(event["seq"], event["detail"]) for event in stored(outbox)] == [(1, "good")]
    assert told == ["event_unserialisable"]


def test_faults_of_the_outbox_go_through_the_outbox_itself(open_outbox, tmp_path):
    def sink(_component: str, _code: str, _state: str, detail: str, _data: dict[str, Any]) -> None:
        outboxes[-1].put(fault(detail))

    outboxes = [Outbox(tmp_path / "small.db", boot_id="b", station="s", max_bytes=50_000, keep_acked_s=1.0)]
    outboxes[0].report_to(Faults(sink))
    outboxes[0].start()
    try:
        for number in range(200):
            outboxes[0].put(inspection(number))
        assert outboxes[0].flush(5.0)
        assert until(lambda: any(event["schema"].startswith("defectd.fault/") for event in stored(outboxes[0])))
    finally:
        outboxes[0].close(5.0)


@pytest.mark.slow
def test_a_hundred_thousand_queued_events_do_not_grow_memory(tmp_path):
    script = textwrap.dedent("""
        import os, sys, time
        from pathlib import Path
        from defectd.examples import EXAMPLES
        from defectd.inspection.events import InspectionEvent
        from defectd.messaging.outbox import Outbox
        def rss_mb(): return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        outbox = Outbox(Path(sys.argv[1]), boot_id="b", station="s", max_bytes=1 << 30, keep_acked_s=1.0)
        outbox.start()
        sizes = []
        for number in range(100_001):
            outbox.put(EXAMPLES[InspectionEvent])
            while number % 100 == 0 and outbox.depth().queued > 500:
                time.sleep(0.001)
            if number in (10_000, 100_000):
                outbox.flush(30.0)
                sizes.append(rss_mb())
        print(outbox.depth().pending, sizes[1] - sizes[0])
        outbox.close(30.0)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "outbox.db")],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    pending, growth_mb = done.stdout.split()
    assert int(pending) == 100_001
    assert float(growth_mb) < 10


def test_gap_events_are_valid_on_the_wire(open_outbox):
    outbox = open_outbox(max_bytes=50_000)
    for number in range(100):
        outbox.put(inspection(number))
    outbox.flush(5.0)
    gaps = [row for row in outbox.fetch(0, 1000) if row.stream == "gap"]
    assert gaps
    for row in gaps:
        gap = GapEvent.model_validate_json(row.payload)
        assert (gap.from_seq, gap.to_seq) == (gap.ranges[0][0], gap.ranges[-1][1])
        assert (gap.station, gap.boot_id, gap.seq) == ("aoi1", "boot", row.seq)
