"""What is done about heat, step by step: warn, shed what is optional, ask the line to slow, alarm. Pure.

Up at once and as far as it must, down one step at a time, only when it is clearly cooler, and later each time it was
too early: what a step sheds is what had made the heat, so a step back too soon would only bring it again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from defectd.clock import NS_PER_S
from defectd.errors import SettingsError


class Level(IntEnum):
    """What is done; each level includes those below it."""

    NORMAL = 0
    WARN = 1
    SHED = 2
    SLOW = 3
    ALARM = 4

    @property
    def word(self) -> str:
        """As it goes on the wire."""
        return self.name.lower()


@dataclass(frozen=True)
class ThermalLimits:
    """Degrees of the hottest zone at which a level begins. It is left `leave_below_c` under its limit for
    `leave_after_s`; that time doubles each time the heat is back within ten minutes, up to ten minutes.
    `throttled_s` of throttling is as good as `slow_c`. Raises SettingsError if they contradict each other."""

    warn_c: float = 85.0
    shed_c: float = 90.0
    slow_c: float = 94.0
    alarm_c: float = 98.0
    leave_below_c: float = 3.0
    leave_after_s: float = 10.0
    throttled_s: float = 30.0

    def __post_init__(self) -> None:
        limits_c = (self.warn_c, self.shed_c, self.slow_c, self.alarm_c)
        problems = [
            f"thermal.{key}: expected more than 0, got {getattr(self, key):g}"
            for key in ("leave_below_c", "leave_after_s", "throttled_s")
            if not getattr(self, key) > 0
        ]
        if not all(low < high for low, high in zip(limits_c, limits_c[1:])):
            words = ", ".join(f"{one:g}" for one in limits_c)
            problems.append(f"thermal: warn_c, shed_c, slow_c and alarm_c must rise in this order, got {words}")
        if problems:
            raise SettingsError(problems)


_RELAPSE_NS = 600 * NS_PER_S
_LONGEST_NS = 600 * NS_PER_S


class _Latch:
    """On as soon as it is set; off when it was clear for *leave_ns*, which doubles with each relapse."""

    def __init__(self, leave_ns: int) -> None:
        self.on = False
        self._first_ns = self._leave_ns = leave_ns
        self._clear_since_ns: int | None = None
        self._left_ns: int | None = None

    def set(self, at_ns: int) -> None:
        self._clear_since_ns = None
        if self.on:
            return
        self.on = True
        relapse = self._left_ns is not None and at_ns - self._left_ns < _RELAPSE_NS
        longest_ns = max(_LONGEST_NS, self._first_ns)
        self._leave_ns = min(2 * self._leave_ns, longest_ns) if relapse else self._first_ns

    def clear(self, at_ns: int, may_leave: bool = True) -> None:
        if not self.on:
            return
        if self._clear_since_ns is None:
            self._clear_since_ns = at_ns
        if may_leave and at_ns - self._clear_since_ns >= self._leave_ns:
            self.on, self._clear_since_ns, self._left_ns = False, None, at_ns

    def hold(self) -> None:
        """Neither: not so bad that it would begin, not so good that it may end."""
        self._clear_since_ns = None


class ThermalPolicy:
    """The level of now. Give it every sample, in order."""

    def __init__(self, limits: ThermalLimits | None = None) -> None:
        self._limits = limits = limits or ThermalLimits()
        leave_ns = round(limits.leave_after_s * NS_PER_S)
        self._heat = {
            level: (enter_c, _Latch(leave_ns))
            for level, enter_c in (
                (Level.WARN, limits.warn_c), (Level.SHED, limits.shed_c),
                (Level.SLOW, limits.slow_c), (Level.ALARM, limits.alarm_c),
            )
        }  # fmt: skip
        self._throttling = _Latch(leave_ns)
        self._throttled_since_ns: int | None = None
        self.level = Level.NORMAL

    def update(self, hottest_c: float | None, throttled: bool, at_ns: int) -> Level:
        """The level from now on. *hottest_c* None (no zone answers) changes nothing about the heat: a machine that
        does not tell is not called cool. *at_ns* is CLOCK_MONOTONIC."""
        if hottest_c is not None and math.isfinite(hottest_c):
            self._feel(hottest_c, at_ns)
        self._throttle(throttled, at_ns)
        wanted = max(self._of_heat, Level.SLOW) if self._throttling.on else self._of_heat
        self.level = wanted if wanted >= self.level else Level(self.level - 1)
        return self.level

    @property
    def _of_heat(self) -> Level:
        return max((level for level, (_, latch) in self._heat.items() if latch.on), default=Level.NORMAL)

    def _feel(self, hottest_c: float, at_ns: int) -> None:
        highest = self._of_heat  # it alone may be left: on its way down, each level asks again whether it is cooler
        for level, (enter_c, latch) in self._heat.items():
            if hottest_c >= enter_c:
                latch.set(at_ns)
            elif hottest_c <= enter_c - self._limits.leave_below_c:
                latch.clear(at_ns, may_leave=level is highest)
            else:
                latch.hold()

    def _throttle(self, throttled: bool, at_ns: int) -> None:
        if not throttled:
            self._throttled_since_ns = None
            self._throttling.clear(at_ns)
            return
        if self._throttled_since_ns is None:
            self._throttled_since_ns = at_ns
        if at_ns - self._throttled_since_ns >= self._limits.throttled_s * NS_PER_S:
            self._throttling.set(at_ns)
        else:
            self._throttling.hold()


def sustainable_rate_hz(
    p99_ms: float | None, current_rate_hz: float | None, *, lanes: int = 1, busy_share: float = 0.8,
    step: float = 0.75,
) -> float | None:  # fmt: skip
    """Units per second to ask of the line; None if neither is known. *p99_ms* is what a unit keeps one of *lanes*
    engines busy at the present clocks, without its time in the queue (which is the line's doing): *busy_share* of
    what they could do at most, but also clearly less (*step*) than now, since less work is less heat."""
    rates_hz = []
    if p99_ms is not None and p99_ms > 0:
        rates_hz.append(busy_share * lanes * 1000 / p99_ms)
    if current_rate_hz is not None and current_rate_hz > 0:
        rates_hz.append(step * current_rate_hz)
    return min(rates_hz, default=None)
