"""The recipe, the command by hand, what an engine says of itself, clocks, the fingerprint: without any GPU."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from exporter import registry
from exporter.errors import Refused
from exporter.graph import Graph
from exporter.target import LOAD, QUANTISED, REBUILD, TYPES, UNPROVEN, Options
from exporter.target_options import completed, target_options
from tests.targets.tensorrt.parts import build, clocks, cuda, facts, fits, inspector, recipe, target

OPTIONS = Options(
    "fp16", dims={"T": (2, 63, 4000, 1), "H": (64, 96, 128, 8)},
    shapes={"spec": (1, 257, "T", 2), "image": (1, 3, "H", "H/4"), "state": (1, 16)},
)  # fmt: skip


def made(*pairs: str) -> Any:
    settings = completed(target, target_options(target, pairs))
    return recipe.Recipe("fp16", settings, recipe.profile_of(OPTIONS), {"conv": "fp16"})


def test_one_declaration_of_dims_is_the_profile() -> None:
    profile = recipe.profile_of(OPTIONS)
    assert profile["spec"] == {"min": [1, 257, 2, 2], "opt": [1, 257, 63, 2], "max": [1, 257, 4000, 2]}
    assert profile["image"] == {"min": [1, 3, 64, 16], "opt": [1, 3, 96, 24], "max": [1, 3, 128, 32]}


def test_a_recipe_is_the_same_bytes_and_comes_back(tmp_path: Path) -> None:
    one = made("workspace=4G")
    one.write(tmp_path / "a.json")
    one.write(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert recipe.Recipe.read(tmp_path / "a.json") == one
    (tmp_path / "c.json").write_text(json.dumps({"schema": "another/1"}))
    with pytest.raises(Refused, match=r"its schema is not exporter\.tensorrt-recipe/1"):
        recipe.Recipe.read(tmp_path / "c.json")


def test_by_hand_names_what_is_dynamic_and_nothing_else() -> None:
    words = shlex.split(recipe.trtexec(made("workspace=512M"), "a graph.onnx"))
    assert "--onnx=a graph.onnx" in words and "--memPoolSize=workspace:512M" in words and "--noTF32" in words
    assert "--maxShapes=spec:1x257x4000x2,image:1x3x128x32" in words
    assert "--stronglyTyped" not in words, "there is no other network since 11"
    assert "--stronglyTyped" in shlex.split(recipe.trtexec(made("version=10.3"), "g.onnx"))
    flags = ("version-compatible=1", "refit=1", "strip-plan=1", "weight-streaming=1", "hardware-compatible=ampere-plus")
    more = shlex.split(recipe.trtexec(made(*flags), "g.onnx"))
    assert {"--versionCompatible", "--refit", "--stripWeights", "--allowWeightStreaming"} <= set(more)
    assert "--hardwareCompatibilityLevel=ampere+" in more


# ------------------------------------------------------------------------------------------------- the inspector


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Row major linear FP32", "fp32"), ("Row major linear FP16 format", "fp16"), ("Half", "fp16"),
        ("Float", "fp32"), ("BFloat16", "bf16"), ("Float16", "fp16"), ("Int64", "int64"), ("Bool", "bool"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"), ("FP8", "fp8"), ("", ""),
        ("Two wide channel vectorized row major FP16 format", "fp16"),
    ],
)  # fmt: skip
def test_types_are_read_in_the_words_of_every_version(words: str, kind: str) -> None:
    assert inspector.type_of(words) == kind


def layer(name: str, kind: str, nodes: list[str], *types: str, tactic: str = "", **more: Any) -> dict[str, Any]:
    tensors = [{"Name": "t", "Format/Datatype": words} for words in types]
    metadata = "\x1e".join(f"[ONNX Layer: {node}]" for node in nodes)
    return {"Name": name, "LayerType": kind, "Inputs": tensors[:1], "Outputs": tensors[1:], "Metadata": metadata,
            "TacticName": tactic, **more}  # fmt: skip


def said(*layers: Any) -> str:
    return json.dumps({"Layers": list(layers), "Bindings": []})


def ran(declared: dict[str, str], network: dict[str, str], *layers: Any) -> Any:
    return inspector.ran(inspector.layers_of(said(*layers)), declared, network, "GPU")


def test_layers_that_compute_are_counted_and_those_that_move_are_not() -> None:
    found = ran(
        {"conv": "fp16", "relu": "fp16"}, {},
        layer("reformat", "Reformat", [], "Float", "Half"),
        layer("conv + relu", "CaskConvolution", ["conv", "relu"], "Half", "Half"),
    )  # fmt: skip
    assert found.precision == "fp16" and found.layers == {"fp16": 1} and found.differing == {}


def test_a_node_in_another_type_than_declared_is_named() -> None:
    found = ran({"conv": "fp16", "out": "fp16"}, {}, layer("conv", "CaskConvolution", ["conv"], "Float", "Float"),
                layer("out", "gemm", ["out"], "Half", "Half"))  # fmt: skip
    assert found.differing == {"conv": "fp32"} and found.precision == "fp16+fp32"


def test_a_node_that_stays_in_float32_may() -> None:
    found = ran({"conv": "fp16", "norm": "fp32"}, {}, layer("conv", "CaskConvolution", ["conv"], "Half", "Half"),
                layer("norm", "Norm", ["norm"], "Float", "Float"))  # fmt: skip
    assert found.differing == {} and found.precision == "fp16+fp32"


def test_inside_a_fused_part_the_strongly_typed_network_says_what_ran() -> None:
    """The inspector shows the doors of a fused part alone, and they are the model's float32 inputs and outputs."""
    fused = layer("{ForeignNode[a...b]}", "Myelin", ["a", "b"], "Float", "Float")
    assert ran({"a": "fp16", "b": "fp16"}, {"a": "fp16", "b": "fp16"}, fused).differing == {}
    lied = ran({"a": "fp16", "b": "fp16"}, {"a": "fp32", "b": "fp32"}, fused)
    assert lied.differing == {"a": "fp32", "b": "fp32"} and lied.precision == "fp32"


def test_a_kernel_with_tf32_in_its_name_is_tf32() -> None:
    tactic = "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc"
    found = ran({"conv": "fp32"}, {}, layer("conv", "CaskConvolution", ["conv"], "Float", "Float", tactic=tactic))
    assert found.precision == "tf32"


def test_an_engine_without_detail_proves_nothing() -> None:
    assert ran({"conv": "fp16"}, {}, "conv").precision == UNPROVEN


@pytest.mark.parametrize(
    "name", ["__myl_CastMulMeanRsqrtMulCast_myl0_3", "_gemm_mha_v2_myl0_4", "{ForeignNode[a...b]}"]
)
def test_a_part_that_tensorrt_s_compiler_made_is_told_by_its_nodes(name: str) -> None:
    """Half at both doors, float32 inside, as the strongly typed network says."""
    kernel = layer(name, "kgen", ["cast", "mean", "out"], "Half", "Half")
    declared = {"cast": "fp32", "mean": "fp32", "out": "fp16"}
    assert ran(declared, declared, kernel).differing == {}
    assert ran(declared, declared | {"mean": "fp16"}, kernel).differing == {"mean": "fp16"}


def test_an_engine_that_names_no_node_of_the_graph_proves_nothing() -> None:
    other = layer("conv", "CaskConvolution", ["another"], "Half", "Half")
    assert ran({"conv": "fp16"}, {}, other).precision == UNPROVEN
    assert ran({"conv": "fp16"}, {"conv": "fp16"}, other).precision == "fp16", "noted when it was built"


def test_weights_tell_where_the_doors_do_not() -> None:
    both = layer("conv", "CaskConvolution", ["conv"], "Float", "Float", Weights={"Type": "Half", "Count": 8})
    assert ran({"conv": "fp16"}, {}, both).differing == {}


INT8 = "Thirty-two wide channel vectorized row major Int8 format"


def test_a_product_between_scales_ran_in_int8_where_it_shows() -> None:
    """The network has floating point behind such a product; the engine shows its quantised inputs."""
    conv = layer("conv + relu", "CaskConvolution", ["conv", "relu", "relu_quantize"], INT8, INT8)
    found = ran({"conv": "int8"}, {"conv": "fp32", "relu": "fp32"}, conv)
    assert found.differing == {} and found.nodes["conv"] == "int8" and found.precision == "int8"
    plain = layer("conv + relu", "CaskConvolution", ["conv", "relu"], "Float", "Float")
    ignored = ran({"conv": "int8"}, {"conv": "fp32", "relu": "fp32"}, plain)
    assert ignored.differing == {"conv": "fp32"} and ignored.precision == "fp32"
    on_the_way_out = layer("conv + relu", "CaskConvolution", ["conv", "relu"], "Float", INT8)
    assert ran({"conv": "int8"}, {"conv": "fp32"}, on_the_way_out).differing == {"conv": "fp32"}


def quantised(tmp_path: Path, symmetric: bool) -> onnx.ModelProto:
    """Two convolutions with Q/DQ around the first, by the quantiser that exports use."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.normal(size=(4, 4, 3, 3)).astype(np.float32), name) for name in "ab"]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in "xy")
    nodes = [helper.make_node("Conv", ["x", "a"], ["h"], "first", pads=[1] * 4),
             helper.make_node("Conv", ["h", "b"], ["y"], "second", pads=[1] * 4)]  # fmt: skip
    graph = helper.make_graph(nodes, "it", [x], [y], weights)
    path = tmp_path / "it.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    save_file({"x": rng.normal(size=(1, 4, 8, 8)).astype(np.float32)}, tmp_path / "x.safetensors")
    options = Options("int8", way=QUANTISED, calibration={"model": [str(tmp_path / "x.safetensors")]}, kept=("second",))
    quantiser = registry.quantiser()
    assert quantiser is not None
    if symmetric:
        quantiser.quantise(Graph(path), options.calibration_files, options.kept, tmp_path / "out.onnx")
        return onnx.load(tmp_path / "out.onnx")
    return onnx.load(str(quantiser.compile(Graph(path), options, tmp_path).files["onnx"]))


def test_a_graph_with_scales_declares_its_products_alone(tmp_path: Path) -> None:
    model = quantised(tmp_path, symmetric=True)
    assert recipe.types_of(model) == {"first": "int8", "second": "fp32"}
    assert not any(facts.problems(model, version) for version in facts.VERSIONS.values())


def test_scales_with_zero_points_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    found = facts.problems(quantised(tmp_path, symmetric=False), facts.VERSIONS["11.4"])
    assert found and all("symmetric" in problem.reason for problem in found)


def test_bf16_graphs_are_of_an_operator_set_that_has_it_and_old_versions_are_told() -> None:
    assert target.opset_of("bf16", TYPES) == 22 and target.opset_of("fp16", TYPES) == 18
    node = helper.make_node("Relu", ["x"], ["y"], "relu")
    x, y = (helper.make_tensor_value_info(name, TensorProto.BFLOAT16, [4]) for name in "xy")
    model = helper.make_model(helper.make_graph([node], "it", [x], [y]), opset_imports=[helper.make_opsetid("", 22)])
    assert any("22 is not within" in p.reason for p in facts.problems(model, facts.VERSIONS["10.3"]))
    assert not facts.problems(model, facts.VERSIONS["11.4"])


def test_nodes_are_read_from_the_metadata() -> None:
    assert build.nodes_of("\x1e[ONNX Layer: /a/Conv]\x1e[ONNX Layer: /a/Relu]") == ["/a/Conv", "/a/Relu"]
    assert build.nodes_of("") == []


# --------------------------------------------------------------------------------------------------------- clocks


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_a_discrete_gpu_says_its_clocks_and_what_holds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, "echo '1410, 1980, 2619, 64, 301.5, 700.0, P0, Enabled, 0x0000000000000044'")
    found = clocks.conditions("GPU-1", tmp_path)
    assert found["clock_mhz"] == 1410 and found["celsius"] == 64 and found["watts_allowed"] == 700
    assert found["held_down_by"] == ["the power cap", "hardware for heat"]
    assert [what for what, _ in found["problems"]] == [
        "its clock is held down by the power cap", "its clock is held down by hardware for heat",
    ]  # fmt: skip


def test_an_older_driver_is_asked_by_the_older_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "1410, 1980, 2619, 64, [N/A], [N/A], P0, Disabled, 0x0000000000000001"
    smi(tmp_path, monkeypatch, f'case "$1" in *event*) echo "Field is not valid"; exit 2;; esac; echo "{line}"')
    found = clocks.conditions("GPU-1", tmp_path)
    assert found["watts"] is None and found["held_down_by"] == [], "idle is no throttling"
    assert [what for what, _ in found["problems"]] == ["the driver unloads between runs"]


def test_no_gpu_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert clocks.conditions("GPU-1", tmp_path) == {}
    smi(tmp_path, monkeypatch, "sleep 0; exit 9")
    assert clocks.conditions("GPU-1", tmp_path) == {}


def test_a_jetson_is_read_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    gpu = tmp_path / "sys/class/devfreq/17000000.ga10b"
    heat = tmp_path / "sys/class/thermal/thermal_zone0"
    mode = tmp_path / "var/lib/nvpmodel"
    for folder in (gpu, heat, mode):
        folder.mkdir(parents=True)
    (gpu / "cur_freq").write_text("306000000\n")
    (gpu / "max_freq").write_text("918000000\n")
    (heat / "temp").write_text("51250\n")
    (mode / "status").write_text("pmode:0002\n")
    found = clocks.conditions("GPU-1", tmp_path)
    assert (found["clock_mhz"], found["celsius"], found["power_mode"]) == (306, 51.25, "0002")
    ((what, advice),) = found["problems"]
    assert "306 of 918 MHz" in what and "jetson_clocks" in advice


# ---------------------------------------------------------------------------------------------------- fingerprint

GPU = cuda.Device("NVIDIA L4", "8.9", "GPU-1", "580.65.06", "13.0")
PRINT = {
    "tensorrt": "11.4.0.106", "gpu": "NVIDIA L4", "capability": "8.9", "driver": "580.65.06", "cuda": "13.0",
    "platform": "linux-x86_64", "compatible": "none",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


def decided(here: str = "11.4.0.106", index: int = 0, device: Any = GPU, **changes: str) -> Any:
    return fits({**PRINT, **changes}, (device,), index, here)


def test_the_same_machine_loads_it() -> None:
    assert decided().action == LOAD and decided().reason == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"here": "11.4.1.2"}, "built by TensorRT 11.4.0.106, here is 11.4.1.2"),
        ({"gpu": "NVIDIA L40"}, "built for NVIDIA L40 (8.9), here is NVIDIA L4 (8.9)"),
        ({"capability": "8.6"}, "(8.6), here is NVIDIA L4 (8.9)"),
        ({"driver": "590.1"}, "the driver is 580.65.06, older than 590.1"),
        ({"platform": "linux-aarch64"}, "built on linux-aarch64, this is linux-x86_64"),
        ({"index": 1}, "there is no GPU 1 here, of 1"),
        ({"compatible": "version", "here": "10.16.1.11"}, "built by TensorRT 11.4.0.106, here is 10.16.1.11"),
        ({"compatible": "version", "tensorrt": "8.6.1", "here": "11.4.0.106"}, "built by TensorRT 8.6.1"),
        ({"compatible": "ampere-plus", "device": replace(GPU, capability="7.5")}, "here is NVIDIA L4 (7.5)"),
    ],
)  # fmt: skip
def test_what_fits_no_longer_is_built_again(changes: dict[str, Any], reason: str) -> None:
    found = decided(**changes)
    assert found.action == REBUILD and reason in found.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"driver": "570.1"}, "driver 570.1, opened with 580.65.06"),
        ({"compatible": "version", "here": "11.9.0.1"}, "tensorrt 11.4.0.106, opened with 11.9.0.1"),
        ({"compatible": "version", "tensorrt": "10.3.0"}, "tensorrt 10.3.0, opened with 11.4.0.106"),
        ({"compatible": "version+ampere-plus", "capability": "8.0", "gpu": "NVIDIA A100"}, ""),
        ({"compatible": "same-compute-capability", "gpu": "NVIDIA L40"}, ""),
    ],
)
def test_what_was_built_to_move_moves(changes: dict[str, Any], reason: str) -> None:
    found = decided(**changes)
    assert found.action == LOAD and reason in found.reason


def test_an_unknown_fingerprint_is_no_fit() -> None:
    assert fits({}, (GPU,), 0, "11.4.0.106").action == REBUILD
