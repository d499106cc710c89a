"""Six cells of the fault grid, one of each kind; `make prove-grid` runs all of them."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs torch: make setup")
pytest.importorskip("cv2", reason="needs OpenCV: make setup")
pytest.importorskip("cryptography")

from defectd.rollout.injection import KINDS
from defectd.rollout.states import State
from support.brokers import find_mosquitto
from support.cells import Bundles, Cell, run_cell

pytestmark = [
    pytest.mark.mqtt5,
    pytest.mark.skipif(find_mosquitto() is None, reason="needs Mosquitto: apt-get install mosquitto"),
]

_CELLS = {
    "exception": State.VERIFYING,
    "kill": State.PROBATION,
    "worker": State.SHADOW,
    "hang": State.SWITCHING,
    "enospc": State.DOWNLOADING,
    "eio": State.STAGED,
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    return Bundles.made_in(tmp_path_factory.mktemp("bundles"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_that_is_struck_ends_as_the_table_says_and_the_line_goes_on(kind, bundles, tmp_path):
    seen = run_cell(tmp_path, Cell(_CELLS[kind], kind), bundles)
    assert not seen.problems, seen.line()
