"""Bad input, the state directory: read-only, full, filling up, or wanted by two."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

from acceptance.loop_refusals import STATE_REFUSED, Refused
from support.coded_pictures import HEIGHT_PX, WIDTH_PX, write_pictures
from support.proving import Proof, Setting, Short, Skipped
from support.proving_ground import DRAIN_LIMIT_S, ground
from support.station import DaemonProcess, wait_until


@contextlib.contextmanager
def _mounted(directory: Path, options: str) -> Iterator[Path]:
    """A file system of its own at *directory*. Raises Skipped without the right to mount."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "defectd-test", str(directory)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        raise Skipped("run it as root where mounting is allowed: it needs a small tmpfs of its own")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=False)


def _read_only_state(setting: Setting) -> str:
    with _mounted(setting.directory / "state", "ro,size=1m"):
        return Refused(_unchanged, (("state.directory", "state", "Read-only", "expected"),))(setting)


def _full_state(setting: Setting) -> str:
    """No room at the start: it says so."""
    with _mounted(setting.directory / "state", "size=64k") as state:
        _fill(state)
        return Refused(_unchanged, (("state", "free"),))(setting)


def _state_fills_up(setting: Setting) -> str:
    """Others fill the disk in mid-run: inspection goes on, events wait in memory; then there is room again."""
    state, settings = setting.directory / "state", {"evidence": {"enabled": False}}
    with _mounted(state, "size=10m"), ground(setting.directory, 400, 10.0, settings) as here:
        here.await_units(20)
        _fill(state)
        here.struck_at_s = time.time()
        wait_until(lambda: "disk_full" in here.daemon.log(), 60, "evt/fault outbox disk_full")
        here.notes.append(f"noticed after {time.time() - here.struck_at_s:.1f} s")
        time.sleep(8)
        (state / "filler").unlink()
        here.await_good_units()
        here.finish()
        here.expect_fault("outbox", "disk_full")
        return here.report()


def _ended_on_full_disk(setting: Setting) -> str:
    """SIGTERM while the disk takes nothing: it ends in time, and the room that was kept for this moment takes every
    verdict; the next start, with room, goes on with the next unit."""
    state, settings = setting.directory / "state", {"evidence": {"enabled": False}}
    with _mounted(state, "size=10m"), ground(setting.directory, 200, 10.0, settings) as here:
        here.await_units(20)
        _fill(state)
        wait_until(lambda: "disk_full" in here.daemon.log(), 60, "evt/fault outbox disk_full")
        time.sleep(2)
        took_s = here.daemon.terminate()
        told = re.search(r"the reserve is used for \d+ events", here.daemon.log())
        if took_s > DRAIN_LIMIT_S or told is None:
            raise Short(f"it ended after {took_s:.1f} s and {'used' if told else 'did not use'} its reserve")
        (state / "filler").unlink()
        before = len(here.collector.inspections)
        here.daemon.start()
        here.daemon.wait_ready()
        here.await_units(before + 20)
        here.terminate()
        here.notes.append(f"ended {took_s:.1f} s after SIGTERM; its log: {told[0]}")
        return here.report(once=False)


def _evidence_fills_disk(setting: Setting) -> str:
    """Pictures of failed units fill what is left of the disk: they must give way, so that no event waits."""
    state, scale, units = setting.directory / "state", 10, 300
    pictures = write_pictures(setting.directory / "large", units, scale)
    camera = {"name": "top", "kind": "replay", "path": pictures, "rate_hz": 10.0}
    camera["max_pixels"] = HEIGHT_PX * WIDTH_PX * scale * scale
    with _mounted(state, "size=44m"):
        (state / "others").write_bytes(bytes(33_000_000))
        with ground(setting.directory, units, 10.0, {"camera": [camera]}) as here:
            here.finish()
            here.notes.append(f"{_bytes_below(state / 'evidence') / 1e6:.1f} MB of pictures")
            if "disk_full" in here.daemon.log():
                raise Short("; ".join(["events had to wait for room, beside pictures that could go", *here.notes]))
            return here.report()


def _bytes_below(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _unchanged(_directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    return settings


def _fill(directory: Path) -> None:
    """Until nothing fits."""
    with contextlib.suppress(OSError), (directory / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def _two_daemons(setting: Setting) -> str:
    """The second one on the same state directory is refused; the first one does not notice."""
    with ground(setting.directory, 100, 10.0) as here:
        here.await_units(10)
        second = DaemonProcess(here.daemon.config)
        second.log_path = setting.directory / "second.log"
        second.start()
        try:
            code = second.wait(30)
        except subprocess.TimeoutExpired as error:
            raise Short("a second daemon runs on the same state directory and inspects beside the first") from error
        finally:
            second.end()
        here.finish()
        said = second.log().strip().splitlines()[-1]
        if code != STATE_REFUSED or "state" not in said:
            raise Short(f"the second daemon: exit {code}, {said}")
        return f"the second: exit {code}, {said}; the first: {here.report()}"


STATE = (
    Proof("bad.state-read-only", "a state directory on a read-only file system", _read_only_state),
    Proof("bad.state-full", "a full state directory at the start", _full_state),
    Proof("bad.state-fills-up", "a disk that fills up in mid-run", _state_fills_up),
    Proof("bad.state-full-at-end", "SIGTERM while the disk is full", _ended_on_full_disk),
    Proof("bad.evidence-fills-disk", "pictures fill the disk: they give way to events", _evidence_fills_disk),
    Proof("bad.two-daemons", "a second daemon on one state directory", _two_daemons),
)
