"""Every definition passes on both targets; options that make no model are refused with their reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from exporter import registry
from exporter.errors import Refused
from exporter.host import apply
from exporter.host.metrics import METRICS
from exporter.spec import ModelDef
from exporter.verdict import Verdict
from tests.fakes import lab

TARGETS = ("openvino", "mobile")
NAMES = {
    "selective-igev", "selective-igev-loop", "group-wise-correlation", "cost-aggregation", "geometry-lookup",
    "superpixel-upsample",
}  # fmt: skip


def specimen(name: str, folder: Path, dims: tuple[str, ...] = (), **options: Any) -> lab.Specimen:
    """The lab's specimen of the definition that ``options`` make, at ``dims``."""
    right = registry.model

    def with_options(asked: str, given: Any = None) -> ModelDef:
        return right(asked, {**options, **(given or {})} if asked == name else given).with_dims(dims)

    with mock.patch.object(registry, "model", with_options):
        return lab.specimen(name, folder)


def passes(it: lab.Specimen) -> None:
    for target in TARGETS:
        hop = it.verify(target)
        assert hop.verdict is Verdict.PASS, hop.reason
        assert {result.case for result in hop.results} == {case["name"] for case in it.case_list}


def test_these_definitions_are_listed() -> None:
    assert set(registry.model_names()) >= NAMES
    assert all(registry.model(name).family == "selective_igev" for name in NAMES)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("group-wise-correlation", {"channels": 16, "groups": 4, "disparities": 6}),
        ("cost-aggregation", {"disparities": 16}),
        ("geometry-lookup", {"disparities": 16}),
        ("superpixel-upsample", {}),
    ],
)
@pytest.mark.slow
def test_a_block_passes_on_both_targets(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    passes(specimen(name, tmp_path, **options))


@pytest.mark.slow
def test_the_network_passes_on_both_targets(tmp_path: Path) -> None:
    passes(specimen("selective-igev", tmp_path, ("H=64:64:96", "W=64:64:128"), iterations=2, attention_map=True))


@pytest.mark.slow
def test_the_widest_range_of_disparities_passes_on_both_targets(tmp_path: Path) -> None:
    passes(specimen("selective-igev", tmp_path, ("H=64:64:64", "W=64:64:96"), iterations=1, max_disparity=768))


@pytest.mark.slow
def test_the_loop_passes_on_both_targets(tmp_path: Path) -> None:
    passes(specimen("selective-igev-loop", tmp_path, ("H=64:64:96", "W=64:64:128", "iterations=1:2:4")))


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("selective-igev", "iterations", 0),
        ("selective-igev", "iterations", 33),
        ("selective-igev", "iterations", True),
        ("selective-igev", "max_disparity", 200),
        ("selective-igev", "max_disparity", 0),
        ("selective-igev", "attention_map", 1),
        ("selective-igev", "max_height", 100),
        ("selective-igev", "max_width", 32),
        ("selective-igev-loop", "max_disparity", 16),
        ("selective-igev-loop", "attention_map", 1),
        ("selective-igev-loop", "max_width", 32),
        ("group-wise-correlation", "groups", 7),
        ("group-wise-correlation", "disparities", 0),
        ("cost-aggregation", "disparities", 12),
        ("geometry-lookup", "disparities", 3),
    ],
)
def test_an_option_that_makes_no_model_is_refused(name: str, option: str, value: object) -> None:
    with pytest.raises(Refused) as caught:
        registry.model(name, {option: value})
    assert caught.value.code == "bad-option"
    assert f"{option}={value}" in caught.value.what and caught.value.why and caught.value.next


def test_options_reach_the_definition() -> None:
    definition = registry.model("selective-igev", {"iterations": 3, "attention_map": True, "max_width": 384})
    assert definition.options["iterations"] == 3
    assert [t.name for t in definition.outputs] == ["disparity", "attention04", "attention08", "attention16"]
    assert {dim.name: dim.max for dim in definition.dims} == {"H": 128, "W": 384}


def test_a_width_below_64_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        registry.model("selective-igev").with_dims(["W=32"])
    assert caught.value.code == "bad-dim" and "one column wide" in caught.value.why
    with pytest.raises(Refused) as caught:
        registry.model("selective-igev", {"max_width": 32})
    assert "one column wide" in caught.value.why and "sampler" not in caught.value.why


@pytest.mark.parametrize("name", ["selective-igev", "selective-igev-loop"])
def test_real_pairs_become_inputs_and_disparities_of_their_own_size(name: str) -> None:
    definition = registry.model(name)
    samples = list(definition.samples()) if definition.samples else []
    if not samples:
        pytest.skip("scikit-image is absent: no photographs")
    for sample in samples:
        truth = sample.truth["disparity"]
        values = {**sample.values, **apply(definition.before, sample.values, definition.dims)}
        height, width = values["left"].shape[-2:]
        assert values["right"].shape == (1, 3, height, width) and not height % 32 and not width % 32
        assert values["left"].min() >= 0 and 100 < values["left"].max() <= 255
        padded = np.zeros((1, 1, height, width), np.float32)
        top, side, rows, columns = values["left.size"]
        for shift in (0.0, 2.5):
            # Positive as the model gives it: no sign is turned.
            padded[0, 0, top : top + rows, side : side + columns] = np.nan_to_num(truth, posinf=0) + shift
            found = apply(definition.after, {**values, "disparity": padded})
            assert found["disparity"].shape == truth.shape and truth.max() > 0
            assert METRICS["epe"].function(found, sample.truth) == pytest.approx(shift, abs=1e-6)
