"""`defectd rollout …`: a technician's laptop brings models to stations, follows them, and brings them back."""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

from defectd.errors import DefectdError, SettingsError
from defectd.model_cli import Commands, passphrase_for

if TYPE_CHECKING:
    from defectd.rollout.command import Audience
    from defectd.technician.campaign import Campaign
    from defectd.technician.fleet import Fleet
    from defectd.technician.screen import Screen
    from defectd.technician.session import Session
    from defectd.watch.listener import BrokerAddress

_EXITS = (
    "Exit codes: 0 done at all stations, 5 failed, went back or was cancelled somewhere, 6 refused somewhere, "
    "7 no answer in time, 2 wrong usage, 3 anything else, 130 Ctrl-C. What was sent goes on without this program."
)
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST_S = 365 * 86_400
_PLACES = (
    ("station", "SITE/AREA/LINE/STATION", "one station"),
    ("line", "SITE/AREA/LINE", "all stations of a line"),
    ("group", "GROUP", "all stations that name it in [rollout] groups"),
    ("site", "SITE", "all stations of a site"),
)


def add_to(commands: Commands) -> None:
    """Register the commands."""
    rollout = commands.add_parser("rollout", help="bring models to stations over the air, and back", epilog=_EXITS)
    actions = rollout.add_subparsers(title="actions", required=True, metavar="ACTION")
    _add_send(actions)
    _add_status(actions)
    _add_words(actions)
    history = _add(actions, "history", _history, "every step of the last rollouts; on the station itself")
    history.add_argument("--config", type=Path, required=True, metavar="FILE", help="the station's TOML")
    history.add_argument("--request", default=None, metavar="REQUEST_ID", help="only this one")
    history.add_argument("--limit", type=int, default=10, metavar="N", help="so many rollouts (default: 10)")


def _add(commands: Commands, name: str, command: Callable[[argparse.Namespace], int], about: str) -> Any:
    parser = commands.add_parser(name, help=about, description=about, epilog=_EXITS)
    parser.set_defaults(command=command)
    return parser


# -- send --------------------------------------------------------------------------------------------------------


def _add_send(actions: Commands) -> None:
    from defectd.rollout.policy import Policy

    send = _add(actions, "send", _send, "bring a signed bundle to stations, and follow it until it is committed")
    what = send.add_mutually_exclusive_group(required=True)
    what.add_argument("--bundle", type=Path, metavar="DIR", help="the bundle, as `defectd model sign` left it")
    what.add_argument("--manifest", type=Path, metavar="FILE", help="or only its manifest.json")
    send.add_argument("--source", required=True, metavar="ALIAS", help="a [[rollout.source]] of the stations")
    send.add_argument("--path", required=True, help="the bundle's folder below that source, such as pcb/1.5.0")
    _add_places(send, required=True)
    _add_signing(send)
    about_waves = "how many have it after each wave: 1,10%%,100%% (default: 100%%, all at once)"
    send.add_argument("--waves", default="100%", metavar="SIZES", help=about_waves)
    about_failures = "go on with the next wave with up to so many stations not committed (default: 0)"
    send.add_argument("--max-failures", type=int, default=0, metavar="N", help=about_failures)
    send.add_argument("--no-wait", action="store_true", help="send, and do not follow")
    _add_broker(send)
    policy = send.add_argument_group("when to begin, and what the new model must show (signed with the command)")
    for name, field in Policy.model_fields.items():
        flag, about = f"--{name.replace('_', '-')}", (field.description or "").replace("%", "%%")
        if field.annotation is bool:
            policy.add_argument(flag, dest=f"policy_{name}", action="store_true", default=None, help=about)
        else:
            default = "" if field.default is None else f" (default: {field.default})"
            kind, sign = (int, "N") if field.annotation is int else (str, "TEXT")
            policy.add_argument(flag, dest=f"policy_{name}", type=kind, metavar=sign, help=about + default)


def _send(options: argparse.Namespace) -> int:
    from defectd.clock import utc_now
    from defectd.technician.campaign import Waves
    from defectd.technician.order import choose, order, policy_of

    given = {name[len("policy_") :]: value for name, value in vars(options).items()
             if name.startswith("policy_") and value is not None}  # fmt: skip
    policy, place = policy_of(given), _place(options)
    chosen = choose(options.bundle or options.manifest, options.source, options.path, utc_now())
    if options.no_wait and options.waves != "100%":
        raise SettingsError(["--no-wait: a wave is only sent when the one before it went well; leave out --waves"])
    assert place is not None
    with _campaign(options, place) as (campaign, _, _):
        spread = Waves(options.waves, options.max_failures)
        return campaign.roll_out(order("deploy", policy, chosen.target), chosen, place, spread)


# -- approve, cancel, rollback -------------------------------------------------------------------------------------


def _add_words(actions: Commands) -> None:
    for name, about in (
        ("approve", "let a rollout go on that waits for a person"),
        ("cancel", "end a rollout that has not switched over yet (during probation: go back at once)"),
        ("rollback", "go back to the model from before: at once during probation, as a rollout of its own later"),
    ):
        parser = _add(actions, name, _tell, about)
        parser.set_defaults(action=name)
        parser.add_argument("request", nargs="?", metavar="REQUEST_ID", help="where it is; its beginning will do")
        _add_places(parser)
        _add_signing(parser)
        parser.add_argument("--no-wait", action="store_true", help="send, and do not wait for the effect")
        _add_broker(parser)


def _tell(options: argparse.Namespace) -> int:
    from defectd.technician.campaign import ask
    from defectd.technician.order import order
    from defectd.technician.places import tersely

    place, action = _place(options), options.action
    if place is None and options.request is None:
        raise SettingsError([f"rollout {action}: expected a REQUEST_ID, or --station, --line, --group or --site"])
    with _campaign(options, place) as (campaign, fleet, screen):
        stations = fleet.find(place)
        if options.request is not None:
            named = fleet.with_request(options.request)
            stations = [name for name in named if name in stations]
            if action == "rollback":
                fleet.check_undoable(stations)
        asked = ask(fleet, stations, lambda of: order(action, of=of), needs_rollout=action != "rollback")
        for station, name in tersely(list(asked)).items():
            of = asked[station][0].of or ""
            screen.say(f"{name}: {action} {of}".rstrip() + _from_to(fleet, station, action))
        done = {"approve": "approved", "cancel": "ended", "rollback": "rolled back"}[action]
        return campaign.tell(asked, done, action)


def _from_to(fleet: Fleet, station: str, action: str) -> str:
    """` (boards 1.5 to boards 1.4)`, of a rollback."""
    reported = fleet.view(station).reported
    if action != "rollback" or reported is None:
        return ""
    rollout = reported.rollout
    running = rollout is not None and not rollout.finished
    before, after = (rollout.target, reported.current) if rollout and running else (reported.current, reported.previous)
    failed = rollout is not None and rollout.finished and not rollout.successful
    since = f"; {rollout.target or 'the rollout'} since then changed nothing" if rollout and failed else ""
    return f" ({before or 'the new model'} to {after or 'nothing: it has no model from before'}{since})"


# -- status and history ------------------------------------------------------------------------------------------


def _add_status(actions: Commands) -> None:
    about = "which model each station serves, what its rollout does, and what went wrong"
    status = _add(actions, "status", _status, about)
    _add_places(status)
    _add_broker(status)


def _status(options: argparse.Namespace) -> int:
    from defectd.technician import report
    from defectd.technician.places import audience, shared
    from defectd.technician.screen import Screen

    place = _place(options)
    if place is None and options.config is not None:
        from defectd.app import topics_of
        from defectd.configuration import load_settings

        place = audience("station", topics_of(load_settings(options.config)).levels)
    with _heard(options, place) as (session, fleet):
        screen, stations = Screen(options.plain), fleet.find(place)
        screen.say(f"{shared(stations)} on broker {session.broker}")
        screen.table(report.overview(fleet.views, stations))
        for hint in report.hints(fleet.views, stations):
            screen.say(hint)
    return 0


def _history(options: argparse.Namespace) -> int:
    from defectd.configuration import load_settings
    from defectd.model_source import store_directory
    from defectd.technician.history import told

    directory = store_directory(load_settings(options.config).state.directory)
    for line in told(directory, options.request, options.limit):
        print(line)
    return 0


# -- what they share ---------------------------------------------------------------------------------------------


def _add_places(parser: Any, required: bool = False) -> None:
    where = parser.add_argument_group("which stations").add_mutually_exclusive_group(required=required)
    for name, form, about in _PLACES:
        where.add_argument(f"--{name}", metavar=form, help=about)


def _add_signing(parser: Any) -> None:
    parser.add_argument("--key", type=Path, action="append", required=True, metavar="OPS.KEY",
                        help="a private key of the role ops; again, if stations want more than one")  # fmt: skip
    parser.add_argument("--expires", type=_duration, default=86_400, metavar="24h",
                        help="a station that sees it later does not take it (default: 24h)")  # fmt: skip
    parser.add_argument("--timeout", type=_duration, default=8 * 3600, metavar="8h",
                        help="follow each wave for at most so long (default: 8h)")  # fmt: skip


def _add_broker(parser: Any) -> None:
    broker = parser.add_argument_group("the broker")
    broker.add_argument("--config", type=Path, metavar="FILE", help="take it from a station's TOML")
    broker.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    broker.add_argument("--port", type=int, default=None, help="default: 1883; 8883 with --ca")
    broker.add_argument("--username", help="login; the password is read from DEFECTD_MQTT__PASSWORD")
    broker.add_argument("--ca", type=Path, metavar="FILE", help="turn TLS on and trust this CA")
    broker.add_argument("--tls-cert", type=Path, metavar="FILE", help="our certificate, where the broker wants one")
    broker.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key")
    broker.add_argument("--plain", action="store_true", help="lines instead of a live view")


def _duration(text: str) -> int:
    """Seconds of 90s, 30m, 24h or 7d."""
    found = re.fullmatch(r"(\d{1,8})([smhd])", text)
    seconds = int(found.group(1)) * _UNITS_S[found.group(2)] if found else 0
    if not 1 <= seconds <= _LONGEST_S:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a duration like 90s, 30m, 24h or 7d, at most 365d")
    return seconds


def _place(options: argparse.Namespace) -> Audience | None:
    from defectd.technician.places import audience

    for kind, _, _ in _PLACES:
        value = getattr(options, kind)
        if value is not None:
            return audience(kind, value)  # type: ignore[arg-type]
    return None


def _broker(options: argparse.Namespace) -> BrokerAddress:
    from defectd.watch.listener import BrokerAddress

    if options.config is None:
        if (options.tls_cert is None) != (options.tls_key is None) or (options.tls_cert and not options.ca):
            raise SettingsError(["--tls-cert and --tls-key belong together, and to --ca"])
        port = options.port or (1883 if options.ca is None else 8883)
        return BrokerAddress(
            options.host, port, options.username, os.environ.get("DEFECTD_MQTT__PASSWORD"), options.ca,
            options.tls_cert, options.tls_key,
        )  # fmt: skip
    from defectd.app import broker_of
    from defectd.configuration import load_settings

    settings = load_settings(options.config)
    found, tls = broker_of(settings), settings.mqtt.tls
    return BrokerAddress(found.host, found.port, found.username, found.password, tls.ca, tls.cert, tls.key)


@contextmanager
def _heard(options: argparse.Namespace, place: Audience | None) -> Iterator[tuple[Session, Fleet]]:
    """An open session, and what the broker had kept of the stations. Exits with 7 where there is no such station."""
    from defectd.technician.campaign import EXIT_SILENT
    from defectd.technician.fleet import Fleet, NoStation
    from defectd.technician.places import topic_levels
    from defectd.technician.session import Session

    broker = _broker(options)
    try:
        with Session(broker, topic_levels(place)) as session:
            yield session, Fleet(session.hear_retained())
    except NoStation as error:
        print(f"defectd: {error}{_others(broker) if place else ''}", file=sys.stderr)
        raise SystemExit(EXIT_SILENT) from None


def _others(broker: BrokerAddress) -> str:
    """Who does answer there, for a name that was mistyped; nothing, where the login may not ask."""
    from defectd.technician.fleet import Fleet
    from defectd.technician.places import some
    from defectd.technician.session import Session

    try:
        with Session(broker, "+/+/+/+") as session:
            found = Fleet(session.hear_retained()).views
    except DefectdError:
        return ""
    return f". It knows {some(sorted(found))}" if found else ", and --host: it knows no other station, either"


@contextmanager
def _campaign(options: argparse.Namespace, place: Audience | None) -> Iterator[tuple[Campaign, Fleet, Screen]]:
    from defectd.models.signing import Signer
    from defectd.technician.campaign import Campaign, Terms
    from defectd.technician.screen import Screen

    signers = [Signer(key, passphrase_for(key)) for key in options.key]
    terms = Terms(signers, options.expires, not options.no_wait, options.timeout)
    with _heard(options, place) as (session, fleet):
        screen = Screen(options.plain)
        yield Campaign(session, fleet, screen, terms), fleet, screen
