"""Every field of the configuration has an effect, or is refused where nothing reads it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from exporter import registry
from exporter.errors import Refused
from model_defs.vqa.config import DEFAULTS, FUSIONS, OPTIONS, RATES, VQAConfig
from model_defs.vqa.network import VQA

FIELDS = [field.name for field in dataclasses.fields(VQAConfig)]
# For every field: a configuration that reads it, and another value of it.
EFFECTS: dict[str, tuple[dict[str, Any], Any]] = {
    "fusion": ({"fusion": "gated"}, "quality"),
    "backbone": ({}, "efficientnet_b1"),
    "second_backbone": ({}, "efficientnet_b0"),
    "inputs": ({}, 2),
    "temporal": ({"temporal": "tsm"}, "tea"),
    "frames": ({"temporal": "tsm", "frames": 4}, 8),
    "feature_dim": ({"feature_dim": 64}, 32),
    "dropout": ({}, 0.4),
    "drop_path": ({}, 0.3),
    "num_heads": ({"num_heads": 8}, 4),
    "attention_dropout": ({}, 0.4),
    "num_experts": ({"fusion": "adaptive"}, 2),
    "gate_hidden_dim": ({"fusion": "gated"}, 64),
    "context_dim": ({"fusion": "dynamic"}, 64),
    "quality_dim": ({"fusion": "quality"}, 32),
}
# For every field that some models do not read: such a model, and a value.
UNREAD: dict[str, tuple[dict[str, Any], Any]] = {
    "frames": ({}, 4),
    "num_heads": ({"fusion": "gated", "second_backbone": "efficientnet_b0"}, 4),
    "attention_dropout": ({"fusion": "pyramid"}, 0.2),
    "num_experts": ({"fusion": "gated"}, 4),
    "gate_hidden_dim": ({"fusion": "adaptive"}, 256),
    "context_dim": ({}, 128),
    "quality_dim": ({"fusion": "dynamic"}, 64),
}


def traits(config: VQAConfig) -> dict[str, Any]:
    """What can be told of a model without running it: shapes of weights, rates, heads, and what it takes."""
    with torch.device("meta"):
        model = VQA(config)
    return {
        "shapes": {name: tuple(p.shape) for name, p in model.state_dict().items()},
        "rates": [m.p for m in model.modules() if isinstance(m, nn.Dropout)],
        "drop paths": [m.drop_prob for m in model.modules() if type(m).__name__ == "DropPath"]
        + [getattr(m, "drop_path_rate", None) for m in model.modules() if hasattr(m, "drop_path_rate")],
        "heads": [m.heads for m in model.modules() if hasattr(m, "heads")],
        "takes": accepted(model),
    }


def accepted(model: nn.Module) -> list[str]:
    """What the model says of inputs that no model takes all of."""
    said = []
    image, clip = torch.zeros(1, 3, 224, 224, device="meta"), torch.zeros(1, 4, 3, 224, 224, device="meta")
    for given in ((image, None, None), (image, image, None), (image, None, clip)):
        try:
            model._refuse_other_inputs(*given)
            said.append("taken")
        except ValueError as error:
            said.append(str(error))
    return said


def test_the_tables_speak_of_every_field() -> None:
    assert list(EFFECTS) == FIELDS
    assert sorted(UNREAD) == sorted(DEFAULTS)


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_has_an_effect(field: str) -> None:
    given, other = EFFECTS[field]
    given = {"feature_dim": 64, **given}
    assert traits(VQAConfig(**given)) != traits(VQAConfig(**{**given, field: other}))


@pytest.mark.parametrize("field", sorted(UNREAD))
def test_a_field_that_nothing_reads_is_refused(field: str) -> None:
    given, value = UNREAD[field]
    assert getattr(VQAConfig(**given), field) is None
    with pytest.raises(Refused, match=f"{field}={value}") as caught:
        VQAConfig(**given, **{field: value})
    assert caught.value.code == "bad-option" and "nothing reads it" in caught.value.why
    if field != "attention_dropout":  # a rate of training, no option of an export
        with pytest.raises(Refused, match=field):
            registry.model("vqa", {**given, field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fusion", "concat"),
        ("backbone", "resnet50"),
        ("second_backbone", "efficientnet-b0"),
        ("inputs", 3),
        ("inputs", True),
        ("inputs", 1.0),
        ("dropout", float("nan")),
        ("temporal", "lstm"),
        ("feature_dim", 0),
        ("feature_dim", 500),
        ("feature_dim", "512"),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", "much"),
        ("drop_path", True),
        ("attention_dropout", 2),
        ("num_heads", 7),
        ("num_heads", 0),
    ],
)
def test_a_value_that_makes_no_model_is_refused(field: str, value: Any) -> None:
    with pytest.raises(Refused) as caught:
        VQAConfig(**{field: value})
    error = caught.value
    assert error.code == "bad-option" and field in error.what and error.where and error.why and error.next


@pytest.mark.parametrize(
    "given",
    [
        {"fusion": "adaptive", "num_experts": 0},
        {"fusion": "gated", "gate_hidden_dim": 3},
        {"fusion": "dynamic", "context_dim": 1},
        {"fusion": "quality", "quality_dim": -1},
        {"temporal": "tsm", "frames": 1},
        {"temporal": "slowfast", "frames": 6},
    ],
)
def test_a_size_that_makes_no_part_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        VQAConfig(**given)


def test_sizes_that_are_not_given_are_the_documents() -> None:
    config = VQAConfig()
    assert (config.feature_dim, config.dropout, config.num_heads, config.attention_dropout) == (512, 0.1, 8, 0.1)
    assert VQAConfig(fusion="adaptive").num_experts == 4
    assert VQAConfig(fusion="gated").gate_hidden_dim == 256
    assert VQAConfig(fusion="dynamic").context_dim == 128
    assert VQAConfig(fusion="quality").quality_dim == 64


def test_the_definition_takes_every_field_but_the_rates_of_training() -> None:
    assert sorted(OPTIONS) == sorted(set(FIELDS) - set(RATES))
    assert list(registry.model("vqa").options) == list(OPTIONS)
    for rate in RATES:
        with pytest.raises(Refused, match=rate):
            registry.model("vqa", {rate: 0.0})


def test_it_cannot_be_changed_and_copies_are_checked() -> None:
    config = VQAConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.fusion = "gated"  # type: ignore[misc]
    with pytest.raises(Refused):
        dataclasses.replace(config, fusion="none")


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_options_of_a_definition_make_the_same_definition(fusion: str) -> None:
    first = registry.model("vqa", {"fusion": fusion})
    again = registry.model("vqa", dict(first.options))
    assert again.options == first.options and again.outputs == first.outputs
