"""Halving finds the one place where right becomes wrong, and believes no place that changes the answer."""

from __future__ import annotations

import pytest

from exporter.diagnose.search import Seen, born


@pytest.mark.parametrize("first", range(1, 41))
def test_the_first_wrong_node_of_forty_is_found_in_six_looks(first: int) -> None:
    found = born(40, lambda place: Seen.WRONG if place >= first else Seen.RIGHT, most=40)
    assert (found.last_right, found.first_wrong) == (first - 1, first)
    assert found.looks <= 6 and not found.vanishes and not found.exhausted


@pytest.mark.parametrize("first", [3, 9, 10, 11, 15])
def test_places_that_change_the_answer_are_gone_around(first: int) -> None:
    """Every look between 8 and 12 changes it; what lies outside is found all the same."""

    def look(place: int) -> Seen:
        if 8 <= place <= 12:
            return Seen.CHANGED
        return Seen.WRONG if place >= first else Seen.RIGHT

    found = born(20, look, most=40)
    if 8 < first <= 13:
        assert (found.last_right, found.first_wrong) == (7, 13) and found.vanishes
    else:
        assert found.first_wrong == first and not found.vanishes


def test_an_error_that_vanishes_everywhere_is_all_that_is_known() -> None:
    found = born(5, lambda place: Seen.CHANGED, most=40)
    assert (found.last_right, found.first_wrong, found.looks) == (0, 5, 4)
    assert found.vanishes


def test_no_more_looks_than_allowed() -> None:
    looked: list[int] = []

    def look(place: int) -> Seen:
        looked.append(place)
        return Seen.RIGHT

    found = born(1000, look, most=3)
    assert len(looked) == found.looks == 3
    assert found.exhausted and not found.vanishes


@pytest.mark.parametrize(("first", "looks"), [(17, 2), (16, None), (18, None), (3, None), (38, None)])
def test_where_another_case_has_it_is_looked_at_first_and_not_believed(first: int, looks: int | None) -> None:
    found = born(40, lambda place: Seen.WRONG if place >= first else Seen.RIGHT, most=40, first=(17, 16))
    assert (found.last_right, found.first_wrong) == (first - 1, first)
    assert looks is None or found.looks == looks


def test_a_graph_of_one_node_needs_no_look() -> None:
    found = born(1, lambda place: pytest.fail("there is nothing between"), most=9)
    assert (found.last_right, found.first_wrong, found.looks) == (0, 1, 0)
