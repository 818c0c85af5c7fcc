"""What is written of a graph changes with its inputs, or a bundle of it would tell nothing."""

from __future__ import annotations

from pathlib import Path

import onnx

from exporter.diagnose import parts
from exporter.diagnose.known import known
from tests.exporter.diagnose import small


def moving(model: onnx.ModelProto, folder: Path, *names: str) -> list[str]:
    nodes = [index for index, node in enumerate(model.graph.node) if node.name in names]
    halved = {name: value / 2 for name, value in small.feeds().items()}
    right = [known(model, feeds, folder / str(number)) for number, feeds in enumerate((small.feeds(), halved))]
    return [model.graph.node[index].name for index in parts.moving(model, nodes, right[0], right[1])]


def test_what_changes_is_taken_as_it_is(tmp_path: Path) -> None:
    assert moving(small.graph(), tmp_path, "soft", "less") == ["soft", "less"]


def test_a_size_is_taken_with_what_reads_it(tmp_path: Path) -> None:
    assert moving(small.graph(), tmp_path, "shape") == ["shape", "last"]


def test_where_nothing_changes_the_nodes_stay_as_they_are(tmp_path: Path) -> None:
    model = small.graph()
    model.graph.output.append(onnx.helper.make_tensor_value_info("s", onnx.TensorProto.INT64, [3]))
    assert moving(model, tmp_path, "shape") == ["shape"]


def test_only_what_is_not_known_is_run_for(tmp_path: Path) -> None:
    """Of a node that a pass made anew: ``d`` has a name in the graph at fault alone."""
    model = small.graph()
    right = known(model, small.feeds(), tmp_path)
    del right.noise["d"]
    second = next(index for index, node in enumerate(model.graph.node) if node.name == "second")
    assert parts.inner(model, [second], small.feeds(), right).keys() == {"d"}
    right = known(model, small.feeds(), tmp_path)
    assert parts.inner(model, [second], small.feeds(), right) == {}
