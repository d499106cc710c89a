"""`python -m defectd.telemetry.jtop_child PARENT INTERVAL_S`: what jtop reads, one line of JSON for each reading.

The only module that imports jtop (jetson-stats, AGPL-3.0; optional). Its client may hang for ever, repeats old values,
and unpickles what the service sends: hence a process of its own, which may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from typing import Any, TextIO

from defectd.clock import monotonic_ns

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_NICE = 10


def main() -> None:
    """Say {"connected": …}, then {"reading": …} for each new one, then {"failed": …}. Never returns."""
    parent, interval_s = int(sys.argv[1]), float(sys.argv[2])
    _die_with(parent)
    os.nice(_NICE)
    with contextlib.suppress(OSError):  # the service may be protected from the OOM killer; this may go first
        os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"500")
    records = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever jtop prints is not a record
    try:
        _watch(records, interval_s)
        _say(records, {"failed": {"error": "", "context": "", "detail": ""}})
    except Exception as error:  # noqa: BLE001 - the outermost guard of the process
        _say(records, {"failed": _described(error)})
    os._exit(1)  # not sys.exit: jtop's threads may wait for a service that does not answer


def _watch(records: TextIO, interval_s: float) -> None:
    """Until jtop says that it is not ok, which is for good."""
    client, version = _connect(interval_s)
    _say(records, {"connected": version, "interval_s": client.interval})
    known_s = client.uptime.total_seconds()  # the first values may be left from when somebody last asked
    while client.ok():
        uptime_s = client.uptime.total_seconds()  # of the service, when it read the others
        if uptime_s != known_s:
            known_s = uptime_s
            _say(records, {"reading": _look(client), "at_ns": monotonic_ns()})


def _connect(interval_s: float) -> tuple[Any, str]:
    from jtop import __version__, jtop  # type: ignore[import-untyped,import-not-found,unused-ignore]  # noqa: PLC0415

    client = jtop(interval_s)
    client.start()
    served_s = client.interval
    if served_s > interval_s:
        # Whoever came first decides how often the service reads; `ok` gives up after three intervals of its own.
        client.close()
        client.join()
        client = jtop(served_s)
        client.start()
    return client, str(__version__)


def _look(client: Any) -> dict[str, Any]:
    mode = client.nvpmodel
    return {
        "uptime_s": client.uptime.total_seconds(),
        "temperature": client.temperature,
        "power": client.power,
        "gpu": dict(client.gpu.items()),
        "cpu": client.cpu["cpu"],
        "memory": dict(client.memory.items()),
        "fan": dict(client.fan.items()),
        "power_mode": None if mode is None else mode.name,
        "jetson_clocks": None if client.jetson_clocks is None else bool(client.jetson_clocks),
    }


def _described(error: BaseException) -> dict[str, str]:
    """jtop translates errors; the one it caught says more than its words."""
    context = error.__cause__ or error.__context__
    return {
        "error": type(error).__name__,
        "context": "" if context is None else type(context).__name__,
        "module": str(getattr(error, "name", None) or ""),
        "detail": str(error)[:500],
    }


def _say(records: TextIO, record: dict[str, Any]) -> None:
    try:
        records.write(json.dumps(record, default=str) + "\n")
        records.flush()
    except BrokenPipeError:  # nobody listens any more
        os._exit(0)


def _die_with(parent: int) -> None:
    """Be killed when the thread that started us ends, however it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we could ask
        os._exit(0)


if __name__ == "__main__":
    main()
