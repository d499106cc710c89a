"""The settings, every problem in them, and who asks."""

from __future__ import annotations

import os
import pwd
from typing import Iterator

from defectd.doctor.patient import Patient
from defectd.doctor.report import Finding, error, ok, skipped, warning

_CLOSED = ("Permission denied", "may read", "may write")


def check_settings(patient: Patient) -> Iterator[Finding]:
    """Whether this user sees what the daemon's user sees, then what `defectd check` says."""
    settings = patient.settings
    if settings is not None:
        yield _user(patient)
        if patient.busy:
            pid = patient.occupancy.pid
            number = "" if pid is None else f", process {pid}"
            yield ok("daemon", f"{patient.busy}{number}: what it would feel is left out here", pid=pid)
    for problem in patient.problems:
        yield _problem(problem, patient)
    if settings is not None and not patient.problems:
        cameras, classes = len(settings.camera), len(settings.inspection.defect)
        yield ok(
            "settings",
            f"valid: {cameras} camera{'s' * (cameras != 1)}, {classes} class{'es' * (classes != 1)} in the recipe, "
            f"deadline {settings.inspection.deadline_ms:g} ms",
            sha256=settings.sha256(),
        )


def _problem(problem: str, patient: Patient) -> Finding:
    start = f"{patient.config}: "
    found = problem[len(start) :] if problem.startswith(start) else problem
    if patient.is_stranger and any(words in found for words in _CLOSED):
        return warning("settings", f"not examined: {found}", _as_daemon(patient))
    return error("settings", found, f"correct it in {patient.config}; docs/configuration.md has every key, "
                 "docs/models.md what a model needs")  # fmt: skip


def _user(patient: Patient) -> Finding:
    name, owner = name_of_user(os.geteuid()), patient.owner
    if owner is None:
        return skipped("user", f"{name}; there is no state directory yet that would tell the daemon's user")
    if owner != os.geteuid():
        found = f"you are {name}, the state belongs to {name_of_user(owner)}: what you may open, the daemon may not"
        if patient.is_stranger:
            found = f"you are {name}, the state belongs to {name_of_user(owner)}: you do not see what the daemon sees"
        return warning("user", found, _as_daemon(patient))
    return ok("user", f"{name}, to whom the state belongs")


def _as_daemon(patient: Patient) -> str:
    return (
        f"look as the daemon does: sudo -u {name_of_user(patient.owner or 0)} defectd doctor --config {patient.config}"
    )


def name_of_user(number: int) -> str:
    """For people."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
