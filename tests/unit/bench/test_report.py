"""Findings, their targets, and how they are printed."""

from __future__ import annotations

import json
from typing import Any

from defectd.bench.__main__ import as_json
from defectd.bench.figures import Timing
from defectd.bench.findings import Findings, OutboxFigures, PeerRound, Round
from defectd.bench.report import render, table
from defectd.bench.station import Phase

ABOUT: dict[str, Any] = {
    "date": "2026-11-20 12:00 UTC",
    "machine": "x86_64, 2 x CPU",
    "python": "3.11.7",
    "broker": "mosquitto",
    "model": "deeppcb.torchscript",
    "images": "120 pictures",
    "rounds": 1,
    "paced_hz": 4.0,
    "paced_units": 40,
    "saturated_units": 300,
    "floor": {"torch": "2.13.0", "threads": 2},
    "peer": {"ultralytics": "8.4", "torch": "2.13.0", "threads": 1},
}
TIMING = Timing(0.2, 0.6, 11.0, 0.3, 13.0)


def phase(hz: float, **changes: Any) -> Phase:
    values: dict[str, Any] = {
        "timings": (TIMING, TIMING),
        "throughput_hz": hz,
        "verdicts": {"failed": 2},
        "pictures": 4,
        "peak_mb": {"daemon": 58.0, "engine": 350.0},
        "core_ms": {"daemon": 1.8, "others": 3.0},
        "replaced": (),
        "layout": "channels_last (channels_last 11 ms, contiguous 19 ms)",
        **changes,
    }
    return Phase(**values)


def one_round(peer: PeerRound | None = None, **changes: Any) -> Round:
    floor = {"as loaded": [19.0, 19.2, 19.1], "channels-last input": [11.6, 11.5, 11.7]}
    values: dict[str, Any] = {
        "floor_paced": floor,
        "floor_saturated": {"as loaded": [20.0] * 4, "channels-last input": [12.5] * 4},
        "paced": phase(4.0),
        "saturated": phase(72.0),
        "keeping": phase(70.0),
        "peer": peer,
        **changes,
    }
    return Round(**values)


def findings(*rounds: Round, peer_absent: str = "", outbox: OutboxFigures | None = None) -> Findings:
    about = ABOUT if not peer_absent else {**ABOUT, "peer": None}
    return Findings(about, rounds, 300.0, None if peer_absent else 420.0, peer_absent, outbox)


PEER = PeerRound(read_ms=[1.0, 1.0], predict_ms=[26.0, 26.0], stream_hz=36.0)


def test_ratios_are_against_the_fastest_bare_forward_of_the_same_round() -> None:
    values = {target.name: target.value for target in findings(one_round(PEER)).targets()}
    assert values["capture to verdict / fastest bare forward, p50"] == 13.0 / 11.6
    assert values["saturated / fastest bare forward loop"] == 72.0 / 80.0
    assert values["Ultralytics predict / capture to verdict, p50"] == 2.0
    assert values["saturated / Ultralytics stream"] == 2.0


def test_without_a_peer_its_targets_are_missing_and_the_report_says_how_to_get_one() -> None:
    found = findings(one_round(), peer_absent="absent: name an interpreter")
    assert not [target for target in found.targets() if "Ultralytics" in target.name]
    assert "Ultralytics: absent: name an interpreter" in render(found)


def test_a_missed_target_is_called_short() -> None:
    lines = render(findings(one_round(PEER, saturated=phase(40.0)))).splitlines()
    missed = [line.split()[0] for line in lines if "SHORT" in line]
    assert missed == ["saturated", "saturated"]


def test_an_engine_that_died_on_the_way_is_told() -> None:
    disturbed = one_round(PEER, keeping=phase(60.0, replaced=("evidence",), verdicts={"failed": 1, "error": 1}))
    assert "{'error': 1}; workers replaced: ('evidence',)" in render(findings(disturbed))


def test_everything_can_be_kept_as_json() -> None:
    kept = json.loads(as_json(findings(one_round(PEER), outbox=OutboxFigures(6000.0, 37.0, 44.0, ("drained",)))))
    assert kept["rounds"][0]["paced"]["timings"][0]["inference_ms"] == 11.0
    assert [target["met"] for target in kept["targets"] if target["name"] == "outbox to the broker"] == [True]


def test_a_table_aligns_names_to_the_left_and_figures_to_the_right() -> None:
    assert (
        table("T", ("", "p50"), [("a", "1.0"), ("longer", "10.0")])
        == "T\n           p50\n  a        1.0\n  longer  10.0"
    )
