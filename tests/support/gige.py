"""A GigE Vision camera: Aravis' fake one in its own process, which shows our pictures over real GVCP and GVSP.

    python -m support.gige ADDRESS PICTURES SHOWN [--lose SHARE] [--rate-hz HZ]

It has a hardware trigger, Line0, that fires *rate-hz* times a second while it is acquired from, until all pictures
were shown. SHOWN is a file with the number of pictures that it has shown; a new process goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from support.introspection import has_typelib
from support.station import environment, wait_until

NO_ARAVIS = (
    "no Aravis for this Python: sudo apt-get install python3-gi gir1.2-aravis-0.8 iproute2, and run the tests with "
    "/usr/bin/python3, or any Python of its version"
)
_START_S = 20.0
_TRIGGER_MODE, _TRIGGER_SOURCE, _TRIGGER_SOFTWARE = 0x300, 0x304, 0x30C
_LINE0, _SOFTWARE = 0, 1
_MONO8, _BAYER_RG8 = 0x01080001, 0x01080009
_TRIGGER_HZ = 400.0  # how often it looks whether it was triggered


class GigeCamera:
    """The process. Use it inside `networks.alone` only."""

    def __init__(
        self, directory: Path, pictures: Path, address: str = "127.0.0.1", lose: float = 0.0, rate_hz: float = 0.0
    ) -> None:
        self.address, self.pictures = address, pictures
        self._log, self._shown = directory / f"{address}.log", directory / f"{address}.shown"
        self._options = ["--lose", str(lose), "--rate-hz", str(rate_hz)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def shown(self) -> int:
        """How many pictures it has taken."""
        return int(self._shown.read_text() or 0) if self._shown.exists() else 0

    def start(self) -> None:
        """Until it answers; the process before it, if there was one, is gone."""
        self.stop()
        arguments = [self.address, str(self.pictures), str(self._shown), *self._options]
        tests = str(Path(__file__).resolve().parents[1])
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "support.gige", *arguments], stdout=subprocess.PIPE, stderr=log, cwd=tests,
                env=environment(),
            )  # fmt: skip
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the camera did not start: {self._log.read_text()[-1000:]}")

    def signal(self, how: signal.Signals) -> None:
        """SIGSTOP: its cable is cut; SIGCONT: it is whole again; SIGKILL: it is switched off."""
        assert self._process is not None
        self._process.send_signal(how)

    def hold_line(self) -> None:
        """No pulses until `run_line`: nothing passes while nobody looks."""
        self.signal(signal.SIGUSR1)

    def run_line(self) -> None:
        """Pulses again."""
        self.signal(signal.SIGUSR2)

    def stop(self) -> None:
        """Whatever state it is in."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()

    def __enter__(self) -> GigeCamera:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def has_aravis() -> bool:
    """True if a worker can load it."""
    return has_typelib("Aravis", "0.8")


def await_shown(camera: GigeCamera, count: int, timeout_s: float = 60.0) -> None:
    """Until it has taken *count* pictures. Raises TimeoutError."""
    wait_until(lambda: camera.shown >= count, timeout_s, f"{count} pictures are taken")


# -- in its own process --------------------------------------------------------------------------------------------


class _Camera:
    """The fake camera, and what it shows."""

    def __init__(self, options: argparse.Namespace) -> None:
        cv2, np = importlib.import_module("cv2"), importlib.import_module("numpy")
        importlib.import_module("gi").require_version("Aravis", "0.8")
        aravis = importlib.import_module("gi.repository.Aravis")
        paths = sorted(Path(options.pictures).glob("*.png"))
        self._pictures = [np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1]) for path in paths]
        self.line_runs = True
        self._counter, self._rate_hz = Path(options.shown), options.rate_hz
        self._shown = int(self._counter.read_text() or 0) if self._counter.exists() else 0
        self._library = ctypes.CDLL("libaravis-0.8.so.0")
        self._library.arv_buffer_get_data.restype = ctypes.c_void_p
        self._library.arv_fake_camera_get_payload.restype = ctypes.c_size_t
        self._camera: Any = aravis.GvFakeCamera.new(options.address, "SIM001")
        self._camera.set_property("gvsp-lost-ratio", options.lose)
        self._inside = self._camera.get_fake_camera()
        self._inside.set_trigger_frequency(_TRIGGER_HZ)
        self._pointer = ctypes.c_void_p(hash(self._inside))
        kinds = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32]
        self._fill = ctypes.CFUNCTYPE(None, *kinds)(self._show)  # PyGObject's own set_fill_pattern loses the callback
        self._library.arv_fake_camera_set_fill_pattern(self._pointer, self._fill, None)
        if not self._camera.is_running():
            raise RuntimeError(f"{options.address}: it cannot listen there")

    def _show(self, buffer: int, _data: int, _exposure_us: int, _gain: int, pixel_format: int) -> None:
        picture = _as_sent(self._pictures[self._shown % len(self._pictures)], pixel_format)
        start = self._library.arv_buffer_get_data(ctypes.c_void_p(buffer), ctypes.byref(ctypes.c_size_t()))
        payload = self._library.arv_fake_camera_get_payload(self._pointer)
        ctypes.memmove(start, picture.ctypes.data, min(picture.nbytes, payload))
        self._shown += 1
        self._counter.write_text(str(self._shown))

    def pulse_for_ever(self) -> None:
        """The line's light barrier. The fake camera has none: for an instant the software is its trigger."""
        while True:
            time.sleep(1 / self._rate_hz)
            if self.line_runs and self._shown < len(self._pictures) and self._awaits_line0():
                count = self._shown + 1
                self._inside.write_register(_TRIGGER_SOURCE, _SOFTWARE)
                self._inside.write_register(_TRIGGER_SOFTWARE, 1)
                self._await_picture(count)
                self._inside.write_register(_TRIGGER_SOURCE, _LINE0)

    def _await_picture(self, count: int) -> None:
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: self._shown >= count, 1.0, "a picture", 0.001)

    def _awaits_line0(self) -> bool:
        registers = [self._inside.read_register(each)[1] for each in (_TRIGGER_MODE, _TRIGGER_SOURCE)]
        return registers == [1, _LINE0] and bool(self._inside.get_acquisition_status())


def _as_sent(picture: Any, pixel_format: int) -> Any:
    """*picture* (RGB) as a sensor without colours or with a Bayer filter has it; others send it as it is."""
    if pixel_format == _MONO8:
        return picture.mean(axis=2).astype("uint8")
    if pixel_format == _BAYER_RG8:
        mosaic = picture[:, :, 1].copy()
        mosaic[::2, ::2], mosaic[1::2, 1::2] = picture[::2, ::2, 0], picture[1::2, 1::2, 2]
        return mosaic
    return picture


def main() -> None:
    """Until it is killed, or its parent is gone."""
    parser = argparse.ArgumentParser()
    for name in ("address", "pictures", "shown"):
        parser.add_argument(name)
    parser.add_argument("--lose", type=float, default=0.0)
    parser.add_argument("--rate-hz", type=float, default=0.0)
    options = parser.parse_args()
    parent, camera = os.getppid(), _Camera(options)

    def steer(number: int, _frame: object) -> None:
        camera.line_runs = number == signal.SIGUSR2

    signal.signal(signal.SIGUSR1, steer)
    signal.signal(signal.SIGUSR2, steer)
    if options.rate_hz:
        threading.Thread(target=camera.pulse_for_ever, daemon=True).start()
    print("ready", flush=True)
    while os.getppid() == parent:
        time.sleep(0.5)


if __name__ == "__main__":
    main()
