from __future__ import annotations

import platform

import pytest

from defectd.models.fingerprint import device_tags, fingerprint, gpu_architecture, installed_versions, l4t_release

ORIN = {
    "etc/nv_tegra_release": b"# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: x\n",
    "proc/device-tree/compatible": b"nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "proc/cpuinfo": b"processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n",
}
XAVIER = {
    "etc/nv_tegra_release": b"# R35 (release), REVISION: 5.0, GCID: 35550185, BOARD: t186ref, EABI: aarch64\n",
    "proc/device-tree/compatible": b"nvidia,p2972-0000\0nvidia,tegra194\0",
}
VERSIONS = {
    "machine": "aarch64", "gpu": "sm_87", "l4t": "36.4.3", "cpu": "0x41 0xd42",
    "torch": "2.5.0", "tensorrt": "10.3.0", "torch-tensorrt": "2.5.0",
}  # fmt: skip


def machine(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.mark.parametrize(
    ("files", "tags"),
    [
        (ORIN, {"sm_87", "l4t-36", "l4t-36.4", "tegra234"}),
        (XAVIER, {"sm_72", "l4t-35", "l4t-35.5", "tegra194"}),
        ({}, set()),
    ],
)
def test_a_device_says_what_kind_it_is(tmp_path, files, tags):
    assert device_tags(machine(tmp_path, files)) == {"cpu", platform.machine()} | tags


def test_the_l4t_release_has_its_revision(tmp_path):
    assert l4t_release(machine(tmp_path, ORIN)) == "36.4.3"
    assert l4t_release(tmp_path / "nowhere") is None


def test_a_jetson_that_is_not_known_has_no_architecture(tmp_path):
    root = machine(tmp_path, {"proc/device-tree/compatible": b"nvidia,tegra999\0"})
    assert gpu_architecture(root) is None
    assert "tegra999" in device_tags(root)


def test_a_torn_device_tree_is_no_error(tmp_path):
    root = machine(tmp_path, {"proc/device-tree/compatible": b"\xff\xfe\0nvidia,", "etc/nv_tegra_release": b"\x80"})
    assert device_tags(root) == {"cpu", platform.machine()}


def test_versions_are_those_of_the_installed_packages(tmp_path):
    versions = installed_versions(machine(tmp_path, ORIN))
    assert versions["gpu"] == "sm_87" and versions["l4t"] == "36.4.3" and versions["cpu"] == "0x41 0xd42"
    assert "driver" not in versions


def test_tensorrt_without_a_python_record_is_known_by_its_library(tmp_path):
    library = f"usr/lib/{platform.machine()}-linux-gnu/libnvinfer.so"
    root = machine(tmp_path, {f"{library}.8": b"", f"{library}.8.5.2": b""})
    found = installed_versions(root).get("tensorrt")
    assert found is not None and (found == "8.5.2" or found[0].isdigit())  # a package that is installed goes first


def test_a_fingerprint_is_stable_and_short():
    one = fingerprint("ab" * 32, "tensorrt", "fp16", {"workspace_mb": 1024, "dla": None}, VERSIONS)
    same = fingerprint("ab" * 32, "tensorrt", "fp16", {"dla": None, "workspace_mb": 1024}, dict(VERSIONS))
    assert one == same and len(one) == 32


@pytest.mark.parametrize(
    "change", [{"l4t": "36.5.0"}, {"gpu": "sm_72"}, {"tensorrt": "10.3.1"}, {"machine": "x86_64"}]
)  # fmt: skip
def test_an_upgrade_changes_the_fingerprint_of_an_engine(change):
    one = fingerprint("ab" * 32, "tensorrt", "fp16", {}, VERSIONS)
    assert one != fingerprint("ab" * 32, "tensorrt", "fp16", {}, {**VERSIONS, **change})


def test_what_does_not_concern_a_runtime_does_not_change_its_fingerprint():
    one = fingerprint("ab" * 32, "tensorrt", "fp16", {}, VERSIONS)
    assert one == fingerprint("ab" * 32, "tensorrt", "fp16", {}, {**VERSIONS, "torch": "2.6.0"})
    two = fingerprint("ab" * 32, "auto", "fp16", {}, VERSIONS)  # a choice between all of them
    assert two != fingerprint("ab" * 32, "auto", "fp16", {}, {**VERSIONS, "torch": "2.6.0"})


def test_model_precision_and_flags_are_part_of_the_fingerprint():
    base = ("ab" * 32, "tensorrt", "fp16", {"dla": 0})
    prints = {
        fingerprint(*base, VERSIONS),
        fingerprint("cd" * 32, *base[1:], VERSIONS),
        fingerprint(base[0], "torchscript", *base[2:], VERSIONS),
        fingerprint(*base[:2], "int8", base[3], VERSIONS),
        fingerprint(*base[:3], {"dla": 1}, VERSIONS),
    }
    assert len(prints) == 5
