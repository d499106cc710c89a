"""Whether a camera is still there, and still ours, asked about every second beside the frames.

Aravis tells the loss of a GigE camera after ten seconds, and reading a register through it does after three to seven.
So we ask ourselves: one datagram of the control protocol (GVCP), on a socket of our own.
"""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any, Callable

from defectd.camera.discovery import GVCP_PORT

Question = Callable[[], "str | None"]
"""What is wrong, for people; None if all is well. May take seconds."""

_EVERY_S = 1.0
_TRIES, _ANSWER_S = 3, 0.5
_CONTROL, _CONTROL_BITS = 0x0A00, 0b11  # the register that says whether somebody controls the camera
_READ, _READ_ACK = 0x0080, 0x0081


class Heartbeat(threading.Thread):
    """Asks until something is wrong, which is `trouble` from then on."""

    def __init__(self, question: Question) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self.trouble: str | None = None
        self._question = question
        self._stopped = threading.Event()

    def run(self) -> None:
        """See the class."""
        while self.trouble is None and not self._stopped.wait(_EVERY_S):
            self.trouble = self._question()

    def stop(self) -> None:
        """Does not wait for an answer that is on its way."""
        self._stopped.set()


def gige_question(address: str) -> Question:
    """Any answer says that it is there; its register says whether it has been restarted meanwhile."""
    numbers = iter(range(1, 1 << 62))

    def ask() -> str | None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(_ANSWER_S)
            for _ in range(_TRIES):
                number = next(numbers) % 0xFFFF + 1
                try:
                    asking.sendto(struct.pack(">BBHHHI", 0x42, 0x01, _READ, 4, number, _CONTROL), (address, GVCP_PORT))
                    return judge(asking.recv(64), number)
                except OSError:  # a refusal comes at once, where the camera's network is up
                    continue
        return f"it has not answered for {_TRIES * _ANSWER_S:g} s"

    return ask


def usb_question(device: Any) -> Question:
    """Register 0 can always be read; an unplugged camera fails at once."""

    def ask() -> str | None:
        try:
            device.read_register(0)
        except Exception as error:  # noqa: BLE001 - whatever it is, the camera does not answer
            return f"it no longer answers: {getattr(error, 'message', error)}"
        return None

    return ask


def judge(answer: bytes, number: int) -> str | None:
    """What the answer to read number *number* says; None if all is well. Pure."""
    if len(answer) < 12:
        return None  # it may refuse to tell others, and is there
    status, kind, _, answered, value = struct.unpack_from(">HHHHI", answer)
    if (status, kind, answered) == (0, _READ_ACK, number) and not value & _CONTROL_BITS:
        return "we control it no longer: it was restarted, or has not heard of us for too long"
    return None
