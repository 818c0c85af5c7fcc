"""What the target uses of TensorRT and Polygraphy is there, in the real bindings of 10.3, 10.16 and 11.4."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

from tests.targets.tensorrt import bindings
from tests.targets.tensorrt.bindings import NEWEST, ROOT, VERSIONS

SOURCES = [ROOT / "targets" / "tensorrt.py", *sorted((ROOT / "targets" / "_tensorrt").glob("*.py"))]

# Methods and properties of objects, by the class the real bindings give them; the parameters that are named.
USED: dict[str, dict[str, tuple[str, ...] | None]] = {
    "IBuilderConfig": {
        "create_timing_cache": ("serialized_timing_cache",), "set_timing_cache": ("cache", "ignore_mismatch"),
        "get_timing_cache": (),
    },
    "ITimingCache": {"serialize": ()},
    "INetworkDefinition": {"num_layers": None, "get_layer": ("index",)},
    "ILayer": {"name": None, "metadata": None, "num_outputs": None, "get_output": ("index",)},
    "ITensor": {"dtype": None},
    "IProgressMonitor": {
        "phase_start": ("phase_name", "parent_phase", "num_steps"), "step_complete": ("phase_name", "step"),
        "phase_finish": ("phase_name",),
    },
    "IProfiler": {"report_layer_time": ("layer_name", "ms")},
    "Runtime": {"deserialize_cuda_engine": ("serialized_engine",), "engine_host_code_allowed": None},
    "ICudaEngine": {
        "create_engine_inspector": (), "num_io_tensors": None, "get_tensor_name": ("index",),
        "get_tensor_mode": ("name",), "get_tensor_dtype": ("name",), "is_shape_inference_io": ("name",),
        "create_execution_context": ("strategy",),
    },
    "EngineInspector": {"get_engine_information": ("format",)},
    "IExecutionContext": {
        "set_input_shape": ("name", "shape"), "set_tensor_address": ("name", "memory"), "get_tensor_shape": ("name",),
        "execute_async_v3": ("stream_handle",), "profiler": None,
    },
    "Refitter": {"refit_cuda_engine": ()},
    "OnnxParserRefitter": {"refit_from_file": ("model",)},
}  # fmt: skip
# Names that TensorRT has somewhere, and that the sources ask of things of their own, of CUDA or of Polygraphy.
OURS = {
    "append", "constant", "data", "dims", "engine", "infer_shapes", "kind", "line", "log", "nbytes", "node", "pop",
    "precision", "read", "shape", "type", "write",
}  # fmt: skip


@pytest.fixture(scope="module", params=VERSIONS)
def surface(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if reason := bindings.absent():
        pytest.skip(reason)
    return bindings.surface(request.param, tmp_path_factory.mktemp("bindings"))


def attributes_of_the_module() -> set[str]:
    """Every ``trt.A`` and ``trt.A.B`` of the sources."""
    found = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            chain, at = [], node
            while isinstance(at, ast.Attribute):
                chain.append(at.attr)
                at = at.value
            if chain and isinstance(at, ast.Name) and at.id == "trt":
                found.add(".".join(reversed(chain[-2:])))
    return found


def test_every_name_of_the_module_is_there(surface: dict[str, Any]) -> None:
    names = attributes_of_the_module()
    assert {"Runtime", "BuilderFlag.TF32"} - names == {"BuilderFlag.TF32"} and "MemoryPoolType.WORKSPACE" in names
    missing = set()
    for name in names:
        head, _, member = name.partition(".")
        there = head in surface["classes"] or head in surface["functions"] or head in surface["enums"]
        inside = not member or member in surface["enums"].get(head, {}) or _inside(surface, head, member)
        if name != "__version__" and not (there and inside):
            missing.add(name)
    assert not missing


def _inside(surface: dict[str, Any], head: str, member: str) -> bool:
    facts = surface["classes"].get(head, {})
    return any(member in facts.get(part, {}) for part in ("methods", "properties", "values"))


def test_every_method_takes_what_it_is_given(surface: dict[str, Any]) -> None:
    wrong = []
    for owner, members in USED.items():
        facts = surface["classes"][owner]
        for name, parameters in members.items():
            if parameters is None:
                if name not in facts["properties"]:
                    wrong.append(f"{owner}.{name} is no property")
                continue
            overloads = [[p["name"] for p in o] for o in facts["methods"].get(name, [])]
            if list(parameters) not in [o[: len(parameters)] for o in overloads]:
                wrong.append(f"{owner}.{name}{parameters}: {overloads}")
    assert not wrong


def test_nothing_of_an_object_is_used_that_is_not_listed_here(surface: dict[str, Any]) -> None:
    """What the sources ask of any object and TensorRT has on some class stands in ``USED``: the list cannot age."""
    parts = [facts[part] for facts in surface["classes"].values() for part in ("methods", "properties")]
    real = {name for part in parts for name in part if not name.startswith("_")}
    listed = {name for members in USED.values() for name in members}
    nodes = [node for source in SOURCES for node in ast.walk(ast.parse(source.read_text()))]
    asked = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert sorted((asked & real) - listed - OURS) == []


def test_what_is_made_takes_what_it_is_given_and_what_is_set_can_be(surface: dict[str, Any]) -> None:
    for owner, count in {"Runtime": 1, "Refitter": 2, "OnnxParserRefitter": 2}.items():
        overloads = surface["classes"][owner]["methods"]["__init__"]
        # pybind11 lists self under no name of its own.
        assert any(len([p for p in o if p["name"] != "self"]) == count for o in overloads), (owner, overloads)
    for owner, name in (("Runtime", "engine_host_code_allowed"), ("IExecutionContext", "profiler")):
        assert surface["classes"][owner]["properties"][name], f"{owner}.{name} cannot be set"


def test_types_and_levels_have_the_names_the_target_reads(surface: dict[str, Any]) -> None:
    enums = surface["enums"]
    assert {"FLOAT", "HALF", "BF16"} <= set(enums["DataType"])
    assert {"DETAILED"} <= set(enums["ProfilingVerbosity"]) and {"JSON"} <= set(enums["LayerInformationFormat"])
    assert {"AMPERE_PLUS", "NONE"} <= set(enums["HardwareCompatibilityLevel"])
    flags = {"TF32", "REFIT", "STRIP_PLAN", "VERSION_COMPATIBLE", "WEIGHT_STREAMING"}
    assert flags <= set(enums["BuilderFlag"])
    assert "STRONGLY_TYPED" in enums["NetworkDefinitionCreationFlag"]


def test_a_precision_can_be_asked_of_the_builder_before_11_and_not_since(surface: dict[str, Any]) -> None:
    """Why it is in the graph: the flags were permissions, and are gone."""
    gone = {"FP16", "BF16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"}
    here = set(surface["enums"]["BuilderFlag"])
    assert gone <= here if surface["version"].startswith("10.") else not gone & here
    if not surface["version"].startswith("10."):
        assert "EXPLICIT_BATCH" not in surface["enums"]["NetworkDefinitionCreationFlag"]
        assert "precision_is_set" not in surface["classes"]["ILayer"]["properties"]


def arguments_of_the_configuration() -> set[str]:
    """The keys that ``config_arguments`` gives, read from its source."""
    (function,) = [
        node for source in SOURCES for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == "config_arguments"
    ]  # fmt: skip
    (returned,) = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    assert isinstance(returned, ast.Dict)
    return {key.value for key in returned.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}


def test_polygraphy_has_the_arguments_that_the_target_gives() -> None:
    from polygraphy.backend.trt import CreateConfig, EngineBytesFromNetwork, NetworkFromOnnxPath, TrtRunner

    def arguments(kind: type) -> set[str]:
        return set(inspect.signature(kind.__init__).parameters)

    given = {"progress_monitor", *arguments_of_the_configuration()}
    assert len(given) > 10
    common = arguments(CreateConfig) | arguments(CreateConfig.__mro__[1])
    assert given <= common, given - common
    assert "strongly_typed" in arguments(NetworkFromOnnxPath)
    assert {"network", "config"} <= arguments(EngineBytesFromNetwork)
    assert "weight_streaming_percent" in arguments(TrtRunner)
    assert {"copy_outputs_to_host", "return_raw_buffers"} <= set(inspect.signature(TrtRunner._infer_impl).parameters)


def test_the_configuration_is_made_by_polygraphy_on_the_newest(tmp_path: Path) -> None:
    """With the real enums: what the recipe says in Polygraphy's words can be built from them."""
    if reason := bindings.absent():
        pytest.skip(reason)
    code = (
        "import dataclasses, importlib, sys\n"
        "from exporter import registry\n"
        "registry.target('tensorrt')\n"
        "build = importlib.import_module('exporter_targets._tensorrt.build')\n"
        "recipe = importlib.import_module('exporter_targets._tensorrt.recipe')\n"
        "settings = {name: s.default for name, s in recipe.SETTINGS.items()}\n"
        "settings |= {'workspace': 2**30, 'hardware-compatible': 'same-compute-capability', 'strip-plan': True}\n"
        "profile = {'x': {'min': [1, 2], 'opt': [2, 2], 'max': [4, 2]}}\n"
        "found = build.config_arguments(recipe.Recipe('fp32', settings, profile, {}))\n"
        "print({k: str(v) for k, v in found.items()})\n"
    )
    said = bindings.in_real(NEWEST, tmp_path, code)
    for word in (
        "MemoryPoolType.WORKSPACE",
        "SAME_COMPUTE_CAPABILITY",
        "DETAILED",
        "'tf32': 'False'",
        "'strip_plan': 'True'",
    ):
        assert word in said, said
