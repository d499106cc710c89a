"""The frame of every probe: one question, one answer, and whatever libraries print goes elsewhere."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Callable, Mapping


def answer(probe: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """Ask *probe*, write what it returns, and end the process: `{"error": …}` if it raises. Never returns."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        code = 0
        try:
            found = dict(probe(json.load(sys.stdin)))
        except BaseException as error:  # noqa: BLE001 - the outermost guard of the process
            found, code = {"error": f"{type(error).__name__}: {error}"[:2000]}, 1
        answers.write(json.dumps(found).encode() + b"\n")
    sys.stderr.flush()
    os._exit(code)  # finalisers of a broken CUDA context or of a camera driver may hang for ever
