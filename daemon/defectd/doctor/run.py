"""The whole examination, from the file to the report."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator, Protocol, Sequence

from defectd.checked import Checked, check
from defectd.clock import NS_PER_S, monotonic_ns
from defectd.configuration import load_settings
from defectd.doctor.checks.access import check_devices, check_jtop
from defectd.doctor.checks.broker import check_broker
from defectd.doctor.checks.cameras import check_cameras
from defectd.doctor.checks.configuration import check_settings
from defectd.doctor.checks.disk import check_disk
from defectd.doctor.checks.machine import check_board, check_clock, check_clocks, check_memory
from defectd.doctor.checks.model import check_model
from defectd.doctor.checks.pauses import check_pauses
from defectd.doctor.checks.pipelines import check_gstreamer
from defectd.doctor.checks.rollouts import check_rollouts
from defectd.doctor.checks.service import check_service, check_web
from defectd.doctor.checks.software import check_opencv, check_python, check_tensorrt, check_torch
from defectd.doctor.checks.vision import check_vision
from defectd.doctor.patient import Occupancy, Patient, Places, occupancy_of
from defectd.doctor.report import Finding, Report, error
from defectd.errors import DefectdError, SettingsError
from defectd.settings import Settings
from defectd.telemetry.platforms import read_board
from defectd.telemetry.sysfs import Sysfs

Check = Callable[[Patient], Iterator[Finding]]


@dataclass(frozen=True)
class Step:
    """A check, the section of the report that it belongs to, and what a person reads while it works."""

    section: str
    doing: str
    check: Check


STEPS: Sequence[Step] = (
    Step("configuration", "reading the settings", check_settings),
    Step("software", "", check_python),
    Step("software", "loading torch, up to two minutes", check_torch),
    Step("software", "loading OpenCV", check_opencv),
    Step("software", "loading GStreamer", check_gstreamer),
    Step("software", "loading TensorRT", check_tensorrt),
    Step("machine", "", check_board),
    Step("machine", "", check_clocks),
    Step("machine", "", check_memory),
    Step("machine", "", check_clock),
    Step("access", "", check_devices),
    Step("access", "", check_jtop),
    Step("state directory", "writing to the disk", check_disk),
    Step("broker", "talking to the broker", check_broker),
    Step("model", "looking up runtimes", check_model),
    Step("rollouts", "asking the sources of bundles", check_rollouts),
    Step("cameras", "", check_vision),
    Step("cameras", "taking a picture with each camera", check_cameras),
    Step("speed", "measuring the model with and without pauses, up to a minute", check_pauses),
    Step("service", "asking systemd", check_service),
    Step("service", "", check_web),
)


class Audience(Protocol):
    """Who is told while it goes on."""

    def doing(self, what: str) -> None:
        """This takes a while."""
        ...

    def begins(self, patient: Patient) -> None:
        """Whom it is about."""
        ...

    def found(self, section: str, finding: Finding) -> None:
        """The next line."""
        ...


class Nobody:
    """For programs, which read the report."""

    def doing(self, what: str) -> None:
        """See Audience."""

    def begins(self, patient: Patient) -> None:
        """See Audience."""

    def found(self, section: str, finding: Finding) -> None:
        """See Audience."""


@dataclass(frozen=True)
class Options:
    """What the caller wants."""

    quick: bool = False
    dev: bool = False
    places: Places = field(default_factory=Places)
    steps: Sequence[Step] = STEPS


def examine(config: Path, options: Options, audience: Audience) -> Report:
    """All checks, in turn. Never raises for what it finds, and leaves nothing behind."""
    started_ns = monotonic_ns()
    audience.doing("reading the settings and verifying the model")
    patient = admit(config, options)
    audience.begins(patient)
    findings: list[tuple[str, Finding]] = []
    for step in options.steps:
        audience.doing(step.doing)
        for finding in _findings(step, patient):
            findings.append((step.section, finding))
            audience.found(step.section, finding)
    took_s = (monotonic_ns() - started_ns) / NS_PER_S
    return Report(patient.machine, str(config), findings, took_s)


def admit(config: Path, options: Options) -> Patient:
    """What is known before any check."""
    places = options.places
    settings, checked, problems = _settings(config, dev=options.dev)
    state = Path("/") if settings is None else settings.state.directory
    return Patient(
        config=config,
        board=read_board(places.roots),
        sample=Sysfs(places.roots, state if state.is_dir() else Path("/")).read(),
        settings=settings,
        checked=checked,
        problems=problems,
        occupancy=Occupancy(False) if settings is None else occupancy_of(state, places.roots.proc),
        places=places,
        quick=options.quick,
        dev=options.dev,
    )


def _settings(config: Path, *, dev: bool) -> tuple[Settings | None, Checked | None, tuple[str, ...]]:
    try:
        settings = load_settings(config)
    except SettingsError as problem:
        return None, None, tuple(problem.problems)
    state = settings.state.directory
    absent = [one for one in (state, *state.parents) if not one.exists()]
    try:
        return settings, check(settings, dev=dev), ()
    except SettingsError as problem:
        return settings, None, tuple(problem.problems)
    except DefectdError as problem:
        return settings, None, (str(problem),)
    except OSError as problem:
        return settings, None, (f"{problem.filename}: {problem.strerror or problem}",)
    finally:
        for directory in absent:  # `check` makes it, perhaps as root, whom the daemon is not
            with suppress(OSError):
                directory.rmdir()


def _findings(step: Step, patient: Patient) -> Iterator[Finding]:
    """A check that fails itself must not hide what the others find."""
    try:
        yield from step.check(patient)
    except Exception as problem:  # noqa: BLE001 - the outermost guard of a check
        name = step.check.__name__.replace("check_", "")
        yield error(name, f"this check itself failed: {type(problem).__name__}: {problem}",
                    "a bug of the doctor's: please report this line; the other checks are not affected")  # fmt: skip
