"""The order and the length of blocks."""

from __future__ import annotations

from collections import Counter

import pytest

from exporter.latency import schedule
from exporter.latency.clock import PROCESSOR, WALL

MS = 1e6


def test_the_order_is_a_value_of_the_seed() -> None:
    names = ("eager", "one", "one (again)")
    assert schedule.interleaved(names, 4, seed=7) == (
        ("one", "eager", "one (again)"),
        ("one (again)", "eager", "one"),
        ("one (again)", "eager", "one"),
        ("one (again)", "eager", "one"),
    )
    assert schedule.interleaved(names, 4, seed=8) != schedule.interleaved(names, 4, seed=7)


def test_every_round_has_everyone_and_no_place_is_preferred() -> None:
    rounds = schedule.interleaved("abc", 3000, seed=0)
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    for place in range(3):
        counts = Counter(names[place] for names in rounds)
        assert all(900 < counts[name] < 1100 for name in "abc")


@pytest.mark.parametrize(
    ("call_ms", "calls", "settle"), [(0.1, 400, 600), (1, 40, 60), (20, 2, 3), (60, 1, 1), (900, 1, 1), (5000, 1, 0)]
)
def test_a_block_lasts_tens_of_milliseconds_but_one_call_at_least(call_ms: float, calls: int, settle: int) -> None:
    assert schedule.pace(call_ms * MS) == schedule.Pace(calls, settle, each=True)


def test_calls_too_short_for_the_clock_are_timed_together() -> None:
    assert not schedule.pace(10_000).each
    assert schedule.pace(30_000, tick_ns=100).each
    assert not schedule.pace(1 * MS, tick_ns=10_000).each
    assert schedule.pace(0).calls >= 1


@pytest.mark.parametrize(
    ("round_seconds", "rounds"),
    [
        (0.0, schedule.MAX_ROUNDS),
        (0.01, schedule.MAX_ROUNDS),
        (0.3, 20),
        (1.0, 9),  # nine rounds although six fit
        (4.0, 7),  # 30 s, five budgets, is as far as patience goes
        (60.0, 5),  # the fewest that bound a median
    ],
)
def test_rounds_fill_the_budget_within_bounds(round_seconds: float, rounds: int) -> None:
    assert schedule.rounds_within(round_seconds, 6.0) == rounds


def test_the_default_budget_suffices_for_two_subjects_and_a_twin_of_20_ms() -> None:
    plan = schedule.scheduled({"eager": 20 * MS, "a": 20 * MS, "a (again)": 20 * MS}, budget_seconds=6.0, seed=0)
    assert len(plan.rounds) >= schedule.MIN_ROUNDS
    assert plan.expected_seconds <= 6.0


def test_settling_and_checking_count_in_the_budget() -> None:
    plan = schedule.scheduled({"a": 10 * MS}, budget_seconds=6.0, seed=0, check_ns={"a": 500 * MS})
    pace = plan.paces["a"]
    assert len(plan.rounds) == 10
    assert plan.expected_seconds == pytest.approx(10 * ((pace.calls + pace.settle) * 0.010 + 0.5))


def test_nothing_to_time_needs_no_time() -> None:
    plan = schedule.scheduled({}, budget_seconds=6.0, seed=0)
    assert plan.expected_seconds == 0
    assert all(names == () for names in plan.rounds)


def test_two_subjects_take_turns_however_short_their_calls_are() -> None:
    plan = schedule.alternated({"A": 4 * MS, "B": 4 * MS}, 6, 10.0, 3, PROCESSOR)
    assert len(plan.rounds) == 6 and {frozenset(names) for names in plan.rounds} == {frozenset(("A", "B"))}
    assert len(set(plan.rounds)) == 2, "both orders come up"
    assert plan.paces["A"] == schedule.Pace(10, 2, True, PROCESSOR)
    assert not schedule.alternated({"A": 0.1 * MS}, 6, 10.0, 3, PROCESSOR).paces["A"].each, "its clock is coarser"
    assert schedule.alternated({"A": 0.1 * MS}, 6, 10.0, 3, WALL).paces["A"].each


def test_a_slow_model_has_fewer_rounds_and_two_at_least() -> None:
    def rounds(ms: float) -> int:
        return len(schedule.alternated({"A": ms * MS, "B": ms * MS}, 6, 10.0, 0, PROCESSOR).rounds)

    assert (rounds(400), rounds(1500), rounds(60_000)) == (6, 3, 2)
