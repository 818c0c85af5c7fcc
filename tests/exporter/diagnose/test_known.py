"""From where on a value is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporter.diagnose.known import ENOUGH, LEAST, Known, Noise, bound, known, off
from tests.exporter.diagnose import small

UNIT = 2.0**-24
RIGHT = np.random.default_rng(0).normal(size=(50, 50))


def test_rounding_is_within_a_few_units() -> None:
    assert off(RIGHT.astype(np.float32), RIGHT, Noise(), UNIT) < 1.0


def test_an_error_is_told_in_units_of_rounding() -> None:
    assert off(RIGHT * (1 + 1e-3), RIGHT, Noise(1e-6, 1e-5), UNIT) == pytest.approx(1e3, rel=0.01)


def test_one_broken_element_of_many_is_seen() -> None:
    broken = RIGHT.copy()
    broken[3, 4] += 1.0
    whole = np.linalg.norm(broken - RIGHT) / np.linalg.norm(RIGHT) / 1e-3
    assert off(broken, RIGHT, Noise(1e-3, 1e-4), UNIT) > 10 * whole


def with_one(value: float) -> np.ndarray:
    """The right values but for one."""
    wrong = RIGHT.copy()
    wrong[3, 4] = value
    return wrong


@pytest.mark.parametrize(
    "wrong",
    [RIGHT[:, :49], with_one(np.inf), with_one(np.nan)],
    ids=["shape", "infinite", "none"],
)
def test_what_is_no_number_or_of_another_shape_is_wrong_without_bound(wrong: np.ndarray) -> None:
    assert off(wrong, RIGHT, Noise(1.0, 1.0), UNIT) == np.inf


def test_a_mask_of_infinities_is_right_where_it_is_the_same() -> None:
    masked = np.where(RIGHT > 0, -np.inf, RIGHT)
    assert off(masked.astype(np.float32), masked, Noise(), UNIT) < 1.0
    assert off(RIGHT.astype(np.float32), masked, Noise(), UNIT) == np.inf


def test_integers_are_exact() -> None:
    places = np.arange(5)
    assert off(places, places, Noise(), UNIT) == 0.0
    assert off(places + 1, places, Noise(1e9, 1e9), UNIT) == np.inf


def test_the_bound_lies_between_rounding_and_the_answers_error() -> None:
    assert bound([5.0]) == LEAST and bound([1e9]) == ENOUGH
    assert LEAST < bound([900.0]) < ENOUGH


def test_right_values_are_kept_with_their_rounding(tmp_path: Path) -> None:
    found = known(small.graph(), small.feeds(), tmp_path / "known")
    assert found.order[0] == "x" and found.order[-1] == "y"
    assert 0 < found.noise["y"].relative < 1e-6
    assert found.value("y").dtype == np.float64
    assert found.off({"nobody's": np.zeros(3)}) == {}


def test_what_does_not_fit_into_memory_lies_on_disk(tmp_path: Path) -> None:
    whole = known(small.graph(), small.feeds(), tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
    found = Known(tmp_path / "known", UNIT, _room=2 * whole.value("a").nbytes)
    for name in whole.order:
        found.add(name, whole.value(name), whole.value(name))
    assert 0 < len(list((tmp_path / "known").iterdir())) < len(whole.order)
    assert all(np.array_equal(found.value(name), whole.value(name)) for name in whole.order)
    found.drop()
    assert not (tmp_path / "known").exists() and "a" not in found
