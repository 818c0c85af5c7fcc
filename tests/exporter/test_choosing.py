"""Which precision ``auto`` takes: the fastest that was shown to be faster, else the most exact."""

from __future__ import annotations

import types
from typing import Any, cast

import pytest

from exporter.choosing import _nearest, fastest
from exporter.latency.result import Profile
from exporter.latency.stats import Conclusion

FASTER, SLOWER, UNDECIDED = Conclusion.FASTER, Conclusion.SLOWER, Conclusion.UNDECIDED


def profile(ratios: dict[tuple[str, str], Conclusion]) -> Profile:
    found = [types.SimpleNamespace(of=of, to=to, conclusion=conclusion) for (of, to), conclusion in ratios.items()]
    return cast("Profile", types.SimpleNamespace(ratios=found))


CASES: dict[str, tuple[dict[tuple[str, str], Conclusion], str]] = {
    "the fastest of all": (
        {("it/bf16", "it"): FASTER, ("it/int8", "it"): FASTER, ("it/int8", "it/bf16"): FASTER}, "int8"),
    "the more exact of two that are as fast": (
        {("it/bf16", "it"): FASTER, ("it/int8", "it"): FASTER, ("it/int8", "it/bf16"): UNDECIDED}, "bf16"),
    "float32 where nothing was shown": (
        {("it/bf16", "it"): UNDECIDED, ("it/int8", "it"): SLOWER, ("it/int8", "it/bf16"): SLOWER}, "fp32"),
    "whichever way a ratio is told": (
        {("it", "it/bf16"): SLOWER, ("it", "it/int8"): FASTER, ("it/bf16", "it/int8"): FASTER}, "bf16"),
    "past one that is no faster": (
        {("it/bf16", "it"): SLOWER, ("it/int8", "it"): FASTER, ("it/int8", "it/bf16"): FASTER}, "int8"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_another_is_taken_only_where_it_was_shown_to_be_faster(name: str) -> None:
    ratios, expected = CASES[name]
    assert fastest("it", ["fp32", "bf16", "int8"], profile(ratios)) == expected


def test_where_the_most_exact_could_not_be_timed_nothing_was_shown_to_be_faster() -> None:
    ratios = {("it/int8", "it/bf16"): FASTER}
    assert fastest("it", ["fp32", "bf16", "int8"], profile(ratios)) == "fp32"


@pytest.mark.parametrize(
    ("spent", "nearest"),
    [
        ({"fp32": 120.0, "bf16": 40.0, "int8": 18.0}, "fp32"),
        ({"fp32": None, "bf16": 40.0, "int8": -0.0}, "bf16"),
        ({"fp32": -3.0, "bf16": None, "int8": 0.0}, "int8"),
    ],
)
def test_what_is_no_number_or_nothing_at_all_does_not_come_nearest(
    spent: dict[str, float | None], nearest: str
) -> None:
    tried = {
        precision: cast(
            "Any", types.SimpleNamespace(hop=types.SimpleNamespace(facts={"spent": {"decibels": decibels}}))
        )
        for precision, decibels in spent.items()
    }
    assert _nearest(tried) == nearest


def test_one_alone_needs_no_ratio() -> None:
    assert fastest("it", ["int8"], profile(cast("Any", {}))) == "int8"
