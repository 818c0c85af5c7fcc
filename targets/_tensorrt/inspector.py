"""What an engine says of itself, layer by layer: the type that each computed in, and the graph's nodes behind it.

The words are those of the engine inspector's JSON (``ICudaEngine.create_engine_inspector``), which differ between
versions: ``Row major linear FP16``, ``Half``, ``Thirty-two wide channel vectorized row major Int8 format``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.target import UNPROVEN, Ran

from .build import nodes_of

# In this order: BFloat16 holds the word Float, and Float16 the word Float too.
WORDS = (("bf16", r"bf16|bfloat16"), ("fp16", r"fp16|half|float16"), ("fp8", r"fp8|float8"),
         ("fp32", r"fp32|float32|float"), ("int8", r"int8"), ("int64", r"int64"), ("int32", r"int32"),
         ("bool", r"bool"))  # fmt: skip
# The types that arithmetic runs in; an integer that shows is a quantised value.
KINDS = ("bf16", "fp16", "fp32", "fp8", "int8")
# A kernel's name tells its arithmetic where it is tensor cores: sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_...
TF32 = re.compile(r"tf32", re.IGNORECASE)
# Parts that TensorRT's own compiler made: a ForeignNode, or kernels of it such as __myl_CastMulMeanRsqrtMulCast_myl0_3
# and _gemm_mha_v2_myl0_4. What shows of them are their doors; types change inside.
FUSED = re.compile(r"ForeignNode|myelin|_myl", re.IGNORECASE)
GENERATED = frozenset({"kgen"})
# Layers that only move or convert: they have the types of both sides.
MOVING = ("Cast", "Constant", "NoOp", "Reformat", "signal", "wait")


@dataclass(frozen=True)
class LayerFacts:
    """One layer of an engine.

    Attributes:
        name: the engine's name of it.
        kind: what the engine says that it is.
        nodes: the graph's nodes that it computes.
        types: the types that show at its inputs, outputs, weights and kernel.
        taken: those of its inputs alone: what is quantised on the way out was not computed in eight bits.
        whole: whether it is a fused part of the graph whose inside does not show.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    types: tuple[str, ...]
    whole: bool
    taken: tuple[str, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether it computes nothing."""
        return self.kind in MOVING or "reformat" in self.kind.lower()


def layers_of(information: str) -> list[LayerFacts]:
    """The layers in the inspector's JSON."""
    return [_layer(layer) for layer in json.loads(information)["Layers"]]


def _layer(layer: Any) -> LayerFacts:
    if isinstance(layer, str):  # an engine that was built without detailed verbosity
        return LayerFacts(layer, "unknown", (), (), False)
    name = str(layer.get("Name", ""))
    nodes = tuple(dict.fromkeys(nodes_of(str(layer.get("Metadata", "")))))
    types = sorted({kind for kind in _shown(layer) if kind in KINDS})
    tactic = f"{layer.get('TacticName', '')}"
    if TF32.search(tactic):
        types = sorted({*types, "tf32"} - {"fp32"})
    kind = str(layer.get("LayerType", "unknown"))
    fused = bool(nodes) and (kind in GENERATED or FUSED.search(f"{name} {kind}") is not None)
    taken = tuple(sorted(set(_of_tensors(layer, "Inputs"))))
    return LayerFacts(name, kind, nodes, tuple(types), fused, taken)


def _shown(layer: Mapping[str, Any]) -> Iterator[str]:
    """Every type that an entry of the inspector shows."""
    for side in ("Inputs", "Outputs"):
        yield from _of_tensors(layer, side)
    for key in ("Weights", "Bias"):
        value = layer.get(key)
        if isinstance(value, Mapping) and value.get("Count"):
            yield type_of(str(value.get("Type", "")))
    yield type_of(str(layer.get("TacticName", "")))


def _of_tensors(layer: Mapping[str, Any], side: str) -> Iterator[str]:
    """The types of a layer's inputs, or of its outputs."""
    for tensor in layer.get(side) or []:
        for key in ("Format/Datatype", "Datatype", "DataType"):
            yield type_of(str(tensor.get(key, "")))


def type_of(words: str) -> str:
    """The type that a description names, or nothing."""
    return next((kind for kind, pattern in WORDS if re.search(pattern, words, re.IGNORECASE)), "")


def ran(layers: Sequence[LayerFacts], declared: Mapping[str, str], network: Mapping[str, str], device: str) -> Ran:
    """What ran: per layer what shows, and inside a fused one what the strongly typed network says of its nodes.

    An engine that names none of the graph's nodes proves nothing, whatever types its layers show.

    Args:
        layers: the engine's.
        declared: the type of each node in the graph.
        network: the type of each node in the network that was built, noted then.
        device: the GPU's name.
    """
    counts: Counter[str] = Counter()
    differing: dict[str, str] = {}
    told: dict[str, str] = {}
    for layer in layers:
        if layer.moves or not (layer.types or layer.nodes):
            continue
        inside = {network[node] for node in layer.nodes if node in network} if layer.whole else set()
        types = sorted(inside or set(layer.types))
        if not types:
            continue
        counts["+".join(types)] += 1
        seen = set(layer.types) | inside | ({"fp32"} if "tf32" in layer.types else set())
        if "int8" in seen and "int8" not in layer.taken:
            seen, types = seen - {"int8"}, [kind for kind in types if kind != "int8"]
        for node in layer.nodes:  # a layer with two types at its doors computes in the one that the network has
            between = declared.get(node) == "int8" and "int8" in seen
            told[node] = "int8" if between else network[node] if network.get(node) in seen else "+".join(types)
        wrong = {node for node in layer.nodes if node in declared and declared[node] not in seen}
        differing |= dict.fromkeys(sorted(wrong), "+".join(types))
    # A network has the types of values: of a product between scales the floating point that its sums are given in.
    differing |= {n: k for n, k in network.items() if declared.get(n, k) not in (k, "int8")}
    kinds = {kind for key in counts for kind in key.split("+")}
    if declared and not declared.keys() & (network.keys() | {node for layer in layers for node in layer.nodes}):
        kinds = {UNPROVEN}
    return Ran("+".join(sorted(kinds)) or "none", dict(counts), {device: len(layers)}, differing, told)
