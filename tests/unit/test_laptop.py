"""The laptop guarantee: all but the modules that wrap a heavy package import without any of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "daemon"
BLOCKED = (
    "torch",
    "torchvision",
    "tensorrt",
    "cv2",
    "ultralytics",
    "rich",
    "jtop",
    "systemd",
    "zxingcpp",
    "gi",
    "similari",
)
WRAPPERS = (
    "defectd.bench",
    "defectd.camera.aravis",
    "defectd.camera.aravis_opening",
    "defectd.camera.boards",
    "defectd.camera.gstreamer",
    "defectd.camera.measuring",
    "defectd.camera.opencv",
    "defectd.camera.pixel_formats",
    "defectd.camera.replay",
    "defectd.camera.simulated",
    "defectd.demo",
    "defectd.engine",
    "defectd.evidence.worker",
    "defectd.export",
    "defectd.recording",
    "defectd.watch",
)
PARENT_HALVES = tuple(
    f"defectd.engine.{name}"
    for name in ("background", "base", "choice", "faults", "golden", "selection", "server", "serving", "warmup")
)

PROGRAM = f"""
import importlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
for module in sys.argv[1:]:
    importlib.import_module(module)
"""


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        name = name[: -len(".__init__")] if name.endswith(".__init__") else name
        wrapped = any(name == wrapper or name.startswith(wrapper + ".") for wrapper in WRAPPERS)
        if name != "defectd.__main__" and (not wrapped or name in PARENT_HALVES):
            yield name


def test_the_daemon_needs_no_heavy_package():
    names = list(modules())
    assert "defectd.app" in names and len(names) > 30
    subprocess.run([sys.executable, "-c", PROGRAM, *names], env={"PYTHONPATH": str(SOURCE)}, check=True)
