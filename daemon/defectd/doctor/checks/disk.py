"""Where outbox, evidence and models live: may this user write there, is there space, how long does an fsync take?"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Iterator, Sequence

from defectd.clock import monotonic_ns, ms_between
from defectd.doctor.checks.configuration import name_of_user
from defectd.doctor.patient import Patient
from defectd.doctor.report import Finding, error, ok, skipped, warning

_SYNCS, _SYNCS_BESIDE_A_LINE = 20, 5
_BLOCK = b"\0" * 4096
_SLOW_MS, _STUCK_MS = 50.0, 500.0
_LEAST_MB = 200.0
_WORN = 0.8
_IN_MEMORY = ("tmpfs", "ramfs")


def check_disk(patient: Patient) -> Iterator[Finding]:
    """Space, speed, wear."""
    settings = patient.settings
    if settings is None:
        yield skipped("state", patient.unread)
        return
    directory = existing(settings.state.directory)
    shown = f"{settings.state.directory}"
    if directory != settings.state.directory:
        yield ok("state", f"{shown} is not there yet; the daemon makes it")
    if not os.access(directory, os.W_OK | os.X_OK):
        if patient.is_stranger:
            yield skipped("state", f"{directory} is not for this user")
        else:
            yield error(
                "state", f"you may not write to {directory}",
                f"sudo mkdir -p {shown} && sudo chown -R {name_of_user(os.geteuid())} {shown}; for a service, systemd "
                "does that (StateDirectory=defectd)",
            )  # fmt: skip
        return
    kept_mb = sum(_size_mb(directory / name) for name in ("outbox.db", "evidence"))
    wanted_mb = settings.state.outbox_max_mb + settings.evidence.max_mb * settings.evidence.enabled
    file_system = os.statvfs(directory)
    yield space_finding(
        shown, file_system.f_bavail * file_system.f_frsize / 1e6, file_system.f_blocks * file_system.f_frsize / 1e6,
        max(0.0, wanted_mb - kept_mb), file_system.f_favail if file_system.f_files else None,
    )  # fmt: skip
    kind = file_system_of(directory, patient.places.roots.proc)
    if kind in _IN_MEMORY:
        yield warning("state", f"{shown} is in memory ({kind}): a power cut loses every event that was not sent",
                      "set state.directory to a place on NVMe or eMMC")  # fmt: skip
    yield _syncs(directory, shown, _SYNCS_BESIDE_A_LINE if patient.busy else _SYNCS)
    if patient.sample.disk_wear is not None:
        yield wear_finding(patient.sample.disk_wear)


def existing(directory: Path) -> Path:
    """*directory*, or the nearest one above it that is there."""
    return next(one for one in (directory, *directory.resolve().parents) if one.is_dir())


def space_finding(place: str, free_mb: float, total_mb: float, growth_mb: float, files_left: int | None) -> Finding:
    """*growth_mb*: what outbox and evidence may still grow by. Pure."""
    found = f"{place}: {free_mb / 1000:.1f} of {total_mb / 1000:.1f} GB are free"
    figures = {"free_mb": round(free_mb), "total_mb": round(total_mb), "growth_mb": round(growth_mb)}
    if free_mb < _LEAST_MB or files_left == 0:
        what = "no more files can be made" if files_left == 0 else "too little to inspect with"
        return error("space", f"{found}: {what}", "delete what is not needed (sudo journalctl --vacuum-size=100M, "
                     "old pictures), or lower evidence.max_mb", **figures)  # fmt: skip
    if free_mb < growth_mb:
        return warning("space", f"{found}; outbox and evidence may grow by another {growth_mb / 1000:.1f} GB",
                       "lower evidence.max_mb or state.outbox_max_mb, or use a larger disk", **figures)  # fmt: skip
    return ok("space", f"{found}; outbox and evidence may grow by {growth_mb / 1000:.1f} GB", **figures)


def _syncs(directory: Path, shown: str, count: int) -> Finding:
    try:
        return sync_finding(sync_times_ms(directory, count), beside_a_line=count == _SYNCS_BESIDE_A_LINE)
    except OSError as problem:
        return error("fsync", f"{shown}: {problem.strerror}", "the disk takes no data: dmesg | tail says why (full, "
                     "read-only after an error, broken)")  # fmt: skip


def sync_times_ms(directory: Path, count: int) -> list[float]:
    """Milliseconds of each of *count* writes of 4 KiB that are on disk when they return. Leaves nothing. Raises
    OSError."""
    took_ms = []
    with tempfile.TemporaryFile(dir=str(directory), prefix=".doctor-") as file:
        for _ in range(count):
            started_ns = monotonic_ns()
            file.write(_BLOCK)
            file.flush()
            os.fsync(file.fileno())
            took_ms.append(ms_between(started_ns, monotonic_ns()))
    return took_ms


def sync_finding(took_ms: Sequence[float], *, beside_a_line: bool = False) -> Finding:
    """The outbox waits for one fsync per group of events. Pure."""
    median_ms, worst_ms = sorted(took_ms)[len(took_ms) // 2], max(took_ms)
    found = f"{median_ms:.1f} ms at p50, {worst_ms:.1f} ms at most, of {len(took_ms)}"
    figures = {"p50_ms": round(median_ms, 2), "max_ms": round(worst_ms, 2)}
    if median_ms > _SLOW_MS or worst_ms > _STUCK_MS:
        remedy = "an SD card or a worn disk does that: use NVMe, or an industrial card"
        if beside_a_line:
            remedy += "; the line writes, too: look again while it is stopped"
        return warning("fsync", f"{found}: slow, so events leave late", remedy, **figures)
    return ok("fsync", found, **figures)


def wear_finding(share: float) -> Finding:
    """Of the flash's rated life. Pure."""
    found = f"{share:.0%} of the flash's rated life is used up"
    if share >= _WORN:
        return warning("wear", found, "plan to replace it; copy the state directory while the daemon is stopped")
    return ok("wear", found, share=share)


def file_system_of(directory: Path, proc: Path = Path("/proc")) -> str | None:
    """Like ext4, of the mount that *directory* is in; None if the kernel does not tell."""
    try:
        lines = (proc / "self/mounts").read_text().splitlines()
    except OSError:
        return None
    wanted = directory.resolve()
    best: tuple[int, str] | None = None
    for fields in map(str.split, lines):
        mount = Path(fields[1].replace("\\040", " "))
        if (mount == wanted or mount in wanted.parents) and (best is None or len(str(mount)) >= best[0]):
            best = len(str(mount)), fields[2]
    return None if best is None else best[1]


def _size_mb(path: Path) -> float:
    """Of a file, or of all below a folder, as far as they can be seen."""
    total = 0
    for one in [path] if path.is_file() else path.rglob("*"):
        with suppress(OSError):
            total += one.stat().st_size
    return total / 1e6
