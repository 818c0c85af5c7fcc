"""What a device says is bounded, cleaned and of one form, whatever it says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.devices import received
from exporter.errors import ExporterError, Refused, StageFailed

HOP = {"hop": "compiled", "target": "t", "verdict": "PASS", "reason": None, "facts": {}}
GOOD = {"schema": "exporter.verify/1", "model": "m", "weights": "w", "verdict": "PASS", "hops": [HOP], "results": []}


def test_an_answer_of_the_right_form_is_taken() -> None:
    assert received.checked(GOOD, received.VERIFY) is GOOD


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "FINE"}, "answer.verdict is 'FINE'"),
        ({"verdict": None}, "answer.verdict is 'None'"),
        ({"model": 3}, "answer.model is '3'"),
        ({"schema": "exporter.profile/1"}, "answer.schema"),
        ({"hops": {}}, "answer.hops is no list"),
        ({"hops": [HOP, {**HOP, "facts": []}]}, "answer.hops[1].facts"),
        ({"hops": [3]}, "answer.hops[0] is no object"),
        ({"results": [{}]}, "answer.results[0] has no 'hop'"),
    ],
)
def test_another_form_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(StageFailed) as refused:
        received.checked({**GOOD, **change}, received.VERIFY)
    assert refused.value.code == "bad-answer" and said in refused.value.what


def test_a_truth_value_is_no_number() -> None:
    with pytest.raises(StageFailed):
        received.checked(True, int)
    with pytest.raises(StageFailed):
        received.checked(1, bool)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff", b"[" * 40 + b"]" * 40, b'{"a": 1, "a": 2}', b"NaN", b"1e999", b'{"a": 1} x', b"9" * 30],
)
def test_bytes_that_are_no_json_of_ours(data: bytes) -> None:
    with pytest.raises(StageFailed, match="bad-answer"):
        received.json_of(data)


def test_more_than_is_ever_read() -> None:
    with pytest.raises(StageFailed, match="at most"):
        received.json_of(b" " * (received.MOST_BYTES + 1))


def test_text_drives_no_terminal() -> None:
    value = received.json_of(json.dumps({"\x1b[2J": ["a\x1b]0;x\x07b", "\u202eevil"]}).encode())
    text = json.dumps(value, ensure_ascii=False)
    assert "\x1b" not in text and "\u202e" not in text and "\x07" not in text
    assert received.said("a\x1b[2J\nb  c") == "a\\u001b[2J b c"
    assert len(received.said("x" * 10_000)) == received.MOST_PART
    assert received.last_lines(b"@@@@@\n\n1\x1b\n2\n") == "1\\u001b | 2"


def test_an_error_is_told_as_it_was_and_where() -> None:
    parts = {"code": "bad-sample", "what": "w", "where": "here", "why": "y", "next": "n", "error": "Refused"}
    error = received.error_of(parts, "pi@board")
    assert isinstance(error, Refused) and error.code == "bad-sample" and error.where == "here, on pi@board"
    for wrong in ({"code": "no-such"}, {"error": "KeyboardInterrupt"}, {"code": None}):
        with pytest.raises(StageFailed, match="bad-answer"):
            raise received.error_of({**parts, **wrong}, "pi@board")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_value_is_taken_or_refused_in_four_parts(value: object) -> None:
    for shape in (received.VERIFY, received.PROFILE, received.EXPORT, received.RUN, received.DOCTOR):
        try:
            received.checked(value, shape)
        except ExporterError as error:
            assert all((error.what, error.where, error.why, error.next))


def test_parts_that_may_be_missing_and_parts_of_any_name() -> None:
    shape = {"a?": int, "b": {"*": int}, "c": [received.Row(int, str)], "d": received.Row(int)}
    good = {"b": {"x": 1, "y": 2}, "c": [[1, "z"]], "d": None}
    received.checked(good, shape)
    received.checked({**good, "a": 1}, shape)
    for wrong in ({"a": "1"}, {"b": {"x": "1"}}, {"c": [[1]]}, {"c": [None, 1]}, {"d": [1, 2]}):
        with pytest.raises(StageFailed):
            received.checked({**good, **wrong}, shape)
