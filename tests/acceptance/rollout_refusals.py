"""Commands that a station must not obey: whose they are, how old, for whom, and what the bytes are."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from typing import Any, Callable, Mapping

from defectd.models.envelope import PAYLOAD_COMMAND, PAYLOAD_MANIFEST
from support.bundles import OPS_KEY, RELEASE_KEY, ROOT_KEY, STRANGER, sign
from support.proving import Proof, Setting, Short
from support.rolling import QUICK, Rolling, command, rolling
from support.signed import tiny_bundle
from support.station import wait_until

ENDLESS = {**QUICK, "probation_units": 100_000}
A_WHILE = {**QUICK, "probation_units": 200, "probation_s": 10}
_ANSWER_S, _END_S = 30.0, 180.0


def moment(seconds: float) -> str:
    """So long from now, as commands write it."""
    then = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=seconds)
    return then.isoformat().replace("+00:00", "Z")


def answer(station: Rolling, act: Callable[[], object]) -> dict[str, Any]:
    """What the station says of the command that *act* brings."""
    before = station.reported.get("last_command")
    act()

    def said() -> dict[str, Any] | None:
        now = station.reported.get("last_command")
        return now if now != before else None

    wait_until(said, _ANSWER_S, f"another answer than {before}")
    return said() or {}


def refused(station: Rolling, code: str, words: str, act: Callable[[], object]) -> str:
    """The code, if the command that *act* brings is answered with it. Raises Short."""
    told = answer(station, act)
    if told["code"] != code or told["accepted"] or words not in told["detail"]:
        raise Short(f"expected {code} with {words!r}, got {told}")
    return code


def closed(station: Rolling, *versions: str, errors: int = 0) -> str:
    """The line goes on and ends well; every unit was judged by one of *versions*, one after the other. Raises Short."""
    struck_at_s, station.here.struck_at_s = station.here.struck_at_s, time.time()
    station.here.await_good_units()
    station.here.struck_at_s = struck_at_s
    station.here.terminate()
    figure = station.here.report(once=False)
    units = station.here.collector.inspections
    wrong = [f"{unit['unit_id']}: {unit['error']}" for unit in units if unit["verdict"] == "error"]
    found: list[str] = []
    for unit in units:
        if unit["model"] and unit["model"]["version"] not in found[-1:]:
            found.append(unit["model"]["version"])
    if len(wrong) > errors or found != list(versions):
        raise Short(f"errors {wrong[:4]}, judged by {found}, expected {list(versions)}; {figure}")
    return figure


def ends(station: Rolling, request_id: str, state: str, *codes: str) -> dict[str, Any]:
    """The report of its end, which is *state* for one of *codes* (none if it went well). Raises Short."""
    try:
        end = station.ended(request_id, _END_S)
    except TimeoutError as error:  # all of its log is in the directory that is kept
        told = station.rollout(request_id) or station.reported.get("last_command")
        raise Short(f"{str(error).splitlines()[0]}; {json.dumps(told)}") from None
    if end["state"] != state or end["code"] not in (codes or ("",)):
        raise Short(f"expected {state} {codes}, got {json.dumps(end)}")
    return end


def serves(station: Rolling, version: str) -> None:
    """What the station says, and what its next units say. Raises Short."""
    seen = len(station.here.collector.inspections)
    station.here.await_units(seen + 10)
    judged = {event["model"]["version"] for event in station.here.collector.inspections[seen + 3 :] if event["model"]}
    told = station.reported["current"]["version"]
    if (told, judged) != (version, {version}):
        raise Short(f"version {version} was to serve; the station says {told}, its units {judged}")


def untouched(station: Rolling, floor: int = 0) -> None:
    """No rollout has begun, and no floor has risen. Raises Short."""
    told = station.reported
    if told["rollout"] is not None or told["floor_command_seq"] != floor or told["candidate"] is not None:
        raise Short(f"nothing was to begin, and no floor to rise: {json.dumps(told)}")


# -- items -------------------------------------------------------------------------------------------------------


def _signatures(setting: Setting) -> str:
    """Nobody's, a stranger's, and those of keys that are for something else."""
    with rolling(setting.directory) as station:
        good = tiny_bundle(station.usb / "good", seq=2, version="2")
        payload = json.dumps(command(good, 1, policy=QUICK)).encode()
        signed = sign(payload, PAYLOAD_COMMAND, OPS_KEY).to_json()
        forged = json.loads(signed)
        forged["payload"] = json.loads(sign(payload.replace(b"deploy", b"DEPLOY"), PAYLOAD_COMMAND).to_json())[
            "payload"
        ]
        cases = {
            "unsigned": sign(payload, PAYLOAD_COMMAND).to_json(),
            "by a stranger": sign(payload, PAYLOAD_COMMAND, STRANGER).to_json(),
            "by the release key": sign(payload, PAYLOAD_COMMAND, RELEASE_KEY).to_json(),
            "by the root key": sign(payload, PAYLOAD_COMMAND, ROOT_KEY).to_json(),
            "as a manifest": sign(payload, PAYLOAD_MANIFEST, OPS_KEY).to_json(),
            "other bytes than were signed": json.dumps(forged).encode(),
        }
        told = [
            f"{name}: {refused(station, 'signature', '', lambda data=data: station.publish(data))}"
            for name, data in cases.items()
        ]
        untouched(station)
        return f"{'; '.join(told)}; {closed(station, '1')}"


def _old(setting: Setting) -> str:
    """Sent again, under a used id, with a used number, too late, too early, and for a release that is too old."""
    with rolling(setting.directory) as station:
        good = tiny_bundle(station.usb / "good", seq=5, version="5")
        older = tiny_bundle(station.usb / "older", seq=4, version="4")
        newer = tiny_bundle(station.usb / "newer", seq=6, version="6")
        expired = {"created": moment(-7200), "expires": moment(-3600)}
        ahead = {"created": moment(3 * 86400), "expires": moment(4 * 86400)}
        told = [refused(station, "expired", "clock", lambda: station.send(newer, **expired))]
        told += [refused(station, "not_yet", "clock", lambda: station.send(newer, **ahead))]
        untouched(station)
        fields = command(good, 10, policy=QUICK)
        data = sign(json.dumps(fields).encode(), PAYLOAD_COMMAND, OPS_KEY).to_json()
        station.publish(data)
        end = station.ended(fields["request_id"])
        if end["state"] != "committed":
            raise Short(f"the good one: {end}")
        again = answer(station, lambda: station.publish(data))
        if again["code"] != "again" or not again["accepted"]:
            raise Short(f"the same bytes once more: {again}")
        station.seq = 10
        told += ["again", refused(station, "conflict", fields["request_id"],
                                  lambda: station.send(newer, request_id=fields["request_id"]))]  # fmt: skip
        station.seq = 8
        told += [refused(station, "stale", "seq 10", lambda: station.send(newer))]
        station.seq = 10
        told += [refused(station, "older", "4 is older than 5", lambda: station.send(older))]
        told += [refused(station, "already_current", "", lambda: station.send(good))]
        return f"{', '.join(told)}; {closed(station, '1', '5')}"


def _elsewhere(setting: Setting) -> str:
    """For another station, from a source that is not there, for other hardware, and for another product."""
    with rolling(setting.directory) as station:
        good = tiny_bundle(station.usb / "good", seq=2, version="2")
        jetson = tiny_bundle(station.usb / "jetson", seq=3, version="3", compatible=["sm_87"])
        told = []
        for kind, value in (("station", "prove/smt/line1/aoi2"), ("line", "prove/smt/line2"), ("site", "other"),
                            ("group", "canaries")):  # fmt: skip
            audience = {"kind": kind, "value": value}
            refused(station, "not_for_us", value, lambda audience=audience: station.send(good, audience=audience))
            told.append(f"{kind} {value}: not_for_us")
        target = {**command(good, 1)["target"], "source": "cloud"}
        told += [refused(station, "unknown_source", "usb", lambda: station.send(good, target=target))]
        untouched(station)
        end = station.ended(station.send(jetson))
        if (end["state"], end["code"]) != ("failed", "unusable") or "sm_87" not in end["detail"]:
            raise Short(f"a bundle for sm_87: {end}")
        told += [f"a bundle for sm_87: {end['detail'][-160:]}"]
        return f"{'; '.join(told)}; {closed(station, '1')}"


def _bundles(setting: Setting) -> str:
    """The command is good, the bundle is not: never loaded, and the rollout says why."""
    with rolling(setting.directory) as station:
        unsigned = tiny_bundle(station.usb / "unsigned", seq=2, version="2", signer=None)
        stranger = tiny_bundle(station.usb / "stranger", seq=3, version="3", signer=STRANGER)
        ops = tiny_bundle(station.usb / "ops", seq=4, version="4", signer=OPS_KEY)
        expired = tiny_bundle(station.usb / "expired", seq=5, version="5", expires=moment(-86400))
        changed = tiny_bundle(station.usb / "changed", seq=6, version="6")
        network = changed / "model.torchscript"
        network.write_bytes(network.read_bytes()[:-1] + b"?")
        absent = tiny_bundle(station.usb / "absent", seq=7, version="7")
        (absent / "golden-0001.png").unlink()
        told = []
        for bundle, codes in (
            (unsigned, ("not_found", "signature")), (stranger, ("signature",)), (ops, ("signature",)),
            (expired, ("signature",)), (changed, ("wrong_bytes",)), (absent, ("not_found",)),
        ):  # fmt: skip
            end = station.ended(station.send(bundle))
            if end["state"] != "failed" or end["code"] not in codes:
                raise Short(f"{bundle.name}: expected failed with {codes}, got {end}")
            told.append(f"{bundle.name}: {end['code']}")
        if station.reported["candidate"] is not None or station.reported["floor_release_seq"] != 0:
            raise Short(f"something was kept of them: {station.reported}")
        return f"{', '.join(told)}; {closed(station, '1')}"


def _bytes(setting: Setting) -> str:
    """No JSON, no command, far too deep, far too long: the station does not even stumble, and hears the next one."""
    with rolling(setting.directory) as station:
        good = tiny_bundle(station.usb / "good", seq=2, version="2")
        fields = command(good, 1, policy=QUICK)

        def signed(data: Mapping[str, Any] | bytes) -> bytes:
            payload = data if isinstance(data, bytes) else json.dumps(data).encode()
            return sign(payload, PAYLOAD_COMMAND, OPS_KEY).to_json()

        cases = {
            "no JSON": (b"\xff\x00{", "signature"),
            "a list": (b"[1, 2]", "signature"),
            "an unsigned pit": (b"[" * 50_000, "signature"),
            "signed, but no JSON": (signed(b"deploy it!"), "unreadable"),
            "signed, nested 2,000 deep": (signed(b'{"schema":' * 2_000), "unreadable"),
            "signed, without an audience": (signed({k: v for k, v in fields.items() if k != "audience"}), "unreadable"),
            "signed, path out of the source": (
                signed({**fields, "target": {**fields["target"], "path": "../../etc"}}), "unreadable"),
            "signed, with a float": (signed({**fields, "seq": 1.5}), "unreadable"),
        }  # fmt: skip
        told = []
        for name, (data, code) in cases.items():
            found = answer(station, lambda data=data: station.publish(data))
            if found["accepted"] or found["code"] != code:
                raise Short(f"{name}: {found}")
            told.append(f"{name}: {found['code']}")
        before = station.reported["last_command"]
        station.publish(b"")
        station.here.await_units(len(station.here.collector.inspections) + 20)
        if station.reported["last_command"] != before:
            raise Short(f"a cleared message is no command: {station.reported['last_command']}")
        told.append("cleared: nothing")
        for name, size in (("10 MB", 10_000_000), ("100 kB", 100_000)):
            station.publish(b"x" * size)
            station.here.await_units(len(station.here.collector.inspections) + 20)
            told.append(f"{name}: {'said' if 'too_large' in station.here.daemon.log() else 'not heard'}")
        untouched(station)
        station.seq = 20
        end = station.ended(station.send(good))
        if end["state"] != "committed":
            raise Short(f"after all of these a good one: {end}")
        return f"{'; '.join(told)}; then a good one: committed; {closed(station, '1', '2')}"


REFUSALS = (
    Proof("bad.signatures", "a command that the ops key did not sign changes nothing", _signatures),
    Proof("bad.old", "replayed, expired, early, stale, older than the floor: each says so", _old),
    Proof("bad.elsewhere", "for others, from elsewhere, for other hardware: each says so", _elsewhere),
    Proof("bad.bundles", "a bundle that is not as it was signed is never loaded", _bundles),
    Proof("bad.bytes", "malformed, 10 MB, nested too deeply, cleared: the line goes on and hears the next", _bytes),
)
