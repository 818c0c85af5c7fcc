"""Dims and what ``--dim`` may do with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter import registry
from exporter.errors import Refused
from exporter.spec import Dim, model_name

H = Dim("H", 64, 256, 1024, 8)


def refused(call: object, *words: str) -> None:
    with pytest.raises(Refused) as caught:
        call()  # type: ignore[operator]
    error = caught.value
    assert error.code == "bad-dim" and error.what and error.why and error.next
    assert all(word in f"{error.what} {error.where} {error.why} {error.next}" for word in words), error.as_json()


@pytest.mark.parametrize(
    "numbers", [(0, 1, 2), (2, 1, 3), (1, 3, 2), (1, 2, 3, 0), (1, 2, 4, 2), (2, 4, 7, 2), (-1, 1, 1)]
)
def test_contradictions(numbers: tuple[int, ...]) -> None:
    refused(lambda: Dim("X", *numbers), "X", "MIN:OPT:MAX")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("256", (256, 256, 256, 8)), ("64:128:512", (64, 128, 512, 8)), ("64:128:512:64", (64, 128, 512, 64))],
)
def test_narrowing(text: str, wanted: tuple[int, ...]) -> None:
    found = H.narrowed(text)
    assert (found.min, found.opt, found.max, found.step) == wanted
    assert H.narrowed(str(H)) == H


@pytest.mark.parametrize(
    "text",
    ["", "x", "1.5", "1:2", "1:2:3:4:5", "65", "32:256:512", "64:256:2048",
     "64:257:512", "64:128:512:4", "512:128:64", "-8", "64:256:512:12"],
)  # fmt: skip
def test_what_leaves_the_range_or_the_steps_is_refused(text: str) -> None:
    refused(lambda: H.narrowed(text), "H", "--dim H=")


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200), st.integers(1, 20))
def test_a_narrowed_dim_allows_nothing_new(low: int, opt: int, high: int, step: int) -> None:
    whole = Dim("X", 10, 40, 160, 5)
    try:
        found = whole.narrowed(f"{low}:{opt}:{high}:{step}")
    except Refused:
        return
    assert all(whole.allows(size) for size in range(found.min, found.max + 1) if found.allows(size))


def test_dims_of_a_model() -> None:
    definition = registry.model("gtcrn")
    assert definition.with_dims(["T=2:63:200"]).dims == (Dim("T", 2, 63, 200),)
    assert definition.with_dims([]) == definition
    assert definition.with_dims(["T=63"]).dims[0].fixed
    refused(lambda: definition.with_dims(["t=63"]), "T (2:63:4000)", "exporter models gtcrn")
    refused(lambda: definition.with_dims(["T=63", "T=64"]), "twice")
    refused(lambda: definition.with_dims(["T"]), "names no dim")
    refused(lambda: registry.model("gtcrn-stream").with_dims(["T=63"]), "every size is fixed")


def test_names() -> None:
    assert model_name("gtcrn_stream") == "gtcrn-stream"
