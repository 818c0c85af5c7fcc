"""Whole numbers that hang on rounding alone are told from those that an artifact has to get right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from exporter import decisions
from exporter.parity.ladder import RUNGS

WITHIN = RUNGS["compiled"].bound


def undecided(decide: Callable[[torch.Tensor], torch.Tensor], scores: torch.Tensor) -> list[int]:
    """The places of the answer that hang on rounding; eager has rounded the scores to float32."""
    with decisions.noted() as exact:
        answer = decide(scores.double())
    with decisions.noted() as own:
        decide(scores.float())
    masks = decisions.undecided(
        {"y": answer.numpy()}, (exact, own), lambda: {"y": decide(scores.double()).numpy()}, WITHIN
    )
    return [] if "y" not in masks else list(np.flatnonzero(masks["y"]))


SCORES = torch.tensor([[1 / 3, 0.5, 0.5, 0.1], [0.1, 0.2, 0.3, 1 / 3]], dtype=torch.float64)


@pytest.mark.parametrize(
    "decide",
    [
        lambda x: x.argmax(-1),
        lambda x: x.max(dim=-1).indices,
        lambda x: x.topk(1).indices[:, 0],
        lambda x: x.sort(descending=True).indices[:, 0],
        lambda x: (-x).argmin(-1),
        lambda x: (-x).argsort()[:, 0],
        lambda x: torch.relu(x).argmax(-1),
    ],
)
def test_scores_that_are_equal_have_no_order(decide: Callable[[torch.Tensor], torch.Tensor]) -> None:
    assert undecided(decide, SCORES) == [0]


def test_what_is_before_and_after_a_tie_is_decided() -> None:
    scores = torch.tensor([4.0, 0.0, 0.0, 0.0, -1.0, 3.0], dtype=torch.float64)
    assert undecided(lambda x: x.topk(6).indices, scores) == [2, 3, 4]


@pytest.mark.parametrize("apart", [0.0, 2.0**-26, 2.0**-24])
def test_scores_closer_than_rounding_are_undecided(apart: float) -> None:
    scores = torch.tensor([1 / 3, 1 / 3 + apart, 0.1], dtype=torch.float64)
    assert undecided(lambda x: x.argmax().reshape(1), scores) == [0]


def test_scores_further_apart_are_decided() -> None:
    scores = torch.tensor([1 / 3, 1 / 3 + 1e-4, 0.1], dtype=torch.float64)
    assert undecided(lambda x: x.argmax().reshape(1), scores) == []


def test_a_threshold_is_undecided_only_where_rounding_reaches_it() -> None:
    scores = torch.tensor([1 / 3, 1 / 3 + 1e-9, 0.9, 0.0], dtype=torch.float64)
    assert undecided(lambda x: x > 1 / 3, scores) == [0, 1]


def test_zeros_that_are_exact_are_compared() -> None:
    """The half of a sparse input: ``x > 0`` is defined there, and every arithmetic has it exactly."""
    scores = torch.tensor([0.0, 1.0, -2.0, 0.0], dtype=torch.float64)
    assert undecided(lambda x: x > 0, scores) == [] and undecided(lambda x: x == 0, scores) == []


def test_a_rounding_is_undecided_at_its_edge() -> None:
    scores = torch.tensor([0.1 * 25 + 1e-9, 0.3, 1.7], dtype=torch.float64)
    assert undecided(lambda x: x.round().to(torch.int64), scores) == [0]
    assert undecided(lambda x: (x * 2).to(torch.int64), torch.tensor([1.5 - 1e-10, 0.3], dtype=torch.float64)) == [0]


def test_numbers_that_are_no_decision_are_left_as_they_are() -> None:
    assert undecided(lambda x: torch.arange(x.shape[-1]) + 1, SCORES) == []
    with decisions.noted() as seen:
        (SCORES.float() * 2).to(torch.float16)
    assert seen == []
