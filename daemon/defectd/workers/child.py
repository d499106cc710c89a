"""The child's first steps, the same for every worker: die with the daemon, then take the configuration."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Callable

from defectd.systemd import log_handler
from defectd.workers.channel import Channel, ChannelClosed
from defectd.workers.protocol import Kind, Note
from defectd.workers.ring import FrameRing, RingLayout

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
EXIT_UNUSABLE = 3  # the configuration or the device will not do: a restart alone will not help
EXIT_BROKEN = 4  # the device or the CUDA context is broken: a new process may well work


class Unusable(Exception):
    """What the worker was asked to do cannot work; the message is for the person who configured it."""


class Broken(Exception):
    """This process can go on no longer, but another one can: CUDA context lost, device wedged."""


def run_worker(work: Callable[[Channel, dict[str, Any], list[FrameRing]], None]) -> None:
    """Run *work(channel, configuration, rings)* until the daemon closes the channel, then exit the process.

    Argument 1 is the descriptor of the channel, 2 the daemon's pid. Never returns.
    """
    channel_fd, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole terminal or service; the daemon decides
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        # The service may be protected from the OOM killer; a leaking worker should go before anything else does.
        Path("/proc/self/oom_score_adj").write_text("0")
    channel = Channel(socket.socket(fileno=channel_fd))
    try:
        configuration = _await_configuration(channel)
        os.nice(configuration["nice"])
        logging.basicConfig(level=configuration["log_level"], handlers=[log_handler()])
        work(channel, configuration, _map_rings(configuration["rings"]))
        code = 0
    except ChannelClosed:
        code = 0
    except Unusable as error:
        code = _last_words(channel, "unusable", error, EXIT_UNUSABLE)
    except Broken as error:
        code = _last_words(channel, "broken", error, EXIT_BROKEN)
    except Exception as error:  # the outermost guard of the process
        log.exception("worker failed")
        code = _last_words(channel, "crashed", error, 1)
    # Not sys.exit: finalisers of a broken CUDA context or of a camera driver may hang for ever.
    sys.stderr.flush()
    os._exit(code)


def _die_with(parent: int) -> None:
    """Be killed when the daemon's thread that started us ends, however it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we could ask
        os._exit(0)


def _await_configuration(channel: Channel) -> dict[str, Any]:
    record = channel.receive(timeout_s=30.0)
    if not isinstance(record, Note) or record.kind is not Kind.CONFIGURE:
        raise Unusable(f"expected a configuration, got {record!r}")
    return record.body


def _map_rings(rings: list[dict[str, int]]) -> list[FrameRing]:
    return [FrameRing(ring["fd"], RingLayout(ring["slots"], ring["frame_bytes"])) for ring in rings]


def _last_words(channel: Channel, code: str, error: Exception, exit_code: int) -> int:
    try:
        channel.send(Note(Kind.FAULT, {"code": code, "state": "fatal", "detail": f"{error}"[:4000]}))
    except ChannelClosed:
        log.warning("%s: %s (the daemon no longer listens)", code, error)
    return exit_code
