"""The broker, as the daemon would reach it: address, TLS, login, and what its ACL allows.

It is asked under a name of its own, so that a running daemon keeps its session, and on a topic of its own, so that no
retained message changes.
"""

from __future__ import annotations

import json
import socket
import ssl
import warnings
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable, Iterator, Literal, TypeVar

from defectd.app import broker_of, topics_of
from defectd.clock import NS_PER_S, monotonic_ns, ms_between, utc_now
from defectd.doctor.patient import Patient
from defectd.doctor.report import Finding, error, ok, skipped, warning
from defectd.messaging.client import Broker, Cause, Connection, Will
from defectd.messaging.tls import Tls, tls_context
from defectd.messaging.topics import Topics

_TCP_S, _ANSWER_S = 5.0, 10.0
_SOON_DAYS = 30
_SLOW_MS = 1000.0
_MEANWHILE = "units are judged all the same, their events wait on disk"
Protocol = Literal["5", "3.1.1"]
Found = TypeVar("Found")


def check_broker(patient: Patient) -> Iterator[Finding]:
    """Step by step; what follows a step that fails is not tried."""
    if patient.settings is None:
        yield skipped("broker", patient.unread)
        return
    try:
        broker = broker_of(patient.settings)
    except (OSError, UnicodeDecodeError) as problem:
        yield skipped("broker", f"needs mqtt.password_file, which cannot be read: {problem}")
        return
    broker = replace(broker, client_id=f"{broker.client_id}-doctor")
    address = _address(broker)
    yield address
    if address.remedy:
        return
    if broker.tls is not None:
        yield from _certificates(broker, broker.tls)
    yield from _mqtt(broker, topics_of(patient.settings), commands=bool(patient.settings.rollout.source))


def probe_topic(topics: Topics) -> str:
    """Nobody's: neither stored nor retained."""
    return f"{topics.prefix}/tele/doctor"


# -- TCP ---------------------------------------------------------------------------------------------------------


def _address(broker: Broker) -> Finding:
    place = f"{broker.host}:{broker.port}"
    started_ns = monotonic_ns()
    try:
        socket.create_connection((broker.host, broker.port), _TCP_S).close()
    except socket.gaierror as problem:
        return error("broker", f"{broker.host} is not a name that is known here: {problem.strerror or problem}",
                     "correct mqtt.host, or the name server: resolvectl status")  # fmt: skip
    except ConnectionRefusedError:
        return error("broker", f"{place}: nothing listens there; {_MEANWHILE}",
                     "start the broker, or correct mqtt.port (1883, with TLS usually 8883)")  # fmt: skip
    except (socket.timeout, TimeoutError):
        return error("broker", f"{place} does not answer within {_TCP_S:g} s; {_MEANWHILE}",
                     f"a firewall or another network: ping {broker.host}; ip route get {broker.host}")  # fmt: skip
    except OSError as problem:
        return error("broker", f"{place}: {problem.strerror or problem}", "see cable and network: ip addr; ip route")
    took_ms = ms_between(started_ns, monotonic_ns())
    return ok("broker", f"{place} answers in {took_ms:.0f} ms", connect_ms=round(took_ms, 1))


# -- TLS ---------------------------------------------------------------------------------------------------------


def _certificates(broker: Broker, tls: Tls) -> Iterator[Finding]:
    """When they expire. That they are right is seen from the login."""
    expires = _broker_expiry(broker, tls)
    if expires is not None:
        yield expiry_finding("broker cert", expires, utc_now(), "renew it at the broker")
    expires = None if tls.cert is None else _own_expiry(tls.cert)
    if expires is not None:
        remedy = "have a new one signed, and put it in place of mqtt.tls.cert"
        yield expiry_finding("station cert", expires, utc_now(), remedy)
    expires = None if tls.ca is None else _ca_expiry(tls.ca)
    if expires is not None:
        remedy = "bring the new CA to this station as mqtt.tls.ca, before the old one ends"
        yield expiry_finding("CA", expires, utc_now(), remedy)


def expiry_finding(name: str, expires: datetime, now: datetime, remedy: str) -> Finding:
    """Pure."""
    days = (expires - now).days
    if expires <= now:
        wrong = f"{remedy}; if the clock of this machine is wrong, correct that first"
        return error(name, f"expired on {expires:%Y-%m-%d}", wrong, days=days)
    if days < _SOON_DAYS:
        return warning(name, f"expires on {expires:%Y-%m-%d}, in {days} days", remedy, days=days)
    return ok(name, f"valid until {expires:%Y-%m-%d}", days=days)


def _broker_expiry(broker: Broker, tls: Tls) -> datetime | None:
    """None if the handshake fails: the login says why."""
    try:
        with socket.create_connection((broker.host, broker.port), _TCP_S) as plain, tls_context(tls).wrap_socket(
            plain, server_hostname=broker.host
        ) as secure:
            certificate = secure.getpeercert() or {}
        seconds = ssl.cert_time_to_seconds(str(certificate.get("notAfter", "")))
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (OSError, ValueError):
        return None


def _ca_expiry(path: Path) -> datetime | None:
    """Of several in one file, when the first of them ends."""
    try:
        authorities = ssl.create_default_context(cafile=str(path)).get_ca_certs()
        ends = [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in authorities]
    except (OSError, ValueError, KeyError):
        return None
    return datetime.fromtimestamp(min(ends), timezone.utc) if ends else None


def _own_expiry(path: Path) -> datetime | None:
    try:
        with warnings.catch_warnings():  # the last release for Python 3.8 says at each start that it is the last
            warnings.filterwarnings("ignore", "Python 3.8 is no longer supported")
            from cryptography.x509 import load_pem_x509_certificate  # noqa: PLC0415 - slow to load, seldom needed
        certificate = load_pem_x509_certificate(path.read_bytes())
    except (ImportError, OSError, ValueError):
        return None
    if hasattr(certificate, "not_valid_after_utc"):  # from 42 on; the older name then warns
        return certificate.not_valid_after_utc
    return certificate.not_valid_after.replace(tzinfo=timezone.utc)


# -- login and ACL -----------------------------------------------------------------------------------------------


def _mqtt(broker: Broker, topics: Topics, *, commands: bool) -> Iterator[Finding]:
    with _Line() as line:
        protocols: tuple[Protocol, ...] = ("5", "3.1.1") if broker.protocol == "auto" else (broker.protocol,)
        for protocol in protocols:
            connection = line.connect(broker, protocol, topics)
            if connection.up or connection.end is None or connection.end.cause not in (Cause.VERSION, Cause.SILENT):
                break
        if not connection.up:
            yield _refused(connection, broker)
            return
        user = f"user {broker.username}" if broker.username else "no user name"
        secure = "with TLS" if broker.tls else "without TLS"
        yield ok("login", f"accepted, MQTT {protocol}, {user}, {secure}", protocol=protocol, tls=bool(broker.tls))
        yield _publish(line, connection, topics, broker, protocol)
        if not commands:
            yield skipped("commands", "no [[rollout.source]]: this station takes no rollouts")
        elif connection.up:
            yield _subscribe(line, connection, topics, broker)
        line.farewell(connection)


def _refused(connection: Connection, broker: Broker) -> Finding:
    end = connection.end
    if end is None:
        return error("login", f"no answer to CONNECT within {_ANSWER_S:g} s", "is that port really MQTT's?")
    subject = "TLS" if end.cause is Cause.TLS else "login"
    remedies = {
        Cause.TLS: "openssl s_client -connect "
        f"{broker.host}:{broker.port} -CAfile CA shows the chain; a wrong clock on this machine looks the same",
        Cause.LOGIN: _login_remedy(broker),
        Cause.SILENT: "TLS on one side only? With mqtt.tls.ca the port must be the one for TLS, without it the plain "
        "one; a broker that wants client certificates needs mqtt.tls.cert and key",
        Cause.VERSION: 'set mqtt.protocol = "auto"',
    }
    return error(subject, end.detail, remedies.get(end.cause, "the broker's log says why"))


def _login_remedy(broker: Broker) -> str:
    remedy = (
        "set mqtt.username and password (file or DEFECTD_MQTT__PASSWORD); a broker that ties logins to client ids must "
        f"allow {broker.client_id!r}, too, and one with an ACL its will, …/tele/#"
    )
    if broker.username is None or broker.password is not None:
        return remedy
    secrets = "/etc/defectd/secrets.env"
    lent = f"sudo sh -c 'set -a; . {secrets}; defectd doctor --config FILE'"
    return f"there is no password here; if the service has it from {secrets}: {lent}; else {remedy}"


def _publish(line: _Line, connection: Connection, topics: Topics, broker: Broker, protocol: Protocol) -> Finding:
    topic, started_ns = probe_topic(topics), monotonic_ns()
    payload = json.dumps({"ts": utc_now().isoformat(timespec="milliseconds"), "client": broker.client_id}).encode()
    mid = connection.publish(topic, payload)
    code = line.wait(connection, lambda answers: next((code for one, code in answers if one == mid), None))
    took_ms = ms_between(started_ns, monotonic_ns())
    acl = f"the ACL must let {_who(broker)} write {topics.prefix}/# (Mosquitto: topic readwrite {topics.prefix}/#)"
    if code is None:
        why = connection.end.detail if connection.end else f"no answer within {_ANSWER_S:g} s"
        return error("publishing", f"{topic}: {why}", f"{acl}; some brokers hang up over what they forbid")
    if code >= 0x80:
        return error("publishing", f"{topic} is refused (0x{code:02X})", acl, code=code)
    unsure = "" if protocol == "5" else "; over MQTT 3.1.1 a broker may say so and drop it"
    if took_ms > _SLOW_MS:
        remedy = "the broker or the network is overloaded: ping, then the broker's own load"
        return warning("publishing", f"acknowledged after {took_ms:.0f} ms{unsure}", remedy, ms=round(took_ms, 1))
    return ok("publishing", f"QoS 1, acknowledged in {took_ms:.0f} ms{unsure}", ms=round(took_ms, 1))


def _subscribe(line: _Line, connection: Connection, topics: Topics, broker: Broker) -> Finding:
    """Reads at most what is retained there; nothing is answered to it."""
    topic = topics.model_desired
    connection.subscribe(topic)
    granted: list[tuple[str, str]] = []

    def told(_: list[tuple[int, int]]) -> str | None:
        granted.extend(connection.take_subscribed())
        return granted[0][1] if granted else None

    refusal = line.wait(connection, told)
    if refusal == "":
        return ok("commands", f"subscribed to {topic}")
    why = refusal or (connection.end.detail if connection.end else f"no answer within {_ANSWER_S:g} s")
    remedy = f"the ACL must let {_who(broker)} read {topic} (Mosquitto: topic read {topic})"
    return error("commands", f"{topic}: {why}: no rollout reaches this station", remedy)


def _who(broker: Broker) -> str:
    return f"user {broker.username}" if broker.username else f"client {broker.client_id}"


class _Line:
    """A socket pair for Connection, and patience with it."""

    def __enter__(self) -> _Line:
        self._wake, self._other = socket.socketpair()
        self._wake.setblocking(False)
        self._connections: list[Connection] = []
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.abandon()
        with closing(self._wake), closing(self._other):
            pass

    def connect(self, broker: Broker, protocol: Protocol, topics: Topics) -> Connection:
        """Until it is up or has ended. The will is empty, and on the probe's topic: it leaves nothing behind."""
        connection = Connection(broker, protocol, Will(probe_topic(topics), b""), self._wake)
        self._connections.append(connection)
        connection.open()
        self.wait(connection, lambda _: True if connection.up else None)
        return connection

    def wait(self, connection: Connection, done: Callable[[list[tuple[int, int]]], Found | None]) -> Found | None:
        """What *done* makes of the answers, as soon as it is not None; None if the connection ends or is too slow."""
        due_ns = monotonic_ns() + int(_ANSWER_S * NS_PER_S)
        while connection.end is None and monotonic_ns() < due_ns:
            found = done(connection.step(0.1))
            if found is not None:
                return found
        return None

    def farewell(self, connection: Connection) -> None:
        """So that the broker forgets the client."""
        if connection.end is None:
            connection.disconnect()
