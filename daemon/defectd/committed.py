"""Which model this station serves when it starts: the committed one, verified again, out of the store.

What `[model]` names is the factory model. A rollout commits another one, which is served from then on, until a person
names another bundle in the configuration. If the committed one cannot be served any more, the previous one is, then
the factory model: a station without a model is worse than one with an old model, and says so.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from defectd import __version__
from defectd.clock import utc_now
from defectd.errors import ModelError, StateError
from defectd.inspection.recipe import Recipe
from defectd.model_source import ServedModel, kept_root, store_directory, trusted_root
from defectd.models.bundle import Bundle, check_compatible, open_bundle
from defectd.models.catalog import DamagedStore, Pointer, Release
from defectd.models.fingerprint import device_tags
from defectd.models.store import Store
from defectd.models.trust import Root
from defectd.rollout.starts import StartDecision, begin_start
from defectd.settings import Settings
from defectd.storage import write_durably

log = logging.getLogger(__name__)

_IN_ORDER: tuple[Pointer, ...] = ("current", "previous", "factory")


@dataclass(frozen=True)
class Committed:
    """What is to be served, and from which store; None if there is none. `warnings` are for a person."""

    model: ServedModel
    store: Store | None = None
    after_clean_stop: bool = True
    boot_loop: str | None = None
    warnings: list[str] = field(default_factory=list)


def committed_model(configured: ServedModel, settings: Settings, recipe: Recipe) -> Committed:
    """The committed model if the configured one is a bundle; where the store cannot be used, the configured one."""
    warnings = [] if configured.warning is None else [configured.warning]
    if configured.bundle is None:
        return Committed(configured, warnings=warnings)
    try:
        store = open_store(settings.state.directory, warnings)
    except (StateError, OSError) as error:
        warnings.append(f"{error}; the bundle is served from {configured.path}, and no runtime is chosen")
        return Committed(configured, warnings=warnings)
    start: StartDecision | None = None
    try:
        start = begin_start(store, utc_now()) if settings.rollout.source else None
        _install(store, configured, configured.bundle, settings)
    except (StateError, ModelError, OSError) as error:  # a full disk must not bring back an old model
        warnings.append(str(error))
    try:
        model = _servable(store, configured, _root(settings), recipe, warnings)
    except (StateError, ModelError, OSError) as error:
        warnings.append(f"{error}; the bundle is served from {configured.path}, and no runtime is chosen")
        return Committed(configured, warnings=warnings)
    if start is None:
        return Committed(model, store, warnings=warnings)
    boot_loop = start.detail if start.quarantined is not None else None
    return Committed(model, store, start.after_clean_stop, boot_loop, warnings)


def open_store(state: Path, warnings: list[str]) -> Store:
    """The store in *state*; a damaged one is put aside and begun anew. What it knew of rollouts is lost then, and with
    it which commands are old: see `state_lost`. Raises StateError."""
    directory = store_directory(state)
    try:
        return Store(directory)
    except DamagedStore as error:
        aside = directory.with_name(f"{directory.name}.damaged-{utc_now():%Y%m%dT%H%M%S}")
        directory.rename(aside)
        write_durably(lost_marker(state), f"{utc_now().isoformat()}: {error}\n".encode())
        log.warning(error)
        warnings.append(f"{directory}: its database was damaged; all of it was put aside as {aside}, and begun anew")
        return Store(directory)


def lost_marker(state: Path) -> Path:
    """While this file exists, the station takes no rollouts: a person must see to it, and delete it."""
    return state / "models.lost"


def person_marker(state: Path) -> Path:
    """A person on the station makes this file to say: serve what the configuration names, from the next start on."""
    return state / "serve-configured"


def as_stored(release: Release, root: Root | None) -> ServedModel:
    """A release of the store, every file hashed again. Its signatures may have expired. Raises ModelError."""
    bundle = open_bundle(release.directory, root, now=None, allow_unsigned=root is None)
    if bundle.manifest_sha256 != release.manifest_sha256:
        raise ModelError(f"{release.directory}: holds another manifest than it was imported with; deploy it again")
    return served_bundle(bundle)


def served_bundle(bundle: Bundle) -> ServedModel:
    """As the daemon serves it."""
    manifest = bundle.manifest
    return ServedModel(
        bundle.directory, manifest.name, manifest.version, bundle.manifest_sha256, tuple(manifest.network.classes),
        manifest.network.input_hw, bundle,
    )  # fmt: skip


def check_usable(model: ServedModel, recipe: Recipe) -> None:
    """Whether this station can serve a bundle. Raises ModelError."""
    assert model.bundle is not None
    check_compatible(model.bundle.manifest, device_tags(), __version__)
    if unknown := recipe.unknown_classes(model.names):
        raise ModelError(
            f"{model.name} {model.version}: has no class {', '.join(unknown)}, which this station's recipe asks for; "
            f"it has {', '.join(model.names)}: change inspection.defect, or bring a model of that recipe"
        )


def _install(store: Store, configured: ServedModel, bundle: Bundle, settings: Settings) -> None:
    """The configured bundle is the factory model; if a person has changed it, it is the committed one, too."""
    before = store.pointers()
    store.import_bundle(bundle, "factory")  # again at each start: it repairs what was damaged
    if bundle.signed_by:
        store.accept(bundle.manifest_sha256, bundle.signed_by)
    if bundle.signed_by and settings.model.trust is not None:
        kept = kept_root(settings.state.directory)
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        write_durably(kept, settings.model.trust.read_bytes())
    wanted = person_marker(settings.state.directory)
    if before.get("factory") == configured.sha256 and "current" in before and not wanted.exists():
        return
    changes: dict[Pointer, str | None] = {"current": configured.sha256}
    if before.get("current") not in (None, configured.sha256):
        changes["previous"] = before["current"]
    store.set_pointers(changes)
    wanted.unlink(missing_ok=True)


def _servable(
    store: Store, configured: ServedModel, root: Root | None, recipe: Recipe, warnings: list[str]
) -> ServedModel:
    """The first of current, previous and factory that can be served; it is the committed one then, unless it was the
    disk that did not answer."""
    passing = False
    pointers = store.pointers()
    for pointer in _IN_ORDER:
        sha256 = pointers.get(pointer)
        release = store.release(sha256) if sha256 is not None else None
        if release is None:
            continue
        try:
            if sha256 == configured.sha256 and configured.bundle is not None:
                model = replace(configured, bundle=replace(configured.bundle, directory=release.directory))
            else:
                model = as_stored(release, root)
                check_usable(model, recipe)
        except ModelError as error:
            warnings.append(f"the {pointer} model cannot be served: {error}")
            passing = passing or isinstance(error.__cause__, OSError)
            continue
        if pointer != "current" and not passing:
            store.set_pointers({"current": sha256})
        return model
    return configured  # its own pointer was read above


def _root(settings: Settings) -> Root | None:
    return None if settings.model.trust is None else trusted_root(settings)
