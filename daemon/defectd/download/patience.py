"""How long a download may take, how slow it may be, how fast, and whether it is still wanted."""

from __future__ import annotations

import socket
import time
from typing import Callable, TypeVar

from defectd.clock import NS_PER_S, monotonic_ns
from defectd.download.errors import DownloadError, MayPass, Stopped

T = TypeVar("T")

POLL_S = 0.25
"""So soon is `stop` seen, whatever is being waited for."""
_BURST_NS = NS_PER_S // 10  # what a rate limit may let through at once


class Patience:
    """For one thread and one download, whose time begins now. Everything that waits in it waits here.

    Too slow means less than *min_bytes_per_s* over *stall_s* of waiting for the other side; time that this side takes,
    for its disk or for the rate limit, does not count. A rate of 0 is no limit.
    """

    def __init__(
        self,
        stop: Callable[[], bool],
        total_s: float,
        stall_s: float,
        min_bytes_per_s: float,
        rate_bytes_per_s: float = 0.0,
    ) -> None:
        self._stop, self._total_s, self._stall_s = stop, total_s, stall_s
        self._min_bytes_per_s, self._rate_bytes_per_s = min_bytes_per_s, rate_bytes_per_s
        self._ends_ns = monotonic_ns() + round(total_s * NS_PER_S)
        self._waited_ns = self._received_bytes = self._due_ns = 0

    def check(self) -> None:
        """Raises Stopped, or DownloadError `timed_out`."""
        if self._stop():
            raise Stopped("the download was stopped; what has arrived is kept")
        if monotonic_ns() >= self._ends_ns:
            raise DownloadError(
                "timed_out",
                f"not finished within {self._total_s:.0f} s; check how fast the network is, raise rollout.download_s, "
                "or send the command again to go on from here",
            )

    def left_s(self) -> float:
        """Until the time is over."""
        return (self._ends_ns - monotonic_ns()) / NS_PER_S

    def pause(self, seconds: float) -> None:
        """Wait so long. Raises what `check` does."""
        ends_ns = monotonic_ns() + round(seconds * NS_PER_S)
        self.check()
        while (left_ns := ends_ns - monotonic_ns()) > 0:
            time.sleep(min(left_ns / NS_PER_S, POLL_S))
            self.check()

    def until(self, attempt: Callable[[], T], within_s: float) -> T:
        """What *attempt* returns. It is one that raises socket.timeout after POLL_S, and it is made again until
        *within_s* are over; then its error is raised, or before that what `check` does."""
        ends_ns = monotonic_ns() + round(within_s * NS_PER_S)
        while True:
            self.check()
            try:
                return attempt()
            except socket.timeout:
                if monotonic_ns() >= ends_ns:
                    raise

    def receive(self, attempt: Callable[[], int], within_s: float) -> int:
        """As `until`; *attempt* returns how many bytes it received. Raises MayPass `stalled` if these are too few."""
        began_ns = monotonic_ns()
        received = self.until(attempt, min(within_s, self._stall_s))
        self._waited_ns += monotonic_ns() - began_ns
        self._received_bytes += received
        waited_s = self._waited_ns / NS_PER_S
        if waited_s >= self._stall_s:
            slow = self._received_bytes < self._min_bytes_per_s * waited_s
            text = f"only {self._received_bytes} bytes came in {waited_s:.0f} s"
            self._waited_ns = self._received_bytes = 0
            if slow:
                raise MayPass("stalled", text)
        return received

    def pace(self, taken_bytes: int) -> None:
        """Wait as long as the rate limit wants after so many bytes. Raises what `check` does."""
        self.check()
        if self._rate_bytes_per_s > 0:
            earliest_ns = monotonic_ns() - _BURST_NS
            self._due_ns = max(self._due_ns, earliest_ns) + round(taken_bytes / self._rate_bytes_per_s * NS_PER_S)
            if (ahead_ns := self._due_ns - monotonic_ns()) > 0:
                self.pause(ahead_ns / NS_PER_S)
