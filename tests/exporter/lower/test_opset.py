"""Graphs in an operator set of the target's choice."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from exporter.bundle import Bundle
from exporter.errors import NotProven
from exporter.lower.worker import in_opset
from tests.cli_fakes.tool import run


def model(kind: str, opset: int, **attributes: object) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    graph = helper.make_graph([helper.make_node(kind, ["x"], ["y"], **attributes)], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def test_a_graph_is_left_alone_where_any_will_do_or_it_is_right() -> None:
    it = model("Relu", 18)
    assert in_opset(it, None) is it and in_opset(it, 18) is it


@pytest.mark.parametrize("opset", [16, 20])
def test_it_is_written_in_another(opset: int) -> None:
    assert in_opset(model("Relu", 18), opset).opset_import[0].version == opset


def test_what_has_no_older_form_is_refused() -> None:
    with pytest.raises(NotProven, match="cannot be written in opset 13") as caught:
        in_opset(model("Gelu", 20), 13)
    assert caught.value.code == "unsupported"


@pytest.mark.slow
def test_a_target_gets_its_own_and_the_bundle_keeps_both(tmp_path: Path) -> None:
    made = run("fake-older", "tiny", "-o", tmp_path / "it.bundle", "--no-profile", "--json")
    assert made.code == 0, made
    hops = {hop["hop"]: hop for hop in made.json["verify"]["hops"]}
    assert hops["lowered"]["verdict"] == "PASS" and hops["lowered"]["precision"]["ran"] == "fp32"
    manifest = Bundle.open(tmp_path / "it.bundle").manifest
    files = {16: manifest.targets["fake-older/fp32"].graphs["model"], 18: manifest.graphs["model"].simplified}
    for opset, file in files.items():
        assert onnx.load(str(tmp_path / "it.bundle" / file)).opset_import[0].version == opset
    again = run("compile", tmp_path / "it.bundle", "--target", "fake-older", "--json")
    assert again.code == 0, again
