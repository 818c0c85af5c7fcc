"""Every definition passes on both targets; options that make no model are refused with their reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
import torch

from exporter import registry
from exporter.errors import Refused
from exporter.verdict import Verdict

from .specimens import SMALL, TARGETS, specimen


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mdta", {}),
        ("mdta", {"dim": 16, "heads": 4, "bias": True}),
        ("conv-gated-ffn", {}),
        ("conv-gated-ffn", {"bias": True}),
        ("multi-head-attention", {}),
        ("multi-head-attention", {"mask": True}),
        ("pixel-unshuffle", {"factor": 4, "channels": 8}),
        ("pixel-shuffle", {}),
        ("restormer", {**SMALL, "variant": "dual-pixel"}),
    ],
)
@pytest.mark.slow
def test_it_passes_on_both_targets(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    # The variant without samples may be as small as its dims allow.
    dims = ("H=64:64:80", "W=64:64:88") if name == "restormer" else ()
    it = specimen(name, tmp_path, dims, **options)
    for target in TARGETS:
        hop = it.verify(target)
        assert hop.verdict is Verdict.PASS, hop.reason


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["color", "denoise", "gray"])
def test_every_variant_of_restormer_passes_on_both_targets(variant: str, tmp_path: Path) -> None:
    it = specimen("restormer", tmp_path, ("H=64:72:128", "W=64:80:128"), **SMALL, variant=variant)
    for target in TARGETS:
        hop = it.verify(target)
        assert hop.verdict is Verdict.PASS, hop.reason


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["denoise", "gray", "dual-pixel"])
def test_every_variant_passes_at_its_published_size(variant: str, tmp_path: Path) -> None:
    """The colour one is exported with every card; of the others the smallest image shows all there is."""
    it = specimen("restormer", tmp_path, ("H=64:72:72", "W=64:64:72"), variant=variant)
    for target in TARGETS:
        hop = it.verify(target)
        assert hop.verdict is Verdict.PASS, hop.reason


@pytest.mark.parametrize("name", ["pixel-unshuffle", "pixel-shuffle"])
def test_rearranged_pixels_are_those_of_pytorch_bit_by_bit(name: str, tmp_path: Path) -> None:
    """ONNX's SpaceToDepth orders channels otherwise (DCR); with one channel nobody would notice.

    See https://github.com/microsoft/onnxscript/issues/2891.
    """
    it = specimen(name, tmp_path, factor=2, channels=3)
    kinds = {node.op_type for path in (it.traced, it.simplified) for node in onnx.load(path).graph.node}
    assert "SpaceToDepth" not in kinds
    layers = {op.get_type_name() for op in ov.Core().read_model(it.artifact("openvino").files["xml"]).get_ops()}
    assert "SpaceToDepth" not in layers
    module = it.definition.build()
    for target in TARGETS:
        with registry.target(target).open(it.artifact(target), it.options, it.artifact(target).forms[0]) as runner:
            for case in it.case_list:
                given = it.inputs(case)
                wanted = module(torch.from_numpy(given["x"])).numpy()
                assert np.array_equal(runner.infer(given, check_inputs=False)["y"], wanted), (target, case["name"])


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("restormer", {"variant": "blind"}, "dual-pixel"),
        ("restormer", {"variant": ["color"]}, "dual-pixel"),
        ("restormer", {"blocks": "1,2,3"}, "4 whole numbers"),
        ("restormer", {"blocks": "1,0,1,1"}, "4 whole numbers"),
        ("restormer", {"blocks": "a,b,c,d"}, "4 whole numbers"),
        ("restormer", {"blocks": "1,1,1,1000000"}, "4 whole numbers"),
        ("restormer", {"heads": "1,2,4,5"}, "divided"),
        ("restormer", {"heads": 1}, "4 whole numbers"),
        ("restormer", {"dim": 47}, "multiple of 2"),
        ("restormer", {"dim": 0}, "whole number from 2"),
        ("restormer", {"dim": 10_000_000}, "whole number"),
        ("restormer", {"refinement": 0}, "whole number"),
        ("restormer", {"refinement": 1_000_000}, "whole number"),
        ("restormer", {"expansion": 0.001}, "hidden"),
        ("restormer", {"expansion": True}, "number"),
        ("restormer", {"expansion": float("nan")}, "number"),
        ("restormer", {"bias": "no"}, "true or false"),
        ("mdta", {"heads": 5}, "divide"),
        ("mdta", {"heads": 0}, "whole number"),
        ("mdta", {"dim": 1.5}, "whole number"),
        ("mdta", {"dim": 10_000_000}, "whole number"),
        ("mdta", {"bias": "no"}, "true or false"),
        ("conv-gated-ffn", {"dim": 0}, "whole number"),
        ("conv-gated-ffn", {"dim": 10_000_000}, "whole number"),
        ("conv-gated-ffn", {"expansion": "wide"}, "number"),
        # By rounding 49 * (1 / 49) is below 1.
        ("conv-gated-ffn", {"dim": 49, "expansion": 1 / 49}, "hidden"),
        ("conv-gated-ffn", {"expansion": 10_000}, "number"),
        ("conv-gated-ffn", {"bias": "no"}, "true or false"),
        ("multi-head-attention", {"heads": 0}, "whole number"),
        ("multi-head-attention", {"heads": 10_000_000}, "whole number"),
        ("multi-head-attention", {"heads": 256, "channels": 17}, "from 1 to 16"),
        ("multi-head-attention", {"mask": "no"}, "true or false"),
        ("pixel-shuffle", {"factor": 1}, "from 2"),
        ("pixel-shuffle", {"factor": 100_000}, "from 2"),
        ("pixel-shuffle", {"channels": 10_000_000}, "whole number"),
        ("pixel-unshuffle", {"factor": True}, "whole number"),
        ("pixel-unshuffle", {"factor": 100_000}, "from 2"),
        ("pixel-unshuffle", {"channels": 0}, "whole number"),
    ],
)
def test_options_that_make_no_model(name: str, options: dict[str, Any], word: str) -> None:
    with pytest.raises(Refused) as caught:
        registry.model(name, options)
    error = caught.value
    assert error.code == "bad-option" and error.what and error.where and error.next and word in error.why


@pytest.mark.parametrize("name", ["mdta", "conv-gated-ffn", "restormer"])
def test_the_licence_says_that_nothing_of_the_authors_is_here(name: str) -> None:
    """It is all that a generated card says about it."""
    licence = registry.model(name).licence
    assert "the authors' code and weights are for non-commercial use; none of either is here" in licence


def test_a_list_of_levels_may_be_a_list() -> None:
    """``--set blocks=[1,1,1,1]`` reads as JSON; both ways are one option in the bundle."""
    listed, written = (registry.model("restormer", {"blocks": b}) for b in ([1, 1, 1, 1], "1,1,1,1"))
    assert listed.options == written.options and listed.checkpoint is None
    assert registry.model("restormer").checkpoint is not None


@pytest.mark.parametrize(("variant", "channels"), [("color", 3), ("gray", 1)])
def test_samples_are_degraded_photographs_with_the_clean_ones_as_truth(variant: str, channels: int) -> None:
    pytest.importorskip("skimage")
    definition = registry.model("restormer", {"variant": variant})
    assert definition.samples is not None
    samples = list(definition.samples())
    assert len(samples) == 2 and len({sample.name for sample in samples}) == 2
    for sample in samples:
        given, truth = sample.values["image"], sample.truth["image"]
        assert given.dtype == np.uint8 and given.shape == (128, 128, channels)
        assert truth.dtype == np.float32 and truth.shape == (1, channels, 128, 128)
        error = np.abs(given.transpose(2, 0, 1) / 255 - truth[0]).mean()
        assert 0.005 < error < 0.3


def test_two_views_come_without_a_sample() -> None:
    definition = registry.model("restormer", {"variant": "dual-pixel"})
    assert definition.samples is None and [step.step for step in definition.before] == ["pad", "tile"]
