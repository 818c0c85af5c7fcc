"""The build recipe: all that an engine is built from beside its graph, written on any machine, read where the GPU is.

One dim declaration becomes one optimisation profile: its min, opt and max are the sizes that the engine takes, and the
opt ones those that it is fastest at. Precision is not in here: it is in the types of the graph, and the network is
strongly typed, on 10.x by a flag and on 11.x because there is no other.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import Incomplete, Refused
from exporter.target import Options, Setting
from exporter.target_options import completed

from . import facts
from .facts import NEWEST, OPSET, VERSIONS

if TYPE_CHECKING:
    import onnx

    from exporter.graph import Graph
    from exporter.target import Target

SCHEMA = "exporter.tensorrt-recipe/1"
NAMED = re.compile(r"(.+)-[0-9a-f]{12}(\..*)?")  # how a bundle names files, or the folder of two, by their content
COMPATIBILITY = ("none", "ampere-plus", "same-compute-capability")

SETTINGS: Mapping[str, Setting] = {
    "version": Setting(NEWEST, "the TensorRT to check the graph for, where none is installed", tuple(VERSIONS)),
    "workspace": Setting(0, "bytes of scratch memory that the builder may use, such as 4G; 0 is all there is"),
    "optimisation-level": Setting(3, "how long the builder searches, 0 to 5", low=0, high=5),
    "version-compatible": Setting(False, "an engine that later versions of TensorRT can open, at some cost of speed"),
    "hardware-compatible": Setting("none", "an engine for GPUs other than this one, at some cost", COMPATIBILITY),
    "refit": Setting(False, "an engine whose weights can be replaced"),
    "strip-plan": Setting(False, "an engine without its weights, which are put back from the graph when it is opened"),
    "weight-streaming": Setting(False, "weights that stay on the host, for models larger than the GPU's memory"),
    "timing-cache": Setting(True, "keep the builder's timings of kernels for the next build on this GPU"),
    "cuda-graph": Setting(False, "replay one recorded CUDA graph per call, when timed", when="run"),
}

# The types that arithmetic runs in, as ONNX numbers them (onnx.TensorProto).
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
KINDS = {1: "fp32", 10: "fp16", 16: "bf16", 11: "fp64"}


@dataclass(frozen=True)
class Recipe:
    """What an engine is built from beside its graph.

    Attributes:
        precision: the precision asked for.
        settings: every option of the target.
        profiles: per input the smallest, the usual and the largest shape.
        types: the type that each node of the graph computes in.
        problems: per version of the facts, what it refuses of the graph: known here, read where ``onnx`` is not.
        strongly_typed: always: no other network can be trusted to compute in what it was asked to.
        opset: what the graph is written in.
    """

    precision: str
    settings: Mapping[str, Any]
    profiles: Mapping[str, Mapping[str, list[int]]]
    types: Mapping[str, str]
    problems: Mapping[str, list[dict[str, str]]] = field(default_factory=dict)
    strongly_typed: bool = True
    opset: int = OPSET

    def write(self, path: Path) -> None:
        """Writes it as JSON, the same bytes for the same recipe."""
        text = json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """The recipe that :meth:`write` wrote."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if value.pop("schema") != SCHEMA:
                raise ValueError(f"its schema is not {SCHEMA}")
            read = cls(**value)
            if not all(isinstance(x, dict) for x in (read.settings, read.profiles, read.types, read.problems)):
                raise TypeError("a part of it is no object")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Refused(
                "bad-manifest",
                f"{path.name} is no build recipe: {error}",
                where=f"file {path.name}",
                why="an engine is built from its recipe, and from nothing that cannot be read",
                next="exporter tensorrt MODEL -o BUNDLE, on the machine that exported",
            ) from error
        return read


def recipe_of(target: Target, graph: Graph, options: Options) -> Recipe:
    """The recipe for a graph: what an export prepared with the options of now, or all of it from the graph."""
    settings, profiles = completed(target, options.extra), profile_of(options)
    if "recipe" in options.prepared:
        ahead = Recipe.read(Path(options.prepared["recipe"]))
        return replace(ahead, settings=settings, profiles=profiles)
    if find_spec("onnx") is None:
        raise Incomplete(
            "runtime-absent",
            "the bundle holds no recipe for TensorRT, and a graph cannot be read here without onnx",
            where=f"graph {graph.path.name}",
            why="an export for TensorRT writes the recipe on any machine; without one it is made from the graph",
            next="pip install onnx, or on the machine that exported: exporter tensorrt MODEL -o BUNDLE",
        )
    model = graph.linked()
    found = {
        name: [problem.__dict__ for problem in facts.problems(model, version)]
        for name, version in facts.COLUMNS.items()
    }
    return Recipe(options.precision, settings, profiles, types_of(model), found)


def profile_of(options: Options) -> dict[str, dict[str, list[int]]]:
    """Per input its smallest, usual and largest shape: the three columns of an optimisation profile."""
    return {
        name: {
            which: [options.bounds(entry)[index] for entry in shape]
            for index, which in enumerate(("min", "opt", "max"))
        }
        for name, shape in options.shapes.items()
    }


def types_of(model: onnx.ModelProto) -> dict[str, str]:
    """The type that each node computes in: that of the first of its outputs that is floating point.

    A product between scales computes in int8. What lies around it may be drawn into it, or run beside it: of a graph
    with scales products alone are declared.
    """
    scaled = {output for node in model.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    inferred = facts.inferred(model)
    infos = [*inferred.value_info, *inferred.input, *inferred.output]
    kinds = {info.name: KINDS.get(info.type.tensor_type.elem_type) for info in infos}
    found = {}
    for node in inferred.node:
        given = [kind for kind in map(kinds.get, node.output) if kind]
        if not given or (scaled and node.op_type not in PRODUCTS):
            continue
        between = node.op_type in PRODUCTS and set(node.input[:2]) <= scaled
        found[node.name] = "int8" if between else given[0]
    return found


def trtexec(recipe: Recipe, graph: str) -> str:
    """The command line that builds the same engine on a machine without Python, in the bundle's folder."""
    place = Path(graph)  # content-named itself, or with its data in a folder that is
    found = [NAMED.fullmatch(part) for part in (place.parent.name, place.stem)]
    name = next((match[1] for match in found if match), "model")
    words = ["trtexec", f"--onnx={graph}", f"--saveEngine={name}.engine", "--skipInference"]
    words += [] if recipe.precision == "tf32" else ["--noTF32"]
    settings, dynamic = recipe.settings, [n for n, sizes in recipe.profiles.items() if sizes["min"] != sizes["max"]]
    if VERSIONS[settings["version"]] < (11, 0):
        words.append("--stronglyTyped")
    for which in ("min", "opt", "max"):
        shapes = [f"{name}:{'x'.join(map(str, recipe.profiles[name][which]))}" for name in dynamic]
        words += [f"--{which}Shapes={','.join(shapes)}"] if shapes else []
    if settings["workspace"]:
        words.append(f"--memPoolSize=workspace:{max(settings['workspace'] >> 20, 1)}M")
    words.append(f"--builderOptimizationLevel={settings['optimisation-level']}")
    flags = {"version-compatible": "--versionCompatible", "refit": "--refit", "strip-plan": "--stripWeights",
             "weight-streaming": "--allowWeightStreaming"}  # fmt: skip
    words += [flag for name, flag in flags.items() if settings[name]]
    level = {"none": "", "ampere-plus": "ampere+", "same-compute-capability": "sameComputeCapability"}
    if level[settings["hardware-compatible"]]:
        words.append(f"--hardwareCompatibilityLevel={level[settings['hardware-compatible']]}")
    line = shlex.join([*words, "--profilingVerbosity=detailed"])
    # Only from 11 on is every network strongly typed; before, the types in the graph would be a suggestion.
    return line if "--stronglyTyped" in words else f"{line}  (TensorRT 10: with --stronglyTyped)"
