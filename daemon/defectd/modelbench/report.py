"""Findings as JSON: every sample, and the figures that everybody asks for. Pure."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from defectd.modelbench.findings import Entry, Findings, Measured
from defectd.modelbench.summary import headline

SCHEMA = "defectd.modelbench/1.0"


def as_json(findings: Findings) -> str:
    """One object; durations and units are in the names of its keys."""
    body = {
        "schema": SCHEMA,
        "headline": headline(findings),
        "chosen": findings.chosen and findings.chosen.name,
        **{key: value for key, value in dataclasses.asdict(findings).items() if key != "entries"},
        "entries": [_entry(findings, entry) for entry in findings.entries],
    }
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


def _entry(findings: Findings, entry: Entry) -> dict[str, Any]:
    fields = dataclasses.asdict(entry)
    outcome = fields.pop("outcome")
    if isinstance(entry.outcome, Measured):
        latency = dataclasses.asdict(entry.outcome.latency)
        figures = {**latency, "units_per_s": entry.outcome.latency.units_per_s, "speedup": findings.speedup(entry)}
        for run, measured in zip(outcome["batches"], entry.outcome.batches):
            run["units_per_s"] = measured.units_per_s
        return {**fields, "figures": figures, "measured": outcome, "failed": None}
    return {**fields, "figures": None, "measured": None, "failed": outcome}
