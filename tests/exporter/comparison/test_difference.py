"""What differs, and what of it is a regression: on values alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.comparison.difference import (
    NOTHING,
    Bounds,
    Change,
    Comparison,
    Timed,
    compared,
    hop_difference,
    judged,
    result_difference,
    stored,
)
from exporter.comparison.side import Machine, Side, Timing
from exporter.latency.stats import Conclusion, Estimate
from exporter.verdict import Hop, Precision, Result, Verdict

KEY = ("compiled", "fake", "fp32")
HERE = Machine("a", 2)


def result(error: float | None = 1e-7, verdict: Verdict = Verdict.PASS, case: str = "normal") -> Result:
    return Result("compiled", "fake", None, case, "y", verdict, None, error, 1e-7, 1.0, 1e-7, 8)


def hop(*results: Result, verdict: Verdict = Verdict.PASS) -> Hop:
    return Hop("compiled", "fake", verdict, None, Precision("fp32", "fp32", "fp32"), results)


def side(*hops: Hop, **more: Any) -> Side:
    return Side("it", "tiny", "seeded", hops=dict.fromkeys([KEY], hops[0]) if hops else {}, **more)


def timing(median: float | None = 2.0, width: float = 0.01, **changes: Any) -> Timing:
    estimate = None if median is None else Estimate(median, median * (1 - width), median * (1 + width))
    return replace(Timing(Verdict.PASS, "", estimate, 2, 1.01, "STABLE", HERE, "profile"), **changes)


def over(a: Side, b: Side, *timings: Timed, **bounds: Any) -> Comparison:
    return compared(a, b, Bounds(**bounds), timings)


@pytest.mark.parametrize(
    ("a", "b", "change"),
    [
        (1e-7, 1e-7, Change.SAME),
        (1e-9, 1.9e-7, Change.SAME),  # below twice eager's own rounding: all the same
        (1e-9, 2.1e-7, Change.WORSE),
        (1e-6, 1.9e-6, Change.SAME),
        (1e-6, 2.1e-6, Change.WORSE),
        (2.1e-6, 1e-6, Change.BETTER),
        (1e-6, 0.0, Change.BETTER),
        (None, 1e-6, Change.SAME),
    ],
)
def test_an_error_counts_from_a_factor_over_what_it_was_or_over_roundings_own(
    a: float | None, b: float | None, change: Change
) -> None:
    assert result_difference(result(a), result(b), 2.0).change is change


@pytest.mark.parametrize(
    ("a", "b", "change"),
    [
        (Verdict.PASS, Verdict.FAIL, Change.WORSE),
        (Verdict.PASS, Verdict.SKIPPED, Change.WORSE),
        (Verdict.FAIL, Verdict.CRASHED, Change.WORSE),
        (Verdict.FAIL, Verdict.PASS, Change.BETTER),
        (Verdict.FAIL, Verdict.SKIPPED, Change.SAME),  # what nobody looked at is no success
        (Verdict.PASS, Verdict.PASS, Change.SAME),
    ],
)
def test_a_verdict_is_better_only_where_it_is_pass(a: Verdict, b: Verdict, change: Change) -> None:
    assert result_difference(result(verdict=a), result(verdict=b), 2.0).change is change
    assert hop_difference(KEY, hop(verdict=a), hop(verdict=b), 2.0).change is change


def test_one_worse_or_vanished_result_makes_its_hop_worse() -> None:
    a = hop(result(1e-6), result(1e-6, case="wide"))
    assert hop_difference(KEY, a, hop(result(1e-6), result(5e-6, case="wide")), 2.0).change is Change.WORSE
    vanished = hop_difference(KEY, a, hop(result(1e-6)), 2.0)
    assert vanished.change is Change.WORSE and "1 of 2 results are gone" in vanished.reason
    mixed = hop(result(1e-8), result(5e-6, case="wide"))
    assert hop_difference(KEY, a, mixed, 2.0).change is Change.WORSE, "better elsewhere does not make up for it"


def test_a_verdict_alone_is_compared_with_a_verdict() -> None:
    assert hop_difference(KEY, hop(result()), hop(), 2.0).change is Change.SAME
    assert hop_difference(KEY, hop(result()), None, 2.0).change is Change.GONE
    assert hop_difference(KEY, None, hop(result()), 2.0).change is Change.NEW


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.CRASHED, Verdict.INVALID, Verdict.UNSUPPORTED])
def test_what_is_new_and_wrong_is_a_regression(verdict: Verdict) -> None:
    found = compared(replace(side(hop(result())), hops={}), side(hop(result())), Bounds(), ())
    assert found.regressions == (), "nothing of A to compare with"
    a, b = side(hop(result())), side(hop(result()))
    new = replace(b, hops={**b.hops, ("compiled", "other", "fp32"): hop(verdict=verdict)})
    found = compared(a, new, Bounds(), ())
    assert found.exit_code == 1 and f"other/fp32 is new in B, and {verdict}" in found.regressions[0]
    assert compared(a, replace(b, hops={**b.hops, ("compiled", "other", "fp32"): hop()}), Bounds(), ()).exit_code == 0


def test_one_latency_that_was_compared_does_not_stand_for_another() -> None:
    both = {"artifacts": frozenset({"fake", "other"})}
    a, b = side(hop(result()), **both), side(hop(result()))
    timed = stored("fake", timing(), timing(), Bounds())
    for absent in (stored("other", timing(), None, Bounds()), stored("other", timing(), timing(None), Bounds()),
                   stored("other", timing(), timing(threads=8), Bounds())):  # fmt: skip
        found = over(a, b, timed, absent, asked_slowdown=True)
        assert found.exit_code == 3 and found.verdict == NOTHING and not found.missing
        assert len(found.lacking["latency"]) == 1 and "other" in found.lacking["latency"][0]
        assert over(a, b, timed, absent).exit_code == 0, "nobody asked"
    assert over(a, b, timed, asked_slowdown=True).exit_code == 3, "nor one that nobody looked at"
    assert over(side(hop(result()), artifacts=frozenset({"fake"})), b, timed, asked_slowdown=True).exit_code == 0


def test_an_error_that_is_absent_in_b_is_no_answer_where_it_was_asked_for() -> None:
    a = side(hop(result(), result(case="wide")))
    for b in (side(hop()), side(hop(result(None), result(case="wide")))):
        found = over(a, b, asked_error=True)
        assert found.exit_code == 3 and "of 2 results of A" in found.lacking["parity"][0], found
        assert "latency" not in found.lacking
    assert over(a, a, asked_error=True).exit_code == 0


def test_no_difference_is_an_answer() -> None:
    timed = stored("fake", timing(), timing(), Bounds())
    found = over(side(hop(result())), side(hop(result())), timed)
    assert (found.verdict, found.exit_code, found.regressions, found.missing) == (NOTHING, 0, (), {})


def test_parity_that_got_worse_is_1_and_says_so_first() -> None:
    timed = stored("fake", timing(), timing(3.0), Bounds())
    found = over(side(hop(result())), side(hop(result(verdict=Verdict.FAIL), verdict=Verdict.FAIL)), timed)
    assert found.verdict == "worse parity, slower" and found.exit_code == 1 and len(found.regressions) == 2
    gone = over(side(hop(result())), replace(side(), hops={("traced", "", ""): hop(result())}), timed)
    assert "compiled fake/fp32 was judged in A and is not in B" in gone.regressions


@pytest.mark.parametrize(
    ("median", "allowed", "conclusion", "code"),
    [
        (2.3, 0.05, Conclusion.SLOWER, 1),
        (2.3, 0.20, Conclusion.SLOWER, 0),  # shown, and allowed
        (2.03, 0.0, Conclusion.UNDECIDED, 0),  # its interval reaches the floor
        (1.5, 0.05, Conclusion.FASTER, 0),
    ],
)
def test_a_slow_down_counts_where_it_is_shown_and_larger_than_allowed(
    median: float, allowed: float, conclusion: Conclusion, code: int
) -> None:
    timed = stored("fake", timing(), timing(median), Bounds(slowdown=allowed))
    assert timed.conclusion is conclusion
    found = over(side(hop(result())), side(hop(result())), timed, slowdown=allowed)
    assert found.exit_code == code and bool(found.regressions) == bool(code)


def test_strict_asks_for_an_interval_on_one_side_of_the_bound() -> None:
    parity = side(hop(result()))
    wide, narrow = (stored("fake", timing(width=w), timing(width=w), Bounds()) for w in (0.05, 0.01))
    assert [timed.facts["settled"] for timed in (wide, narrow)] == [False, True]
    assert [over(parity, parity, timed, strict=True).exit_code for timed in (wide, narrow)] == [1, 0]
    assert over(parity, parity, wide).exit_code == 0, "no difference shown is an answer"


def test_without_a_noise_floor_nothing_is_claimed() -> None:
    without = stored("fake", timing(), timing(9.0, floor=None), Bounds())
    assert without.ratio is None and "no noise floor in B" in without.reason
    parity = side(hop(result()))
    assert over(parity, parity, without, asked_slowdown=True).exit_code == 3, "what was asked is missing"
    noisy = stored("fake", timing(), timing(2.6, floor=1.4), Bounds())
    assert noisy.conclusion is Conclusion.UNDECIDED, "the larger floor of both counts"


def test_other_threads_are_another_measurement() -> None:
    timed = stored("fake", timing(), timing(9.0, threads=1), Bounds())
    assert timed.ratio is None and "2 threads in A and 1 in B" in timed.reason


def test_what_is_missing_is_shown_and_is_3_where_it_was_asked_for() -> None:
    parity = side(hop(result()))
    found = over(parity, parity)
    assert found.exit_code == 0 and "neither side was ever profiled" in found.missing["latency"]
    assert over(parity, parity, asked_slowdown=True).exit_code == 3
    never = over(parity, side(), stored("fake", timing(), timing(), Bounds()), asked_error=True)
    assert never.exit_code == 3 and never.missing["parity"] == "B was never verified"
    nothing = over(side(), side())
    assert (nothing.verdict, nothing.exit_code) == ("not compared", 3)


def test_an_artifact_that_can_no_longer_be_timed_is_a_regression() -> None:
    for verdict, code in ((Verdict.CRASHED, 4), (Verdict.INVALID, 1)):
        timed = stored("fake", timing(), timing(None, verdict=verdict, reason="boom"), Bounds())
        found = over(side(hop(result())), side(hop(result())), timed)
        assert found.exit_code == code and "boom" in found.regressions[0] and found.verdict == "cannot be timed"
    before = stored("fake", timing(None, verdict=Verdict.CRASHED), timing(), Bounds())
    assert over(side(hop(result())), side(hop(result())), before).exit_code == 0, "it is no worse than it was"


@given(st.floats(0.5, 2.0), st.floats(0.0, 0.2), st.floats(1.0, 1.3), st.floats(0.0, 0.5))
def test_a_regression_is_always_a_shown_slow_down(ratio: float, width: float, floor: float, allowed: float) -> None:
    estimate = Estimate(ratio, ratio * (1 - width), ratio * (1 + width))
    timed = judged(Timed("it", "live", ratio=estimate), floor, Bounds(slowdown=allowed))
    if timed.regression:
        assert timed.conclusion is Conclusion.SLOWER and estimate.low > floor and ratio > 1 + allowed


def test_the_json_has_both_sides_of_everything() -> None:
    a = side(hop(result()), sizes={"fake": 10}, versions={"numpy": "1"}, facts={"weights": "x"})
    b = side(hop(result()), sizes={"fake": 11}, layers={"fake": {"fp32": 3}}, facts={"weights": "y"})
    value = over(a, b, stored("fake", timing(), timing(3.0), Bounds())).as_json()
    assert value["sizes"] == {"fake": [10, 11]} and value["layers"] == {"fake": [None, {"fp32": 3}]}
    assert value["versions"] == {"numpy": ["1", None]} and value["facts"] == {"weights": ["x", "y"]}
    assert value["latency"][0]["ratio"]["value"] == 1.5 and value["latency"][0]["conclusion"] == "slower"
    assert value["parity"][0]["results"][0]["a"]["relative_l2"] == 1e-7


def test_a_figure_with_wrong_answers_is_none() -> None:
    wrong = timing(9.0, verdict=Verdict.INVALID, reason="wrong outputs")
    timed = stored("fake", timing(), wrong, Bounds())
    assert timed.ratio is None and timed.verdict is Verdict.INVALID
    parity = side(hop(result()))
    assert over(parity, parity, timed).exit_code == 1


def test_the_json_says_how_it_ends() -> None:
    parity = side(hop(result()))
    wide = stored("fake", timing(width=0.05), timing(width=0.05), Bounds())
    assert over(parity, parity, wide, strict=True).as_json()["exit_code"] == 1
    assert over(parity, parity).as_json()["exit_code"] == 0
