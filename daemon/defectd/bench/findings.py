"""What a run of the benchmark found, and which targets it meets. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

from defectd.bench.figures import Latency, Target, at_least, at_most, median
from defectd.bench.station import Phase

Samples = Mapping[str, Sequence[float]]

PACED_LIMIT, PEER_PACED_LIMIT = 1.20, 1.8
SATURATED_LIMIT, PEER_STREAM_LIMIT = 0.80, 1.5
DAEMON_LIMIT_MB, OUTBOX_LIMIT_HZ = 80.0, 5000.0


@dataclass(frozen=True)
class PeerRound:
    """Ultralytics in one round: milliseconds per picture at the pace, and results per second of a stream."""

    read_ms: Sequence[float]
    predict_ms: Sequence[float]
    stream_hz: float

    @property
    def whole_ms(self) -> list[float]:
        """File read and predict, picture by picture."""
        return [read + predict for read, predict in zip(self.read_ms, self.predict_ms)]


@dataclass(frozen=True)
class Round:
    """Everything once, one thing after the other, so that a slow moment of the machine hits all of it. Bare forwards
    are samples in milliseconds by layout; `saturated` is without pictures of failed units, `keeping` is with them."""

    floor_paced: Samples
    floor_saturated: Samples
    paced: Phase
    saturated: Phase
    keeping: Phase
    peer: PeerRound | None

    @property
    def floor_ms(self) -> float:
        """The fastest bare forward at the pace."""
        return min(median(samples) for samples in self.floor_paced.values())

    @property
    def floor_hz(self) -> float:
        """The fastest bare forward loop."""
        return max(loop_hz(samples) for samples in self.floor_saturated.values())


@dataclass(frozen=True)
class OutboxFigures:
    """From bench/outbox.py, and what it printed."""

    drained_hz: float
    before_mb: float
    queued_mb: float
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """One run. `about` says when, where and with what; `peer_absent` why there is no peer."""

    about: Mapping[str, Any]
    rounds: Sequence[Round]
    floor_mb: float
    peer_mb: float | None
    peer_absent: str
    outbox: OutboxFigures | None

    def latency(self, column: Callable[[Round], Sequence[float]]) -> Latency:
        """Of one column of every round."""
        return Latency.of([column(one) for one in self.rounds])

    def median(self, value: Callable[[Round], float]) -> float:
        """Of one value of every round."""
        return median([value(one) for one in self.rounds])

    def peak_mb(self) -> dict[str, float]:
        """Most memory of each process of the station, in any phase."""
        phases = [phase for one in self.rounds for phase in (one.paced, one.saturated, one.keeping)]
        names = dict.fromkeys(name for phase in phases for name in phase.peak_mb)
        return {name: max(phase.peak_mb.get(name, 0.0) for phase in phases) for name in names}

    def targets(self) -> list[Target]:
        """Each with its value in every round; a ratio is of phases of the same round."""
        rounds = self.rounds
        verdict_ms = [median(one.paced.column_ms("capture_to_verdict_ms")) for one in rounds]
        floor_ms, floor_hz = [one.floor_ms for one in rounds], [one.floor_hz for one in rounds]
        found = [
            at_most("capture to verdict / fastest bare forward, p50", _ratios(verdict_ms, floor_ms), PACED_LIMIT),
            at_least(
                "saturated / fastest bare forward loop",
                _ratios([one.saturated.throughput_hz for one in rounds], floor_hz),
                SATURATED_LIMIT,
            ),
            at_most("daemon process, peak", [self.peak_mb()["daemon"]], DAEMON_LIMIT_MB, "MB"),
        ]
        peers = [one.peer for one in rounds if one.peer is not None]
        if len(peers) == len(rounds):
            predict_ms = [median(peer.predict_ms) for peer in peers]
            stream_hz = [peer.stream_hz for peer in peers]
            found[1:1] = [
                at_least(
                    "Ultralytics predict / capture to verdict, p50", _ratios(predict_ms, verdict_ms), PEER_PACED_LIMIT
                )
            ]
            found[3:3] = [
                at_least(
                    "saturated / Ultralytics stream",
                    _ratios([one.saturated.throughput_hz for one in rounds], stream_hz),
                    PEER_STREAM_LIMIT,
                ),
            ]
        if self.outbox is not None:
            found.append(at_least("outbox to the broker", [self.outbox.drained_hz], OUTBOX_LIMIT_HZ, "events/s"))
        return found


def loop_hz(samples_ms: Sequence[float]) -> float:
    """Calls per second of a loop without pauses."""
    return len(samples_ms) / (sum(samples_ms) / 1e3)


def _ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [upper / lower for upper, lower in zip(above, below)]
