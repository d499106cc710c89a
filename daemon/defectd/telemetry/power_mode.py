"""nvpmodel's power mode and the clocks it allows, without root and without its program, which may hang."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Mapping

from defectd.telemetry.files import Files
from defectd.telemetry.sample import Roots

_SECTION = re.compile(r"<\s*(?P<kind>PARAM|POWER_MODEL)\b(?P<header>[^>]*)>(?P<body>[^<]*)")
_ATTRIBUTE = re.compile(r"(\w+)=(\S+)")
_STATUS = re.compile(r"pmode:(\d+)")
_NUMBER = re.compile(r"-?\d+")
_CPU = re.compile(r"/cpu(\d+)/cpufreq/")
_GPU = re.compile(r"/devfreq/([^/]+)/")
NO_LIMIT = 2**31 - 1
"""What nvpmodel's -1 stands for: all that the silicon can."""


@dataclass(frozen=True)
class PowerMode:
    """A mode's name and its limits, NO_LIMIT where it says so; nothing is known of a clock that is missing."""

    name: str
    gpu_hz: Mapping[str, int] = field(default_factory=dict)
    """By the name of the devfreq node."""
    cpu_khz: Mapping[int, int] = field(default_factory=dict)
    """By the number of the first core of a cluster."""


def parse_power_modes(configuration: str) -> Mapping[int, PowerMode]:
    """By id. A section or a line that makes no sense is skipped."""
    paths: dict[tuple[str, str], str] = {}
    modes: dict[int, PowerMode] = {}
    uncommented = "\n".join(line for line in configuration.splitlines() if not line.lstrip().startswith("#"))
    for section in _SECTION.finditer(uncommented):
        attributes = dict(_ATTRIBUTE.findall(section["header"]))
        lines = [line.split() for line in section["body"].splitlines()]
        if section["kind"] == "PARAM":
            paths.update({(attributes.get("NAME", ""), line[0]): line[1] for line in lines if len(line) == 2})
        elif attributes.get("ID", "").isdigit():
            settings = [line for line in lines if len(line) == 3]
            modes[int(attributes["ID"])] = _mode(attributes.get("NAME", "unnamed"), settings, paths)
    return modes


def _mode(name: str, settings: list[list[str]], paths: Mapping[tuple[str, str], str]) -> PowerMode:
    gpu_hz: dict[str, int] = {}
    cpu_khz: dict[int, int] = {}
    for parameter, argument, value in settings:
        path = paths.get((parameter, argument), "")
        if argument != "MAX_FREQ" or not _NUMBER.fullmatch(value):
            continue
        limit = int(value) if int(value) > 0 else NO_LIMIT
        if core := _CPU.search(path):
            cpu_khz[int(core[1])] = limit
        elif parameter.startswith("GPU") and (node := _GPU.search(path)):
            gpu_hz[node[1]] = limit
    return PowerMode(name, gpu_hz, cpu_khz)


def read_power_modes(roots: Roots, files: Files) -> Mapping[int, PowerMode]:
    """All that the configuration knows; nothing where there is none."""
    return parse_power_modes(files.text(f"{roots.etc}/nvpmodel.conf") or "")


def read_power_mode(roots: Roots, files: Files, modes: Mapping[int, PowerMode] | None = None) -> PowerMode | None:
    """The mode in force, of *modes* if they are known; None if there is none."""
    found = _STATUS.search(files.text(f"{roots.var}/lib/nvpmodel/status") or "")
    if found is None:
        return None
    mode = int(found[1])
    known = read_power_modes(roots, files) if modes is None else modes
    return known.get(mode, PowerMode(f"mode {mode}"))
