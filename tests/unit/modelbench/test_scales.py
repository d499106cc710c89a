"""Values and their places on paper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectd.modelbench.page.scales import Scale, bin_edges, histogram, linear, log_ticks, logarithmic, spread

POSITIVE = st.floats(1e-3, 1e5)


@given(st.lists(POSITIVE, min_size=1, max_size=30), st.booleans())
def test_every_value_has_its_place_and_a_scale_has_round_ticks_inside(values: list[float], log: bool) -> None:
    scale = (logarithmic if log else linear)(values, 100.0, 900.0)
    assert all(100 <= scale(value) <= 900 for value in values)
    ticks = scale.ticks(8)
    assert 1 <= len(ticks) <= 20
    assert all(scale.low * 0.998 <= tick <= scale.high * 1.002 for tick in ticks)


def test_a_logarithmic_scale_gives_equal_room_to_equal_ratios() -> None:
    scale = Scale(1.0, 100.0, 0.0, 200.0, logarithmic=True)
    assert (scale(1), scale(10), scale(100)) == (0, pytest.approx(100), pytest.approx(200))
    assert scale(1000) == pytest.approx(200)  # at the end, not beyond


def test_ticks_of_many_decades_are_powers_of_ten() -> None:
    assert log_ticks(0.1, 1000, 5) == pytest.approx([0.1, 1, 10, 100, 1000])
    assert log_ticks(2, 60, 5) == pytest.approx([2, 5, 10, 20, 50])


@given(st.lists(st.tuples(st.floats(0, 900), st.floats(5, 80)), min_size=1, max_size=6))
def test_labels_never_touch_keep_their_order_and_stay_on_the_paper(labels: list[tuple[float, float]]) -> None:
    labels.sort()
    centres, sizes = [centre for centre, _ in labels], [size for _, size in labels]
    places = spread(centres, sizes, 8, 0, 900)
    for (left, left_size), (right, right_size) in zip(zip(places, sizes), list(zip(places, sizes))[1:]):
        assert left + left_size / 2 + 8 <= right - right_size / 2 + 1e-6
    assert places[0] - sizes[0] / 2 >= -1e-6
    assert places[-1] + sizes[-1] / 2 <= 900 + 1e-6


def test_labels_with_room_lie_where_they_want_to() -> None:
    assert spread([100, 300, 500], [40, 40, 40], 8, 0, 900) == [100, 300, 500]
    assert spread([300, 300], [40, 40], 10, 0, 900) == [275, 325]


@given(st.lists(POSITIVE, min_size=1, max_size=50), st.booleans())
def test_every_value_on_the_scale_is_in_one_bin(values: list[float], log: bool) -> None:
    scale = (logarithmic if log else linear)(values, 0.0, 600.0)
    assert sum(histogram(values, bin_edges(scale, 6))) == len(values)


def test_values_beyond_the_scale_are_in_no_bin() -> None:
    assert histogram([0.5, 1.0, 1.5, 2.0, 9.0], [1.0, 2.0, 3.0]) == [2, 1]
