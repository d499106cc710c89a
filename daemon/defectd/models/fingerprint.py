"""What this device is, and what an engine built on it depends on. Read from files and package records: no torch, no
GPU is touched.

A JetPack upgrade changes the fingerprint of whatever was built before: no old engine is found, none is loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import json
import platform
import re
from functools import lru_cache
from pathlib import Path
from typing import Iterable, Mapping

_ROOT = Path("/")
_TEGRA_ARCHITECTURES = {  # of the integrated GPU
    "tegra210": "sm_53",  # Nano, TX1
    "tegra186": "sm_62",  # TX2
    "tegra194": "sm_72",  # Xavier
    "tegra234": "sm_87",  # Orin
    "tegra264": "sm_110",  # Thor
}
_PACKAGES = {  # the same software under the names that its publishers gave it
    "torch": ("torch",),
    "tensorrt": (
        "tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11",
        "tensorrt-cu13-bindings", "tensorrt-cu12-bindings", "tensorrt-bindings",
    ),
    "torch-tensorrt": ("torch-tensorrt",),
}  # fmt: skip
_DEPENDS_ON = {  # besides the machine, its GPU, and L4T or the driver
    "torchscript": ("torch", "cpu"),
    "compiled": ("torch", "cpu"),
    "tensorrt": ("tensorrt",),
    "torch-tensorrt": ("torch", "tensorrt", "torch-tensorrt"),
}
_EVERYWHERE = ("builder", "machine", "board", "gpu", "l4t", "driver")
_BUILDER = "1"
"""Of how we build engines: another number, and all are built anew."""
_MULTIARCH = {"aarch64": "aarch64-linux-gnu", "x86_64": "x86_64-linux-gnu"}


def device_tags(root: Path = _ROOT) -> set[str]:
    """The kinds of devices that this one is, as a manifest's `compatible` names them: cpu, aarch64, sm_87, l4t-36,
    l4t-36.4, tegra234."""
    tags = {"cpu", _machine()}
    release = l4t_release(root)
    if release:
        tags |= {f"l4t-{release.split('.')[0]}", f"l4t-{'.'.join(release.split('.')[:2])}"}
    tags |= _chips(root)
    architecture = gpu_architecture(root)
    return tags | {architecture} if architecture else tags


def installed_versions(root: Path = _ROOT) -> dict[str, str]:
    """Name -> exact version of all that an engine may depend on; what is absent here is absent there.

    Names: builder, machine, board, cpu, gpu, l4t, driver, torch, tensorrt, torch-tensorrt.
    """
    found: dict[str, str | None] = {
        "builder": _BUILDER,
        "machine": _machine(),
        "board": _text(root / "proc/device-tree/model").strip("\0\n ") or None,
        "cpu": _cpu(root),
        "gpu": gpu_architecture(root),
        "l4t": l4t_release(root),
        "driver": _driver(root),
        **{name: _package(distributions) for name, distributions in _PACKAGES.items()},
    }
    found["tensorrt"] = found["tensorrt"] or _tensorrt_library(root)
    return {name: version for name, version in found.items() if version}


def fingerprint(
    artifact_sha256: str, runtime: str, precision: str, flags: Mapping[str, object], versions: Mapping[str, str]
) -> str:
    """32 hex digits that differ if anything differs on which an engine of *runtime* for that artifact depends.

    *flags* are what the builder was told, as JSON; of *versions*, those that do not concern the runtime are ignored.
    An unknown *runtime* depends on all of them.
    """
    concerned = (*_EVERYWHERE, *_DEPENDS_ON[runtime]) if runtime in _DEPENDS_ON else tuple(versions)
    facts = {
        "artifact": artifact_sha256,
        "runtime": runtime,
        "precision": precision,
        "flags": dict(flags),
        "versions": {name: versions[name] for name in concerned if name in versions},
    }
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def l4t_release(root: Path = _ROOT) -> str | None:
    """Like 36.4.3, from `# R36 (release), REVISION: 4.3, GCID: …`; None if this is no Jetson."""
    text = _text(root / "etc/nv_tegra_release")
    found = re.search(r"R(\d+)[^,]*, REVISION: ([0-9.]+)", text)
    return f"{found.group(1)}.{found.group(2)}" if found else None


def gpu_architecture(root: Path = _ROOT) -> str | None:
    """Like sm_87: of a Jetson from its device tree, else of the first GPU that NVIDIA's management library knows."""
    for chip in _chips(root):
        if chip in _TEGRA_ARCHITECTURES:
            return _TEGRA_ARCHITECTURES[chip]
    if not (root / "proc/driver/nvidia/version").exists():
        return None
    return _discrete_architecture()


def _chips(root: Path) -> set[str]:
    """Like {"tegra234"}; the device tree has NUL-terminated names such as nvidia,tegra234."""
    names: Iterable[str] = _text(root / "proc/device-tree/compatible").split("\0")
    return {name.partition(",")[2] for name in names if re.fullmatch(r"nvidia,tegra\d+", name)}


@lru_cache(maxsize=1)
def _discrete_architecture() -> str | None:
    """By NVML, which opens no CUDA context; None without it."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        if library.nvmlInit_v2() != 0:
            return None
        device, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        failed = library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) or (
            library.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor))
        )
        library.nvmlShutdown()
    except (OSError, AttributeError):  # no such library, or an old one
        return None
    return None if failed else f"sm_{major.value}{minor.value}"


def _machine() -> str:
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def _cpu(root: Path) -> str | None:
    """Its name, or on ARM its part numbers: which runtime is fastest, and what a compiler made, depends on it."""
    lines = _text(root / "proc/cpuinfo").splitlines()
    wanted = ("model name", "CPU implementer", "CPU part")
    found = {line.partition(":")[2].strip() for line in lines if line.startswith(wanted)}
    return " ".join(sorted(found)) or None


def _driver(root: Path) -> str | None:
    """Of a discrete GPU, from `NVRM version: … Kernel Module  550.54.15  …`."""
    found = re.search(r"\b\d{3}\.\d+(?:\.\d+)?\b", _text(root / "proc/driver/nvidia/version"))
    return found.group(0) if found else None


def _package(distributions: Iterable[str]) -> str | None:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _tensorrt_library(root: Path) -> str | None:
    """JetPack's packages do not all leave a record for Python; the library's file name has the version."""
    folder = root / "usr/lib" / _MULTIARCH.get(_machine(), _machine())
    names = [re.fullmatch(r"libnvinfer\.so\.(\d+\.\d+[0-9.]*)", path.name) for path in folder.glob("libnvinfer.so.*")]
    return max((found.group(1) for found in names if found), key=len, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_bytes()[: 1 << 20].decode(errors="replace")
    except OSError:
        return ""
