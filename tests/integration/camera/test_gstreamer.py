"""Real pipelines of GStreamer, and a real RTSP server that is killed, frozen and started anew."""

from __future__ import annotations

import contextlib
import importlib
import signal
import time

import numpy as np
import pytest

pytest.importorskip("cv2", reason="needs OpenCV: pip install 'defectd[camera]'")

from defectd.camera.gstreamer import GstreamerSource
from defectd.camera.pipelines import BINDINGS
from defectd.camera.running import load_gstreamer
from defectd.clock import monotonic_ns
from defectd.errors import CameraError, CameraLost
from support.camera_station import station as camera_station
from support.rtsp import HEIGHT_PX, WIDTH_PX, Network, RtspCamera, age_s, read_ticks

try:
    load_gstreamer()
except CameraError as error:
    pytest.skip(f"needs GStreamer: {error}", allow_module_level=True)

from defectd.camera.base import SourceEnded

FRESH_S = 0.3


def rtsp(camera, **changes):
    settings = {"codec": "h264", "transport": "tcp", "latency_ms": 100, "timeout_s": 2.0, "decoder": None, **changes}
    return {"name": "top", "kind": "rtsp", "url": camera.url, **settings}


def user(pipeline, timeout_s=None):
    return {"name": "top", "kind": "gstreamer", "pipeline": pipeline, "timeout_s": timeout_s}


@contextlib.contextmanager
def serving(codec="h264", login=None):
    camera = RtspCamera(codec, login)
    try:
        camera.start()
    except RuntimeError as missing:
        pytest.skip(str(missing))
    try:
        yield camera
    finally:
        camera.kill()


@contextlib.contextmanager
def opened(settings):
    source = GstreamerSource(settings)
    try:
        yield Eyes(source)
    finally:
        source.close()


@contextlib.contextmanager
def through_a_network():
    with contextlib.ExitStack() as stack:
        camera = stack.enter_context(serving())
        network = stack.enter_context(contextlib.closing(Network(camera)))
        yield network, stack.enter_context(opened(rtsp(camera, url=network.url, timeout_s=4.0)))


class Eyes:
    """Takes one unit after the other."""

    def __init__(self, source):
        self.source, self.number, self.lost, self.ages_s = source, 0, [], []

    def next(self, within_s=12.0):
        """The pixels of the next unit that has some."""
        due = time.monotonic() + within_s
        while time.monotonic() < due:
            arrival = self.source.wait(self.number + 1, 0.1)
            if arrival is None:
                continue
            self.number += 1
            assert arrival.unit_id == f"top-{self.number:08d}"
            if arrival.lost is None:
                return self.fetch()
            self.lost.append(arrival.lost)
        raise TimeoutError("no picture")

    def fetch(self):
        pictures = []

        def allocate(height_px, width_px):
            pictures.append(np.zeros((height_px, width_px, 3), np.uint8))
            return pictures[-1]

        self.source.fetch(allocate)
        return pictures[0]

    def read(self):
        """The next picture's time; its age now is noted."""
        said = read_ticks(self.next())
        self.ages_s.append(age_s(said, monotonic_ns()))
        return said


@pytest.mark.parametrize("codec", ["h264", "h265", "mjpeg"])
def test_a_stream_is_seen_as_it_is_drawn_and_each_picture_once(codec):
    with serving(codec) as camera, opened(rtsp(camera, codec=codec)) as eyes:
        assert eyes.next().shape == (HEIGHT_PX, WIDTH_PX, 3)
        said = [eyes.read() for _ in range(30)]
    assert len(set(said)) == len(said) and max(eyes.ages_s) < FRESH_S


def test_udp_works_as_well():
    with serving() as camera, opened(rtsp(camera, transport="udp")) as eyes:
        eyes.read()
        assert eyes.ages_s[0] < FRESH_S


def test_the_time_of_a_unit_is_that_of_its_exposure():
    with serving() as camera, opened(rtsp(camera)) as eyes:
        eyes.next()
        for number in range(2, 20):
            while (arrival := eyes.source.wait(number, 0.5)) is None:
                pass
            time.sleep(0.02)  # somebody is slow; that does not make the unit younger
            assert -0.1 < age_s(read_ticks(eyes.fetch()), arrival.captured_ns) < 0.1


def test_pictures_that_nobody_takes_in_time_are_counted():
    with serving() as camera, opened(rtsp(camera)) as eyes:
        eyes.next()
        time.sleep(1.0)
        eyes.read()
    assert eyes.lost == ["camera_overrun"] * len(eyes.lost) and 20 <= len(eyes.lost) <= 27
    assert eyes.ages_s[0] < FRESH_S


def test_a_killed_server_is_noticed_at_once_and_its_successor_is_seen():
    with serving() as camera:
        with opened(rtsp(camera, timeout_s=5.0)) as eyes:
            eyes.next()
            camera.kill()
            killed = time.monotonic()
            with pytest.raises(CameraLost, match="top: "):
                [eyes.next() for _ in range(100)]
            assert time.monotonic() - killed < 1.0
        with pytest.raises(CameraLost, match=r"Could not|Failed"):
            GstreamerSource(rtsp(camera))
        camera.start()
        with opened(rtsp(camera)) as eyes:
            eyes.read()
            assert eyes.ages_s[0] < FRESH_S


def test_a_frozen_server_is_lost_after_the_timeout_and_cannot_be_opened():
    with serving() as camera:
        with opened(rtsp(camera, timeout_s=1.0)) as eyes:
            eyes.next()
            camera.signal(signal.SIGSTOP)
            frozen = time.monotonic()
            with pytest.raises(CameraLost, match="no picture for 1 s"):
                [eyes.next() for _ in range(100)]
            assert 0.9 < time.monotonic() - frozen < 1.6
            closing = time.monotonic()
        assert time.monotonic() - closing < 1.0, "a server that does not answer must not hold up the closing"
        with pytest.raises(CameraLost, match=r"Timeout|no answer within 1 s"):
            GstreamerSource(rtsp(camera, timeout_s=1.0))
        camera.signal(signal.SIGCONT)


@pytest.mark.parametrize("pause_s", [0.6, 1.5])
def test_nothing_that_was_saved_up_during_a_freeze_is_judged(pause_s):
    with serving() as camera, opened(rtsp(camera, timeout_s=4.0)) as eyes:
        [eyes.read() for _ in range(20)]
        camera.signal(signal.SIGSTOP)
        time.sleep(pause_s)
        camera.signal(signal.SIGCONT)
        [eyes.read() for _ in range(30)]
    assert max(eyes.ages_s) < 0.5


@pytest.mark.parametrize("pause_s", [0.6, 1.5])
def test_nothing_that_the_network_had_kept_is_judged(pause_s):
    with through_a_network() as (network, eyes):
        [eyes.read() for _ in range(20)]
        network.hold()
        time.sleep(pause_s)
        network.let_go()
        [eyes.read() for _ in range(30)]
    assert max(eyes.ages_s) < 0.5 and len(eyes.lost) >= (pause_s - 0.5) * 25


def test_a_picture_that_waited_for_a_worker_that_stood_still_is_not_judged():
    with through_a_network() as (network, eyes):
        eyes.next()
        time.sleep(0.06)  # the next one is there, and nobody takes it
        network.hold()
        time.sleep(1.0)
        assert eyes.source.wait(eyes.number + 1, 0.1).lost == "camera_overrun"
        eyes.number += 1
        network.let_go()
        eyes.read()
    assert eyes.ages_s[0] < 0.5


def test_a_stream_that_stays_late_is_opened_anew():
    with through_a_network() as (network, eyes):
        [eyes.read() for _ in range(20)]
        network.delay_s = 1.0
        with pytest.raises(CameraLost, match=r"1\.0 s late, and do not catch up"):
            [eyes.read() for _ in range(200)]
    assert max(eyes.ages_s) < 0.5


def test_a_command_gets_a_picture_that_was_exposed_after_it():
    with serving() as camera, opened(rtsp(camera)) as eyes:
        eyes.next()
        for _ in range(8):
            eyes.source.idle()
            time.sleep(0.11)
            asked_ns = monotonic_ns()
            eyes.source.shoot()
            said = eyes.read()
            assert age_s(said, asked_ns) < 0.04, "a tick that was going on when it was asked"
    assert eyes.lost == []


def test_a_command_gets_the_newest_picture_even_if_others_passed_meanwhile():
    with serving() as camera, opened(rtsp(camera)) as eyes:
        eyes.next()
        eyes.source.shoot()
        time.sleep(0.5)
        assert eyes.read() and eyes.ages_s[-1] < 0.1 and eyes.lost == []


def test_a_stream_in_another_codec_says_which():
    with serving("mjpeg") as camera, pytest.raises(CameraError, match="offers video in JPEG, expected H264"):
        GstreamerSource(rtsp(camera))


def test_a_login_that_is_refused_says_so_without_the_password():
    with serving(login=("viewer", "s3cret")) as camera:
        with opened(rtsp(camera)) as eyes:
            eyes.next()
        with pytest.raises(CameraLost, match="Unauthorized") as refused:
            GstreamerSource(rtsp(camera, url=camera.url.replace("s3cret", "wr0ng")))
    assert "wr0ng" not in str(refused.value)


@pytest.mark.parametrize("width_px", [64, 65, 66, 67])
@pytest.mark.parametrize("format", ["BGR", "BGRx", "GRAY8", "RGB", "I420", "NV12"])
def test_all_formats_and_odd_widths_become_bgr(format, width_px):
    caps = f"video/x-raw,format={format},width={width_px},height=50,framerate=30/1"
    with opened(user(f"videotestsrc is-live=true pattern=blue ! {caps}")) as eyes:
        picture = eyes.next()
    assert picture.shape == (50, width_px, 3)
    blue = (41, 41, 41) if format == "GRAY8" else (255, 0, 0)
    assert np.abs(picture.astype(int) - blue).max() < 6


def test_a_pipeline_that_ends_is_the_end_of_the_units():
    five = user("videotestsrc num-buffers=5 ! video/x-raw,width=64,height=48")
    with opened(five) as eyes, pytest.raises(SourceEnded):
        [eyes.next() for _ in range(6)]
    assert eyes.number == 5


def test_a_live_pipeline_that_ends_is_a_lost_camera():
    five = user("videotestsrc is-live=true num-buffers=5 ! video/x-raw,width=64,height=48")
    with opened(five) as eyes, pytest.raises(CameraLost, match="has ended"):
        [eyes.next() for _ in range(6)]


def test_a_users_camera_tells_when_its_pictures_were_exposed_and_a_command_gets_a_later_one():
    camera = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=10/1"
    with opened(user(f"{camera} ! queue ! identity sleep-time=70000")) as eyes:
        eyes.next()
        for _ in range(5):
            eyes.source.idle()
            time.sleep(0.13)
            asked_ns = monotonic_ns()
            eyes.source.shoot()
            while (arrival := eyes.source.wait(1, 0.5)) is None:
                pass
            assert asked_ns <= arrival.captured_ns < monotonic_ns() - 60_000_000


def test_waiting_for_a_trigger_is_no_fault():
    caps = "video/x-raw,format=BGR,width=8,height=8,framerate=0/1"
    with opened(user(f"appsrc is-live=true format=time caps={caps}")) as eyes:
        with pytest.raises(TimeoutError):
            eyes.next(within_s=1.5)
        eyes.source.idle()


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ("nosuchsrc ! videoconvert", "no element nosuchsrc: see gst-inspect-1.0"),
        ("nvarguscamerasrc", "no element nvarguscamerasrc: sudo apt-get install nvidia-l4t-gstreamer"),
        ("videotestsrc pattern=nosuch", "does not understand .* pattern"),
        ("videotestsrc ! video/x-raw,width=", "does not understand"),
    ],
)
def test_a_pipeline_that_cannot_be_made_says_why(pipeline, words):
    if "nvargus" in pipeline and load_gstreamer().ElementFactory.find("nvarguscamerasrc"):
        pytest.skip("this machine has nvarguscamerasrc")
    with pytest.raises(CameraError, match=words):
        GstreamerSource(user(pipeline))


def test_a_device_that_is_not_there_is_a_lost_camera():
    with pytest.raises(CameraLost, match="/dev/video-none"):
        GstreamerSource(user("v4l2src device=/dev/video-none"))


def test_missing_bindings_name_their_packages(monkeypatch):
    def absent(name):
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(CameraError, match=BINDINGS) as error:
        load_gstreamer()
    assert 'kind = "opencv"' in str(error.value)


def test_a_worker_reopens_a_server_that_was_killed_and_numbers_go_on():
    with serving() as camera:
        settings = rtsp(camera, timeout_s=2.0)
        seen = camera_station(settings.pop("kind"), commanded=False, **{**settings, "name": "top"})
        try:
            seen.run(lambda s: len(s.pictures) >= 10)
            camera.kill()
            seen.run(lambda s: ("camera_lost", "begin") in s.faults)
            camera.start()
            before = len(seen.pictures)
            seen.run(lambda s: len(s.pictures) >= before + 10, timeout_s=30)
        finally:
            seen.feed.worker.stop()
            seen.feed.worker.reap(3.0)
    assert sorted(seen.units) == list(range(1, max(seen.units) + 1)) and not seen.deaths
    assert seen.faults[-1] == ("camera_lost", "end")
