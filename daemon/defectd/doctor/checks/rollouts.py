"""What a rollout needs: keys to believe, sources to fetch from, a memory; and how the last one ended."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Iterator

from defectd.clock import utc_now
from defectd.committed import lost_marker
from defectd.doctor.checks.broker import expiry_finding
from defectd.doctor.patient import Patient
from defectd.doctor.report import Finding, error, ok, skipped, warning
from defectd.download.errors import DownloadError, MayPass
from defectd.download.patience import Patience
from defectd.download.sources import open_source
from defectd.errors import ModelError, StateError
from defectd.model_source import store_directory, trusted_root
from defectd.models.catalog import Catalog, DamagedStore
from defectd.models.trust import Root
from defectd.rollout.ledger import Ledger, Rollout
from defectd.rollout.states import State
from defectd.rollout_settings import RolloutSource
from defectd.settings import Settings

_SOURCE_S = 10.0
_NO_SUCH_FILE = "defectd-doctor"


def check_rollouts(patient: Patient) -> Iterator[Finding]:
    """In the order in which a rollout meets them."""
    settings = patient.settings
    if settings is None:
        yield skipped("rollouts", patient.unread)
        return
    if not settings.rollout.source:
        yield skipped("rollouts", "there is no [[rollout.source]]: this station takes no commands")
        return
    marker = lost_marker(settings.state.directory)
    if marker.exists():
        yield error("state_lost", f"the models' database was damaged and begun anew ({marker}): which commands are old "
                    "is forgotten, so none is taken", f"see that nobody replays old commands, then: sudo rm {marker}; "
                    "the next command is taken again")  # fmt: skip
    yield from _root(settings)
    for source in settings.rollout.source:
        yield _web(source) if source.url is not None else directory_finding(source)
    yield from _ledger(settings, patient)


# -- whom to believe ---------------------------------------------------------------------------------------------


def _root(settings: Settings) -> Iterator[Finding]:
    if settings.model.trust is None:
        yield error("root.json", "model.trust is not set: nobody's commands are believed",
                    "set model.trust to the root.json of whoever signs your bundles and commands")  # fmt: skip
        return
    try:
        root = trusted_root(settings)
    except (ModelError, OSError) as problem:
        yield error("root.json", f"{problem}", "no command is taken before that is put right: bring the root.json that "
                    "belongs to this station")  # fmt: skip
        return
    yield from root_findings(root, settings.model.trust)


def root_findings(root: Root, path: Path) -> Iterator[Finding]:
    """Whether it names who may command, and for how long it is good."""
    ops = root.roles.get("ops")
    if ops is None:
        yield error("root.json", f"{path}, version {root.version}: names no ops keys, so no command is obeyed",
                    "defectd model root --replaces … --ops KEY.pub, and bring the new one here")  # fmt: skip
    else:
        wanted = f"{ops.threshold} of {len(ops.keyids)} ops keys" if len(ops.keyids) > 1 else "one ops key"
        yield ok("root.json", f"{path}, version {root.version}: commands need {wanted}", version=root.version)
    if root.expires is not None:
        remedy = f"make the next one (defectd model root --replaces {path}), and bring it here"
        yield expiry_finding("root.json", root.expires, utc_now(), remedy)


# -- where bundles come from -------------------------------------------------------------------------------------


def directory_finding(source: RolloutSource) -> Finding:
    """A stick that is not plugged in is no fault, one that cannot be read is."""
    directory, subject = source.directory, f"source {source.alias}"
    assert directory is not None
    if not directory.is_dir():
        return warning(subject, f"{directory} is not there now", "plug the stick in, or mount it there, before a "
                       "rollout is sent that names it")  # fmt: skip
    if not os.access(directory, os.R_OK | os.X_OK):
        return error(subject, f"{directory} may not be read by this user", "mount it so that the daemon's user may "
                     "read it: mount -o umask=022")  # fmt: skip
    return ok(subject, f"{directory} may be read")


def _web(source: RolloutSource) -> Finding:
    patience = Patience(lambda: False, _SOURCE_S, _SOURCE_S, 1.0)
    subject = f"source {source.alias}"
    try:
        with open_source(source).session(patience) as session:
            session.fetch("", _NO_SUCH_FILE).stream.close()
    except (DownloadError, MayPass) as problem:
        if problem.code == "not_found":
            return ok(subject, f"{source.url} answers, with a certificate of the pinned CA")
        return error(subject, f"{problem}", "put that right before a rollout is sent that names it; meanwhile a stick "
                     "with the bundle does (directory = …)", code=problem.code)  # fmt: skip
    return ok(subject, f"{source.url} answers, with a certificate of the pinned CA")


# -- what was done -----------------------------------------------------------------------------------------------


def _ledger(settings: Settings, patient: Patient) -> Iterator[Finding]:
    directory = store_directory(settings.state.directory)
    if not (directory / "models.db").exists():
        yield ok("last rollout", "none so far, and no models.db yet; the daemon makes it at its first start")
        return
    try:
        catalog = Catalog(directory)
        try:
            rollout = Ledger(catalog).last()
            name = _name(catalog, rollout)
            unsound = [str(row[0]) for row in catalog.rows("PRAGMA quick_check") if row[0] != "ok"]
        finally:
            catalog.close()
    except DamagedStore as problem:
        yield error("models.db", f"{problem}", "the next start puts it aside and begins anew; which commands are old "
                    "is forgotten then, so keep the directory, and see docs/rollout.md")  # fmt: skip
        return
    except (StateError, OSError, sqlite3.Error) as problem:
        yield warning("models.db", f"{problem}", "look as the daemon's user: it alone may open it")
        return
    if unsound:
        yield error("models.db", f"{directory}: {unsound[0]}", "stop the daemon and copy the directory; the disk may "
                    "be failing (dmesg | tail), so replace it before the next rollout")  # fmt: skip
    else:
        yield ok("models.db", f"{directory}: every page is sound")
    yield last_finding(rollout, name, str(patient.config))


def _name(catalog: Catalog, rollout: Rollout | None) -> str:
    if rollout is None or rollout.manifest_sha256 is None:
        return "a model that is not known yet"
    release = catalog.release(rollout.manifest_sha256)
    return f"{release.name} {release.version}" if release else f"release {rollout.release_seq}"


def last_finding(rollout: Rollout | None, name: str, config: str) -> Finding:
    """How the newest one ended, or where it is."""
    if rollout is None:
        return ok("last rollout", "none so far")
    history = f"every step: defectd rollout history --config {config} --request {rollout.request_id}"
    what = f"{rollout.action} of {name}, {rollout.changed_at.astimezone():%Y-%m-%d %H:%M}"
    figures = {"request_id": rollout.request_id, "state": rollout.state.value, "code": rollout.code}
    state = rollout.state.value.replace("_", " ")
    if not rollout.finished:
        return ok("last rollout", f"{what}: under way, {state}", **figures)
    if rollout.state in (State.COMMITTED, State.CANCELLED):
        return ok("last rollout", f"{what}: {state}", **figures)
    why = ": ".join(filter(None, (rollout.code, rollout.detail)))
    return warning("last rollout", f"{what}: {state}: {why}", f"the model before it serves; {history}", **figures)
