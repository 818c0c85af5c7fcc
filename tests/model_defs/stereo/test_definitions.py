"""Every definition passes on both targets; options that make no model are refused with their reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from exporter import host, registry
from exporter.errors import Refused
from exporter.host.metrics import METRICS
from exporter.verdict import Verdict
from model_defs.stereo.declare import NORMALISED

from .specimens import BLOCKS, TARGETS, built, meta, pair, specimen


def assert_it_passes(name: str, folder: Path, dims: tuple[str, ...], options: dict[str, Any]) -> None:
    it = specimen(name, folder, dims, **options)
    for target in TARGETS:
        hop = it.verify(target)
        assert hop.verdict is Verdict.PASS, hop.reason


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in BLOCKS if not name.startswith(("raft-", "selective-", "context-"))),
        ("correlation-lookup", {"sampler": "grid", "channels": 32}),
        ("convex-upsample", {"factor": 8}),
        # The full width is judged by the contract of all definitions.
        *((name, {"hidden": 16, "inputs": 24}) for name in BLOCKS if name.endswith(("gru", "gru-hx", "gru-fused"))),
        ("selective-conv-gru", {"hidden": 16, "inputs": 8, "small": 3, "large": 5}),
    ],
)
@pytest.mark.slow
def test_a_block_passes_on_both_targets(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    assert_it_passes(name, tmp_path, (), options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "dims"),
    [
        ("raft-stereo", {"iterations": 2}, ("H=64:64:96",)),
        ("raft-stereo", {"iterations": 2, "sampler": "grid"}, ("H=64:64:96",)),
        ("selective-raft", {"iterations": 2, "sampler": "grid"}, ("H=64:64:96",)),
        ("selective-raft-loop", {"sampler": "grid"}, ("H=64:64:96", "iterations=1:2:5")),
        ("raft-stereo", {"variant": "realtime", "iterations": 3, "max_width": 192}, ()),
        ("selective-raft", {"iterations": 2, "attention_map": True, "predictions": "all"}, ("H=64:64:96",)),
        ("selective-raft", {"iterations": 2, "layers": 1}, ("H=64:64:96",)),
        ("selective-raft-loop", {"attention_map": True}, ("H=64:64:96", "iterations=1:2:5")),
    ],
)
def test_a_network_passes_on_both_targets(
    name: str, options: dict[str, Any], dims: tuple[str, ...], tmp_path: Path
) -> None:
    assert_it_passes(name, tmp_path, dims, options)


@pytest.mark.parametrize(("sampler", "samplers", "gathers"), [("grid", 4, 0), ("gather", 0, 4)])
def test_the_lookup_has_the_operators_asked_for(sampler: str, samplers: int, gathers: int, tmp_path: Path) -> None:
    it = specimen("correlation-lookup", tmp_path, sampler=sampler, channels=8)
    kinds = [node.op_type for node in onnx.load(it.simplified).graph.node]
    assert (kinds.count("GridSample"), kinds.count("GatherElements")) == (samplers, gathers)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("raft-stereo", "variant", "tiny"),
        ("raft-stereo", "iterations", 0),
        ("raft-stereo", "max_width", 100),
        ("selective-raft", "iterations", 33),
        ("selective-raft", "layers", 4),
        ("selective-raft", "attention_map", "yes"),
        ("selective-raft", "predictions", "some"),
        ("selective-raft", "max_height", 32),
        ("selective-raft-loop", "max_width", 32),
        ("selective-raft-loop", "attention_map", 1),
        ("raft-conv-gru", "hidden", 0),
        ("selective-conv-gru", "small", 2),
        ("selective-conv-gru-fused", "large", 4),
        ("channel-attention", "ratio", 129),
        ("correlation-lookup", "sampler", "nearest"),
        *((name, "sampler", "nearest") for name in ("raft-stereo", "selective-raft", "selective-raft-loop")),
        ("convex-upsample", "factor", 0),
    ],
)
def test_options_that_make_no_model_are_refused(name: str, option: str, value: object) -> None:
    with pytest.raises(Refused) as refused:
        registry.model(name, {option: value})
    error = refused.value
    assert error.code == "bad-option" and f"--set {option}={value}" in error.what and option in error.where
    assert error.why and error.next


@pytest.mark.parametrize("name", ["raft-conv-gru-hx", "selective-conv-gru-fused"])
def test_a_form_from_code_under_another_licence_says_so(name: str) -> None:
    licence = registry.model(name).licence
    assert licence.startswith("Apache-2.0 (this definition, written from the equations)")
    assert "NVIDIA's non-commercial licence: none of it is here" in licence
    others = [other for other in BLOCKS if not other.endswith(("-hx", "-fused"))]
    assert not any("NVIDIA" in registry.model(other).licence for other in others)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_published_weights_fit_three_levels_alone(layers: int) -> None:
    definition = registry.model("selective-raft", {"layers": layers})
    units = [
        name for name in ("gru04", "gru08", "gru16") if hasattr(meta(definition.name, layers=layers).update_block, name)
    ]
    assert units == ["gru04", "gru08", "gru16"][:layers]
    assert (definition.checkpoint is None) == (layers != 3)


@pytest.mark.parametrize(
    ("name", "options", "normalised"),
    [
        ("raft-stereo", {}, "fnet"),
        ("raft-stereo", {"variant": "realtime"}, "shared"),
        *(("selective-raft", {"layers": layers}, "fnet") for layers in (1, 2, 3)),
    ],
)
def test_what_no_case_can_see_is_what_no_gradient_reaches(name: str, options: dict[str, Any], normalised: str) -> None:
    """But for the convolutions in front of an instance normalisation, which takes their scale and bias away."""
    definition = registry.model(name, {"iterations": 1, **options})
    network = built(name, iterations=1, **options).float()
    images = [image.float() for image in pair(64, 128)]
    sum(y.sum() for y in network(*images)).backward()
    idle = {key for key, value in network.named_parameters(remove_duplicate=False) if value.grad is None}
    buffers = [key for key, _ in network.named_buffers(remove_duplicate=False) if key.endswith(("_mean", "_var"))]
    idle |= {key for key in buffers if f"{key.rsplit('.', 1)[0]}.weight" in idle}
    assert len(set(definition.undetectable)) == len(definition.undetectable)
    assert set(definition.undetectable) == idle | set(NORMALISED[normalised])
    assert not idle & set(NORMALISED[normalised])


def test_the_real_time_network_begins_at_twice_the_width() -> None:
    """Its coarsest likenesses are at stride 64: two columns of an image of 128."""
    with pytest.raises(Refused, match="max_width=96"):
        registry.model("raft-stereo", {"variant": "realtime", "max_width": 96})
    dims = {dim.name: dim for dim in registry.model("raft-stereo", {"variant": "realtime", "max_width": 192}).dims}
    assert (dims["W"].min, dims["W"].max, dims["W"].step) == (128, 192, 32)


@pytest.mark.parametrize("name", ["raft-stereo", "selective-raft", "selective-raft-loop"])
def test_a_real_pair_comes_out_as_a_positive_disparity_of_its_size(name: str) -> None:
    definition = registry.model(name)
    assert definition.samples is not None
    samples = list(definition.samples())
    if not samples:
        pytest.skip("NO DATA: scikit-image is not installed")
    dims = {dim.name: dim for dim in definition.dims}
    for sample in samples:
        values = host.apply(definition.before, dict(sample.values), definition.dims)
        for tensor in definition.inputs:
            height, width = values[tensor.name].shape[2:]
            assert dims["H"].allows(height) and dims["W"].allows(width)
            assert 128 < values[tensor.name].max() <= tensor.high and values[tensor.name].min() >= tensor.low
        output = definition.outputs[1].name
        flow = np.zeros((1, 1, height, width), np.float32)
        top, side, rows, columns = values["left.size"]
        inside = flow[0, 0, top : top + rows, side : side + columns]
        for shift in (0.0, 2.5):
            inside[:] = -(np.nan_to_num(sample.truth["disparity"], posinf=0) + shift)
            found = host.apply(definition.after, {**values, output: flow})
            assert found["disparity"].shape == sample.truth["disparity"].shape and found["disparity"].max() > 0
            assert METRICS["epe"].function(found, sample.truth) == pytest.approx(shift, abs=1e-6)


def test_without_photographs_there_are_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util
    import sys

    definition = registry.model("selective-raft")
    photographs = importlib.import_module("exporter_model_defs._photographs")
    assert photographs.__name__ in sys.modules
    monkeypatch.setattr(photographs, "count", lambda: 0)
    assert definition.samples is not None and list(definition.samples()) == []
