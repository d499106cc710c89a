"""What a station has written down of its rollouts. Read there: nobody else keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

from defectd.errors import StateError
from defectd.models.catalog import Catalog
from defectd.rollout.command import CommandError, Target, parse_command
from defectd.rollout.ledger import Ledger, Rollout, Step


def told(directory: Path, request_id: str | None = None, limit: int = 10) -> list[str]:
    """Lines for a person: the newest rollout first, with every step that it took; times are local.

    *directory* is the daemon's store of models; the daemon may run meanwhile. Raises StateError.
    """
    if not (directory / "models.db").exists():
        raise StateError(f"{directory}: no models.db; expected the state of a station that has served a bundle")
    store = Catalog(directory)
    try:
        ledger = Ledger(store)
        found = ledger.find(request_id) if request_id is not None else None
        if request_id is not None and found is None:
            raise StateError(f"request {request_id}: not among the last rollouts here; leave --request out to see them")
        chosen = [found] if found else ledger.history(limit)
        lines = [line for one in chosen for line in _of(one, _model(store, one), ledger.steps(one.request_id))]
        return lines or ["no rollout so far"]
    finally:
        store.close()


def _model(store: Catalog, rollout: Rollout) -> str:
    if rollout.manifest_sha256 is None:
        return "(unknown model)"
    release = store.release(rollout.manifest_sha256)
    if release is not None:
        return f"{release.name} {release.version}"
    target = _target(rollout)  # it never arrived, or was cleared away since
    return f"release {rollout.release_seq or '?'}{f' ({target.path} on {target.source})' if target else ''}"


def _target(rollout: Rollout) -> Target | None:
    """What was asked for; None of a rollback, or of a command in a format of another version."""
    try:
        return parse_command(rollout.command).target
    except CommandError:
        return None


def _of(rollout: Rollout, model: str, steps: list[Step]) -> Iterator[str]:
    yield f"{rollout.action} {model}: {rollout.state.value.replace('_', ' ')}  (request {rollout.request_id})"
    for step in steps:
        again = f", attempt {step.attempts}" if step.attempts > 1 else ""
        why = ": ".join(filter(None, (step.code, step.detail)))
        yield f"  {step.at.astimezone():%Y-%m-%d %H:%M:%S}  {step.state.value:<12}{again}{f'  {why}' if why else ''}"
    yield ""
