"""An RTSP camera in a process of its own: GStreamer's server, whose pictures say when they were drawn.

    /usr/bin/python3 rtsp.py PORT CODEC [USER PASSWORD]

The time, in ticks of 40 ms of CLOCK_MONOTONIC, stands in red blocks like the numbers of `support.coded_pictures`. The
server needs python3-gi and numpy, and nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from typing import Any

BLOCK_PX, BITS = 32, 12
WIDTH_PX, HEIGHT_PX = BITS * BLOCK_PX, 8 * BLOCK_PX
TICK_NS = 40_000_000
_ROW = 3
_PATH = "/line"
_ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast quantizer=18 pass=quant key-int-max=25 ! rtph264pay",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! rtph265pay",
    "mjpeg": "jpegenc quality=95 ! rtpjpegpay",
}
_PACKAGES = (
    "sudo apt-get install python3-gi python3-numpy gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base "
    "gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav"
)


def ticks_now() -> int:
    """What a picture that is drawn now says."""
    return time.monotonic_ns() // TICK_NS % (1 << BITS)


def age_s(said: int, at_ns: int) -> float:
    """How old a picture that says *said* was at *at_ns* (CLOCK_MONOTONIC); the ticks begin anew every 163 s."""
    period_ns = TICK_NS << BITS
    age_ns = (at_ns - said * TICK_NS) % period_ns
    return (age_ns if age_ns < period_ns / 2 else age_ns - period_ns) / 1e9


def read_ticks(pixels: Any) -> int:
    """What a picture says, (H, W, 3) BGR."""
    row = pixels[_ROW * BLOCK_PX + BLOCK_PX // 2, BLOCK_PX // 2 :: BLOCK_PX, 2]
    return sum(1 << bit for bit in range(BITS) if row[bit] > 128)


class RtspCamera:
    """Started with `start`, and after `kill` once more, on the same port."""

    def __init__(self, codec: str = "h264", login: tuple[str, str] | None = None) -> None:
        self._codec, self._login = codec, login
        self.port = _free_port()
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """With the login, if there is one."""
        login = f"{self._login[0]}:{self._login[1]}@" if self._login else ""
        return f"rtsp://{login}127.0.0.1:{self.port}{_PATH}"

    def start(self) -> None:
        """Until it serves. Raises RuntimeError, which says what is missing."""
        command = [*_interpreter(), __file__, str(self.port), self._codec, *(self._login or ())]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "serving\n":
            raise RuntimeError(f"no RTSP server ({self._process.communicate()[1].strip()[-200:]}): {_PACKAGES}")

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP freezes it, SIGCONT lets it go on."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """It is gone at once. May be called twice."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class Network:
    """What lies between: it passes bytes on after `delay_s`, or keeps them."""

    def __init__(self, camera: RtspCamera) -> None:
        self.delay_s = 0.0
        self._camera_port = camera.port
        self._passes = threading.Event()
        self._passes.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = camera.url.replace(str(camera.port), str(self._listener.getsockname()[1]))
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        """Keep everything from now on."""
        self._passes.clear()

    def let_go(self) -> None:
        """Pass on what was kept, and go on."""
        self._passes.set()

    def close(self) -> None:
        """Nobody can connect any more."""
        self._listener.close()
        self._passes.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                server = socket.create_connection(("127.0.0.1", self._camera_port))
            except OSError:
                client.close()
                continue
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        kept: deque[tuple[float, bytes]] = deque()
        with contextlib.suppress(OSError, ValueError):  # the other one has closed it
            while True:
                if select.select([source], [], [], 0.005)[0]:
                    kept.append((time.monotonic(), source.recv(65536)))
                while kept and self._passes.is_set() and kept[0][0] + self.delay_s <= time.monotonic():
                    data = kept.popleft()[1]
                    if not data:
                        raise OSError("hung up")
                    target.sendall(data)
        target.close()
        source.close()


def _interpreter() -> list[str]:
    """One that has GStreamer's bindings: this one, or Debian's."""
    if subprocess.run([sys.executable, "-c", "import gi, numpy"], capture_output=True, check=False).returncode == 0:
        return [sys.executable]
    return ["/usr/bin/python3"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Drawer:
    """Draws into every stream that a client opens."""

    def __init__(self, gst: Any) -> None:
        import numpy as np

        self._gst, self._np = gst, np

    def begins(self, _factory: Any, media: Any) -> None:
        source = media.get_element().get_by_name("drawn")
        threading.Thread(target=self._draw, args=(source,), daemon=True).start()

    def _draw(self, source: Any) -> None:
        np, gst = self._np, self._gst
        while True:
            time.sleep((TICK_NS - time.monotonic_ns() % TICK_NS) / 1e9)
            picture, said = np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8), ticks_now()
            for bit in range(BITS):
                if said >> bit & 1:
                    top, left = _ROW * BLOCK_PX, bit * BLOCK_PX
                    picture[top : top + BLOCK_PX, left : left + BLOCK_PX, 2] = 255
            if source.emit("push-buffer", gst.Buffer.new_wrapped(picture.tobytes())) != gst.FlowReturn.OK:
                return


def _serve(port: str, codec: str, *login: str) -> None:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    caps = f"video/x-raw,format=BGR,width={WIDTH_PX},height={HEIGHT_PX},framerate=25/1"
    # the time of a picture is that of its drawing, also when it is sent later
    drawn = f"appsrc name=drawn is-live=true do-timestamp=true format=time block=true max-bytes=0 caps={caps}"
    factory.set_launch(f"( {drawn} ! videoconvert ! video/x-raw,format=I420 ! {_ENCODERS[codec]} name=pay0 pt=96 )")
    drawer = _Drawer(Gst)
    factory.connect("media-configure", drawer.begins)
    if login:
        _protect(GstRtspServer, server, factory, *login)
    server.get_mount_points().add_factory(_PATH, factory)
    if not server.attach(None):
        raise SystemExit(f"port {port} is taken")
    print("serving", flush=True)
    GLib.MainLoop().run()


def _protect(rtsp: Any, server: Any, factory: Any, user: str, password: str) -> None:
    """Nobody else may look."""
    token = rtsp.RTSPToken()
    token.set_string(rtsp.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
    login = rtsp.RTSPAuth()
    login.add_basic(rtsp.RTSPAuth.make_basic(user, password), token)
    server.set_auth(login)
    permissions = rtsp.RTSPPermissions()
    for permission in ("access", "construct"):
        permissions.add_permission_for_role("viewer", f"media.factory.{permission}", True)
    factory.set_permissions(permissions)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
