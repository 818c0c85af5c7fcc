"""The search for what a precision cannot be had in, on errors that are made up: it knows nothing of models."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf, sqrt

import pytest

from exporter.lower.search import HEADROOM, search


def adding(errors: Mapping[int, float], nodes: int) -> tuple[list[int], object]:
    """A model whose errors add up by their squares, and how often it was run."""
    runs: list[int] = []

    def excess(lowered: Collection[int]) -> float:
        runs.append(len(lowered))
        assert set(lowered) <= set(range(nodes))
        return sqrt(sum(errors.get(node, 1e-4) ** 2 for node in lowered))

    return runs, excess


@pytest.mark.parametrize("bad", [{7}, {0, 511}, {3, 4, 5, 6, 300}, set(range(100, 120))])
def test_the_nodes_that_err_are_kept_and_few_others(bad: set[int]) -> None:
    runs, excess = adding(dict.fromkeys(bad, 3.0), 512)
    found = search(512, excess, 160)
    assert bad <= found.kept.keys() and len(found.kept) <= 4 * len(bad)
    assert found.enough and found.excess <= HEADROOM
    assert found.runs == len(runs) <= 160


def test_nothing_is_kept_where_nothing_is_wrong() -> None:
    runs, excess = adding({}, 512)
    found = search(512, excess, 160)
    assert found.kept == {} and len(runs) == 1


def test_what_the_runs_do_not_tell_apart_stays_together() -> None:
    _, excess = adding({40: 3.0}, 512)
    found = search(512, excess, 12)
    assert 40 in found.kept and found.enough and found.runs <= 12


def test_an_overflow_is_found() -> None:
    _, excess = adding({40: inf}, 64)
    found = search(64, excess, 160)
    assert list(found.kept) == [40] and found.excess < HEADROOM


def test_errors_that_add_up_to_more_than_their_squares_are_no_surprise() -> None:
    """Every node errs a little and all in one direction: the last word has the run."""

    def excess(lowered: Collection[int]) -> float:
        return 0.1 * len(lowered)

    found = search(64, excess, 160)
    assert found.enough and found.excess == pytest.approx(0.1 * (64 - len(found.kept)))


def test_what_cannot_be_mended_is_said() -> None:
    """The model is off even where nothing is lowered."""
    found = search(16, lambda lowered: 5.0, 160)
    assert not found.enough and found.excess == 5.0


@pytest.mark.parametrize("most", [1, 2, 5, 6])
def test_few_runs_are_enough_to_end(most: int) -> None:
    runs, excess = adding({3: 2.0}, 16)
    assert search(16, excess, most).runs == len(runs) <= max(most, 1)
