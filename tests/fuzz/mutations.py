"""Small changes to JSON and to bytes. Coverage alone rarely finds the way through a parser to the checks behind it."""

from __future__ import annotations

import base64
import json
import random
from typing import Any, Callable, Sequence

MAX_BYTES = 16 * 1024
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**53, 2**53 + 1, 10**15, 10**40, 0.5, float("nan"), float("inf"), "", "a",
    "0" * 64, "AB" * 32, "a" * 70, "\ud800", "\x00", "\x1b[2J", "٣", "*" * 60, "..", "/etc", "a/../b", "1780315200",
    "2026-06-01T12:00:00Z", "2026-06-01T12:00:00+14:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
    "deploy", "approve", "torchscript", "release", "defectd.command/1.0", [], {}, [[]], [0.0] * 6, {"a": {"b": {}}},
    base64.b64encode(b"{}").decode(),
)  # fmt: skip
TOKENS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"\\u0000",
    b"\\ud800",
    b"NaN",
    b"1e999",
    b"-0",
    b" ",
    b"\n",
    b"\xff",
)


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to three changes; what is JSON mostly stays JSON, in the form in which envelopes are written."""
    for _ in range(chance.randint(1, 3)):
        data = (_change_json if chance.random() < 0.7 else _change_bytes)(data, chance)
    return data[:MAX_BYTES]


def _change_json(data: bytes, chance: random.Random) -> bytes:
    try:
        fields = json.loads(data)
        places = list(_places(fields))
        if not places:
            return _change_bytes(data, chance)
        container, key = chance.choice(places)
        chance.choice(_CHANGES)(container, key, chance)
        return (json.dumps(fields, indent=1) + "\n").encode()
    except (ValueError, RecursionError):
        return _change_bytes(data, chance)


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below *node*."""
    found: list[tuple[Any, Any]] = []
    waiting = [node]
    while waiting:
        one = waiting.pop()
        keys: Sequence[Any] = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        found += [(one, key) for key in keys]
        waiting += [one[key] for key in keys]
    return found


def _replace(container: Any, key: Any, chance: random.Random) -> None:
    container[key] = chance.choice(VALUES)


def _nudge(container: Any, key: Any, chance: random.Random) -> None:
    value = container[key]
    if isinstance(value, str):
        container[key] = _change_bytes(value.encode("utf-8", "replace"), chance).decode("utf-8", "replace")
    elif isinstance(value, (int, float)):
        container[key] = value + chance.choice((-1, 1, 0.5, 2**32, 2**63))
    else:
        container[key] = [value]


def _remove(container: Any, key: Any, chance: random.Random) -> None:
    del container[key]


def _add(container: Any, key: Any, chance: random.Random) -> None:
    if isinstance(container, list):
        container.insert(key, chance.choice((container[key], *VALUES)))
    else:
        container[chance.choice((f"{key}_", key.upper(), "of", "schema_", "\ud800"))] = chance.choice(VALUES)


def _move(container: Any, key: Any, chance: random.Random) -> None:
    other = chance.choice(list(container) if isinstance(container, dict) else range(len(container)))
    container[key], container[other] = container[other], container[key]


_CHANGES: tuple[Callable[[Any, Any, random.Random], None], ...] = (_replace, _replace, _nudge, _remove, _add, _move)


def _change_bytes(data: bytes, chance: random.Random) -> bytes:
    start = chance.randint(0, len(data))
    end = min(len(data), start + chance.choice((0, 1, 1, 8, 64)))
    piece = data[start:end]
    new = chance.choice((b"", piece * 2, piece[::-1], bytes([chance.randrange(256)]), chance.choice(TOKENS)))
    return data[:start] + new + data[end:] if chance.random() < 0.95 else data[:start]
