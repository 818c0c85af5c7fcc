"""What a video quality model is made of: one frozen, typed value, checked when it is made. No torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from exporter.settings import Settings

# timm's smallest, 99,196 parameters: what two cores train in minutes. The document has the others.
SMALLEST_BACKBONE = "test_efficientnet"
EFFICIENTNETS = (*(f"{prefix}efficientnet_b{size}" for prefix in ("", "tf_") for size in range(8)), SMALLEST_BACKBONE)
VITS = tuple(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large"))
CONVNEXTS = tuple(f"convnext_{size}" for size in ("tiny", "small", "base", "large"))
BACKBONES = (*EFFICIENTNETS, *VITS, *CONVNEXTS)

# The strategies of the document by what they fuse: tokens of both branches, one vector of each, or four stage maps.
OF_TOKENS = ("cross", "bidirectional")
OF_VECTORS = ("self", "gated", "adaptive", "dynamic", "quality")
OF_STAGES = ("hierarchical", "pyramid")
FUSIONS = (*OF_TOKENS, *OF_VECTORS, *OF_STAGES)
TEMPORALS = ("none", "tsm", "tea", "slowfast")
WITH_ATTENTION = (*OF_TOKENS, "self")

# Pixels of a side: a ViT takes no other, and the branches see one image.
SIZE = 224
# The slow pathway of SlowFast sees every fourth frame.
SLOWNESS = 4
# Channels of an attention's gate are a sixteenth of the features, and temporal maps have a quarter of the features.
UNIT = 16
# What a field is that a strategy reads and that was not given.
DEFAULTS: dict[str, Any] = {
    "num_heads": 8,
    "attention_dropout": 0.1,
    "num_experts": 4,
    "gate_hidden_dim": 256,
    "context_dim": 128,
    "quality_dim": 64,
    "frames": 8,
}
# Rates of what is dropped in training: an exported graph drops nothing, and its definition does not take them.
RATES = ("dropout", "drop_path", "attention_dropout")


@dataclass(frozen=True)
class VQAConfig:
    """Which parts a model has, and their sizes; every field has an effect, or is refused.

    Args:
        fusion: how the branches are fused, one of :data:`FUSIONS`.
        backbone: the first branch's, one of :data:`BACKBONES`.
        second_backbone: the second branch's.
        inputs: 1, both branches see one image; 2, each sees its own.
        temporal: how a clip adds to the first branch, one of :data:`TEMPORALS`.
        frames: frames of the clip (8).
        feature_dim: width of all that is fused, a multiple of 16.
        dropout: rate of every dropout but the attentions'.
        drop_path: rate at which the backbones drop residual branches in training.
        num_heads: heads of every attention outside the backbones (8).
        attention_dropout: rate of the dropout of attention weights (0.1).
        num_experts: experts of ``adaptive`` (4).
        gate_hidden_dim: hidden width of the gate of ``gated`` (256), even.
        context_dim: width of the context of ``dynamic`` (128), even.
        quality_dim: hidden width of the assessors of ``quality`` (64).

    The fields from ``num_heads`` on, and ``frames``, belong to some models only: ``None`` takes the number in
    parentheses where they are read, and any other value is refused where nothing reads them.

    Raises:
        Refused: ``bad-option``.
    """

    fusion: str = "bidirectional"
    backbone: str = "efficientnet_b0"
    second_backbone: str = "vit_tiny_patch16_224"
    inputs: int = 1
    temporal: str = "none"
    frames: int | None = None
    feature_dim: int = 512
    dropout: float = 0.1
    drop_path: float = 0.1
    num_heads: int | None = None
    attention_dropout: float | None = None
    num_experts: int | None = None
    gate_hidden_dim: int | None = None
    context_dim: int | None = None
    quality_dim: int | None = None

    def __post_init__(self) -> None:
        settings = Settings("vqa")
        settings.one_of("fusion", self.fusion, FUSIONS)
        settings.one_of("backbone", self.backbone, BACKBONES)
        settings.one_of("second_backbone", self.second_backbone, BACKBONES)
        settings.one_of("temporal", self.temporal, TEMPORALS)
        settings.whole("inputs", self.inputs, most=2)
        for name in DEFAULTS:
            self._settle(name, settings)
        self._check_numbers(settings)
        if self.num_heads is not None:
            refuse_uneven_heads(settings, "num_heads", self.num_heads, self.feature_dim)

    def _check_numbers(self, settings: Settings) -> None:
        """Sizes and rates, where there are any: None, which nothing reads, passes."""
        multiples = {
            "feature_dim": UNIT,
            "num_heads": 1,
            "num_experts": 1,
            "gate_hidden_dim": 2,
            "context_dim": 2,
            "quality_dim": 1,
            "frames": SLOWNESS if self.temporal == "slowfast" else 2,
        }
        for name, multiple in multiples.items():
            if getattr(self, name) is not None:
                settings.whole(name, getattr(self, name), least=multiple, multiple=multiple)
        for name in RATES:
            if getattr(self, name) is not None:
                settings.number(name, getattr(self, name), 0, 1)

    @property
    def backbones(self) -> tuple[str, str]:
        """Of the first and the second branch."""
        return self.backbone, self.second_backbone

    def reads(self, name: str) -> bool:
        """Whether this model has a part that the field of that name is about."""
        heads = any(b in VITS for b in self.backbones) and self.fusion not in OF_STAGES
        attention = self.fusion in WITH_ATTENTION or heads
        return {
            "num_heads": attention,
            "attention_dropout": attention,
            "num_experts": self.fusion == "adaptive",
            "gate_hidden_dim": self.fusion == "gated",
            "context_dim": self.fusion == "dynamic",
            "quality_dim": self.fusion == "quality",
            "frames": self.temporal != "none",
        }.get(name, name in {field.name for field in fields(self)})

    def _settle(self, name: str, settings: Settings) -> None:
        """Gives a field its default where it is read, and refuses a value where it is not."""
        given = getattr(self, name)
        if given is not None and not self.reads(name):
            parts = f"fusion {self.fusion}, backbones {' and '.join(self.backbones)}, temporal {self.temporal}"
            raise settings.refusal(name, given, f"nothing reads it in a model of {parts}")
        if given is None and self.reads(name):
            object.__setattr__(self, name, DEFAULTS[name])


# The options of the definition: all that a model is made of but the rates of training.
OPTIONS = tuple(field.name for field in fields(VQAConfig) if field.name not in RATES)


def refuse_uneven_heads(settings: Settings, option: str, heads: int, feature_dim: int) -> None:
    """Heads share the features out among them.

    Raises:
        Refused: ``bad-option``.
    """
    settings.whole(option, heads)
    if feature_dim % heads:
        raise settings.refusal(option, heads, f"heads divide the {feature_dim} features among them")
