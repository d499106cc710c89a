from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectd.download.errors import DownloadError, MayPass, WrongBytes
from defectd.download.fetching import steps
from defectd.download.sources import open_source
from defectd.download.web_source import Answer, judge
from defectd.rollout_settings import RolloutSource

WHERE = "https://depot.example/models/pcb-7/model.onnx"


def test_a_whole_file_begins_at_its_beginning_whatever_was_asked_for():
    assert judge(200, {"Content-Length": "512", "ETag": '"a1"'}, 100, WHERE) == Answer(0, 512, '"a1"')


def test_a_part_begins_where_it_was_asked_for():
    headers = {"Content-Range": "bytes 100-511/512", "Content-Length": "412"}
    assert judge(206, headers, 100, WHERE) == Answer(100, 512, None)
    assert judge(206, {"Content-Range": "bytes 100-511/*"}, 100, WHERE) == Answer(100, None, None)


@pytest.mark.parametrize("etag", ["", 'W/"a1"', "a1", '"a\n1"', '"' + "a" * 300 + '"', '"a"b"'])
def test_only_a_strong_etag_says_that_contents_are_the_same(etag):
    assert judge(200, {"ETag": etag}, 0, WHERE).etag is None


@pytest.mark.parametrize("length", ["", "-1", "1e3", "１２", "9" * 5000])
def test_a_length_that_is_none_is_unknown(length):
    assert judge(200, {"Content-Length": length}, 0, WHERE).total is None


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_may_pass_is_not_the_end(status):
    with pytest.raises(MayPass, match=f"answers {status}"):
        judge(status, {}, 0, WHERE)


@pytest.mark.parametrize(
    ("status", "code"),
    [(301, "redirect"), (302, "redirect"), (307, "redirect"), (308, "redirect"), (304, "redirect"),
     (404, "not_found"), (410, "not_found"), (400, "refused"), (401, "refused"), (403, "refused"), (416, "refused"),
     (204, "refused")],
)  # fmt: skip
def test_the_rest_is_the_end_and_names_the_file(status, code):
    with pytest.raises(DownloadError) as caught:
        judge(status, {}, 0, WHERE)
    assert caught.value.code == code
    assert WHERE in str(caught.value)
    assert str(status) in str(caught.value)


def test_a_file_that_ends_before_what_is_here_is_another_one():
    with pytest.raises(WrongBytes):
        judge(416, {}, 100, WHERE)


@pytest.mark.parametrize(
    ("asked", "span"), [(100, "bytes 0-511/512"), (100, ""), (100, "bytes */512"), (0, "bytes 5-511/512")]
)
def test_another_part_than_asked_for_is_refused(asked, span):
    with pytest.raises(DownloadError) as caught:
        judge(206, {"Content-Range": span}, asked, WHERE)
    assert caught.value.code == "wrong_bytes"


@given(
    st.integers(0, 999),
    st.dictionaries(
        st.sampled_from(["ETag", "Content-Length", "Content-Range", "Content-Encoding", "Location"]), st.text()
    ),
    st.integers(0, 2**40),
)
def test_no_answer_is_too_strange_to_be_judged(status, headers, asked):
    try:
        answer = judge(status, headers, asked, WHERE)
    except (DownloadError, MayPass, WrongBytes) as error:
        assert "\x1b" not in str(error)
    else:
        assert answer.offset in (0, asked)


def test_a_path_is_walked_name_by_name():
    assert steps("models/pcb-7", "model.onnx") == ("models", "pcb-7", "model.onnx")
    assert steps("./models//pcb-7/", "model.onnx") == ("models", "pcb-7", "model.onnx")
    assert steps(".", "model.onnx") == ("model.onnx",)


@pytest.mark.parametrize(
    ("path", "name"),
    [("..", "a"), ("a/../b", "a"), ("/etc", "a"), ("a", "../a"), ("a", ".."), ("a", "b/c"), ("a b", "c"), ("a%2e", "c"),
     ("a?b", "c"), ("a", ""), ("a\0", "c"), ("a\n", "c"), ("x" * 300, "c"), ("é", "c"), ("a\\b", "c")],
)  # fmt: skip
def test_no_path_leads_elsewhere(path, name):
    with pytest.raises(DownloadError) as caught:
        steps(path, name)
    assert caught.value.code == "not_found"


def test_a_source_is_not_touched_before_it_is_used(tmp_path: Path):
    open_source(RolloutSource(alias="stick", directory=tmp_path / "nowhere"))
    open_source(RolloutSource(alias="depot", url="https://depot.example/x", ca=tmp_path / "nowhere.crt"))
