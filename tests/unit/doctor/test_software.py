"""Which torch runs on which GPU, and what OpenCV lacks."""

from __future__ import annotations

from typing import Any

import pytest

from defectd.doctor.checks.software import built_with, computed, gpu_findings, opencv_findings, runs_on
from defectd.doctor.report import Level

PYPI_AARCH64 = ["sm_80", "sm_90", "sm_100", "sm_110", "sm_120"]
BUILD = """
  Video I/O:
    FFMPEG:                      YES
      avcodec:                   YES (59.37.100)
    GStreamer:                   NO
    v4l/v4l2:                    YES (linux/videodev2.h)
"""


def torch_facts(**changes: Any) -> dict[str, Any]:
    return {"version": "2.8.0", "cuda": "12.6", "archs": ["sm_87"], "available": True, "gpu": "Orin", **changes}


@pytest.mark.parametrize(
    ("archs", "gpu", "tegra", "runs"),
    [
        (["sm_72", "sm_87"], "sm_87", True, True),
        (PYPI_AARCH64, "sm_87", True, False),
        (PYPI_AARCH64, "sm_110", True, True),
        (["sm_80"], "sm_86", False, True),
        (["sm_80"], "sm_86", True, False),
        (["sm_90"], "sm_86", False, False),
        (["sm_90a"], "sm_90", False, True),
        (["sm_50", "compute_80"], "sm_87", True, True),
        (["compute_90"], "sm_87", False, False),
        ([], "sm_87", False, False),
    ],
)
def test_kernels_run_on_their_own_gpu_and_on_those_that_are_binary_compatible(archs, gpu, tegra, runs):
    assert runs_on(archs, gpu, tegra=tegra) is runs


def levels(facts: dict[str, Any], gpu: str | None, device: str = "auto", tegra: bool = True) -> list[Level]:
    return [one.level for one in gpu_findings(facts, gpu, device=device, tegra=tegra)]


def test_the_wheel_from_pypi_on_an_orin_is_told_with_where_to_get_the_right_one():
    (told,) = gpu_findings(torch_facts(archs=PYPI_AARCH64), "sm_87", device="auto", tegra=True)
    assert told.level is Level.WARNING
    assert "sm_87 is not among the GPUs" in told.found
    assert "JetPack" in told.remedy


def test_what_is_slow_with_auto_does_not_start_with_cuda():
    for facts, gpu in ((torch_facts(cuda=None, archs=[]), "sm_87"), (torch_facts(available=False), "sm_87")):
        assert levels(facts, gpu) == [Level.WARNING]
        assert levels(facts, gpu, device="cuda") == [Level.ERROR]
    assert levels(torch_facts(), None) == [Level.OK]
    assert levels(torch_facts(), None, device="cuda") == [Level.ERROR]
    assert levels(torch_facts(), "sm_87") == [Level.OK]


def test_a_torch_that_computes_wrongly_must_not_judge():
    facts = torch_facts(ran_on="cuda", conv_error=0.7, kept=[0.9], right=False, took_s=1.2)
    assert computed(facts).level is Level.ERROR
    assert computed({**facts, "right": True}).level is Level.OK


def test_a_build_of_opencv_is_read_line_by_line():
    assert built_with(BUILD, "FFMPEG")
    assert not built_with(BUILD, "GStreamer")
    assert built_with(BUILD, "v4l/v4l2")
    assert not built_with("", "v4l/v4l2")


def test_opencv_is_held_against_what_the_cameras_need():
    without = BUILD.replace("YES", "NO")
    assert [one.level for one in opencv_findings("4.8.0", BUILD, ["0", "rtsp://host/s"])] == [Level.OK]
    needs = list(opencv_findings("4.8.0", without, ["0", "rtsp://host/s", "videotestsrc ! appsink"]))
    assert [one.level for one in needs] == [Level.OK, Level.ERROR, Level.ERROR, Level.ERROR]
    assert [one.level for one in opencv_findings("4.8.0", without, [])] == [Level.OK]
