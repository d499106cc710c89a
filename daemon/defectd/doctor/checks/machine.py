"""The board: power mode, clocks, heat, what held it back since it was switched on; memory; the wall clock."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Iterator, Mapping

from defectd.clock import utc_now
from defectd.doctor.patient import Patient
from defectd.doctor.report import Finding, error, ok, skipped, warning
from defectd.telemetry.files import Files
from defectd.telemetry.power_mode import NO_LIMIT, PowerMode, read_power_modes
from defectd.telemetry.sample import Board, DeviceSample, Frequency

_RELEASED = datetime(2026, 1, 1, tzinfo=timezone.utc)
_LAST_SANE_YEAR = 2100
_HOT_C = 85.0
_SPARE_MB = 300.0  # while a daemon runs, which has its own already
_TORCH_MB = {"cpu": 500.0, "cuda": 1500.0}


def check_board(patient: Patient) -> Iterator[Finding]:
    """Which machine, and its power mode."""
    up = _duration(patient.sample.uptime_s)
    yield ok("board", f"{patient.machine}, up {up}", platform=patient.board.platform)
    if patient.is_jetson:
        modes = read_power_modes(patient.places.roots, Files())
        yield power_mode_finding(patient.sample.power_mode, modes)


def power_mode_finding(current: str | None, modes: Mapping[int, PowerMode]) -> Finding:
    """Whether another mode of nvpmodel would let the GPU run faster. Pure."""
    mine = next((mode for mode in modes.values() if mode.name == current), None)
    if current is None or mine is None:
        why = "the machine does not tell it" if current is None else f"{current}, which nvpmodel.conf does not describe"
        return warning("power mode", why, "sudo nvpmodel -q; then set one with: sudo nvpmodel -m ID")
    number, best = max(modes.items(), key=lambda item: (_gpu_hz(item[1]), sum(item[1].cpu_khz.values()), -item[0]))
    if _gpu_hz(best) > _gpu_hz(mine):
        return warning(
            "power mode", f"{current} lets the GPU run at {_mhz(mine)}; {best.name} would at {_mhz(best)}",
            f"if supply and cooling are made for it: sudo nvpmodel -m {number} (it may ask to restart)",
            mode=current, best=best.name,
        )  # fmt: skip
    return ok("power mode", f"{current}, no other lets the GPU run faster", mode=current)


def _gpu_hz(mode: PowerMode) -> int:
    return max(mode.gpu_hz.values(), default=0)


def _mhz(mode: PowerMode) -> str:
    hz = _gpu_hz(mode)
    return "full speed" if hz >= NO_LIMIT else f"{hz / 1e6:.0f} MHz at most" if hz else "an unknown clock"


# -- clocks and heat ---------------------------------------------------------------------------------------------


def check_clocks(patient: Patient) -> Iterator[Finding]:
    """How fast GPU and CPU may run now, whether they sleep between units, and what throttles."""
    sample = patient.sample
    for name, frequency in (("GPU clock", sample.gpu), ("CPU clock", sample.cpu)):
        if frequency is not None:
            yield clock_finding(name, frequency)
    if sample.gpu is None and sample.cpu is None:
        yield skipped("clocks", "the kernel does not tell them: a virtual machine, or a container")
    warn_c = _HOT_C if patient.settings is None else patient.settings.thermal.warn_c
    yield from throttle_findings(sample, patient.board, warn_c)


def clock_finding(name: str, frequency: Frequency) -> Finding:
    """Pinned clocks answer at once; sleeping ones do so if they wake up fast. `pauses` measures it. Pure."""
    now = "unknown" if frequency.current_mhz is None else f"{frequency.current_mhz:.0f} MHz now"
    governor = f", governor {frequency.governor}" if frequency.governor else ""
    figures = {"current_mhz": frequency.current_mhz, "min_mhz": frequency.min_mhz, "max_mhz": frequency.max_mhz}
    low, high = frequency.min_mhz, frequency.max_mhz
    if low is None or high is None:
        return ok(name, f"{now}{governor}", **figures)
    if low >= high:
        return ok(name, f"pinned to {high:.0f} MHz (jetson_clocks, or set by hand){governor}", **figures)
    return ok(name, f"{now}, between {low:.0f} and {high:.0f}: it slows down when idle{governor}", **figures)


def throttle_findings(sample: DeviceSample, board: Board, warn_c: float = _HOT_C) -> Iterator[Finding]:
    """What holds the machine back, and what did since it was switched on. Pure."""
    signs = sample.throttle
    if signs.alerts:
        yield warning("throttling", f"now, for heat: {', '.join(signs.alerts)}",
                      "see that the fan turns and the heat sink is free of dust; else choose a lower power mode: "
                      "a steady rate is better than one that jumps", domains=list(signs.alerts))  # fmt: skip
    if signs.capped:
        yield warning("throttling", f"{' and '.join(signs.capped)} may not run as fast as the power mode allows",
                      "somebody has set a lower limit, or something holds it back: sudo jetson_clocks --show; "
                      "a restart of the machine removes what was set by hand", domains=list(signs.capped))  # fmt: skip
    events = {name: count for name, count in signs.oc_events.items() if count}
    if events:
        counts = ", ".join(f"{name} {count} times" for name, count in sorted(events.items()))
        yield warning("power supply", f"over-current or under-voltage since it was switched on: {counts}; each slows "
                      f"it down, however cool it is", "use the supply that the carrier board names, with a short thick "
                      "cable; else a lower power mode: sudo nvpmodel -m ID", **events)  # fmt: skip
    if signs.crit_alarms:
        yield warning("power supply", f"over the critical current now: {', '.join(signs.crit_alarms)}",
                      "unplug what hangs on USB, use a stronger supply, or a lower power mode")  # fmt: skip
    if sample.hottest_c is not None and sample.hottest_c >= warn_c:
        yield warning("heat", f"{sample.hottest_c:.0f} °C at its hottest", "it will throttle soon: see to fan, dust "
                      "and the cabinet's air", hottest_c=sample.hottest_c)  # fmt: skip
    elif sample.hottest_c is not None:
        yield ok("heat", f"{sample.hottest_c:.0f} °C at its hottest", hottest_c=sample.hottest_c)
    if board.platform != "pc" and not (signs.alerts or signs.capped or events or signs.crit_alarms):
        yield ok("throttling", "none now, and no over-current since it was switched on")


# -- memory ------------------------------------------------------------------------------------------------------


def check_memory(patient: Patient) -> Iterator[Finding]:
    """What is left for the model; on a Jetson the GPU's is the same."""
    sample = patient.sample
    if sample.mem_available_mb is None or sample.mem_total_mb is None:
        yield skipped("memory", "the kernel does not tell it")
        return
    needs_mb = _SPARE_MB if patient.busy else _needs_mb(patient)
    free = f"{sample.mem_available_mb:.0f} of {sample.mem_total_mb:.0f} MB are available"
    swap = f", {sample.swap_used_mb:.0f} MB are swapped out" if (sample.swap_used_mb or 0) > 1 else ""
    figures = {"available_mb": sample.mem_available_mb, "total_mb": sample.mem_total_mb}
    if sample.mem_available_mb < needs_mb:
        yield warning("memory", f"{free}{swap}; about {needs_mb:.0f} MB are needed",
                      "stop what else runs here: a desktop (sudo systemctl set-default multi-user.target), a browser",
                      **figures)  # fmt: skip
    else:
        yield ok("memory", f"{free}{swap}", **figures)


def _needs_mb(patient: Patient) -> float:
    on_gpu = patient.is_jetson and (patient.settings is None or patient.settings.model.device != "cpu")
    if patient.checked is None:
        return _TORCH_MB["cuda" if on_gpu else "cpu"]
    bundle = patient.checked.model.bundle
    return max(_TORCH_MB["cuda" if on_gpu else "cpu"], 0.0 if bundle is None else bundle.manifest.requires.mem_mb)


# -- the wall clock ----------------------------------------------------------------------------------------------


def check_clock(patient: Patient) -> Iterator[Finding]:
    """Certificates and signatures have dates. Inspection itself needs no wall clock."""
    yield clock_state(utc_now(), patient.sample.clock_synced, is_jetson=patient.is_jetson)


def clock_state(now: datetime, synced: bool | None, *, is_jetson: bool) -> Finding:
    """Pure."""
    shown = f"{now:%Y-%m-%d %H:%M} UTC"
    ask = "sudo timedatectl set-ntp true; timedatectl timesync-status says which server it asks (UDP port 123)"
    battery = "; a Jetson without a battery on its clock starts in the past each time" if is_jetson else ""
    if now < _RELEASED or now.year >= _LAST_SANE_YEAR:
        return error("clock", f"{shown} cannot be: certificates and signatures will be refused", ask + battery)
    if synced is None:
        return ok("clock", f"{shown}; whether it follows a time server is not told here")
    if synced:
        return ok("clock", f"{shown}, follows a time server", synced=True)
    return warning("clock", f"{shown}, follows no time server: it drifts by seconds a day", ask + battery, synced=False)


def _duration(seconds: float) -> str:
    if seconds >= 2 * 86_400:
        return f"{seconds / 86_400:.0f} days"
    return f"{seconds / 3600:.0f} hours" if seconds >= 2 * 3600 else f"{seconds / 60:.0f} minutes"
