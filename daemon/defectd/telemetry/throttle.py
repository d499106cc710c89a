"""When the machine begins and ends to hold itself back, and why. Pure: samples in, changes out.

Temperatures prove nothing here: an over-current throttles a cool board, and a hot one may run at full speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Mapping

from typing_extensions import get_args

from defectd.clock import NS_PER_S
from defectd.telemetry.sample import DeviceSample, Frequency

Cause = Literal["thermal_alert", "over_current", "capped", "crit_alarm"]
CAUSES: tuple[Cause, ...] = get_args(Cause)
"""The best evidence first."""

_GONE_S = 5.0
_OC_MEANS = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}
_REMEDY: dict[Cause, str] = {
    "thermal_alert": "look at the fan, the heat sink and the air around the station",
    "over_current": "use a stronger power supply and cable, or a lower power mode",
    "capped": "someone, or the heat, lowered it: compare `nvpmodel -q` and `jetson_clocks --show`",
    "crit_alarm": "use a lower power mode; never raise the rail's limit",
}


@dataclass(frozen=True)
class ThrottleChange:
    """A throttling begins or ends. `lasted_s` is from the first sample with the sign to the first without it, None
    while it lasts; `domains` are clocks, counters or rails; at the end, all that had a part in it."""

    kind: Literal["begin", "end"]
    cause: Cause
    domains: tuple[str, ...]
    detail: str
    lasted_s: float | None = None


@dataclass
class _Episode:
    began_ns: int
    domains: dict[str, int]
    """With how often each was counted; a dict keeps the order."""
    gone_ns: int | None = None

    def goes_on(self, signs: Mapping[str, int]) -> None:
        self.gone_ns = None
        for domain, count in signs.items():
            self.domains[domain] = self.domains.get(domain, 0) + count


class Throttling:
    """Give it every sample, in order. One episode per cause at a time; it ends when its sign is gone for 5 s, so that
    a sign that flickers is one episode and not a storm."""

    def __init__(self, gone_s: float = _GONE_S) -> None:
        self._gone_ns = round(gone_s * NS_PER_S)
        self._counters: dict[str, int] = {}
        self._episodes: dict[Cause, _Episode] = {}

    def update(self, sample: DeviceSample) -> list[ThrottleChange]:
        """What begins or ends with this sample, the best evidence first."""
        signs = self._signs(sample)
        changes = (self._weigh(cause, signs[cause], sample) for cause in CAUSES)
        return [change for change in changes if change is not None]

    @property
    def active(self) -> bool:
        """Something holds the machine back now, or did less than 5 s ago."""
        return bool(self._episodes)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """Of what is active, the best evidence first."""
        return tuple(cause for cause in CAUSES if cause in self._episodes)

    def _signs(self, sample: DeviceSample) -> dict[Cause, dict[str, int]]:
        throttle = sample.throttle
        return {
            "thermal_alert": dict.fromkeys(throttle.alerts, 1),
            "over_current": self._counted(throttle.oc_events),
            "capped": dict.fromkeys(throttle.capped, 1),
            "crit_alarm": dict.fromkeys(throttle.crit_alarms, 1),
        }

    def _counted(self, counters: Mapping[str, int]) -> dict[str, int]:
        """What came since the sample before. A counter seen for the first time, or that fell, begins anew: nobody
        knows when it counted; one that is missing for a while is compared with what it said last."""
        deltas = {name: count - self._counters.get(name, count) for name, count in counters.items()}
        self._counters.update(counters)
        return {name: delta for name, delta in deltas.items() if delta > 0}

    def _weigh(self, cause: Cause, signs: Mapping[str, int], sample: DeviceSample) -> ThrottleChange | None:
        episode = self._episodes.get(cause)
        if episode is None:
            if not signs:
                return None
            self._episodes[cause] = _Episode(sample.at_ns, dict(signs))
            return ThrottleChange("begin", cause, tuple(signs), _begins(cause, signs, sample))
        if signs:
            episode.goes_on(signs)
            return None
        if episode.gone_ns is None:
            episode.gone_ns = sample.at_ns
        if sample.at_ns - episode.gone_ns < self._gone_ns:
            return None
        del self._episodes[cause]
        lasted_s = (episode.gone_ns - episode.began_ns) / NS_PER_S
        return ThrottleChange(
            "end", cause, tuple(episode.domains), _ended(cause, episode.domains, lasted_s), round(lasted_s, 3)
        )


def _begins(cause: Cause, signs: Mapping[str, int], sample: DeviceSample) -> str:
    if cause == "thermal_alert":
        heat = "" if sample.hottest_c is None else f"; the hottest zone has {sample.hottest_c:.1f} °C"
        what = f"the heat slows {_listed(signs)} down{heat}"
    elif cause == "over_current":
        what = f"the power supply cannot follow: {oc_in_words(signs)} since the last look"
    elif cause == "capped":
        mode = "power mode" if sample.power_mode is None else f"power mode {sample.power_mode}"
        what = f"the limit of {_listed(signs)} is below what the {mode} allows"
    else:
        what = f"{_listed(signs)} draws more than its critical current"
    clocks = [text for text in (_clock("GPU", sample.gpu), _clock("CPU", sample.cpu)) if text]
    return "; ".join([what, *clocks, _REMEDY[cause]])


def _ended(cause: Cause, domains: Mapping[str, int], lasted_s: float) -> str:
    if cause == "over_current":
        return f"no more over-current after {lasted_s:.1f} s: {oc_in_words(domains)}"
    what = {"thermal_alert": "slowed down by heat", "capped": "capped"}.get(cause, "over the critical current")
    return f"{what} for {lasted_s:.1f} s: {_listed(domains)}"


def oc_in_words(counts: Mapping[str, int]) -> str:
    """Of `soctherm_oc`'s counters: "27 x instantaneous over-current (oc3)"."""
    return ", ".join(f"{count} x {_OC_MEANS.get(name, 'over-current')} ({name})" for name, count in counts.items())


def _clock(name: str, clock: Frequency | None) -> str:
    if clock is None or clock.current_mhz is None:
        return ""
    most_mhz = clock.hardware_max_mhz or clock.max_mhz
    return f"{name} at {clock.current_mhz:.0f}" + (f" of {most_mhz:.0f} MHz" if most_mhz else " MHz")


def _listed(names: Mapping[str, int]) -> str:
    return " and ".join(names)
