"""The command line. Each command imports what it needs, so that `check` works without torch or a broker."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Sequence

from defectd import __version__
from defectd.errors import DefectdError, SettingsError, StateError, StationFailed

EXIT_OK, EXIT_INTERNAL, EXIT_SETTINGS, EXIT_STARTUP, EXIT_STATE = 0, 1, 2, 3, 4
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:  # noqa: PLR0911 - one for each kind of error
    """Run one command; the exit code is documented in docs/runbook.md."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except SettingsError as error:
        return _complain(error.problems, EXIT_SETTINGS)
    except StateError as error:
        return _complain([str(error)], EXIT_STATE)
    except StationFailed as error:
        return _complain([str(error)], EXIT_INTERNAL)
    except DefectdError as error:
        return _complain([str(error)], EXIT_STARTUP)
    except KeyboardInterrupt:
        return _complain(["interrupted"], EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


def _run(options: argparse.Namespace) -> int:
    from defectd.app import build
    from defectd.checked import check
    from defectd.configuration import load_settings
    from defectd.systemd import log_handler

    settings = load_settings(options.config)
    logging.basicConfig(level=settings.log.level, handlers=[log_handler()], force=True)
    if options.dev:
        logging.getLogger(__name__).warning("--dev: models that nobody signed are served; never on a line")
    build(check(settings, dev=options.dev)).run()
    return EXIT_OK


def _check(options: argparse.Namespace) -> int:
    from defectd.checked import check
    from defectd.configuration import load_settings

    settings = load_settings(options.config)
    model = check(settings, dev=options.dev).model
    print(json.dumps(settings.masked(), indent=2))
    print(
        f"ok: {len(settings.camera)} camera(s), model {settings.model.path.name} "
        f"({len(model.names)} classes, {model.input_hw[1]}x{model.input_hw[0]}), "
        f"{len(settings.inspection.defect)} class(es) in the recipe",
        file=sys.stderr,
    )
    return EXIT_OK


def _demo(options: argparse.Namespace) -> int:
    from defectd.demo.run import demo

    return demo(options.units, options.rate_hz, options.plain, options.keep)


def _watch(options: argparse.Namespace) -> int:
    from defectd.watch import watch

    if options.config is None:
        password = os.environ.get("DEFECTD_MQTT__PASSWORD")
        return watch(
            options.host, options.port, options.station, options.username, password, options.ca, plain=options.plain
        )
    from defectd.app import broker_of, topics_of
    from defectd.configuration import load_settings

    settings = load_settings(options.config)
    broker, topics = broker_of(settings), topics_of(settings)
    tls = settings.mqtt.tls
    return watch(
        broker.host,
        broker.port,
        topics.levels,
        broker.username,
        broker.password,
        tls.ca,
        tls.cert,
        tls.key,
        plain=options.plain,
    )


def _complain(problems: list[str], exit_code: int) -> int:
    for problem in problems:
        print(f"defectd: {problem}", file=sys.stderr)
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="defectd", description="Edge inspection: every unit is accounted for.")
    parser.add_argument("--version", action="version", version=f"defectd {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="inspect until SIGTERM")
    run.add_argument("--config", type=Path, required=True, metavar="FILE", help="the station's TOML")
    run.add_argument("--dev", action="store_true", help="serve models that nobody signed; for test benches")
    run.set_defaults(command=_run)

    check = commands.add_parser("check", help="print the effective settings, or every mistake in them")
    check.add_argument("--config", type=Path, required=True, metavar="FILE", help="the station's TOML")
    check.add_argument("--dev", action="store_true", help="as run --dev would")
    check.set_defaults(command=_check)

    demo = commands.add_parser("demo", help="a simulated line with everything, on this machine")
    demo.add_argument("--units", type=int, default=None, help="stop after so many boards (default: until Ctrl-C)")
    demo.add_argument("--rate-hz", type=float, default=4.0, help="boards per second (default: 4, 240 a minute)")
    demo.add_argument("--plain", action="store_true", help="one line per board instead of the live view")
    demo.add_argument("--keep", type=Path, default=None, metavar="DIR", help="keep state, evidence and logs there")
    demo.set_defaults(command=_demo)

    watch = commands.add_parser("watch", help="live view of a station from its MQTT events")
    watch.add_argument("--config", type=Path, default=None, metavar="FILE", help="take broker and station from a TOML")
    watch.add_argument("--host", default="127.0.0.1", help="broker (default: 127.0.0.1)")
    watch.add_argument("--port", type=int, default=1883, help="port (default: 1883)")
    watch.add_argument("--station", default="all", help="site/area/line/station, + for any (default: all)")
    watch.add_argument("--username", default=None, help="login; the password is read from DEFECTD_MQTT__PASSWORD")
    watch.add_argument("--ca", type=Path, default=None, metavar="FILE", help="turn TLS on and trust this CA")
    watch.add_argument("--plain", action="store_true", help="one line per unit instead of the live view")
    watch.set_defaults(command=_watch)

    from defectd import camera_cli, collected_cli, doctor_cli, model_cli, record_cli, rollout_cli

    doctor_cli.add_to(commands)
    camera_cli.add_to(commands)
    model_cli.add_to(commands)
    rollout_cli.add_to(commands)
    record_cli.add_to(commands)
    collected_cli.add_to(commands)
    return parser
