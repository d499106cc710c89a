"""Which pictures are unfit, and when that becomes a fault."""

from __future__ import annotations

from dataclasses import replace

import pytest

from defectd.camera.health import ImageHealth, Limits, Measures, unfit

GOOD = Measures(focus=200.0, clipped_share=0.01, dark_share=0.02, mean=90.0)
ALL = Limits(min_focus=100.0, max_clipped_share=0.1, max_dark_share=0.3, max_mean_drift=10.0)


@pytest.mark.parametrize(
    ("picture", "code"),
    [
        (replace(GOOD, focus=99.0), "image_blurred"),
        (replace(GOOD, clipped_share=0.11), "image_overexposed"),
        (replace(GOOD, dark_share=0.31), "image_dark"),
        (replace(GOOD, mean=100.1), "image_drifted"),
        (replace(GOOD, mean=79.9), "image_drifted"),
    ],
)
def test_a_picture_beyond_a_limit_is_unfit_and_the_limit_is_told(picture, code):
    wrong = unfit(picture, ALL, reference_mean=90.0)
    assert list(wrong) == [code] and "expected m" in wrong[code]


def test_a_picture_at_its_limits_is_fit():
    assert unfit(Measures(100.0, 0.1, 0.3, 100.0), ALL, reference_mean=90.0) == {}


def test_what_has_no_limit_is_not_looked_at():
    assert unfit(Measures(0.0, 0.9, 0.9, 0.0), Limits(), reference_mean=200.0) == {}


def test_a_black_picture_is_black_and_nothing_else():
    assert list(unfit(Measures(0.0, 0.0, 1.0, 0.0), ALL, reference_mean=90.0)) == ["image_black"]


def test_under_dark_field_light_a_good_unit_is_black():
    assert unfit(Measures(0.0, 0.0, 1.0, 0.0), Limits(black=False), reference_mean=None) == {}


class Followed:
    """A camera's pictures, one after the other, and the faults that were said."""

    def __init__(self, limits):
        self.said = []
        self._health = ImageHealth(limits, lambda code, state, detail: self.said.append((code, state)))

    def see(self, *pictures):
        return [self._health.see(picture) for picture in pictures]


BLURRED = replace(GOOD, focus=1.0)


def test_a_fault_begins_after_some_in_a_row_and_ends_after_as_many():
    camera = Followed(Limits(min_focus=100.0, after=3))
    camera.see(BLURRED, BLURRED)
    assert camera.said == []
    camera.see(BLURRED, BLURRED)
    assert camera.said == [("image_blurred", "begin")]
    camera.see(GOOD, GOOD)
    assert len(camera.said) == 1
    camera.see(GOOD, GOOD)
    assert camera.said == [("image_blurred", "begin"), ("image_blurred", "end")]


def test_every_second_picture_is_no_fault_and_ends_none():
    camera = Followed(Limits(min_focus=100.0, after=2))
    camera.see(*[BLURRED, GOOD] * 5)
    assert camera.said == []
    camera.see(BLURRED, BLURRED, *[GOOD, BLURRED] * 5)
    assert camera.said == [("image_blurred", "begin")]


def test_two_things_can_be_wrong_at_once():
    camera = Followed(Limits(min_focus=100.0, max_dark_share=0.3, after=1))
    camera.see(Measures(1.0, 0.0, 0.9, 5.0))
    assert camera.said == [("image_blurred", "begin"), ("image_dark", "begin")]


def test_an_unfit_picture_is_refused_at_once_if_that_is_wanted_and_only_then():
    assert Followed(Limits(min_focus=100.0)).see(BLURRED) == [None]
    refused = Followed(Limits(min_focus=100.0, reject=True)).see(BLURRED, GOOD)
    assert refused == ["focus 1.0, expected min_focus = 100 or more", None]


def test_the_reference_is_learned_from_the_first_fit_pictures():
    camera = Followed(Limits(min_focus=100.0, max_mean_drift=5.0, after=1))
    camera.see(*[replace(BLURRED, mean=250.0)] * 20)  # no reference for anything
    camera.see(*[replace(GOOD, mean=mean) for mean in range(82, 98)])
    camera.said.clear()
    camera.see(replace(GOOD, mean=94.4))
    assert camera.said == []
    camera.see(replace(GOOD, mean=94.6))
    assert camera.said == [("image_drifted", "begin")]


def test_nothing_has_drifted_before_there_is_a_reference():
    camera = Followed(Limits(max_mean_drift=1.0, after=1))
    camera.see(*[replace(GOOD, mean=10.0 * mean) for mean in range(16)])
    assert camera.said == []


def test_a_reference_that_is_given_counts_from_the_first_picture_and_is_never_learned():
    camera = Followed(Limits(max_mean_drift=5.0, reference_mean=60.0, after=1))
    camera.see(*[GOOD] * 40)
    assert camera.said == [("image_drifted", "begin")]
