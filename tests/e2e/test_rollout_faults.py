"""Six cells of the fault grid, one of each kind; `make prove-grid` runs all of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

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
    # Stations are made in threads, and pytest puts its own filters back between two tests.
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    pytest.mark.skipif(find_mosquitto() is None, reason="needs Mosquitto: apt-get install mosquitto"),
]

_CELLS = {  # the long ones first
    "kill": State.PROBATION,
    "hang": State.SWITCHING,
    "worker": State.SHADOW,
    "exception": State.VERIFYING,
    "enospc": State.DOWNLOADING,
    "eio": State.STAGED,
}


@pytest.fixture(scope="module")
def struck(tmp_path_factory):
    """What became of each, by its kind; two stations run at once."""
    directory = tmp_path_factory.mktemp("cells")
    bundles = Bundles.made_in(directory)
    with ThreadPoolExecutor(2) as pool:
        yield {
            kind: pool.submit(run_cell, directory / kind, Cell(state, kind), bundles)
            for kind, state in _CELLS.items()
        }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_that_is_struck_ends_as_the_table_says_and_the_line_goes_on(kind, struck):
    seen = struck[kind].result()
    assert not seen.problems, seen.line()
