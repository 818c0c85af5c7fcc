"""What a graph says of other files is read as ONNX reads it, and refused where it is not its own data beside it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import Refused
from exporter.external import Reference, references, refuse_bad
from exporter.graph import Graph
from tests.attacks.graphs import model, tensor

CODE = "bad-external-data"


@pytest.fixture
def graph(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model beside a data file of 256 bytes."""

    def written(it: onnx.ModelProto) -> Path:
        folder = tmp_path / "graph"
        folder.mkdir()
        (folder / "g.onnx.data").write_bytes(bytes(range(256)))
        (folder / "g.onnx").write_bytes(it.SerializeToString())
        return folder / "g.onnx"

    return written


def test_good_data_is_taken(graph: Callable[..., Path]) -> None:
    path = graph(model(tensor("a", "g.onnx.data"), tensor("b", "g.onnx.data", 128)))
    refuse_bad(path)
    refuse_bad(path, {"g.onnx.data"})
    assert references(path) == [
        Reference("a", "g.onnx.data", 0, 128, 128), Reference("b", "g.onnx.data", 128, 128, 128),
    ]  # fmt: skip
    assert len(onnx.load(str(path)).graph.initializer[1].raw_data) == 128, "ONNX reads it too"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (tensor("w", "../outside.data"), "no file of the graph's own folder"),
        (tensor("w", "below/../../outside.data"), "no file of the graph's own folder"),
        (tensor("w", "/etc/hostname"), "no file of the graph's own folder"),
        (tensor("w", "..\\outside.data"), "no file of the graph's own folder"),
        (tensor("w", ""), "no file of the graph's own folder"),
        (tensor("w", "*/_ORT_MEM_ADDR_/*"), "is absent"),  # what a runtime takes for a place in memory
        (tensor("w", "absent.data"), "is absent"),
        (tensor("w", "x" * 300), "is not read"),
        (tensor("w", "link.data"), "is a link"),
        (tensor("w", "folder/g.onnx.data"), "is a link"),
        (tensor("w", "hard.data"), "hard links"),
        (tensor("w", "pipe"), "no regular file"),
        (tensor("w", "g.onnx.data", 132), "ends at byte 260, and g.onnx.data has 256"),
        (tensor("w", "g.onnx.data", 1 << 62), "has 256"),
        (tensor("w", "g.onnx.data", -4), "begins at byte -4"),
        (tensor("w", "g.onnx.data", 0, (400, 1 << 40)), "has 256"),
        (tensor("w", "g.onnx.data", length="64"), "has 64 bytes, and its type and shape take 128"),
        (tensor("w", "g.onnx.data", length="many"), "cannot be read"),
        (tensor("w", "g.onnx.data", length="9" * 5000), "cannot be read"),
    ],
)
def test_bad_data_is_refused_with_the_tensor(
    bad: onnx.TensorProto, words: str, graph: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "outside.data").write_bytes(bytes(256))
    path = graph(model(bad))
    (path.parent / "link.data").symlink_to(tmp_path / "outside.data")
    (path.parent / "folder").symlink_to(path.parent)
    os.link(tmp_path / "outside.data", path.parent / "hard.data")
    os.mkfifo(path.parent / "pipe")
    with pytest.raises(Refused, match=words) as refused:
        refuse_bad(path)
    assert refused.value.code == CODE and str(path) in refused.value.where
    assert refused.value.why and refused.value.next
    for opened in (Graph(path).load, Graph(path).linked):
        with pytest.raises(Refused, match=words):
            opened()


def test_no_byte_is_taken_twice(graph: Callable[..., Path]) -> None:
    path = graph(model(tensor("a", "g.onnx.data", 0), tensor("b", "./g.onnx.data", 124)))
    with pytest.raises(Refused, match=r"'b' begins at byte 124, within another that ends at 128"):
        refuse_bad(path)


def test_what_is_said_twice_is_refused(graph: Callable[..., Path]) -> None:
    twice = tensor("w", "g.onnx.data")
    twice.external_data.add(key="location", value="/etc/hostname")
    with pytest.raises(Refused, match="says its location twice"):
        refuse_bad(graph(model(twice)))


def test_only_what_is_declared_is_taken(graph: Callable[..., Path]) -> None:
    path = graph(model(tensor("w", "other.data")))
    (path.parent / "other.data").write_bytes(bytes(128))
    refuse_bad(path)
    with pytest.raises(Refused, match="belongs to no graph of the bundle"):
        refuse_bad(path, {"g.onnx.data"})


def test_tensors_are_found_wherever_a_graph_may_have_them(graph: Callable[..., Path]) -> None:
    away = [tensor(f"t{index}", "../x") for index in range(7)]
    inner = onnx.helper.make_graph([], "inner", [], [], [away[0]])
    sparse = onnx.SparseTensorProto(values=away[1], dims=[4, 8])
    attributes = {"t": away[2], "g": inner, "ts": [away[3]], "gs": [onnx.helper.make_graph([], "i", [], [], [away[4]])]}
    it = model(tensor("a", "../x"), nodes=(onnx.helper.make_node("If", [], [], **attributes),))
    it.graph.sparse_initializer.append(sparse)
    function = it.functions.add(name="f")
    function.node.append(onnx.helper.make_node("Constant", [], ["c"], value=away[5]))
    it.training_info.add().initialization.initializer.append(away[6])
    assert {found.tensor for found in references(graph(it))} == {"a", *(f"t{index}" for index in range(7))}


def test_a_graph_that_only_speaks_of_a_location_has_none(graph: Callable[..., Path]) -> None:
    it = model()
    it.doc_string = "location"
    assert references(graph(it)) == []


@settings(max_examples=300)
@given(st.data())
def test_no_bytes_do_more_than_be_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = model(tensor("a", "g.onnx.data"), tensor("b", "g.onnx.data", 128)).SerializeToString()
    place, byte = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.binary(max_size=3))
    path = tmp_path_factory.getbasetemp() / "fuzzed.onnx"
    path.write_bytes(whole[:place] + byte + whole[place + data.draw(st.integers(0, 3)) :])
    path.with_name("g.onnx.data").write_bytes(bytes(256))
    try:
        refuse_bad(path)
    except Refused as refused:
        assert refused.code == CODE
        return
    # What passes is what ONNX finds there too, where it can read the bytes at all.
    try:
        read = onnx.load(str(path), load_external_data=False)
    except Exception:
        return
    known = {found.location for found in references(path)}
    named = {e.value for t in read.graph.initializer for e in t.external_data if e.key == "location"}
    assert named <= known | {""}


def test_onnx_ir_writes_what_is_taken(tmp_path: Path) -> None:
    arrays = {"a": np.ones((8, 8), np.float32), "b": np.ones(3, bool), "c": np.ones((5, 5), np.float16)}
    values = [ir.Value(name=n, const_value=ir.tensor(a, name=n)) for n, a in arrays.items()]
    it = ir.Model(ir.Graph([], [], nodes=[], initializers=values, opset_imports={"": 18}), ir_version=10)
    ir.save(it, tmp_path / "it.onnx", external_data="it.onnx.data", size_threshold_bytes=0)
    refuse_bad(tmp_path / "it.onnx", {"it.onnx.data"})
    assert {found.tensor: found.size for found in references(tmp_path / "it.onnx")} == {"a": 256, "b": 3, "c": 50}
