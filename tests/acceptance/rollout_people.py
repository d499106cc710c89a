"""What people do in the middle of a rollout: two commands at once, back, cancel, approve, a window, undo."""

from __future__ import annotations

import shutil
import time
from datetime import datetime, timedelta

from acceptance.rollout_refusals import A_WHILE, ENDLESS, closed, ends, refused, serves
from support.proving import Proof, Setting, Short
from support.rolling import QUICK, rolling
from support.signed import tiny_bundle
from support.station import wait_until


def _two_at_once(setting: Setting) -> str:
    """The first one counts, the second is told so, and counts when it is sent anew."""
    with rolling(setting.directory) as station:
        first = tiny_bundle(station.usb / "first", seq=2, version="2")
        second = tiny_bundle(station.usb / "second", seq=3, version="3")
        request = station.send(first, policy=A_WHILE)
        other = station.send(second)
        told = station.answered(other)
        if told["code"] != "busy" or request not in told["detail"]:
            raise Short(f"the second one: {told}")
        ends(station, request, "committed")
        ends(station, station.send(second), "committed")
        return f"busy: {told['detail'][:140]}; {closed(station, '1', '2', '3')}"


def _operator_goes_back(setting: Setting) -> str:
    """A rollback while the candidate decides."""
    with rolling(setting.directory) as station:
        request = station.send(tiny_bundle(station.usb / "good", seq=2, version="2"), policy=ENDLESS)
        station.reaches(request, "probation")
        station.here.await_units(len(station.here.collector.inspections) + 20)
        begun_s = time.monotonic()
        station.send(action="rollback", of=request)
        end = ends(station, request, "rolled_back", "operator")
        took_s = time.monotonic() - begun_s
        serves(station, "1")
        return f"{end['detail']}, {took_s:.1f} s after the command; {closed(station, '1', '2', '1')}"


def _cancelled(setting: Setting) -> str:
    """In staged, and in shadow; another request's id is no use."""
    with rolling(setting.directory) as station:
        good = tiny_bundle(station.usb / "good", seq=2, version="2")
        request = station.send(good, policy={**QUICK, "approval": True})
        station.reaches(request, "staged")
        refused(station, "wrong_target", request, lambda: station.send(action="cancel", of="another"))
        station.send(action="cancel", of=request)
        ends(station, request, "cancelled", "operator")
        request = station.send(good, policy={**QUICK, "shadow_units": 100_000})
        station.reaches(request, "shadow")
        station.send(action="cancel", of=request)
        end = ends(station, request, "cancelled", "operator")
        told = refused(station, "nothing_to_cancel", "", lambda: station.send(action="cancel", of=request))
        ends(station, station.send(good), "committed")
        return f"staged and shadow: cancelled, {end['detail']}; later: {told}; {closed(station, '1', '2')}"


def _approved(setting: Setting) -> str:
    """It waits, and says for what."""
    with rolling(setting.directory) as station:
        good = tiny_bundle(station.usb / "good", seq=2, version="2")
        request = station.send(good, policy={**QUICK, "approval": True})
        wait_until(lambda: station.rollout(request).get("waits_for"), 60, "it waits")
        waits_for = station.rollout(request)["waits_for"]
        if waits_for != "approve" or station.rollout(request)["state"] != "staged":
            raise Short(f"{station.rollout(request)}")
        station.send(action="approve", of=request)
        ends(station, request, "committed")
        return f"waits for {waits_for}, then committed; {closed(station, '1', '2')}"


def _window(setting: Setting) -> str:
    """Not before its time has come."""
    with rolling(setting.directory, rate_hz=10.0) as station:
        good = tiny_bundle(station.usb / "good", seq=2, version="2")
        opens = (datetime.now() + timedelta(seconds=75)).replace(second=0, microsecond=0)
        window = f"{opens:%H:%M}-{opens + timedelta(hours=1):%H:%M}"
        request = station.send(good, policy={**QUICK, "window": window})
        wait_until(lambda: station.rollout(request).get("waits_for"), 60, "it waits")
        waits_for = station.rollout(request)["waits_for"]
        station.reaches(request, "building", 120)
        late_s = (datetime.now() - opens).total_seconds()
        if waits_for != f"window {window}" or not -0.5 <= late_s < 10:
            raise Short(f"waited for {waits_for!r}, and began {late_s:.1f} s after the window opened")
        ends(station, request, "committed")
        return f"waits for {waits_for}, began {late_s:.1f} s after it opened; {closed(station, '1', '2')}"


def _undone(setting: Setting) -> str:
    """A rollback after the commit: the release before, without a download, and no further."""
    with rolling(setting.directory) as station:
        request = station.send(tiny_bundle(station.usb / "good", seq=2, version="2"))
        ends(station, request, "committed")
        shutil.rmtree(station.usb)
        begun_s = time.monotonic()
        ends(station, station.send(action="rollback", of=request), "committed")
        took_s = time.monotonic() - begun_s
        floor = station.reported["floor_release_seq"]
        serves(station, "1")
        if floor != 2:
            raise Short(f"floor_release_seq is {floor}; expected 2: a floor never falls")
        return f"back after {took_s:.1f} s, floor still {floor}; {closed(station, '1', '2', '1')}"


PEOPLE = (
    Proof("bad.two-at-once", "two commands at once: one is busy", _two_at_once),
    Proof("bad.go-back", "a rollback in probation: the old model at once", _operator_goes_back),
    Proof("bad.cancel", "cancelled while staged, and in the shadow", _cancelled),
    Proof("bad.approve", "it waits for an approval", _approved),
    Proof("bad.window", "it waits for its window", _window),
    Proof("bad.undo", "a rollback after the commit", _undone),
)
