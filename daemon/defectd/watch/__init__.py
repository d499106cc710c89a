"""`defectd watch`: a live view of any station, from nothing but its MQTT events."""

from __future__ import annotations

from pathlib import Path

from defectd.errors import StartupError


def watch(
    host: str,
    port: int,
    stations: str = "all",
    username: str | None = None,
    password: str | None = None,
    ca: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
    plain: bool = False,
) -> int:
    """Show *stations* (`site/area/line/station`, `+` for any level, or `all`) until Ctrl-C.

    Raises StartupError if the broker refuses the login, or if rich is not installed.
    """
    try:
        from defectd.watch.screen import Screen  # noqa: PLC0415 - rich is an extra
    except ModuleNotFoundError as error:
        raise StartupError(f"{error.name} is not installed; install it with: pip install 'defectd[watch]'") from None
    from defectd.watch.listener import BrokerAddress, Listener  # noqa: PLC0415
    from defectd.watch.tally import Tally  # noqa: PLC0415

    broker, tally = BrokerAddress(host, port, username, password, ca, cert, key), Tally()
    try:
        with Listener(broker, station_filter(stations)) as listener, Screen(str(broker), plain) as screen:
            while not listener.link.refused:
                screen.follow(listener, tally)
    except KeyboardInterrupt:
        return 0
    raise StartupError(f"broker {broker}: {listener.link.detail}; check the user name and the password")


def station_filter(stations: str) -> str:
    """The part of the topic filter that chooses stations. Raises StartupError."""
    levels = ["+"] * 4 if stations == "all" else stations.strip("/").split("/")
    if len(levels) != 4 or not all(levels) or "#" in stations:
        raise StartupError(f"--station: got {stations!r}, expected site/area/line/station, with + for any, or all")
    return "/".join(levels)
