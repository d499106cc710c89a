"""Python, torch, OpenCV, TensorRT: the versions, and whether they work on this machine."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from defectd.doctor.asking import Told, told_by
from defectd.doctor.patient import Patient
from defectd.doctor.report import Finding, error, ok, skipped, warning
from defectd.models.fingerprint import gpu_architecture, installed_versions

_PYTHONS = (3, 8), (3, 13)
_TORCH_S, _IMPORT_S = 120.0, 45.0  # a cold Jetson loads torch from an SD card
_RIGHT_WHEEL = (
    "install the torch wheel of this JetPack (docs.nvidia.com, 'Installing PyTorch for Jetson Platform'), not the one "
    "from PyPI, which is built for other GPUs"
)


def check_python(patient: Patient) -> Iterator[Finding]:
    """The interpreter, which JetPack decides on."""
    del patient
    version = ".".join(map(str, sys.version_info[:3]))
    if _PYTHONS[0] <= sys.version_info[:2] <= _PYTHONS[1]:
        yield ok("Python", f"{version}, {sys.executable}", version=version)
    else:
        lowest, highest = (".".join(map(str, one)) for one in _PYTHONS)
        yield warning("Python", f"{version} is not tested", f"use {lowest} to {highest}", version=version)


# -- torch -------------------------------------------------------------------------------------------------------


def check_torch(patient: Patient) -> Iterator[Finding]:
    """The build, its kernels for this GPU, and that it computes rightly. While a daemon runs nothing is computed."""
    device = patient.settings.model.device if patient.settings is not None else "auto"
    request = {"run": not patient.busy, "device": device}
    told = told_by("torch_build", request, _TORCH_S, needs_mb=0 if patient.busy else 512, module="torch")
    if told.trouble is not None:
        yield _torch_trouble(told, patient)
        return
    facts = told.facts
    yield ok("torch", f"{facts['version']}, {_cuda_words(facts)}", version=facts["version"], cuda=facts["cuda"])
    gpu = gpu_architecture() or facts.get("sm")
    if device != "cpu":
        yield from gpu_findings(facts, gpu, device=device, tegra=patient.is_jetson)
    if patient.busy:
        yield skipped("computing", f"{patient.busy}: nothing is computed beside it")
    else:
        yield computed(facts)


def _torch_trouble(told: Told, patient: Patient) -> Finding:
    wheel = _RIGHT_WHEEL if patient.is_jetson else "install torch again: pip install --force-reinstall torch"
    if told.absent:
        remedy = _RIGHT_WHEEL if patient.is_jetson else "pip install torch; on a PC any build will do"
        return error("torch", "is not installed for this Python", remedy)
    trouble = str(told.trouble)
    if "took longer" in trouble:
        remedy = "the driver hangs: dmesg | tail; restart the machine, and then look at the torch wheel"
    elif "of memory" in trouble:
        remedy = "free memory (a desktop, a browser, another model), and look again"
    elif library := re.search(r"lib[\w.+-]+\.so[.\d]*", trouble):
        remedy = f"{library.group(0)} is of another CUDA than this machine's: {wheel}"
    else:
        remedy = wheel
    return error("torch", trouble, remedy)


def _cuda_words(facts: Mapping[str, Any]) -> str:
    if facts["cuda"] is None:
        return "built without CUDA"
    return f"built for CUDA {facts['cuda']} and {' '.join(facts['archs']) or 'no GPU that it names'}"


def gpu_findings(
    facts: Mapping[str, Any], gpu: str | None, *, device: str, tegra: bool
) -> Iterator[Finding]:  # fmt: skip
    """Whether this build can use this GPU. Pure."""
    worse = error if device == "cuda" else warning
    means = 'with device = "cuda" the daemon does not start' if device == "cuda" else "the model runs on the CPU"
    wheel = _RIGHT_WHEEL if tegra else "install a torch that is built for this GPU and driver: pytorch.org"
    if gpu is None:
        if device == "cuda":
            yield error("GPU", f"none is found, and {means}", 'see that the driver is loaded, or set device = "cpu"')
        else:
            yield ok("GPU", "none is found: the model runs on the CPU", gpu=None)
        return
    if facts["cuda"] is None:
        yield worse("GPU", f"{gpu} is here, but torch is built without CUDA: {means}", wheel, gpu=gpu)
    elif facts["archs"] and not runs_on(facts["archs"], gpu, tegra=tegra):
        found = f"{gpu} is not among the GPUs that torch is built for ({' '.join(facts['archs'])}): {means}"
        yield worse("GPU", found, wheel, gpu=gpu)
    elif not facts["available"]:
        yield worse(
            "GPU", f"{gpu} is here, but CUDA does not start: {means}",
            "see 'devices' below: permissions come first, then the driver (dmesg), then the torch wheel", gpu=gpu,
        )  # fmt: skip
    else:
        yield ok("GPU", f"{facts.get('gpu') or gpu}, {gpu}, which torch is built for", gpu=gpu)


def runs_on(archs: Sequence[str], gpu: str, *, tegra: bool) -> bool:
    """Whether kernels for *archs* (sm_80, compute_90 …) run on *gpu* (sm_87). A plugged GPU also runs those of an
    older one of its generation, and whatever can be compiled from PTX; Tegra has no binary compatibility."""
    number = _number(gpu)
    for arch in archs:
        if arch in (gpu, f"{gpu}a"):
            return True
        if arch.startswith("compute_") and _number(arch) <= number:
            return True
        if not tegra and arch.startswith("sm_") and _number(arch) // 10 == number // 10 and _number(arch) <= number:
            return True
    return False


def _number(arch: str) -> int:
    found = re.search(r"\d+", arch)
    return int(found.group(0)) if found else 0


def computed(facts: Mapping[str, Any]) -> Finding:
    """What came of the convolution and the suppression. Pure."""
    where = f"on the GPU ({facts.get('gpu')})" if facts["ran_on"] == "cuda" else "on the CPU"
    what = f"a convolution ({'FP16' if facts['ran_on'] == 'cuda' else 'FP32'}) and the suppression of boxes"
    if facts["right"]:
        return ok("computing", f"{what} are right {where}, {facts['took_s']:.1f} s", **_numbers(facts))
    return error(
        "computing", f"{what} are wrong {where}: off by {facts['conv_error']:g}, boxes kept {facts['kept']}",
        "this torch must not judge units: install another build, then look again; if it stays, the GPU is broken",
        **_numbers(facts),
    )  # fmt: skip


def _numbers(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: facts[key] for key in ("ran_on", "conv_error", "took_s")}


# -- OpenCV ------------------------------------------------------------------------------------------------------


def check_opencv(patient: Patient) -> Iterator[Finding]:
    """It reads cameras and writes evidence."""
    told = told_by("opencv_build", {}, _IMPORT_S, module="cv2")
    if told.absent:
        yield error("OpenCV", "is not installed for this Python", "pip install 'defectd[camera]', or apt install "
                    "python3-opencv and a venv with --system-site-packages; never both")  # fmt: skip
    elif told.trouble is not None:
        yield error("OpenCV", told.trouble, "pip install opencv-python-headless (the other one needs a desktop)")
    else:
        yield from opencv_findings(str(told.facts["version"]), str(told.facts["build"]), _live_sources(patient))


def _live_sources(patient: Patient) -> list[str]:
    cameras = patient.settings.camera if patient.settings is not None else []
    return [str(camera.source) for camera in cameras if camera.kind == "opencv"]


def opencv_findings(version: str, build: str, sources: Sequence[str]) -> Iterator[Finding]:
    """What the build lacks of what the cameras need. Pure; *sources* are indices, paths and URLs."""
    has = {name: built_with(build, label) for name, label in _VIDEO.items()}
    words = ", ".join(f"{'with' if there else 'without'} {name}" for name, there in has.items())
    yield ok("OpenCV", f"{version}, {words}", version=version, **{name.lower(): has[name] for name in has})
    apt = "apt install python3-opencv, and a venv with --system-site-packages and no opencv from pip"
    devices = [one for one in sources if one.isdigit() or one.startswith("/dev/")]
    if devices and not has["V4L2"]:
        yield error("OpenCV", f"has no V4L2, which {', '.join(devices)} needs", apt)
    if any("://" in one for one in sources) and not has["FFmpeg"]:
        yield error("OpenCV", "has no FFmpeg, which network cameras need", "pip install opencv-python-headless")
    if any(" ! " in one for one in sources) and not has["GStreamer"]:
        yield error("OpenCV", "has no GStreamer, which a camera's pipeline needs", apt)


_VIDEO = {"V4L2": r"v4l/v4l2", "GStreamer": "GStreamer", "FFmpeg": "FFMPEG"}


def built_with(build: str, label: str) -> bool:
    """Of a line like `    GStreamer:                   YES (1.20.3)`."""
    found = re.search(rf"^\s*{label}:\s*(\w+)", build, re.MULTILINE)
    return found is not None and found.group(1).upper() == "YES"


# -- TensorRT ----------------------------------------------------------------------------------------------------


def check_tensorrt(patient: Patient) -> Iterator[Finding]:
    """Needed for the fastest runtime on a GPU, and for nothing else."""
    wanted = patient.settings is not None and patient.settings.model.runtime == "tensorrt"
    if not wanted and gpu_architecture() is None:
        yield skipped("TensorRT", "there is no GPU for it")
        return
    on_disk = installed_versions().get("tensorrt")
    told = told_by("tensorrt_build", {}, _IMPORT_S, module="tensorrt")
    worse = error if wanted else warning
    loss = 'runtime = "tensorrt" cannot serve' if wanted else "TorchScript serves, slower"
    if told.trouble is None:
        yield ok("TensorRT", str(told.facts["version"]), version=told.facts["version"])
    elif told.absent and on_disk is not None:
        yield worse("TensorRT", f"{on_disk} is on this machine, but this Python does not find it: {loss}", _venv())
    elif told.absent:
        remedy = "sudo apt install tensorrt python3-libnvinfer" if patient.is_jetson else "pip install tensorrt"
        yield worse("TensorRT", f"is not installed: {loss}", remedy)
    else:
        yield worse("TensorRT", f"{told.trouble}: {loss}", "sudo apt install --reinstall tensorrt python3-libnvinfer")


def _venv() -> str:
    begin = "sudo apt install python3-libnvinfer"
    isolated = sys.prefix != sys.base_prefix and "include-system-site-packages = true" not in _text(
        Path(sys.prefix) / "pyvenv.cfg"
    )
    return f"{begin}; and set include-system-site-packages = true in {sys.prefix}/pyvenv.cfg" if isolated else begin


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
