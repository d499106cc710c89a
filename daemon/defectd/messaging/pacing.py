"""What the publisher decides, without doing it: how fast, what an answer means, which protocol to speak."""

from __future__ import annotations

from enum import Enum
from typing import Literal, Sequence

from defectd.clock import NS_PER_S

ProtocolSetting = Literal["auto", "5", "3.1.1"]
ProtocolName = Literal["5", "3.1.1"]


class Answer(Enum):
    """What a PUBACK means for the event."""

    DELIVERED = "the broker has it"
    NOBODY = "the broker has it, and no one is subscribed"
    REFUSED = "the broker will never take it"
    LATER = "the broker does not take it now"


# MQTT 5, section 3.4.2.1. What is not named here may change with time: quota, load, an administrator.
_ANSWERS = {
    0x00: Answer.DELIVERED,
    0x10: Answer.NOBODY,
    0x87: Answer.REFUSED,  # not authorized
    0x90: Answer.REFUSED,  # topic name invalid
    0x99: Answer.REFUSED,  # payload format invalid
}


def answer(reason_code: int) -> Answer:
    """The meaning of a PUBACK's reason code; MQTT 3.1.1 knows only 0."""
    return _ANSWERS.get(reason_code, Answer.LATER)


class TokenBucket:
    """Lets *rate_hz* messages through, a tenth of a second's worth at once; 0 means without limit."""

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._size = max(1.0, rate_hz / 10)
        self._tokens = self._size
        self._filled_ns = 0

    def wait_s(self, now_ns: int) -> float:
        """How long until the next message may go; 0 if it may go now."""
        if self._rate_hz <= 0:
            return 0.0
        gained = (now_ns - self._filled_ns) / NS_PER_S * self._rate_hz
        self._tokens = min(self._size, self._tokens + gained)
        self._filled_ns = now_ns
        return max(0.0, (1 - self._tokens) / self._rate_hz)

    def take(self) -> None:
        """One message goes; `wait_s` must have said 0."""
        self._tokens -= 1


class ProtocolChoice:
    """MQTT 5, or 3.1.1 for a broker that does not know 5; decided once, then kept.

    Some brokers refuse 5 properly, others only close the connection. Since a broker that is just starting does
    that too, two silent closes lead to a try with 3.1.1, which stays only if it is accepted.
    """

    def __init__(self, setting: ProtocolSetting) -> None:
        self.name: ProtocolName = "5" if setting == "auto" else setting
        self._settled = setting != "auto"
        self._closes = 0

    def accepted(self) -> None:
        """The broker speaks it."""
        self._settled = True

    def refused(self) -> bool:
        """The broker says that it does not speak it. True if there is another one to try at once."""
        if self._settled or self.name == "3.1.1":
            return False
        self.name, self._settled = "3.1.1", True
        return True

    def closed_silently(self) -> None:
        """The broker closed the connection instead of answering CONNECT."""
        if self._settled:
            return
        self._closes += 1
        if self._closes >= 2:
            self.name, self._closes = ("3.1.1" if self.name == "5" else "5"), 0


class Caution:
    """Finds the event that makes a broker hang up, so that it cannot hold up all others for ever.

    MQTT 3.1.1 lets a broker answer a forbidden message by closing the connection, and Mosquitto 2.0.11 does so
    with MQTT 5 too, often before its answer can be read. After a loss in mid-flight the window is therefore 1
    until the connection has proved stable; an event on which the broker hangs up every time is the one.
    """

    HANG_UPS = 5

    def __init__(self) -> None:
        self._careful = False
        self._suspect, self._hang_ups = 0, 0

    def window(self, full: int) -> int:
        """How many may be in flight."""
        return 1 if self._careful else full

    def relax(self) -> None:
        """The connection is stable."""
        self._careful = False
        self._hang_ups = 0

    def lost(self, in_flight: Sequence[int], *, at_once: bool) -> int | None:
        """The connection was lost with these rows unanswered; *at_once*: right after the last was sent.

        Returns the row to give up, if there is one.
        """
        if not in_flight:
            return None
        was_careful, self._careful = self._careful, True
        if not was_careful or len(in_flight) > 1 or not at_once:
            return None
        self._hang_ups = self._hang_ups + 1 if self._suspect == in_flight[0] else 1
        self._suspect = in_flight[0]
        if self._hang_ups < self.HANG_UPS:
            return None
        self._hang_ups = 0
        return self._suspect
