"""GigE Vision over a real stream: Aravis' fake camera in its own process, in a network of the test's own."""

from __future__ import annotations

import functools
import os
import signal
import time

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'defectd[camera]'")

from defectd.camera.discovery import discover, find  # noqa: E402
from defectd.errors import CameraError, CameraLost  # noqa: E402
from support import camera_station  # noqa: E402
from support.coded_pictures import write_pictures  # noqa: E402
from support.gige import NO_ARAVIS, GigeCamera, await_shown, has_aravis  # noqa: E402
from support.introspection import lent_gi  # noqa: E402
from support.networks import NoNetwork, alone  # noqa: E402
from support.sniffer import Sniffer  # noqa: E402

WIDTH_PX, HEIGHT_PX = 192, 128


@pytest.fixture(scope="module", autouse=True)
def _aravis(tmp_path_factory):
    with lent_gi(tmp_path_factory.mktemp("gi")):
        if not has_aravis():
            pytest.skip(NO_ARAVIS)
        try:
            alone(lambda: None)
        except NoNetwork as error:
            pytest.skip(str(error))
        yield


def in_own_network(test):
    """Run *test* where nobody else hears its packets."""

    @functools.wraps(test)
    def run(**fixtures):
        alone(lambda: test(**fixtures))

    return run


@pytest.fixture
def station():
    stations = []

    def station(stall_s=8.0, commanded=False, **source):
        settings = {
            "address": "127.0.0.1", "serial": None, "user_name": None, "interface": None, "pixel_format": "RGB8",
            "features": {}, "trigger_source": "Line0", "width_px": WIDTH_PX, "height_px": HEIGHT_PX,
            "packet_size": None, "packet_delay_us": None, "socket_buffer_kb": None, **source,
        }  # fmt: skip
        stations.append(camera_station.station("aravis", stall_s=stall_s, commanded=commanded, **settings))
        return stations[-1]

    yield station
    for each in stations:
        each.feed.worker.stop()
        each.feed.worker.reap(2.0)


@pytest.fixture
def pictures(tmp_path):
    return write_pictures(tmp_path / "pictures", 40, 2)


def picture(folder, number):
    return cv2.imread(str(folder / f"unit-{number:04d}.png"))


def seen(count):
    return lambda station: len(station.pictures) + len(station.missed) >= count


@in_own_network
def test_each_pulse_of_the_hardware_trigger_gives_its_picture_bit_for_bit(station, pictures, tmp_path):
    with GigeCamera(tmp_path, pictures, rate_hz=20):
        told = station().run(seen(40))
    assert told.missed == {} and told.faults == []
    assert [
        number for number in range(1, 41) if not np.array_equal(told.pictures[number], picture(pictures, number))
    ] == []
    gaps_ms = np.diff([told.units[number].captured_ns for number in range(1, 41)]) / 1e6
    assert 45 < np.median(gaps_ms) < 70, "captured_ns has the rhythm of the line"


@in_own_network
def test_a_camera_that_awaits_its_trigger_is_no_fault(station, pictures, tmp_path):
    with GigeCamera(tmp_path, pictures):
        told, due_s = station(stall_s=2.0), time.monotonic() + 5
        told.run(lambda _: time.monotonic() > due_s)
    assert (told.units, told.faults, told.deaths) == ({}, [], [])


@in_own_network
def test_each_command_fires_the_software_trigger_once(station, pictures, tmp_path):
    with GigeCamera(tmp_path, pictures) as camera:
        told = station(commanded=True, trigger_source="Software", shot_s=2.0).run(lambda s: s.feed.worker.ready)
        for number in range(1, 11):
            told.feed.shoot(time.monotonic_ns())
            told.run(seen(number))
        assert camera.shown == 10
    assert told.missed == {}
    assert all(np.array_equal(told.pictures[number], picture(pictures, number)) for number in range(1, 11))


@in_own_network
def test_a_command_to_a_free_running_camera_gives_a_picture_that_was_taken_after_it(station, pictures, tmp_path):
    with GigeCamera(tmp_path, pictures) as camera:
        told = station(commanded=True, trigger_source=None, shot_s=2.0).run(lambda s: s.feed.worker.ready)
        for number in range(1, 6):
            time.sleep(0.3)
            before = camera.shown
            told.feed.shoot(time.monotonic_ns())
            told.run(seen(number))
            shown = range(before + 1, camera.shown + 1)
            came = [c for c in shown if np.array_equal(told.pictures[number], picture(pictures, (c - 1) % 40 + 1))]
            assert came, f"none of {shown}, the pictures that were taken since the command"


@in_own_network
@pytest.mark.parametrize(("how", "back"), [(signal.SIGKILL, None), (signal.SIGSTOP, signal.SIGCONT)])
def test_a_camera_that_goes_away_is_lost_within_four_seconds_and_found_again(station, pictures, tmp_path, how, back):
    with GigeCamera(tmp_path, pictures, rate_hz=10) as camera:
        told = station().run(seen(5))
        camera.signal(how)
        gone_s = time.monotonic()
        told.run(lambda s: s.faults)
        assert time.monotonic() - gone_s < 4.0
        time.sleep(1.0)
        camera.start() if back is None else camera.signal(back)
        told.run(lambda s: len(s.faults) == 2 and len(s.pictures) >= 20)
    assert told.faults == [("camera_lost", "begin"), ("camera_lost", "end")] and told.deaths == []


@in_own_network
def test_frames_that_lost_packets_are_counted_exactly_and_are_no_pictures(station, tmp_path):
    folder = write_pictures(tmp_path / "many", 120, 4)
    with GigeCamera(tmp_path, folder, rate_hz=30, lose=0.001), Sniffer() as network:
        told = station(width_px=384, height_px=256, max_pixels=384 * 256).run(seen(120), 40)
    assert len(network.frames) == 120
    assert sum(reason == "frame_incomplete" for reason in told.missed.values()) == len(network.incomplete) > 0
    assert len(told.pictures) + len(told.missed) == 120
    assert [n for n, found in told.pictures.items() if not np.array_equal(found, picture(folder, n))] == []


@in_own_network
def test_frames_that_never_came_are_units_without_a_picture(station, tmp_path):
    folder = write_pictures(tmp_path / "many", 150, 2)
    with GigeCamera(tmp_path, folder, rate_hz=50) as camera:
        told = station().run(seen(10))
        os.kill(told.feed.worker.pid, signal.SIGSTOP)
        await_shown(camera, camera.shown + 60)
        os.kill(told.feed.worker.pid, signal.SIGCONT)
        told.run(seen(150), 30)
        assert camera.shown == 150
    assert len(told.units) == 150 and set(told.missed.values()) <= {
        "frame_missing",
        "frame_incomplete",
        "camera_overrun",
    }
    assert [n for n, found in told.pictures.items() if not np.array_equal(found, picture(folder, n))] == []


@in_own_network
@pytest.mark.parametrize("pixel_format", ["Mono8", "BayerRG8"])
def test_other_pixel_formats_become_bgr(station, tmp_path, pixel_format):
    (tmp_path / "red").mkdir()
    cv2.imwrite(str(tmp_path / "red" / "1.png"), np.full((HEIGHT_PX, WIDTH_PX, 3), (30, 60, 210), np.uint8))
    with GigeCamera(tmp_path, tmp_path / "red", rate_hz=10):
        told = station(pixel_format=pixel_format).run(seen(1))
    expected = (100, 100, 100) if pixel_format == "Mono8" else (30, 60, 210)
    assert (told.pictures[1] == expected).all()


@in_own_network
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"features": {"Gamma": 2.0}}, "features.Gamma: it has no such feature"),
        ({"features": {"ExposureTimeAbs": 1e9}}, "features.ExposureTimeAbs"),
        ({"features": {"ExposureTimeAbs": "long"}}, "expected float, got 'long'"),
        ({"pixel_format": "Mono99"}, "expected one of"),
        ({"width_px": 100_000}, "features.Width = 100000"),
        ({"trigger_source": "Line7"}, "'Line7' not an entry"),
    ],
)
def test_what_the_camera_cannot_do_is_named_with_what_it_can(station, pictures, tmp_path, source, words):
    with GigeCamera(tmp_path, pictures):
        told = station(**source).run(lambda s: s.deaths)
    assert told.deaths[0].fatal_code == "unusable" and words in told.deaths[0].fatal_detail


@in_own_network
def test_features_are_set_in_order_and_read_back(station, pictures, tmp_path):
    with GigeCamera(tmp_path, pictures, rate_hz=10):
        told = station(features={"ExposureTimeAbs": 2500, "GainRaw": 3, "TriggerSource": "Line0"}).run(seen(2))
    assert told.deaths == []


@in_own_network
def test_a_camera_is_found_by_its_serial_number_on_the_named_interface(station, pictures, tmp_path):
    with GigeCamera(tmp_path, pictures, rate_hz=10):
        (found,) = discover("lo", 0.5)
        assert (found.address, found.vendor, found.serial) == ("127.0.0.1", "Aravis", "SIM001")
        with pytest.raises(CameraLost, match="no camera with serial X1 answers on lo; SIM001"):
            find("lo", "X1", None)
        station(address=None, serial="SIM001", interface="lo").run(seen(2))
    with pytest.raises(CameraError, match="expected one of lo"):
        discover("eth9")


@in_own_network
def test_a_camera_that_is_opened_by_its_address_is_not_looked_for(station, pictures, tmp_path):
    with Sniffer() as network:
        told = station()
        told.run(lambda s: s.faults)
        with GigeCamera(tmp_path, pictures, rate_hz=10):
            told.run(seen(2))
    assert network.discoveries == []


@in_own_network
def test_a_second_program_is_told_that_the_camera_is_in_use(station, pictures, tmp_path):
    with GigeCamera(tmp_path, pictures, rate_hz=10):
        station().run(seen(1))
        second = station()
        second.run(lambda s: s.faults)
    assert second.faults == [("camera_lost", "begin")] and not second.pictures
