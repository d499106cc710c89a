"""The settings, every problem in them, and who asks."""

from __future__ import annotations

import os
import pwd
from typing import Iterator

from defectd.doctor.patient import Patient
from defectd.doctor.report import Finding, error, ok, skipped, warning


def check_settings(patient: Patient) -> Iterator[Finding]:
    """What `defectd check` says, and whether this user sees what the daemon's user sees."""
    again = f"correct it in {patient.config}; docs/configuration.md has every key, docs/models.md what a model needs"
    for problem in patient.problems:
        found = problem[len(str(patient.config)) + 2 :] if problem.startswith(f"{patient.config}: ") else problem
        yield error("settings", found, again)
    settings = patient.settings
    if settings is None:
        return
    if not patient.problems:
        cameras, classes = len(settings.camera), len(settings.inspection.defect)
        yield ok(
            "settings",
            f"valid: {cameras} camera{'s' * (cameras != 1)}, {classes} class{'es' * (classes != 1)} in the recipe, "
            f"deadline {settings.inspection.deadline_ms:g} ms",
            sha256=settings.sha256(),
        )
    yield _user(patient)
    if patient.busy:
        pid = patient.occupancy.pid
        number = "" if pid is None else f", process {pid}"
        yield ok("daemon", f"{patient.busy}{number}: what it would feel is left out here", pid=pid)


def _user(patient: Patient) -> Finding:
    assert patient.settings is not None
    name = name_of_user(os.geteuid())
    try:
        owner = patient.settings.state.directory.stat().st_uid
    except OSError:
        return skipped("user", f"{name}; there is no state directory yet that would tell the daemon's user")
    if owner != os.geteuid():
        remedy = f"see it as the daemon does: sudo -u {name_of_user(owner)} defectd doctor --config {patient.config}"
        found = f"you are {name}, the state belongs to {name_of_user(owner)}: what you may open, the daemon may not"
        return warning("user", found, remedy)
    return ok("user", f"{name}, to whom the state belongs")


def name_of_user(number: int) -> str:
    """For people."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
