"""The same things as plain text: one line for a unit, for logs, pipes and terminals without colour. PURE."""

from __future__ import annotations

from datetime import datetime

from defectd.watch.tally import StationTally
from defectd.watch.wire import FaultNews, Inspected, Lost, Message, StationBirth, StationStatus


def line_of(station: str, message: Message) -> str:
    """One readable line for one message."""
    name = station.rsplit("/", 1)[-1]
    if isinstance(message, Inspected):
        judged = message.verdict.upper() + (" (review)" if message.needs_review else "")
        return (
            f"{time_of(message)} {name} #{message.trigger} {message.unit_id} {judged} "
            f"{message.latency_ms:.1f} ms {describe_findings(message)}"
        ).rstrip()
    if isinstance(message, FaultNews):
        return f"{name}: fault {message.state}: {message.component}: {message.code}: {message.detail}"
    if isinstance(message, Lost):
        return f"{name}: {message.lost} {message.of_stream} events given up: {message.reason}"
    if isinstance(message, StationStatus):
        detail = f": {message.detail}" if message.detail != message.condition else ""
        return f"{name}: {message.condition}{detail}{f' ({said_at(message)})' if message.at else ''}"
    return _birth_line(name, message)


def _birth_line(name: str, birth: StationBirth) -> str:
    model = f"{birth.model} on {birth.runtime}, {birth.warmup}" if birth.model else "no model yet"
    return f"{name}: defectd {birth.defectd}, {model}, recipe {birth.recipe}, deadline {birth.deadline_ms:.0f} ms"


def describe_findings(unit: Inspected) -> str:
    """`PCB-SHORT 0.93, PCB-OPEN 0.71`, or why there is no verdict."""
    if unit.error is not None:
        return unit.error.replace("_", " ")
    return ", ".join(f"{finding.code} {finding.confidence:.2f}" for finding in unit.findings)


def time_of(unit: Inspected) -> str:
    """The verdict's moment on this machine's wall clock; as it stands on the wire if it cannot be read."""
    return _local(unit.at, "%H:%M:%S")


def said_at(status: StationStatus) -> str:
    """How old it may be: a broker keeps the last one for ever. Empty if the station does not say."""
    since = "connected at" if status.condition == "lost" else "as of"
    return f"{since} {_local(status.at, '%Y-%m-%d %H:%M:%S')}" if status.at else ""


def share(value: float | None) -> str:
    """`93.1 %`."""
    return "-" if value is None else f"{value * 100:.1f} %"


def rate(station: StationTally) -> str:
    """Units per second as they arrive; `-` for less than two."""
    return "-" if station.rate_hz is None else f"{station.rate_hz:.1f}"


def _local(at: str, form: str) -> str:
    """A moment of the wire on this machine's wall clock; as it stands there if it cannot be read."""
    try:
        return datetime.fromisoformat(at.replace("Z", "+00:00")).astimezone().strftime(form)
    except ValueError:
        return at
