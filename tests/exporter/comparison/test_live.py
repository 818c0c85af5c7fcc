"""Both sides timed here, in pairs of fresh processes: on children that are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exporter.comparison.live import ROUNDS, A, B, Measuring, compared
from exporter.comparison.timing import LOOKS
from exporter.comparison.values import Bounds, Timed
from exporter.errors import StageFailed
from exporter.latency.clock import PROCESSOR, WALL
from exporter.latency.result import ARTIFACT, Subject
from exporter.latency.stats import Conclusion
from exporter.verdict import Verdict
from tests.exporter.latency.test_profile import WRONG, World


def timed(world: World, folder: Path, **changes: Any) -> Timed:
    subjects = [Subject(name, ARTIFACT, {}, "fp32", "fp32") for name in (A, B)]
    told: list[str] = []
    measuring = Measuring(starter=world.start, **changes)
    found = compared("it", *subjects, Bounds(), measuring, folder, told.append)
    assert told[:1] == ["pair 1"]
    return found


def test_pairs_of_fresh_processes_alternate_in_random_order(tmp_path: Path) -> None:
    world = World({A: 4.0, B: 4.0})
    found = timed(world, tmp_path)
    assert found.ratio is not None and found.conclusion is Conclusion.UNDECIDED and not found.regression
    assert found.facts["pairs"] == LOOKS[0] and found.facts["clock"] == PROCESSOR and found.facts["threads"] == 1
    assert sorted(world.started) == [A] * LOOKS[0] + [B] * LOOKS[0], "a process of each side for every pair"
    assert {tuple(world.started[i : i + 2]) for i in range(0, len(world.started), 2)} == {(A, B), (B, A)}
    assert len(world.closed) == len(world.started) and world.most_awake == 1
    blocks = [name for name, do in world.log if do == "block"]
    assert len(blocks) == 2 * ROUNDS * LOOKS[0] and blocks.count(A) == blocks.count(B)
    assert {frozenset(blocks[i : i + 2]) for i in range(0, len(blocks), 2)} == {frozenset((A, B))}
    again = World({A: 4.0, B: 4.0})
    timed(again, tmp_path)
    assert again.log == world.log, "the same seed, the same order"


@pytest.mark.parametrize(
    ("ms", "conclusion", "regression"),
    [(4.4, Conclusion.SLOWER, True), (4.12, Conclusion.SLOWER, False), (3.6, Conclusion.FASTER, False)],
)
def test_what_is_slower_and_what_is_faster(tmp_path: Path, ms: float, conclusion: Conclusion, regression: bool) -> None:
    found = timed(World({A: 4.0, B: ms}, sigma=0.002), tmp_path)
    assert found.conclusion is conclusion and found.regression is regression and found.how == "live"
    assert found.ratio is not None and found.ratio.value == pytest.approx(ms / 4.0, rel=0.01)
    assert found.a is not None and found.a.value == pytest.approx(4.0, rel=0.01), "in milliseconds"


def test_several_threads_are_timed_by_the_clock_on_the_wall(tmp_path: Path) -> None:
    world = World({A: 4.0, B: 4.0})
    assert timed(world, tmp_path, threads=2).facts["clock"] == WALL and world.threads == {2}


def test_what_cannot_be_timed_in_b_is_b_s_verdict_and_in_a_no_regression(tmp_path: Path) -> None:
    def wrong(side: str) -> World:
        return World({A: 4.0, B: 4.0}, on_check=lambda name, _: WRONG if name == side else {"ok": True, "errors": {}})

    in_b, in_a = timed(wrong(B), tmp_path), timed(wrong(A), tmp_path)
    assert in_b.verdict is Verdict.INVALID and "is off by" in in_b.reason and in_b.ratio is None
    assert in_a.verdict is Verdict.SKIPPED and in_a.reason.startswith("it of A: INVALID")


def test_a_child_that_dies_ends_the_comparison_and_all_children(tmp_path: Path) -> None:
    def dies(name: str, number: int) -> dict[str, Any] | None:
        if name == B and number == 3:
            raise StageFailed("stage-crashed", "the child was ended by SIGSEGV")
        return None

    world = World({A: 4.0, B: 4.0}, on_block=dies)
    found = timed(world, tmp_path)
    assert found.verdict is Verdict.CRASHED and "SIGSEGV" in found.reason
    assert sorted(world.closed) == sorted(world.started) and not world.awake - {A, B}
