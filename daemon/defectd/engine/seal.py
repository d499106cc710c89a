"""What a compiler keeps for the next start is run without a question: sealed when it is whole, and checked before it is
used. A power cut or a compiler that was killed leaves half of it; then all of it goes, and is made again.

Who can write as the daemon's user can also write the seal: that is what the directory's owner and mode are for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

from defectd.storage import write_durably

log = logging.getLogger(__name__)

SEAL = "sealed.json"


def seal(cache: Path) -> None:
    """Remember every file in *cache*. If that cannot be written, the next start begins anew."""
    try:
        hashes = {name: _sha256(cache / name) for name in _files(cache)}
        write_durably(cache / SEAL, json.dumps(hashes).encode())
    except OSError as error:
        log.warning("%s: cannot be sealed: %s; the next start compiles again", cache, error)


def clear_unless_sealed(cache: Path) -> list[str]:
    """Empty *cache* unless every sealed file is as it was; remove what came later. What happened, in words."""
    present = _files(cache)
    if not present:
        return []
    problem = _problem(cache, present)
    if problem is None:
        return []
    log.warning("%s: %s; it is emptied", cache, problem)
    for path in cache.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    return [f"the compiler's cache was not whole ({problem}): compiled again"]


def _problem(cache: Path, present: set[str]) -> str | None:
    try:
        sealed: dict[str, str] = json.loads((cache / SEAL).read_bytes())
        changed = [name for name, sha256 in sealed.items() if name not in present or _sha256(cache / name) != sha256]
    except FileNotFoundError:
        return "it was never sealed"
    except (OSError, ValueError, AttributeError) as error:
        return f"its seal cannot be read: {error}"
    if changed:
        return f"{len(changed)} of {len(sealed)} files are missing or changed, {changed[0]} for one"
    for name in present - set(sealed):
        (cache / name).unlink()
    return None


def _files(cache: Path) -> set[str]:
    """Names relative to *cache*. Locks come and go."""
    found = (path for path in cache.rglob("*") if path.is_symlink() or path.is_file())
    names = {str(path.relative_to(cache)) for path in found}
    return {name for name in names if name != SEAL and not name.endswith(".lock")}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
