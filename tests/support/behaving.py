"""A worker that behaves as its configuration says: `python -m support.behaving`, started by workers/process.py."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from defectd.workers.channel import Channel
from defectd.workers.child import Broken, Unusable, run_worker
from defectd.workers.protocol import Alive, Kind, Note
from defectd.workers.ring import FrameRing


def work(channel: Channel, configuration: dict[str, Any], rings: list[FrameRing]) -> None:
    behaviour = configuration["behaviour"]
    if behaviour == "unusable":
        raise Unusable("no such device: /dev/null0")
    if behaviour == "broken":
        raise Broken("CUDA error: an illegal memory access was encountered")
    if behaviour == "bug":
        raise ZeroDivisionError("oops")
    if behaviour == "never_ready":
        time.sleep(60)
    while behaviour == "alive_only":
        channel.send(Alive())
        time.sleep(0.1)
    if behaviour == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    channel.send(Note(Kind.READY, {"pid": os.getpid(), "nice": os.nice(0), "rings": len(rings)}))
    if behaviour == "silent":
        time.sleep(60)
    if behaviour == "nonsense":
        channel._socket.send(b"\xff\xfe hello")
    while True:
        record = channel.receive(timeout_s=0.05)
        if record is None:
            channel.send(Alive())
        elif behaviour == "hang_on_request":
            time.sleep(60)
        elif isinstance(record, Note):
            rings[0].pixels(0, 1, 1)[:] = record.body["value"]
            channel.send(Note(Kind.KEPT, record.body))


if __name__ == "__main__":
    run_worker(work)
