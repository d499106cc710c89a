"""The page: whole, alone, readable, and true."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from defectd.modelbench import page
from defectd.modelbench.conditions import Conditions
from defectd.modelbench.findings import Findings
from defectd.modelbench.page import render
from defectd.modelbench.page.distributions import shared_scale
from defectd.modelbench.page.svg import SERIES
from support.benched import batch, busy, entry, findings, golden, jetson, refused

Floats = NDArray[np.float64]
CSS = Path(page.__file__).with_name("page.css").read_text(encoding="utf-8")
ALL: dict[str, Findings] = {
    "four runtimes": findings(),
    "one runtime": findings(entry("torchscript", "chosen")),
    "nothing works": findings(refused("torchscript", "torch cannot be imported"), conditions=Conditions()),
    "ran and is wrong": findings(entry("torchscript", "refused", "recall 0.5", golden=golden("recall 0.5"))),
    "no golden pictures, no batches": findings(entry("torchscript", "chosen", golden=None, batches=[])),
    "no batch ran": findings(entry("torchscript", "chosen", batches=[batch(1, 1.0, "no memory")])),
    "one value": findings(entry("torchscript", "chosen", latency_ms=[5.0] * 20, curve_ms=[5.0])),
    "zeros": findings(entry("torchscript", "chosen", latency_ms=[0.0] * 19 + [0.1], curve_ms=[0.0, 0.1])),
    "an outlier": findings(entry("torchscript", "chosen", latency_ms=[5.0 + n / 100 for n in range(199)] + [900.0])),
    "wide": findings(entry("torchscript", typical_ms=90.0), entry("tensorrt", "chosen", "", 25.0, typical_ms=2.0)),
    "measured on a busy machine": findings(conditions=busy()),
    "no clocks": findings(conditions=Conditions()),
}
EYES = {  # Machado, Oliveira, Fernandes 2009: complete colour blindness of each kind, on linear RGB
    "normal": np.eye(3),
    "deutan": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "protan": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "tritan": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}
pytestmark = pytest.mark.filterwarnings("error")


def test_what_makes_a_figure_doubtful_is_said_at_the_top() -> None:
    text = words_of(render(ALL["measured on a busy machine"]))
    assert "some thread had no core for much of the time: torchscript (60%), compiled (60%)" in text
    assert "the hypervisor took a share of the cores: torchscript (10%)" in text
    hot = words_of(render(findings(entry("torchscript", "chosen", began_s=48.0))))
    assert "Throttled while it was measured: torchscript (gpu)." in hot
    assert "while it was measured" not in words_of(render(findings(entry("torchscript", "chosen"))))


def drawings(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def words_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL))


@pytest.mark.parametrize("name", ALL)
def test_whatever_was_found_is_a_whole_page(name: str) -> None:
    html = render(ALL[name])
    assert (
        html.endswith("</html>\n") and "nan" not in html.lower().replace("nanjing", "") and "None" not in words_of(html)
    )
    for drawing in drawings(html):
        for node in drawing.iter():
            numbers = [node.get(key) for key in ("x", "y", "x1", "x2", "y1", "y2", "width", "height")]
            assert all(float(number) >= 0 for number in numbers if number is not None), ElementTree.tostring(node)


def test_the_page_fetches_nothing_and_runs_nothing() -> None:
    loads: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            loads.extend(key for key, _ in attrs if key in ("src", "href", "data", "srcset", "action"))
            loads.extend([tag] * (tag in ("script", "link", "iframe", "object", "img", "image")))

    html = render(findings())
    Reader().feed(html)
    assert loads == [] and "url(" not in html and "@import" not in html and "http" not in html


def test_what_a_model_calls_itself_is_text_and_never_markup() -> None:
    hostile = '<script>alert("1")</script>&'
    html = render(findings(entry(hostile, "slower", hostile, notes=[hostile]), refused(hostile, hostile)))
    assert "<script" not in html and drawings(html)


def test_every_runtime_says_what_became_of_it() -> None:
    text = words_of(render(findings()))
    for words in (
        "chosen",
        "slower",
        "refused",
        "recall 0.9184, at least 0.98",
        "torch_tensorrt is not installed",
        "98/98 boxes",
    ):
        assert words in text


def test_axes_have_titles_with_units() -> None:
    text = words_of(render(findings()))
    for title in (
        "whole inference, pixels to boxes, ms", "ms per call (logarithmic)", "call number", "units per second",
        "batch, units per call", "seconds since the bench began", "MHz", "°C",
    ):  # fmt: skip
        assert title in text


def test_the_machine_is_part_of_the_result() -> None:
    text = words_of(render(findings()))
    assert "Throttled: gpu." in text and "3 over-current events." in text and "GPU 612 to 1,300 MHz" in text
    cool = [sample for sample in jetson().samples if not sample.throttled]
    calm = findings(conditions=Conditions(jetson().limits, tuple(cool)))
    assert "No throttling: 8 alerts were never on." in words_of(render(calm))
    assert "Too short to look at the machine." in words_of(render(findings(conditions=Conditions())))


def test_an_outlier_is_told_and_does_not_squeeze_the_rest() -> None:
    assert "1 beyond, longest 900 →" in words_of(render(ALL["an outlier"]))
    scale = shared_scale([[5.0 + n / 100 for n in range(199)] + [900.0]], 0, 1000)
    assert scale.high < 10 and not scale.logarithmic


def test_runtimes_that_differ_widely_share_a_logarithmic_axis() -> None:
    assert shared_scale([[2.0] * 20, [90.0] * 20], 0, 1000).logarithmic
    assert "ms (logarithmic)" in words_of(render(ALL["wide"]))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_stand_out_from_the_paper(theme: str) -> None:
    """WCAG 2.1: 4.5 for text, 3 for graphics."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[theme == "dark"]))
    paper = luminance(colours["paper"])
    needed = {"ink": 7.0, "soft": 4.5, **{f"s{number}": 3.0 for number in range(SERIES)}}
    for name, least in needed.items():
        assert contrast(luminance(colours[name]), paper) >= least, name
    for name in ("good", "bad"):
        assert contrast(luminance(colours[name]), luminance(colours[f"{name}-paper"])) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("eyes", EYES)
def test_everybody_can_tell_the_colours_apart(theme: str, eyes: str) -> None:
    """CIE 1976 differences; 2.3 is just noticeable. Markers and dashes differ, too."""
    block = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[theme == "dark"]
    seen = [EYES[eyes] @ linear(colour) for colour in re.findall(r"--s\d: (#[0-9a-f]{6})", block)]
    assert len(seen) == SERIES
    for one, other in itertools.combinations(map(lab, seen), 2):
        assert np.linalg.norm(one - other) > 12


def linear(colour: str) -> Floats:
    channels = np.array([int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: Floats) -> Floats:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ np.clip(rgb, 0.01, 1) / np.array([0.9505, 1, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def luminance(colour: str) -> float:
    return float(linear(colour) @ np.array([0.2126, 0.7152, 0.0722]))


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)
