"""The model that this station would serve: verified, for this kind of device, and by which runtime."""

from __future__ import annotations

from typing import Generator, Iterator

from defectd.committed import as_stored
from defectd.doctor.patient import Patient
from defectd.doctor.report import Finding, error, ok, skipped, warning
from defectd.engine.choice import Candidate, Choice, candidates
from defectd.engine.selection import decision_key
from defectd.errors import ModelError, StateError
from defectd.model_planner import terms_of
from defectd.model_source import ServedModel, store_directory, trusted_root
from defectd.models.bundle import Bundle
from defectd.models.catalog import Catalog, DamagedStore, Release
from defectd.models.fingerprint import device_tags, installed_versions
from defectd.settings import Settings

_SHOWN = 12
_CHOSEN = "chosen: "


def check_model(patient: Patient) -> Iterator[Finding]:
    """The configured one, then the one that a rollout has put in its place, then runtimes."""
    if patient.settings is None or patient.checked is None:
        yield skipped("model", "see the lines about settings above first")
        return
    settings, configured = patient.settings, patient.checked.model
    yield _verified("model", configured, vouched=settings.model.trust is not None)
    if configured.bundle is None:
        yield ok("runtimes", "a single file has one; a bundle would have more (defectd model export)")
        return
    served, choice = configured.bundle, None
    directory = store_directory(settings.state.directory)
    if not (directory / "models.db").exists():
        yield ok("store", "nothing is stored yet; the daemon takes the bundle in at its first start")
    else:
        try:
            catalog = Catalog(directory)
            try:
                served = yield from _committed(catalog, configured, settings)
                choice = known_choice(catalog, served, settings)
            finally:
                catalog.close()
        except DamagedStore as problem:
            yield error("store", str(problem), "the next start puts it aside and begins anew; which commands are old "
                        "is forgotten then, so keep the directory, and see docs/rollout.md")  # fmt: skip
        except (StateError, OSError) as problem:
            yield warning("store", f"{problem}", "look as the daemon's user: it alone may open it")
    yield _device()
    yield from runtime_findings(_candidates(served, settings), choice, settings.model.runtime)


def _verified(subject: str, model: ServedModel, *, vouched: bool) -> Finding:
    height_px, width_px = model.input_hw
    what = f"{model.name} {model.version} ({model.sha256[:_SHOWN]}), {len(model.names)} classes, {width_px}x{height_px}"
    figures = {"name": model.name, "version": model.version, "sha256": model.sha256}
    if model.warning is not None:
        return warning(subject, f"{what}: {model.warning}", "bring a bundle that is signed and in date: "
                       "docs/models.md", **figures)  # fmt: skip
    if model.bundle is None:
        return ok(subject, f"{what}, a single file that nobody signed", **figures)
    signed = f"signed by {', '.join(key[:_SHOWN] for key in model.bundle.signed_by)}" if vouched else "unsigned"
    return ok(subject, f"{what}, every file verified, {signed}", **figures)


def _committed(catalog: Catalog, configured: ServedModel, settings: Settings) -> Generator[Finding, None, Bundle]:
    """Yields what there is to say, and returns the bundle that is served."""
    assert configured.bundle is not None
    release = brought(catalog, configured)
    if release is None:
        if catalog.pointers().get("factory") not in (None, configured.sha256):
            yield ok("store", f"{configured.name} {configured.version} is new here; the next start takes it in")
        return configured.bundle
    try:
        model = as_stored(release, None if settings.model.trust is None else trusted_root(settings))
    except (ModelError, OSError) as problem:
        yield error("served model", f"{release.name} {release.version}, which a rollout brought: {problem}",
                    "the next start serves the previous one; bring this one again: defectd rollout send")  # fmt: skip
        return configured.bundle
    yield ok("served model", f"{release.name} {release.version}, which a rollout brought in place of the above; every "
             "file verified", sha256=release.manifest_sha256)  # fmt: skip
    return model.bundle or configured.bundle


def brought(catalog: Catalog, configured: ServedModel) -> Release | None:
    """What a rollout has put in place of the configured model, if that is still the one that it replaced. Raises
    StateError."""
    pointers = catalog.pointers()
    current = pointers.get("current")
    if current in (None, configured.sha256) or pointers.get("factory") != configured.sha256:
        return None
    return catalog.release(str(current))


def _device() -> Finding:
    versions = installed_versions()
    words = ", ".join(f"{name} {versions[name]}" for name in ("l4t", "driver", "torch", "tensorrt") if name in versions)
    tags = " ".join(sorted(device_tags()))
    return ok("device", f"{tags}; engines are built for {words}", tags=sorted(device_tags()), versions=versions)


# -- runtimes ----------------------------------------------------------------------------------------------------


def known_choice(catalog: Catalog, bundle: Bundle, settings: Settings) -> Choice | None:
    """What was found for that bundle on this device; None if nothing was, or not by this version. Raises StateError."""
    key = decision_key(bundle, terms_of(settings), installed_versions())
    fields = catalog.decision(bundle.manifest_sha256, key)
    try:
        return None if fields is None else Choice.of(fields)
    except (KeyError, TypeError):
        return None


def _candidates(bundle: Bundle, settings: Settings) -> list[Candidate]:
    terms = terms_of(settings)
    return candidates(
        bundle, device=terms.device, precision=terms.precision, versions=installed_versions(), build=terms.build
    )  # fmt: skip


def runtime_findings(found: list[Candidate], choice: Choice | None, wanted: str) -> Iterator[Finding]:
    """What could serve, and what was chosen. Pure."""
    possible = [one.label for one in found if one.obstacle is None]
    if possible:
        yield ok("runtimes", f"possible here: {', '.join(possible)}", possible=possible)
    else:
        yield error("runtimes", "none can serve this bundle here", "the lines below say what each lacks")
    for one in found:
        if one.obstacle is not None:
            yield skipped("runtimes", f"not {one.label}: {one.obstacle}")
    if wanted != "auto":
        yield ok("serving", f"{wanted}, as model.runtime says")
    elif choice is None:
        yield ok("serving", "torchscript until trials beside the line have shown what is fastest; that takes minutes")
    else:
        yield _chosen(choice)


def _chosen(choice: Choice) -> Finding:
    reasons = "; ".join(choice.lines())
    if choice.runtime is None and not choice.settled:
        return warning("serving", f"torchscript; the choice of a runtime was interrupted: {reasons}",
                       "it is tried again at the next start of the daemon; if it stays so, there is too little memory "
                       "for trials beside the line (free -m)")  # fmt: skip
    if choice.runtime is None:
        return warning("serving", f"no runtime could be proven to answer like the original: {reasons}",
                       "export the bundle again (defectd model export), and see what parity it has")  # fmt: skip
    best = next((one for one in choice.judgements if one.acceptable and one.runtime == choice.runtime), None)
    why = f": {best.reason[len(_CHOSEN) :] if best.reason.startswith(_CHOSEN) else best.reason}" if best else ""
    return ok("serving", f"{choice.runtime} {choice.precision}{why}", runtime=choice.runtime)
