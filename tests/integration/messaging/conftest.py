"""A real outbox, and real brokers on 127.0.0.1."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import pytest

from defectd.clock import utc_now
from defectd.examples import EXAMPLES
from defectd.faults import Faults
from defectd.inspection.events import Birth, InspectionEvent, Status, WireModel, new_id
from defectd.messaging.client import Broker
from defectd.messaging.outbox import Outbox
from defectd.messaging.publisher import Notice, Publisher
from defectd.messaging.topics import Topics
from support.brokers import (
    NO_MOSQUITTO,
    NO_NATS,
    BrokerProcess,
    Listener,
    MosquittoBroker,
    NatsBroker,
    find_mosquitto,
    find_nats,
)

TOPICS = Topics("site", "area", "line", "aoi1")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than a few seconds")


def inspection(number: int, verdict: str = "passed") -> InspectionEvent:
    return EXAMPLES[InspectionEvent].model_copy(
        update={"id": new_id(), "unit_id": str(number), "verdict": verdict, "epoch": "", "seq": 0}
    )


class Station:
    """An outbox, a publisher, and the faults they report, wired as the daemon does it."""

    def __init__(
        self, path: Path, broker: BrokerProcess, *, subscriptions: Sequence[str] = (), **settings: Any
    ) -> None:
        self.arrived: list[tuple[str, bytes]] = []
        self.reported: Callable[[], WireModel | None] = lambda: None
        self.told: list[tuple[str, str, str]] = []
        self.faults = Faults(lambda _component, code, state, detail, _data: self.told.append((code, state, detail)))
        self.status = EXAMPLES[Status]
        self.outbox = Outbox(
            path, boot_id="boot", station="aoi1", max_bytes=100 << 20, keep_acked_s=3600.0,
            on_commit=self._wake,
        )  # fmt: skip
        self.outbox.report_to(self.faults)
        options = {"rate_limit_hz": 0.0, "reconnect_min_s": 0.05, "reconnect_max_s": 0.3, **settings}
        self.publisher = Publisher(
            Broker(host=broker.host, port=broker.port, client_id="defectd-aoi1", **options),
            TOPICS,
            self.outbox,
            [
                Notice(TOPICS.status, lambda: self.status),
                Notice(TOPICS.birth, lambda: EXAMPLES[Birth]),
                Notice(TOPICS.model_reported, self._report),
            ],
            lambda: Status(state="offline", condition="lost", detail="", boot_id="boot", ts=utc_now()),
            self.faults,
            subscriptions=subscriptions,
            on_message=self.take,
        )

    def take(self, topic: str, payload: bytes) -> None:
        """What arrives."""
        self.arrived.append((topic, payload))

    def _report(self) -> WireModel | None:
        return self.reported()

    def _wake(self) -> None:
        self.publisher.wake()

    def start(self) -> None:
        self.outbox.start()
        self.publisher.start()

    def close(self) -> None:
        self.publisher.close(2.0)
        self.outbox.close(5.0)

    def put(self, count: int, first: int = 0, verdict: str = "passed") -> list[str]:
        """Put *count* inspections and return their ids."""
        events = [inspection(number, verdict) for number in range(first, first + count)]
        for event in events:
            self.outbox.put(event)
        return [event.id for event in events]

    def is_empty(self) -> bool:
        """True if all that was put is on disk and delivered or refused."""
        return self.outbox.flush(5.0) and self.outbox.depth().pending == 0

    def raised(self, code: str) -> str | None:
        """The detail of a fault that was raised or noted, if it was."""
        return next((detail for c, state, detail in self.told if c == code and state != "cleared"), None)

    def cleared(self, code: str) -> bool:
        return any(c == code and state == "cleared" for c, state, _ in self.told)


@pytest.fixture()
def station(tmp_path: Path) -> Iterator[Callable[..., Station]]:
    """Makes stations, started; all are closed at the end."""
    stations: list[Station] = []

    def make(broker: BrokerProcess, name: str = "outbox.db", **settings: Any) -> Station:
        made = Station(tmp_path / name, broker, **settings)
        stations.append(made)
        made.start()
        return made

    yield make
    for made in stations:
        made.close()


@pytest.fixture()
def mosquitto(tmp_path: Path) -> Iterator[Callable[..., MosquittoBroker]]:
    """Makes Mosquitto brokers with extra lines of configuration, started; all are stopped at the end."""
    if find_mosquitto() is None:
        pytest.skip(NO_MOSQUITTO)
    brokers: list[MosquittoBroker] = []

    def make(*lines: str, started: bool = True) -> MosquittoBroker:
        broker = MosquittoBroker(tmp_path / f"broker{len(brokers)}", list(lines))
        brokers.append(broker)
        if started:
            broker.start()
        return broker

    yield make
    for broker in brokers:
        broker.stop()


@pytest.fixture()
def nats(tmp_path: Path) -> Iterator[NatsBroker]:
    """A broker that speaks MQTT 3.1.1 only."""
    if find_nats() is None:
        pytest.skip(NO_NATS)
    with NatsBroker(tmp_path / "nats") as broker:
        yield broker


@pytest.fixture()
def listen() -> Iterator[Callable[..., Listener]]:
    """Makes listeners; all are disconnected at the end."""
    listeners: list[Listener] = []

    def make(broker: BrokerProcess, **options: Any) -> Listener:
        listeners.append(Listener(broker, **options))
        return listeners[-1]

    yield make
    for listener in listeners:
        listener.__exit__()
