"""Findings as a person reads them. Pure."""

from __future__ import annotations

from typing import Callable, Iterable, Sequence

from defectd.bench.figures import Target
from defectd.bench.findings import Findings, Round, loop_hz
from defectd.bench.station import Phase

_STAGES = (
    ("wait for the engine, message to it", "queue_ms"),
    ("preprocess: letterbox, RGB, floats", "preprocess_ms"),
    ("forward, head to candidates", "inference_ms"),
    ("postprocess: suppression, coordinates", "postprocess_ms"),
    ("picture into its slot, two messages, judging", "elsewhere_ms"),
)


def render(findings: Findings) -> str:
    """The whole report."""
    parts = [
        _about(findings),
        _latencies(findings),
        _throughputs(findings),
        _stages(findings),
        _core_times(findings),
        _memory(findings),
        _outbox(findings),
        _targets(findings.targets()),
        *_disturbances(findings),
    ]
    return "\n\n".join(parts)


def _about(findings: Findings) -> str:
    about = findings.about
    floor, peer = about["floor"], about["peer"]
    lines = [
        f"{about['date']}, {about['machine']}; Python {about['python']}, {about['broker']}",
        f"{about['model']} on {about['images']}, CPU; bare forward and defectd: torch {floor['torch']}, "
        f"{floor['threads']} threads",
        f"Ultralytics {peer['ultralytics']}, torch {peer['torch']}, {peer['threads']} thread(s), its own choice"
        if peer
        else f"Ultralytics: {findings.peer_absent}",
        f"{about['rounds']} rounds of {about['paced_units']} units at {about['paced_hz']:g} units/s and "
        f"{about['saturated_units']} saturated; p50 and rates are medians over the rounds, p99 is of all samples",
    ]
    return "\n".join(lines)


def _latencies(findings: Findings) -> str:
    rows: list[tuple[str, Callable[[Round], Sequence[float]]]] = [
        *(
            (f"bare forward, {way}", lambda one, way=way: one.floor_paced[way])
            for way in findings.rounds[0].floor_paced
        ),
        ("defectd, capture to verdict", lambda one: one.paced.column_ms("capture_to_verdict_ms")),
    ]
    if not findings.peer_absent:
        rows += [
            ("Ultralytics predict, picture in memory", lambda one: one.peer.predict_ms if one.peer else ()),
            ("Ultralytics, file read and predict", lambda one: one.peer.whole_ms if one.peer else ()),
        ]
    lines = []
    for name, column in rows:
        latency = findings.latency(column)
        lines.append((name, f"{latency.p50_ms:.1f}", f"{latency.p99_ms:.1f}"))
    title = f"Latency at {findings.about['paced_hz']:g} units/s, ms"
    return table(title, ("", "p50", "p99"), lines)


def _throughputs(findings: Findings) -> str:
    rows: list[tuple[str, Callable[[Round], float]]] = [
        *(
            (f"bare forward loop, {way}", lambda one, way=way: loop_hz(one.floor_saturated[way]))
            for way in findings.rounds[0].floor_saturated
        ),
        ("defectd, evidence off", lambda one: one.saturated.throughput_hz),
        ("defectd, evidence on", lambda one: one.keeping.throughput_hz),
    ]
    if not findings.peer_absent:
        rows.append(("Ultralytics predict(stream=True)", lambda one: one.peer.stream_hz if one.peer else 0.0))
    lines = [(name, f"{findings.median(value):.1f}", _each(map(value, findings.rounds), ".1f")) for name, value in rows]
    return table("Saturated, units/s", ("", "median", "each round"), lines)


def _stages(findings: Findings) -> str:
    """Medians of stages do not add up to the median of the whole: hence the row that says by how much."""
    phases: list[Callable[[Round], Phase]] = [lambda one: one.paced, lambda one: one.saturated, lambda one: one.keeping]
    lines = []
    for name, column in (*_STAGES, ("capture to verdict", "capture_to_verdict_ms")):
        cells = (findings.latency(lambda one, of=of, column=column: of(one).column_ms(column)).p50_ms for of in phases)  # type: ignore[misc]
        lines.append((name, *(f"{cell:.2f}" for cell in cells)))
    floor_ms = (findings.median(lambda one: one.floor_ms), *[findings.median(lambda one: 1e3 / one.floor_hz)] * 2)
    lines.append(("(fastest bare forward)", *(f"{cell:.2f}" for cell in floor_ms)))
    return table("Where a unit's time goes, p50 ms", ("", "paced", "saturated", "+ evidence"), lines)


def _core_times(findings: Findings) -> str:
    names = dict.fromkeys(name for one in findings.rounds for name in one.keeping.core_ms)
    lines = []
    for name in names:
        cells = [
            findings.median(lambda one, name=name: one.saturated.core_ms.get(name, 0.0)),  # type: ignore[misc]
            findings.median(lambda one, name=name: one.keeping.core_ms.get(name, 0.0)),  # type: ignore[misc]
        ]
        label = "everything else on this machine, the subscriber too" if name == "others" else name
        lines.append((label, *(f"{cell:.1f}" for cell in cells)))
    pictures = sum(one.keeping.pictures for one in findings.rounds)
    units = sum(len(one.keeping.timings) for one in findings.rounds)
    title = f"Where the cores go when saturated, core-ms per unit ({pictures} pictures of {units} units were kept)"
    return table(title, ("", "saturated", "+ evidence"), lines)


def _memory(findings: Findings) -> str:
    lines = [(name, f"{peak:.0f}") for name, peak in findings.peak_mb().items()]
    lines.append(("bare forward", f"{findings.floor_mb:.0f}"))
    if findings.peer_mb is not None:
        lines.append(("Ultralytics", f"{findings.peer_mb:.0f}"))
    return table("Peak resident memory, MB (VmHWM, shared pages included)", ("", "MB"), lines)


def _outbox(findings: Findings) -> str:
    if findings.outbox is None:
        return "Outbox: not measured"
    return "\n".join(["Outbox", *(f"  {line}" for line in findings.outbox.lines)])


def _targets(targets: Sequence[Target]) -> str:
    lines = []
    for target in targets:
        sign = "<=" if target.at_most else ">="
        digits = ".2f" if target.unit == "x" else ",.0f"
        each = _each(target.values, digits) if len(target.values) > 1 else ""
        limit = f"{sign} {format(target.limit, digits)}{'' if target.unit == 'x' else ' ' + target.unit}"
        lines.append((target.name, format(target.value, digits), limit, "ok" if target.met else "SHORT", each))
    return table("Targets", ("", "value", "target", "", "each round"), lines)


def _disturbances(findings: Findings) -> list[str]:
    """What makes a figure doubtful."""
    lines = []
    for number, one in enumerate(findings.rounds, 1):
        for name, phase in (("paced", one.paced), ("saturated", one.saturated), ("+ evidence", one.keeping)):
            odd = {verdict: count for verdict, count in phase.verdicts.items() if verdict not in ("passed", "failed")}
            if odd or phase.replaced:
                lines.append(
                    f"  round {number}, {name}: {odd or 'all judged'}; workers replaced: {phase.replaced or 'none'}"
                )
            lines.append(f"  round {number}, {name}: engine layout {phase.layout}")
    return ["\n".join(["Engines and oddities", *lines])] if lines else []


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned: the first to the left, the others to the right."""
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [title]
    for row in cells:
        padded = [cell.ljust(width) if not column else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(row, widths))]  # fmt: skip
        lines.append("  " + "  ".join(padded).rstrip())
    return "\n".join(lines)


def _each(values: Iterable[float], digits: str) -> str:
    return " ".join(format(value, digits) for value in values)
