"""How fast the outbox drains to a broker, against bare paho, and what a long queue costs in memory.

python -m defectd.bench.outbox --port 1883 [--host 127.0.0.1] [--events 100000]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from defectd.clock import utc_now
from defectd.faults import Faults
from defectd.inspection.events import (
    Birth,
    FrameInfo,
    InspectionEvent,
    Model,
    Recipe,
    Status,
    TimingMs,
)
from defectd.messaging.client import Broker
from defectd.messaging.outbox import Outbox
from defectd.messaging.publisher import Notice, Publisher
from defectd.messaging.topics import Topics

WINDOW = 20
STATION = "bench"
_RECIPE = Recipe(name="pcb-top", revision="7")
_MODEL = Model(name="yolo11s-pcb", version="2026.11.3", sha256="ab" * 32, runtime="torchscript-fp16-cuda")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--directory", type=Path, help="where the outbox lies (default: a temporary directory)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        outbox = Outbox(
            Path(directory) / "outbox.db", boot_id="bench", station=STATION, max_bytes=1 << 30, keep_acked_s=3600.0
        )
        outbox.start()
        try:
            _measure_accepting(outbox, options.events)
            drained = _measure_draining(outbox, options.host, options.port, options.events)
        finally:
            outbox.close(30.0)
    payload = _inspection(1).to_json()
    bare = _measure_bare_paho(options.host, options.port, payload, min(options.events, 50_000))
    print(f"bare paho, QoS 1, window {WINDOW}: {bare:,.0f} messages/s of {len(payload)} bytes")
    print(f"ratio: {drained / bare:.2f}")


def _measure_accepting(outbox: Outbox, count: int) -> None:
    outbox.put(_inspection(0))
    outbox.flush(10.0)
    before = _rss_mb()
    started_s = time.perf_counter()
    for number in range(1, count):
        outbox.put(_inspection(number))
        if number % 100 == 0:
            while outbox.depth().queued > 500:
                time.sleep(0.002)
    outbox.flush(60.0)
    rate = count / (time.perf_counter() - started_s)
    print(f"accepted and committed: {rate:,.0f} events/s, made and put by one thread")
    print(f"memory with {outbox.depth().pending:,} queued: {before:.1f} MB before, {_rss_mb():.1f} MB after")


def _measure_draining(outbox: Outbox, host: str, port: int, count: int) -> float:
    broker = Broker(host, port, "defectd-bench", window=WINDOW, rate_limit_hz=0)
    topics = Topics("bench", "a", "b", STATION)
    notices = [Notice(topics.status, _status), Notice(topics.birth, _birth)]
    publisher = Publisher(broker, topics, outbox, notices, _last_words, Faults(lambda *_: None))
    started_s = time.perf_counter()
    publisher.start()
    while publisher.counters.acked < count:
        time.sleep(0.01)
    rate = count / (time.perf_counter() - started_s)
    print(f"drained: {rate:,.0f} events/s over MQTT {publisher.protocol}, {_rss_mb():.1f} MB")
    publisher.close(5.0)
    return rate


def _measure_bare_paho(host: str, port: int, payload: bytes, count: int) -> float:
    client = Client(CallbackAPIVersion.VERSION2, client_id="defectd-bench-bare")
    client.max_inflight_messages_set(WINDOW)
    acked, done = [0], threading.Event()

    def on_publish(*_: object) -> None:
        acked[0] += 1
        if acked[0] == count:
            done.set()

    client.on_publish = on_publish
    client.connect(host, port)
    started_s = time.perf_counter()
    client.loop_start()
    for _ in range(count):
        client.publish("defectd/v1/bench/bare", payload, qos=1)
    done.wait()
    rate = count / (time.perf_counter() - started_s)
    client.disconnect()
    client.loop_stop()
    return rate


def _inspection(number: int) -> InspectionEvent:
    now = utc_now()
    return InspectionEvent(
        station=STATION,
        boot_id="bench",
        created_at=now,
        unit_id=f"cam0-{number}",
        unit_id_source="counter",
        recipe=_RECIPE,
        model=_MODEL,
        settings_sha256="cd" * 32,
        started_at=now,
        ended_at=now,
        verdict="passed",
        needs_review=False,
        error=None,
        error_detail=None,
        simulated=True,
        frame=FrameInfo(camera="cam0", trigger=number, frame_id=number, width_px=1920, height_px=1200),
        timing_ms=TimingMs(queue=0.2, preprocess=1.1, inference=8.9, postprocess=0.6, capture_to_verdict=31.4),
        inference_clock="cuda_event",
        defects=[],
        defect_count=0,
        images=[],
    )


def _status() -> Status:
    return Status(state="online", condition="inspecting", detail="", boot_id="bench", ts=utc_now())


def _last_words() -> Status:
    return Status(state="offline", condition="lost", detail="", boot_id="bench", ts=utc_now())


def _birth() -> Birth:
    return Birth(
        station=STATION,
        boot_id="bench",
        ts=utc_now(),
        defectd="bench",
        epoch="",
        next_seq={},
        schemas={},
        settings_sha256="",
        recipe=_RECIPE,
        classes=[],
        deadline_ms=100.0,
        cameras=[],
        model=_MODEL,
        warmup=None,
    )


def _rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
