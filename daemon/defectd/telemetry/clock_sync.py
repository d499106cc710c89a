"""Whether the wall clock follows another one. A Jetson without a battery starts in the past."""

from __future__ import annotations

import ctypes
import sys
from typing import Callable

from defectd.telemetry.files import Files
from defectd.telemetry.sample import Roots

_STA_UNSYNC = 0x40  # <linux/timex.h>
_TIMEX_BYTES = 256  # struct timex has 208; modes is its first word, and 0 means: only tell
_STATUS_OFFSET = 40  # modes, padding, offset, freq, maxerror, esterror; then int status
_LIBRARY = ctypes.CDLL(None, use_errno=True)


def kernel_says_synchronised() -> bool | None:
    """adjtimex(2), which needs no rights; None where it is forbidden. The kernel itself turns to False some hours
    after the last word from a time server."""
    if sys.maxsize <= 2**32:
        return None  # another layout
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    if _LIBRARY.adjtimex(timex) < 0:
        return None
    status = int.from_bytes(timex.raw[_STATUS_OFFSET : _STATUS_OFFSET + 4], sys.byteorder)
    return not status & _STA_UNSYNC


def clock_synchronised(
    roots: Roots, files: Files, ask_kernel: Callable[[], bool | None] = kernel_says_synchronised,
) -> bool | None:  # fmt: skip
    """None: nobody tells. Where the kernel must not be asked, systemd-timesyncd's mark counts, if it is there."""
    answer = ask_kernel()
    if answer is None and files.has(f"{roots.var}/run/systemd/timesync/synchronized"):
        return True
    return answer
