"""Peaks of types that numpy has none of, by the runtimes that multiply in them."""

from __future__ import annotations

import io
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator

from exporter import registry
from exporter.devices import side
from exporter.latency import peaks, products
from exporter.latency.products import KINDS, Kind, Product, graphs, products_of, reached, text_of
from exporter.manifest import TargetInfo
from exporter.target import HINT, MIXED, QDQ, QUANTISED, STORED, TYPES
from tests.device import there

SMALL = {
    "matrices": Kind("MatMul", (8, 8), (8, 8), 8**3),
    "convolution": Kind("Conv <pads = [1, 1, 1, 1]>", (1, 4, 6, 6), (4, 4, 3, 3), 36 * 16 * 9),
}
# What the counted multiplications are of, written down apart from them.
COUNTED = {"matrices": 1024 * 1024 * 1024, "convolution": 28 * 28 * 256 * 3 * 3 * 256}


def info(target: str, precision: str, way: str) -> TargetInfo:
    return TargetInfo(target, precision, {}, (), {}, precision, 0, way=way)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize(("precision", "way"), [("fp16", TYPES), ("bf16", HINT), ("int8", QDQ)])
def test_every_way_is_the_same_product(kind: str, precision: str, way: str) -> None:
    small = SMALL[kind]
    x = np.random.default_rng(0).uniform(-1.0, 1.0, small.x).astype(np.float32)
    plain, lowered = (onnx.parser.parse_model(text_of(p, w, small)) for p, w in (("fp32", ""), (precision, way)))
    onnx.checker.check_model(lowered, full_check=True)
    (wanted,), (found,) = (ReferenceEvaluator(model).run(None, {"x": x}) for model in (plain, lowered))
    inside = np.abs(wanted) < 1.9  # what the scales can hold
    assert found.dtype == np.float32 and inside.sum() > 40
    np.testing.assert_allclose(found[inside], wanted[inside], atol=0.15)


def test_the_graphs_that_lie_there_are_those_that_are_written_down() -> None:
    assert {path.name: path.read_bytes() for path in products.FOLDER.iterdir()} == graphs()


def test_the_large_ones_multiply_as_often_as_is_said() -> None:
    assert {name: kind.multiplications for name, kind in KINDS.items()} == COUNTED
    for kind in KINDS.values():
        model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text_of("fp32", "", kind)), strict_mode=True)
        assert [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim] == list(kind.x)


def test_a_device_has_all_that_it_takes(tmp_path: Path) -> None:
    """There is no ONNX there, and what is copied there has the graphs."""
    if there.absent():
        pytest.skip(there.absent())
    asked = (
        "import importlib.util, pathlib, sys; assert importlib.util.find_spec('onnx') is None;"
        "from exporter.latency.products import Product, reached;"
        "folder = pathlib.Path(sys.argv[1]);"
        "print(*(reached(Product(name, 'int8', 'qdq'), 1, folder) for name in ('openvino', 'mobile')))"
    )
    ended = subprocess.run([there.PYTHON, "-c", asked, tmp_path], capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and all(float(speed) > 0 for speed in ended.stdout.split()), ended
    assert len(ended.stdout.split()) == 2
    with zipfile.ZipFile(io.BytesIO(side.packed())) as archive:
        assert {f"exporter/latency/products/{name}" for name in graphs()} <= set(archive.namelist())


def test_what_layers_may_run_in_is_asked_once() -> None:
    assert products_of([info("mobile", "fp32", ""), info("mobile", "int8", STORED)]) == []
    whole = [info("openvino", "int8", MIXED), info("openvino", "int8", QUANTISED), info("mobile", "fp16", TYPES)]
    assert products_of(whole) == [
        Product("openvino", "int8", QDQ), Product("openvino", "bf16", HINT), Product("mobile", "fp16", TYPES),
    ]  # fmt: skip


@pytest.mark.parametrize("target", ["openvino", "mobile"])
def test_eight_bits_have_a_peak_by_both_runtimes(target: str, tmp_path: Path) -> None:
    speed = reached(Product(target, "int8", QDQ), 1, tmp_path)
    # Anything that runs this has more than a hundredth of these, and nothing a hundred times as much.
    assert speed is not None and 0.1 < speed < 1e6


def test_a_type_that_the_processor_lacks_has_none(tmp_path: Path) -> None:
    # ONNX Runtime takes bf16 nowhere on a processor; OpenVINO, told so where there is none of it, runs float32.
    assert reached(Product("mobile", "bf16", TYPES), 1, tmp_path) is None
    lacks = registry.target("openvino").lacks("bf16", 0) is not None
    assert (reached(Product("openvino", "bf16", HINT), 1, tmp_path) is None) == lacks


def test_the_best_runtime_is_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds: dict[str, float | None] = {"a": 3.0, "b": 5.0, "c": None}
    outcome: Any = type("Outcome", (), {"require": lambda self: {"gflops": 1.0, "gbs": {"8": 2.0}}})
    monkeypatch.setattr(peaks, "call", lambda *_, **__: outcome())
    monkeypatch.setattr(peaks, "reached", lambda product, _threads, _folder: speeds[product.target])
    found = peaks.peaks(1, tmp_path, [*(Product(name, "int8", QDQ) for name in "bac"), Product("c", "bf16", HINT)])
    assert found.gflops == {"fp32": 1.0, "int8": 5.0}
