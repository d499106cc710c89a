"""What a person at a terminal reads."""

from __future__ import annotations

import io
import json

import pytest

from defectd.modelbench.report import as_json
from defectd.modelbench.summary import headline
from defectd.modelbench.terminal import Lines, show, sparkline
from support.benched import entry, findings, golden, refused


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_headline_says_who_serves_and_how_fast() -> None:
    words = headline(findings())
    assert words.startswith("tensorrt-fp16 has the lowest p99 of those that answer right: 4.19 ms, p50 3.50 ms")
    assert "2.37× as fast as torchscript" in words


def test_the_headline_says_if_nothing_works_or_nothing_may() -> None:
    assert headline(findings(refused("torchscript", "no torch"))) == "No runtime works on this machine."
    wrong = entry("torchscript", "refused", "recall 0.5", golden=golden("recall 0.5"))
    assert headline(findings(wrong)) == "No runtime may serve: 1 ran, and none gave the right answers."


def test_without_a_terminal_there_are_aligned_lines_and_every_reason() -> None:
    stream = io.StringIO()
    show(findings(), stream)
    text = stream.getvalue()
    assert "\x1b" not in text
    header, first = (
        next(line for line in text.splitlines() if line.startswith(name)) for name in ("runtime", "torchscr")
    )
    assert header.index("p99 ms") + len("p99 ms") == first.index("9.46") + len("9.46")
    for words in ("recall 0.9184, at least 0.98 is required", "torch_tensorrt is not installed", "Throttled: gpu."):
        assert words in text


def test_on_a_terminal_there_is_a_table_and_a_small_picture() -> None:
    pytest.importorskip("rich")
    stream = Terminal()
    show(findings(), stream)
    assert "█" in stream.getvalue() and "refused" in stream.getvalue()


def test_a_sparkline_shows_where_calls_lie_and_the_rarest_is_still_seen() -> None:
    assert sparkline([1.0] * 99 + [2.9], 1.0, 3.0, cells=4) == "█  ▁"
    assert sparkline([1.0], 1.0, 1.0) == ""


def test_progress_has_a_line_for_each_stage_with_the_time_left() -> None:
    said: list[str] = []
    lines = Lines(["torchscript", "compiled"], said.append)
    lines.begins("torchscript", 0.0)
    lines.hears("loading", 0.0, 0.1)
    lines.hears("measuring", 0.0, 8.0)
    lines.hears("measuring", 0.5, 9.0)
    lines.ends(None, 30.0)
    lines.begins("compiled", 30.0)
    lines.ends("no compiler", 31.0)
    assert said[0].startswith("torchscript (1 of 2): loading; about") and said[0].endswith("left in all")
    assert len([line for line in said if "measuring" in line]) == 1
    assert said[-1] == "compiled: no result: no compiler"


def test_the_json_has_every_sample_and_the_figures() -> None:
    body = json.loads(as_json(findings()))
    assert body["schema"] == "defectd.modelbench/1.0" and body["chosen"] == "tensorrt-fp16"
    by_name = {one["name"]: one for one in body["entries"]}
    assert len(by_name["torchscript"]["measured"]["latency_ms"]) == 200
    assert by_name["tensorrt-fp16"]["figures"]["speedup"] == pytest.approx(2.37, abs=0.01)
    assert by_name["torchscript"]["measured"]["batches"][0]["units_per_s"] > 0
    assert by_name["torch-tensorrt"]["failed"] == {
        "detail": "torch_tensorrt is not installed; install the wheel that fits torch 2.8"
    }
    assert body["conditions"]["samples"][0]["gpu_mhz"] == 1300.5
