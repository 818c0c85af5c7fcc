"""What crosses a place of a graph, parts cut out of it, and what its nodes are in the user's words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from exporter.diagnose import cuts, places
from exporter.diagnose.known import known
from exporter.diagnose.probing import types_of, with_outputs
from tests.exporter.diagnose import small


def test_only_what_depends_on_inputs_is_searched() -> None:
    model = small.graph()
    names = [model.graph.node[index].name for index in cuts.depending(model.graph)]
    assert names == ["first", "bias", "soft", "shape", "less", "second", "last"]


@pytest.mark.parametrize(("count", "crossing"), [(0, []), (2, ["b"]), (3, ["b", "c"]), (5, ["s", "d"]), (7, ["y"])])
def test_what_crosses_a_place(count: int, crossing: list[str]) -> None:
    model = small.graph()
    assert cuts.crossing(model.graph, cuts.depending(model.graph), count) == crossing


def test_a_part_gives_what_it_gives_inside(tmp_path: Path) -> None:
    """With its constants, and what is computed of them."""
    model, right = small.graph(), known(small.graph(), small.feeds(), tmp_path / "known")
    order = cuts.depending(model.graph)
    part = cuts.part(model, order[1:5], right)
    onnx.checker.check_model(part, full_check=True)
    assert [value.name for value in part.graph.input] == ["a", "x"]
    assert [value.name for value in part.graph.output] == ["s", "d"]
    given = {"a": right.value("a").astype(np.float32), "x": small.feeds()["x"]}
    found = dict(zip(["s", "d"], ort.InferenceSession(part.SerializeToString()).run(None, given), strict=True))
    assert max(right.off(found).values()) < 4


def test_inner_values_become_outputs_and_the_answer_stays(tmp_path: Path) -> None:
    model, right = small.graph(), known(small.graph(), small.feeds(), tmp_path / "known")
    probed, outputs = with_outputs(model, ["b", "s"], types_of(model), {n: right.value(n) for n in ("b", "s")})
    session = ort.InferenceSession(probed.SerializeToString())
    found = dict(zip([o.name for o in session.get_outputs()], session.run(None, small.feeds()), strict=True))
    assert outputs == {"b": "b", "s": "s"} and set(found) == {"y", "b", "s"}
    assert max(right.off(found).values()) < 4


def test_a_node_is_told_in_the_users_words() -> None:
    model = small.graph()
    assert places.told(model.graph, 4) == ("block.4", "net/model.py:4")
    del model.graph.node[4].metadata_props[:]  # a pass made it anew: what it reads is told
    assert places.told(model.graph, 4) == ("block.3", "net/model.py:3")
    model.graph.node[4].name = ""
    assert places.name_of(model.graph, 4) == "Softmax_4"
