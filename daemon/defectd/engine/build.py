"""The builder process: `python -m defectd.engine.build`. One JSON order on stdin, JSON lines on stdout, one file.

The order has the fields of BuildOrder. Lines are {"stage": str, "share": 0..1 or null}; the last one is
{"done": {"sha256", "size", "seconds", "versions"}} or {"error": {"kind", "detail"}}, of kind unusable, broken or
out_of_memory. A process of its own: a build takes minutes, gigabytes, and libraries that may crash.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from typing import Any, Callable, TextIO

from defectd.clock import NS_PER_S, monotonic_ns
from defectd.engine.build_order import BuildOrder, Say
from defectd.engine.faults import Fault, classify, essence
from defectd.storage import write_durably
from defectd.workers.child import EXIT_BROKEN, EXIT_UNUSABLE, Unusable

_SAY_EVERY_NS = NS_PER_S // 2
_MAX_ORDER_BYTES = 1024 * 1024

Build = Callable[[BuildOrder, Say], "tuple[bytes, dict[str, str]]"]
"""What makes the file's bytes, and the versions of what made it."""


def main() -> int:
    """Build what stdin orders; the exit status."""
    lines = _take_stdout()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    started_ns = monotonic_ns()
    try:
        order = BuildOrder.of(_read_order())
        data, versions = _builder(order)(order, Reporter(lines))
        _write(order, data)
    except Unusable as error:
        return _fail(lines, "unusable", str(error), EXIT_UNUSABLE)
    except Exception as error:  # the outermost guard of the process
        logging.exception("the build failed")
        out_of_memory = classify(error) is Fault.OUT_OF_MEMORY
        return _fail(lines, "out_of_memory" if out_of_memory else "broken", essence(error, 2000), EXIT_BROKEN)
    seconds = round((monotonic_ns() - started_ns) / NS_PER_S, 3)
    digest = hashlib.sha256(data).hexdigest()
    _put(lines, {"done": {"sha256": digest, "size": len(data), "seconds": seconds, "versions": versions}})
    return 0


class Reporter:
    """Say, as JSON lines: each stage once, and then its progress at most twice a second."""

    def __init__(self, lines: TextIO) -> None:
        self._lines, self._stage, self._said_ns = lines, "", 0

    def __call__(self, stage: str, share: float | None) -> None:
        """May be called by any thread of TensorRT's; they hold Python's lock."""
        now_ns = monotonic_ns()
        if stage != self._stage or (share is not None and now_ns - self._said_ns >= _SAY_EVERY_NS):
            self._stage, self._said_ns = stage, now_ns
            _put(self._lines, {"stage": stage, "share": None if share is None else round(share, 4)})


def _take_stdout() -> TextIO:
    """Our lines alone go there: what libraries print goes to stderr."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return lines


def _read_order() -> dict[str, Any]:
    text = sys.stdin.buffer.read(_MAX_ORDER_BYTES + 1)
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"build: the order is not JSON: {error}") from error
    if not isinstance(body, dict) or len(text) > _MAX_ORDER_BYTES:
        raise Unusable(f"build: expected a JSON object of at most {_MAX_ORDER_BYTES} bytes as order")
    return body


def _builder(order: BuildOrder) -> Build:
    """What builds that kind, if its libraries are here. Raises Unusable."""
    try:
        if order.kind == "tensorrt":
            from defectd.engine.tensorrt_build import build_plan as build  # noqa: PLC0415 - needs TensorRT
        else:
            from defectd.engine.torch_tensorrt import compile_module as build  # noqa: PLC0415 - needs torch
    except ImportError as error:
        raise Unusable(f"{order.kind} cannot be built here: {error}; install what JetPack has for it") from error
    return build


def _write(order: BuildOrder, data: bytes) -> None:
    try:
        write_durably(order.out, data)
    except OSError as error:
        raise Unusable(f"{order.out}: {len(data)} bytes could not be written: {error.strerror}; free space") from error


def _fail(lines: TextIO, kind: str, detail: str, status: int) -> int:
    _put(lines, {"error": {"kind": kind, "detail": detail[:4000]}})
    return status


def _put(lines: TextIO, record: dict[str, Any]) -> None:
    lines.write(json.dumps(record) + "\n")
    lines.flush()


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # finalisers of a broken CUDA context may hang for ever
