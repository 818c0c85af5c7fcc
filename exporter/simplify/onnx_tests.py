"""A graph with cases in the layout of ONNX's own backend tests, which every ONNX runtime's test runner reads.

``model.onnx`` lies beside ``test_data_set_N/input_I.pb`` and ``output_I.pb``, which hold serialised tensors in the
graph's order. Format: https://onnx.ai/onnx/repo-docs/OnnxBackendTest.html
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx import numpy_helper

from exporter.bundle import read_tensors
from exporter.graph import Graph


def write(cases: Sequence[Mapping[str, Any]], types: Mapping[str, str], graph: Graph, folder: Path) -> None:
    """Writes one data set per case.

    Args:
        cases: ``{"file", ...}`` of single calls; their references are rounded to the outputs' own types.
        types: numpy name of every output's type.
        graph: what is tested. One whose weights lie in a file of their own is not copied: it would be as much again.
        folder: gets ``model.onnx``, ``test_data_set_0`` and so on.
    """
    model = graph.linked()
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in initializers]
    folder.mkdir(parents=True, exist_ok=True)
    if len(graph.files) == 1:
        shutil.copyfile(graph.path, folder / "model.onnx")
    for number, case in enumerate(cases):
        tensors, place = read_tensors(Path(case["file"])), folder / f"test_data_set_{number}"
        place.mkdir(parents=True, exist_ok=True)  # an entry of the cache that was damaged may have left it empty
        for index, name in enumerate(inputs):
            _write(place / f"input_{index}.pb", name, tensors[f"input/{name}"])
        for index, value in enumerate(model.graph.output):
            _write(
                place / f"output_{index}.pb", value.name, tensors[f"reference/{value.name}"].astype(types[value.name])
            )


def _write(path: Path, name: str, array: Any) -> None:
    path.write_bytes(numpy_helper.from_array(array, name).SerializeToString(deterministic=True))
