"""A lowered graph whose one layer is silently wrong is caught by its own hop, whichever layer it is."""

from __future__ import annotations

from unittest import mock

import onnx_ir as ir
import pytest

from exporter.lower import worker
from exporter.verdict import Verdict
from tests.fakes.lab import Specimen, specimen

MODEL = "conv-gated-ffn"


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    return specimen(MODEL, tmp_path_factory.mktemp("lowered"))


def weights(it: Specimen) -> list[str]:
    model = ir.load(it.simplified)
    return [name for name, value in model.graph.initializers.items()
            if value.const_value is not None and len(value.const_value.shape) > 2]  # fmt: skip


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_one_layer_of_other_weights(it: Specimen, precision: str) -> None:
    assert it.lowered(precision).hop.verdict is Verdict.PASS
    names, right = weights(it), worker.typed
    assert len(names) >= 3

    for name in names:

        def wrong(model: ir.Model, *rest: object, name: str = name) -> ir.Model:
            value = model.graph.initializers[name]
            assert value.const_value is not None
            # As much as a lower precision may err, many times over.
            value.const_value = ir.Tensor(value.const_value.numpy() * (1.1 if precision == "bf16" else 1.02), name=name)
            return right(model, *rest)  # type: ignore[arg-type]

        with mock.patch.object(worker, "typed", wrong), mock.patch("exporter.lower.ROUNDS", 0):
            assert it.lowered(precision).hop.verdict is Verdict.FAIL, name
