"""Points of a sweep: what is asked, what is refused, and what each is given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from exporter.bundle import read_tensors, write_tensors
from exporter.errors import Refused
from exporter.latency.result import ARTIFACT, Measured, Subject
from exporter.latency.sweep import Sweep, check, explained, point_json, varied
from exporter.spec import Dim, Tensor
from exporter.verdict import Verdict

MANIFEST: Any = SimpleNamespace(
    dims=(Dim("batch", 1, 2, 8), Dim("T", 1, 3, 9, 2)),
    inputs=(Tensor("x", ("batch", "T")),), outputs=(Tensor("y", ("batch",)),), repeats=("iterations",),
)  # fmt: skip
CASE: Any = SimpleNamespace(file="case")


def test_a_grid_is_every_combination() -> None:
    sweep = Sweep.parse(["threads=1,2", "batch=4, 8,4"])
    assert list(sweep.points()) == [
        {"threads": 1, "batch": 4}, {"threads": 1, "batch": 8}, {"threads": 2, "batch": 4}, {"threads": 2, "batch": 8},
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["threads", "=1", "threads=", "threads=0", "threads=1.5", "threads=-1", "threads=1,x"])
def test_a_text_that_names_no_values_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="names no values"):
        Sweep.parse([text])


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(Refused):
        Sweep.parse(["batch=1", "batch=2"])


@pytest.mark.parametrize(
    ("text", "said"),
    [("width=1", "nothing named width"), ("batch=9", "batch=9 lies beyond"), ("T=2", "T=2 lies beyond"),
     ("threads=" + ",".join(map(str, range(1, 14))), "13 points")],
)  # fmt: skip
def test_what_cannot_be_gone_through_is_refused(text: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        check(Sweep.parse([text]), MANIFEST, 1)


def test_a_count_of_repeats_is_refused() -> None:
    manifest: Any = SimpleNamespace(dims=(Dim("iterations", 1, 8, 32),), repeats=("iterations",))
    with pytest.raises(Refused, match="how often a part runs"):
        check(Sweep.parse(["iterations=4"]), manifest, 1)


def test_a_point_is_given_the_case_repeated_and_has_to_answer_so(tmp_path: Path) -> None:
    x, y = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1.0, 2.0])
    write_tensors(tmp_path / "case", {"input/x": x, "reference/y": y})
    subject = Subject("it", ARTIFACT, {"tensors": "case", "undecided": ("f", "p")}, "fp32", "fp32")
    points = varied(subject, Sweep.parse(["threads=2", "batch=1,5"]), lambda f: tmp_path / f, MANIFEST, CASE, tmp_path)
    assert [(p.name, p.threads, p.sizes) for p in points] == [
        ("it threads=2 batch=1", 2, {"batch": 1}), ("it threads=2 batch=5", 2, {"batch": 5}),
    ]  # fmt: skip
    content = read_tensors(Path(points[1].request["tensors"]))
    np.testing.assert_array_equal(content["input/x"], x[[0, 1, 0, 1, 0]])
    np.testing.assert_array_equal(content["reference/y"], y[[0, 1, 0, 1, 0]])
    assert "undecided" not in points[1].request


def test_a_dim_that_is_no_batch_is_told() -> None:
    subject = Subject("it T=5", ARTIFACT, {}, "fp32", "fp32", sizes={"T": 5})
    wrong = Measured(subject, 1, Verdict.INVALID, "wrong outputs in the first run")
    assert "repeated along T: only of a batch" in str(explained(wrong).reason)
    plain = Measured(Subject("it", ARTIFACT, {}, "fp32", "fp32"), 1, Verdict.INVALID, "wrong outputs")
    assert explained(plain).reason == "wrong outputs"
    assert point_json(wrong, {"T": 3})["per_second"] is None
