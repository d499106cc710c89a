"""The kinds of machines that wheels are fetched for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

OLDEST_MANYLINUX = 17
_UV_KNOWS = (17, 28, *range(31, 41))  # glibc 2.x of --python-platform
NUMPY_AT_LEAST = (1, 23)


class WheelError(Exception):
    """No wheels for a station; the words say which, why, and what to do."""


@dataclass(frozen=True)
class Target:
    """A Python on a machine. *glibc* is the minor number: 35 for 2.35. *jetpack* names the constraint file."""

    python: tuple[int, int]
    machine: str
    glibc: int
    jetpack: int | None = None

    @property
    def name(self) -> str:
        """cp310-aarch64: also the name of its lock."""
        return f"cp{self.python[0]}{self.python[1]}-{self.machine}"

    @property
    def python_version(self) -> str:
        """For pip, which takes 3.9 for 3.9.0, and cryptography excludes that one. No system has an older one than .2"""
        return f"{self.python[0]}.{self.python[1]}.2"

    @property
    def uv_platform(self) -> str:
        """For the resolver."""
        return f"{self.machine}-manylinux_2_{max(known for known in _UV_KNOWS if known <= self.glibc)}"

    @property
    def platforms(self) -> list[str]:
        """Of the wheels that it runs, newest first."""
        newest = [f"manylinux_2_{minor}_{self.machine}" for minor in range(self.glibc, OLDEST_MANYLINUX - 1, -1)]
        older = ["manylinux2014", *(["manylinux2010", "manylinux1"] if self.machine == "x86_64" else [])]
        return [*newest, *(f"{one}_{self.machine}" for one in older)]


# glibc is that of the system whose Python it is: Ubuntu 20.04, 22.04 and 24.04, Debian 11, 12 and 13.
TARGETS: Sequence[Target] = (
    Target((3, 8), "aarch64", 31, jetpack=5),
    Target((3, 10), "aarch64", 35, jetpack=6),
    Target((3, 12), "aarch64", 39, jetpack=7),
    Target((3, 9), "aarch64", 31),
    Target((3, 11), "aarch64", 36),
    Target((3, 8), "x86_64", 31),
    Target((3, 9), "x86_64", 31),
    Target((3, 10), "x86_64", 35),
    Target((3, 11), "x86_64", 36),
    Target((3, 12), "x86_64", 39),
    Target((3, 13), "x86_64", 40),
)


def named(name: str) -> Target:
    """Of TARGETS. Raises WheelError."""
    for target in TARGETS:
        if target.name == name:
            return target
    raise WheelError(f"{name}: no such target; expected one of {', '.join(one.name for one in TARGETS)}")


def target_of(facts: Mapping[str, Any]) -> Target:
    """The target that a station is, from what its preflight says. Raises WheelError."""
    name = f"cp{facts['python'][0]}{facts['python'][1]}-{facts['machine']}"
    target = named(name)
    found = re.fullmatch(r"2\.(\d+)", str(facts["glibc"]))
    if found is None:
        raise WheelError(
            f"its C library is {facts['glibc'] or 'no glibc'}; wheels need glibc 2.{OLDEST_MANYLINUX} or later"
        )
    if int(found.group(1)) < target.glibc:
        raise WheelError(
            f"its glibc is {facts['glibc']}, and the lock {name} is for 2.{target.glibc} or later: "
            "a Python that does not belong to its system? Name the system's in station_python"
        )
    return target


def provided_by(facts: Mapping[str, Any]) -> dict[str, str]:
    """Packages that stay the system's, JetPack's above all, and why. Ours would stand before them."""
    packages = facts["packages"]
    provided = {}
    if "cv2" in packages:
        provided["opencv-python-headless"] = f"cv2 {packages['cv2'] or ''} of the system".replace("  ", " ")
    numpy = re.match(r"(\d+)\.(\d+)", packages.get("numpy") or "")
    if numpy is not None and (int(numpy.group(1)), int(numpy.group(2))) >= NUMPY_AT_LEAST:
        provided["numpy"] = f"numpy {packages['numpy']} of the system"
    return provided
