"""Measuring and judging as pure functions: every way in which two tensors can differ, and every way to miss it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.bundle import write_tensors
from exporter.parity import facts
from exporter.parity.judge import judge
from exporter.parity.ladder import (
    ELEMENT_GUARD,
    FEW,
    LARGEST_ERROR,
    QUANTISED_RUNG,
    RUNGS,
    UNIT_ROUNDOFF,
    VACUOUS,
    Rung,
)
from exporter.parity.measure import EDGES, Measurement, compare, extra_outputs, l2, relative, step_errors
from exporter.parity.usual import usual_sizes
from exporter.verdict import SEVERITY, Result, Verdict, worst

RUNG = RUNGS["compiled"]
NOISE = 2.0**-22


def measured(y: Any, y64: Any, dtype: str = "float32", **known: Any) -> Measurement:
    found = compare("case", "y", y, np.asarray(y64), dtype)
    noise = {"noise": NOISE, "noise_max_abs": NOISE * float(np.max(np.abs(y64), initial=0.0)), "moved": 1.0}
    return Measurement(**{**found.as_json(), **noise, "scale": "normal", **known})


def verdict_of(*measurements: Measurement, rung: Rung = RUNG, guard: bool = False, expected: Any = None) -> Result:
    keys = [("case", "y")] if expected is None else expected
    named: dict[str, Any] = {"hop": "compiled", "target": "t", "form": None, "rung": rung, "precision": "fp32"}
    results = judge(measurements, keys, guard=guard, **named)
    return min(results, key=lambda r: SEVERITY.index(r.verdict))


def reference(size: float = 1.0, n: int = 256) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(n) * size


def off(y64: np.ndarray, times: float) -> np.ndarray:
    """``y64`` with a relative L2 error of ``times`` the noise, spread over all elements, in a type that keeps it."""
    error = np.random.default_rng(8).standard_normal(y64.shape)
    return y64 + error / l2(error) * l2(y64) * NOISE * times


# ---- form before values


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (None, "missing"),
        (reference().astype(np.float64), "float64"),
        (reference().astype(np.float16), "float16"),
        (reference().astype(np.int32), "int32"),
        (reference(n=255).astype(np.float32), "(255,)"),
        (reference().astype(np.float32)[None], "(1, 256)"),
        (np.float32(1.0).reshape(()), "()"),
        (reference(n=1).astype(np.float32), "(1,)"),  # would broadcast
    ],
)
def test_form_comes_first(y: Any, words: str) -> None:
    found = verdict_of(measured(y, reference()))
    assert found.verdict is Verdict.FAIL and words in str(found.reason)
    assert found.relative_l2 is None and found.elements == 0


@pytest.mark.parametrize("size", [1e-10, 1.0, 1e6])
def test_errors_of_elements_are_counted_by_their_size_whatever_the_outputs_is(size: float) -> None:
    y64 = reference(size, 1000)
    y = y64.copy()
    rms = float(np.sqrt(np.mean(y64**2)))
    y[:10] += 2e-5 * rms
    y[10] += 7e5 * rms
    found = compare("case", "out", y, y64, "float64").histogram
    assert len(found) == len(EDGES) and sum(found) == 1000 and found[0] == 989
    assert {index: count for index, count in enumerate(found) if count} == {0: 989, 15: 10, len(EDGES) - 1: 1}
    assert (EDGES[14], EDGES[15]) == pytest.approx((1e-5, 10**-4.5)), "a piece is from one edge to the next"
    assert compare("case", "out", np.zeros(3), np.zeros(3), "float64").histogram == ()
    assert Measurement.from_json(json.loads(json.dumps(measured(y, y64, "float64").as_json()))).histogram == found


def test_histograms_of_all_cases_of_an_output_are_added() -> None:
    y64 = reference(1.0, 100)
    several = [measured(y64 * (1 + 1e-6), y64, "float64"), measured(y64, y64, "float64")]
    (kept,) = facts.histograms(several).values()
    assert kept["exact"] == 100 and sum(kept["counts"]) == 100 and kept["step"] == 0.5 and kept["first_power"] == -12
    assert facts.histograms([]) == {}


def test_extra_and_never_compared() -> None:
    found = extra_outputs("case", {"y": np.zeros(1), "z": np.zeros(1)}, {"y": "float32"})
    assert [(m.output, m.problem) for m in found] == [("z", "nobody declared this output")]
    good = measured(reference().astype(np.float32), reference())
    assert verdict_of(good, *found).verdict is Verdict.FAIL
    absent = verdict_of(good, expected=[("case", "y"), ("case", "other")])
    assert absent.verdict is Verdict.FAIL and absent.reason == "it was never compared"
    assert verdict_of(good, expected=[("case", "y"), ("other", "y")]).verdict is Verdict.FAIL
    assert worst([]) is Verdict.INVALID


# ---- outputs of few values


def scores(errors: list[float], values: list[float], noise: float = NOISE, per_case: int = 1) -> list[Measurement]:
    """A number a case, and how far off each is; eager is off by ``noise`` in each."""
    found = []
    for index, (error, value) in enumerate(zip(errors, values, strict=True)):
        y64 = np.full(per_case, value)
        known = {"case": str(index), "noise": relative(noise, abs(value)), "noise_max_abs": noise}
        found.append(measured(y64 + error, y64, "float64", **known))
    return found


def worst_score(*args: Any, rung: Rung = QUANTISED_RUNG, **known: Any) -> Result:
    values = args[1]
    return verdict_of(*scores(*args, **known), rung=rung, expected=[(str(i), "y") for i in range(len(values))])


def test_a_score_that_lies_near_zero_is_measured_against_what_scores_are() -> None:
    values = [0.9, 0.7, 0.8, 0.001, 0.0]
    fair = worst_score([0.03] * 5, values)
    assert fair.verdict is Verdict.PASS and fair.relative_l2 is not None
    assert worst_score([0.03, 0.03, 0.03, 0.03, 0.08], values).verdict is Verdict.FAIL, "each of them is judged"
    assert worst_score([0.0, 0.08, 0.0, 0.0, 0.0], values).verdict is Verdict.FAIL
    assert worst_score([0.03], [0.001]).verdict is Verdict.FAIL, "of one case nothing else is known"
    crowd = worst_score([0.15, 0.15, 0.15, 0.5], [1.0, 1.0, 1.0, 10.0])
    assert crowd.verdict is Verdict.FAIL, "a large answer makes no room for the others"
    assert worst_score([0.03] * 4, values[:4], per_case=FEW).verdict is Verdict.FAIL, "a picture may be dark"


def test_some_of_the_cases_are_measured_against_what_all_of_them_are(tmp_path: Path) -> None:
    """A search looks at the two cases that are off by most, which may both lie near zero."""
    values, cases = [0.9, 0.7, 0.8, 0.001, 0.002], []
    for index, value in enumerate(values):
        file = tmp_path / f"{index}.safetensors"
        write_tensors(file, {"reference/y": np.full(1, value), "reference/large": np.full(FEW, value)})
        cases.append({"scale": "normal", "file": file})
    usual = usual_sizes(cases, ["y", "large"])
    assert usual == {("y", "normal"): pytest.approx(0.7)}
    few = scores([0.03, 0.03], values[-2:])
    named: dict[str, Any] = {"hop": "h", "target": None, "form": None, "rung": QUANTISED_RUNG, "precision": "int8"}
    keys = [("0", "y"), ("1", "y")]
    assert {r.verdict for r in judge(few, keys, usual=usual, guard=True, **named)} == {Verdict.PASS}
    assert {r.verdict for r in judge(few, keys, guard=True, **named)} == {Verdict.FAIL}


def test_eager_s_error_on_a_score_near_zero_hides_no_other_score_s() -> None:
    """Relative to itself eager is off by a thousandth where the score is small: that would allow anything elsewhere."""
    values = [0.9, 0.7, 0.8, 0.0001]
    assert worst_score([1e-7] * 4, values, noise=1e-7, rung=RUNG).verdict is Verdict.PASS
    assert worst_score([1e-5, 0, 0, 0], values, noise=1e-7, rung=RUNG).verdict is Verdict.FAIL


def test_a_draw_near_zero_does_not_stretch_eager_s_error() -> None:
    found = scores([1e-5, 0.0, 0.0], [0.9, 0.7, 0.8], noise=1e-7)
    stretched = [Measurement(**{**m.as_json(), "noise": 0.05}) for m in found]
    assert verdict_of(*stretched, expected=[(str(i), "y") for i in range(3)]).verdict is Verdict.FAIL


def test_where_the_error_alone_is_bounded_an_output_has_to_follow_its_inputs() -> None:
    found = scores([0.01] * 3, [0.5, 0.51, 0.49])

    def judged(*followed: float | None) -> Result:
        known = [Measurement(**{**m.as_json(), "followed": f}) for m, f in zip(found, followed, strict=True)]
        return verdict_of(*known, rung=QUANTISED_RUNG, expected=[(str(i), "y") for i in range(3)])

    assert judged(None, 1.0, 1.0).verdict is Verdict.FAIL
    assert "off by 80% at best" in str(judged(None, 0.8, 1.4).reason)
    assert judged(None, math.nan, math.nan).verdict is Verdict.FAIL
    assert judged(None, 0.1, 1.4).verdict is Verdict.PASS
    assert judged(None, None, None).verdict is Verdict.PASS, "one case alone says nothing of it"


# ---- NaN, infinite, empty


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(bad: float) -> None:
    y64 = reference()
    y = y64.astype(np.float32)
    y[17] = bad
    one = verdict_of(measured(y, y64))
    assert one.verdict is Verdict.FAIL and "17" in str(one.reason) and "1 of 256" in str(one.reason)
    spoiled = y64.copy()
    spoiled[17] = bad
    both = verdict_of(measured(y, spoiled))
    assert both.verdict is Verdict.INVALID and "no agreement" in str(both.reason)
    only_reference = verdict_of(measured(y64.astype(np.float32), spoiled))
    assert only_reference.verdict is Verdict.INVALID


def test_empty_is_invalid() -> None:
    found = verdict_of(measured(np.zeros((0, 4), np.float32), np.zeros((0, 4))))
    assert found.verdict is Verdict.INVALID and "empty" in str(found.reason) and found.elements == 0
    integers = verdict_of(measured(np.zeros(0, np.int64), np.zeros(0, np.int64), "int64"))
    assert integers.verdict is Verdict.INVALID


@pytest.mark.parametrize("field", ["error_l2", "reference_l2", "max_abs", "noise", "noise_max_abs"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_that_is_not_finite_is_no_pass(field: str, value: float) -> None:
    """NaN compares false with every bound: that must not thread the needle."""
    good = measured(reference().astype(np.float32), reference())
    found = verdict_of(Measurement(**{**good.as_json(), field: value}))
    assert found.verdict is not Verdict.PASS
    json.dumps(found.as_json(), allow_nan=True)


def test_a_noise_that_is_nan_beside_a_good_one_is_no_pass() -> None:
    good = measured(off(reference(), 1e6).astype(np.float32), reference())
    poisoned = Measurement(**{**good.as_json(), "case": "other", "noise": math.inf})
    assert verdict_of(good, poisoned, expected=[("case", "y"), ("other", "y")]).verdict is not Verdict.PASS


# ---- vacuity


def test_an_output_that_no_case_moves_is_invalid() -> None:
    good = measured(reference().astype(np.float32), reference(), moved=0.0)
    found = verdict_of(good)
    assert found.verdict is Verdict.INVALID and "constant" in str(found.reason)
    barely = Measurement(**{**good.as_json(), "moved": VACUOUS * NOISE * 0.9})
    assert verdict_of(barely).verdict is Verdict.INVALID
    assert verdict_of(Measurement(**{**good.as_json(), "moved": VACUOUS * NOISE * 1.1})).verdict is Verdict.PASS
    assert verdict_of(good, guard=True).verdict is Verdict.PASS  # two cases cannot say that nothing moves it


def test_one_case_that_moves_it_is_enough() -> None:
    still = measured(reference().astype(np.float32), reference(), moved=0.0)
    moving = Measurement(**{**still.as_json(), "case": "other", "moved": 1.0})
    assert verdict_of(still, moving, expected=[("case", "y"), ("other", "y")]).verdict is Verdict.PASS


# ---- integers


def test_integers_are_exact() -> None:
    y64 = np.arange(10)
    assert verdict_of(measured(y64.copy(), y64, "int64")).verdict is Verdict.PASS
    wrong = y64.copy()
    wrong[3] += 1
    found = verdict_of(measured(wrong, y64, "int64"))
    assert found.verdict is Verdict.FAIL and "1 integers differ" in str(found.reason)


def test_integers_that_hang_on_rounding_are_left_out_and_told() -> None:
    y64, y = np.arange(10), np.arange(10)
    y[3] += 1
    tied = np.arange(10) == 3
    found = compare("case", "y", y, y64, "int64", tied)
    assert found.exact and found.undecided == 1
    passed = verdict_of(Measurement(**{**found.as_json(), "scale": "normal"}))
    assert passed.verdict is Verdict.PASS and "1 of 10 whole numbers hang on rounding" in passed.notes[0]
    y[4] += 1
    wrong = compare("case", "y", y, y64, "int64", tied)
    assert verdict_of(Measurement(**{**wrong.as_json(), "scale": "normal"})).verdict is Verdict.FAIL


def test_an_output_of_ties_alone_proves_nothing() -> None:
    found = compare("case", "y", np.arange(3), np.zeros(3, np.int64), "int64", np.ones(3, np.bool_))
    result = verdict_of(Measurement(**{**found.as_json(), "scale": "normal"}))
    assert result.verdict is Verdict.INVALID and "hangs on rounding" in str(result.reason)


def test_unsigned_and_bool_do_not_wrap() -> None:
    assert verdict_of(measured(np.array([0], np.uint8), np.array([255], np.uint8), "uint8")).verdict is Verdict.FAIL
    assert verdict_of(measured(np.array([True]), np.array([False]), "bool")).verdict is Verdict.FAIL
    assert verdict_of(measured(np.array([True]), np.array([True]), "bool")).verdict is Verdict.PASS


# ---- values


@pytest.mark.parametrize("size", [1e-30, 1e-10, 1.0, 1e3, 1e30])
@pytest.mark.parametrize("rung", RUNGS.values(), ids=lambda rung: rung.name)
def test_tiny_outputs_are_judged_as_strictly_as_large_ones(size: float, rung: Rung) -> None:
    y64 = reference(size)
    inside = verdict_of(measured(off(y64, rung.bound * 0.95), y64, "float64"), rung=rung)
    outside = verdict_of(measured(off(y64, rung.bound * 1.05), y64, "float64"), rung=rung)
    assert inside.verdict is Verdict.PASS and outside.verdict is Verdict.FAIL
    assert outside.amplification == pytest.approx(rung.bound * 1.05, rel=1e-3)


def test_the_yardstick_is_never_below_the_unit_roundoff() -> None:
    y64 = reference()
    exact_eager = measured(off(y64, 0.5), y64, "float64", noise=0.0, noise_max_abs=0.0)
    found = verdict_of(exact_eager)
    assert found.verdict is Verdict.PASS
    assert found.amplification == pytest.approx(0.5 * NOISE / UNIT_ROUNDOFF["fp32"], rel=1e-3)


def test_noise_is_the_largest_of_its_own_scale_alone() -> None:
    y64 = reference()
    y = off(y64, RUNG.bound * 1.5)
    strict = measured(y, y64, "float64")
    helped = measured(y64, y64, "float64", case="b", noise=2 * NOISE)
    other_scale = Measurement(**{**helped.as_json(), "scale": "wide"})
    both = [("case", "y"), ("b", "y")]
    assert verdict_of(strict, helped, expected=both).verdict is Verdict.PASS
    assert verdict_of(strict, other_scale, expected=both).verdict is Verdict.FAIL


def test_an_all_zero_reference() -> None:
    zero = np.zeros(8)
    exact = verdict_of(measured(np.zeros(8, np.float32), zero))
    assert exact.verdict is Verdict.PASS and exact.notes == ("the reference is all zero here",)
    wrong = verdict_of(measured(np.full(8, 1e-30, np.float32), zero))
    assert wrong.verdict is Verdict.FAIL and "all zero" in str(wrong.reason)
    assert json.loads(json.dumps(wrong.as_json(), allow_nan=False))


def test_one_broken_element_is_not_averaged_away() -> None:
    """In a million elements the L2 error stays on its rung; the element guard does not."""
    y64 = np.random.default_rng(0).standard_normal(1_000_000)
    y = y64.copy()
    y[123] += 1.5 * ELEMENT_GUARD * NOISE * float(np.abs(y64).max())
    found = verdict_of(measured(y, y64, "float64"))
    assert found.amplification is not None and found.amplification < RUNG.bound
    assert found.verdict is Verdict.FAIL and "one element" in str(found.reason)
    y[123] = y64[123] + 0.5 * ELEMENT_GUARD * NOISE * float(np.abs(y64).max())
    assert verdict_of(measured(y, y64, "float64")).verdict is Verdict.PASS


def test_a_yardstick_that_collapsed_covers_nothing() -> None:
    """Where eager in a precision is off by 40 %, twice that would pass an output of zeros."""
    y64 = reference()
    for error, verdict in ((0.99 * LARGEST_ERROR, Verdict.PASS), (1.01 * LARGEST_ERROR, Verdict.FAIL)):
        found = verdict_of(measured(off(y64, error / NOISE), y64, "float64", noise=0.4, noise_max_abs=4.0))
        assert found.verdict is verdict and found.amplification is not None and found.amplification < 1
    zeros = verdict_of(measured(np.zeros(256), y64, "float64", noise=0.6, noise_max_abs=4.0))
    assert zeros.verdict is Verdict.FAIL and "whatever eager does" in str(zeros.reason)


def test_judging_knows_no_order() -> None:
    y64 = reference()
    several = [
        measured(off(y64, times), y64, "float64", case=f"c{times}", noise=NOISE * (1 + times / 10))
        for times in range(6)
    ]
    keys = [(m.case, m.output) for m in several]
    named: dict[str, Any] = {"hop": "h", "target": None, "form": None, "rung": RUNG, "precision": "fp32"}
    assert judge(several, keys, **named) == judge(several[::-1], keys, **named)


# ---- figures


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=50))
def test_l2_is_the_length_without_overflow(values: list[float]) -> None:
    x = np.array(values)
    assert l2(x) == pytest.approx(math.hypot(*values), rel=1e-12, abs=0.0)


def test_l2_of_the_extremes() -> None:
    assert l2(np.zeros(0)) == 0.0 and l2(np.zeros(3)) == 0.0
    assert l2(np.full(4, 1e200)) == pytest.approx(2e200)
    assert l2(np.full(4, 1e-200)) == pytest.approx(2e-200)
    assert math.isinf(l2(np.array([np.inf, 1.0])))


def test_relative() -> None:
    assert relative(1.0, 2.0) == 0.5 and relative(0.0, 0.0) == 0.0 and math.isinf(relative(1e-300, 0.0))


def test_step_errors_follow_each_step() -> None:
    y64 = np.ones((1, 4, 2))
    y = y64.copy()
    y[:, 2] *= 1.5
    assert step_errors(y, y64, 1, 4) == pytest.approx((0.0, 0.0, 0.5, 0.0))
    with pytest.raises(ValueError, match=r"."):
        step_errors(y, y64, 1, 3)


def test_measurements_survive_the_way_from_a_child() -> None:
    found = measured(reference().astype(np.float32), reference(), drift=(0.1, 0.2), drift_noise=(0.1, 0.1))
    assert Measurement.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_the_inputs_of_compare_are_left_alone() -> None:
    y64, y = reference(), reference().astype(np.float32)
    kept = y64.copy(), y.copy()
    compare("c", "y", y, y64, "float32")
    assert np.array_equal(y64, kept[0]) and np.array_equal(y, kept[1])


def test_the_table_of_rungs() -> None:
    assert {name: rung.bound for name, rung in RUNGS.items()} == {"portable": 4.0, "compiled": 16.0, "low": 2.0}
    assert all(rung.reason for rung in RUNGS.values())
    assert ELEMENT_GUARD == 64.0 and LARGEST_ERROR == 0.1
