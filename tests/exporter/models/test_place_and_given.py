"""What MODEL, ``--input`` and ``--dim`` say: text to values."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.errors import Refused
from exporter.models.given import given_dims, given_inputs, indexing, refuse_unsaid, unsaid
from exporter.models.place import Place, placed
from exporter.spec import Dim

HERE = Path(__file__).parent
NETS = str(HERE / "nets.py")


@pytest.mark.parametrize(
    ("text", "place", "label"),
    [
        ("gtcrn", Place("registered", "gtcrn"), "gtcrn"),
        (f"{NETS}:net", Place("file", NETS, "net"), "net"),
        ("a.b_c:make_it", Place("package", "a.b_c", "make_it"), "make-it"),
        ("timm:resnet18.a1_in1k", Place("collection", "timm", "resnet18.a1_in1k"), "resnet18.a1-in1k"),
    ],
)
def test_what_model_says(text: str, place: Place, label: str) -> None:
    assert placed(text) == place and place.label == label
    assert placed(place.text) == place, "a child is told the same"


def test_a_program_is_a_file_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a net.pt2").touch()
    monkeypatch.chdir(tmp_path)
    place = placed("a net.pt2")
    assert (place.kind, place.label, place.shown) == ("program", "a-net", "a net.pt2")
    assert place.text == str(tmp_path / "a net.pt2"), "a child may stand elsewhere"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("nope.py:make", "missing-file"),
        ("nope.pt2", "missing-file"),
        *(
            (text, "unknown-model")
            for text in ("nets.py:", "nets.py", "timm:", ":x", "a b:c", "a:b:c", "a.b:c-d", "http://x/y")
        ),
    ],
)
def test_what_is_no_model(text: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        placed(text)
    assert caught.value.code == code and caught.value.next


def test_inputs_and_their_dims() -> None:
    inputs = given_inputs(["x=1x3xHxW", "y=N,4,H/2:f16", "ids=NxT:i64:0:99", "mask=T:bool", "z=:f64:-2:3"])
    assert [t.shape for t in inputs] == [(1, 3, "H", "W"), ("N", 4, "H/2"), ("N", "T"), ("T",), ()]
    assert [t.dtype for t in inputs] == ["float32", "float16", "int64", "bool", "float64"]
    assert [(t.low, t.high) for t in inputs] == [(-1, 1), (-1, 1), (0, 99), (0, 1), (-2, 3)]
    dims = given_dims(["H=8:16:32:8", "W=8", "N=1:2:4", "T=2:9:40"], inputs)
    assert dims == (Dim("H", 8, 16, 32, 8), Dim("W", 8, 8, 8), Dim("N", 1, 2, 4), Dim("T", 2, 9, 40))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "is not NAME=SHAPE"), ("x=1x3:f99", "f99 is no type"),
        ("x=1x0x3", "a size is 0"), ("ids=4:i64:5:5", "no range"), ("ids=4:i64:0.5:5", "no range"),
        ("x=4:f32:a:b", "is not NAME"),
        ("x=1x3x h!", "neither a dim"), ("x=4:f32:1e:2", "no range"),
    ],
)  # fmt: skip
def test_inputs_that_say_nothing(text: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        given_inputs([text])


def test_whole_numbers_have_their_range_from_somewhere() -> None:
    (ids,) = given_inputs(["ids=1x4:i64"])
    assert unsaid(ids) and not unsaid(indexing(ids, 9)) and indexing(ids, 9).high == 8
    with pytest.raises(Refused, match="which whole numbers"):
        refuse_unsaid((ids,))
    assert unsaid(indexing(ids, 1)), "a table of one entry gives one number, and a range has two"


def test_an_input_twice_and_dims_apart_from_shapes() -> None:
    with pytest.raises(Refused, match="given twice"):
        given_inputs(["x=1", "x=2"])
    inputs = given_inputs(["x=1xH"])
    wrong = (([], "H has no range"), (["H=1:2:3", "W=1:2:3"], "names no axis"), (["H=a"], "neither a size"))
    for texts, words in wrong:
        with pytest.raises(Refused, match=words):
            given_dims(texts, inputs)
