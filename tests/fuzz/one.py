"""Fuzz one target until libFuzzer's own time is up; a child of `python -m fuzz`, because libFuzzer ends its process.

python -m fuzz.one TARGET [libFuzzer's options and directories]
"""

from __future__ import annotations

import random
import sys

import atheris

with atheris.instrument_imports(include=["defectd", "json"]):
    from fuzz.targets import TARGETS

from fuzz.mutations import mutate


def _mutate(data: bytes, max_size: int, seed: int) -> bytes:
    chance = random.Random(seed)
    changed = mutate(data, chance) if chance.random() < 0.7 else atheris.Mutate(data, max_size)
    return bytes(changed)[:max_size]


def _read(data: bytes) -> None:
    target.accepts(data)  # what it returns would mean something to libFuzzer


if __name__ == "__main__":
    target = next(one for one in TARGETS if one.name == sys.argv[1])
    atheris.Setup([sys.argv[0], *sys.argv[2:]], _read, custom_mutator=_mutate)
    atheris.Fuzz()
