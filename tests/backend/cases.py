"""The node tests of the ``onnx`` package, written once in ONNX's own layout, so that no child collects them anew.

``NAME/model.onnx`` and ``test_data_set_N/input_I.pb``, ``output_I.pb`` as
https://onnx.ai/onnx/repo-docs/OnnxBackendTest.html has them; ``NAME/case.json`` says how the test judges, and why it is
none of ours where it is not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from exporter.isolate import Channel
from exporter.manifest.schema import DTYPES

# ONNX's names of types that numpy calls otherwise.
NUMPY = {"float": "float32", "double": "float64"}
OWN_DOMAINS = ("", "ai.onnx")
# What they give is drawn, and the standard names no generator: the expected output is one draw of numpy's.
DRAWN = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
# Its third input, where there is one, says that it draws.
DROPOUT, TRAINING = "Dropout", 2


@dataclass(frozen=True)
class Case:
    """How one node test is judged.

    Attributes:
        rtol, atol: the test's own tolerances.
        outside: why no target is asked for it; nothing where they are.
    """

    rtol: float
    atol: float
    outside: str = ""


def collect(request: Mapping[str, Any], channel: Channel) -> list[str]:
    """Child: writes all node tests under ``folder``; gives their names in the order of the package."""
    from onnx.backend.test.loader import load_model_tests

    np.seterr(all="ignore")  # some tests overflow on purpose while they are made
    folder, found = Path(request["folder"]), load_model_tests(kind="node")
    for index, test in enumerate(found):
        write(folder / test.name, test.model, test.data_sets, test.rtol, test.atol)
        if index % 100 == 0:
            channel.send({"done": index, "of": len(found)})
    return [test.name for test in found]


def write(
    place: Path, model: onnx.ModelProto, data_sets: Sequence[Any], rtol: float = 1e-3, atol: float = 1e-7
) -> None:
    """Writes one test; ``data_sets`` holds the inputs and the expected outputs of each, in the graph's order."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / "model.onnx").write_bytes(model.SerializeToString())
    outside = _outside(model, data_sets)
    (place / "case.json").write_text(json.dumps(asdict(Case(rtol, atol, outside))))
    for number, (inputs, outputs) in enumerate([] if outside else data_sets):
        folder = place / f"test_data_set_{number}"
        folder.mkdir()
        for role, values in (("input", inputs), ("output", outputs)):
            for index, value in enumerate(values):
                (folder / f"{role}_{index}.pb").write_bytes(_proto(value).SerializeToString())


def read(place: Path) -> tuple[Case, list[tuple[list[np.ndarray], list[np.ndarray]]]]:
    """A test and its data sets: inputs and expected outputs, in the graph's order."""
    case = Case(**json.loads((place / "case.json").read_text()))
    folders = sorted(place.glob("test_data_set_*"))
    return case, [(_tensors(folder, "input"), _tensors(folder, "output")) for folder in folders]


def _tensors(folder: Path, role: str) -> list[np.ndarray]:
    count = len(list(folder.glob(f"{role}_*.pb")))
    return [numpy_helper.to_array(onnx.load_tensor(folder / f"{role}_{index}.pb")) for index in range(count)]


def _proto(value: Any) -> TensorProto:
    return value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value))


def _outside(model: onnx.ModelProto, data_sets: Sequence[Any]) -> str:
    """Why a test is none of ours: our interface is tensors of numbers, our graphs are ONNX's own operators."""
    foreign = sorted({node.domain for node in model.graph.node} - set(OWN_DOMAINS))
    if foreign:
        return f"operators of the domain {foreign[0]}"
    for role, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            kind = value.type.WhichOneof("value")
            if kind != "tensor_type":
                return f"an {role} is no tensor but of {kind.replace('_', ' ')}"
            name = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
            if NUMPY.get(name, name) not in DTYPES:
                return f"an {role} is of {name}, a type that no bundle has"
    if any(_draws(node, model, data_sets) for node in model.graph.node):
        return "its output is drawn at random, and the standard names no generator"
    return ""


def _draws(node: onnx.NodeProto, model: onnx.ModelProto, data_sets: Sequence[Any]) -> bool:
    if node.op_type in DRAWN:
        return True
    if node.op_type != DROPOUT or len(node.input) <= TRAINING:
        return False
    names = [value.name for value in model.graph.input]
    given = [dict(zip(names, inputs, strict=True)) for inputs, _ in data_sets]
    # A mode that the graph computes for itself is taken for training.
    return any(
        bool(np.all(values.get(node.input[TRAINING], True))) and bool(np.any(values.get(node.input[1], 1)))
        for values in given
    )
