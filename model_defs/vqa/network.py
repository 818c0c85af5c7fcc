"""The unified model: two branches, one of the document's fusions, perhaps a clip, and a score.

Source: the document's unified fusion model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import BiDirectionalCrossAttention, CrossModalAttention, SelfAttentionFusion
from .config import OF_STAGES, OF_TOKENS, SIZE, VITS, VQAConfig
from .extractors import Backbone, extractor
from .fusion import AdaptiveGatedFusion, DynamicWeightNetwork, GatedFusion, QualityAwareFusion
from .pyramid import HierarchicalFeatureFusion, PyramidFeatureFusion
from .temporal import TemporalFeatures

# What a fusion gives besides the fused vector, in order.
PARTS: dict[str, tuple[str, ...]] = {
    "cross": ("attention_weights",),
    "bidirectional": ("attention_weights_1", "attention_weights_2"),
    "self": ("attention_weights",),
    "gated": ("gate_weights",),
    "adaptive": ("gate_weights",),
    "dynamic": ("dynamic_weights",),
    "quality": ("qualities", "uncertainties", "quality_weights"),
    "hierarchical": (),
    "pyramid": (),
}


class VQA(nn.Module):
    """Predicts the quality of an image, of a pair, or of an image and the clip it is from.

    Args:
        config: which parts it has.
    """

    def __init__(self, config: VQAConfig) -> None:
        super().__init__()
        self.config = config
        branches = [_branch(config, name) for name in config.backbones]
        self.branch_1, self.branch_2 = branches
        self.fusion = _fusion(config, *branches)
        self.temporal = (
            None
            if config.temporal == "none"
            else TemporalFeatures(config.temporal, _clip_width(branches[0]), config.feature_dim)
        )
        dim, dropout = config.feature_dim, config.dropout
        self.quality_head = nn.Sequential(
            nn.Linear(dim, dim // 2),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(dim // 2, dim // 4),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(dim // 4, 1),
        )

    def forward(self, x1: Tensor, x2: Tensor | None = None, frames: Tensor | None = None) -> dict[str, Tensor]:
        """Scores images.

        Args:
            x1: RGB, 0 to 1, ``(B, 3, 224, 224)``: the first branch's image, and the second's with ``inputs=1``.
            x2: the second branch's image, with ``inputs=2``.
            frames: a clip ``(B, frames, 3, 224, 224)``, with ``temporal``; the first branch's backbone sees it.

        Returns:
            ``quality_score (B, 1)``, ``fused_features (B, D)``, then what the fusion of :data:`PARTS` gives.

        Raises:
            ValueError: for an input too many or too few, or of another shape.
        """
        self._refuse_other_inputs(x1, x2, frames)
        fused, parts = self._fused(x1, x1 if x2 is None else x2, None if frames is None else self._of_clip(frames))
        return {"quality_score": self.quality_head(fused), "fused_features": fused} | parts

    def _fused(self, x1: Tensor, x2: Tensor, motion: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The fused vector and the fusion's parts; a clip's vector joins the first branch's, or the fused one."""
        kind = self.config.fusion
        if kind in OF_STAGES:
            fused = self.fusion(*self._levels(x1, x2))
            return fused if motion is None else fused + motion, {}
        if kind in OF_TOKENS:
            first, places_1 = self.branch_1.tokens(x1)
            first = first if motion is None else first + motion
            # A summary stands in front of the places: it asks the other branch, and is asked with them.
            tokens_1, tokens_2 = summarised(first, places_1), summarised(*self.branch_2.tokens(x2))
            if kind == "cross":
                answer, *parts = self.fusion(tokens_1[:, :1], tokens_2)
                fused = answer.squeeze(1)
            else:
                fused, *parts = self.fusion(tokens_1, tokens_2)
        else:
            first, second = self.branch_1(x1), self.branch_2(x2)
            fused, *parts = self.fusion(first if motion is None else first + motion, second)
        return fused, dict(zip(PARTS[kind], parts, strict=True))

    def _levels(self, x1: Tensor, x2: Tensor) -> list[Tensor]:
        """Four maps, each of both branches' channels; vectors of their means for the hierarchical fusion."""
        pairs = zip(self.branch_1.stages(x1), self.branch_2.stages(x2), strict=True)
        if self.config.fusion == "hierarchical":
            return [torch.cat([m.mean(dim=(2, 3)) for m in pair], dim=1) for pair in pairs]
        return [torch.cat([first, at_size_of(first, second)], dim=1) for first, second in pairs]

    def _of_clip(self, frames: Tensor) -> Tensor:
        """``(B, frames, 3, H, W)`` to ``(B, D)``, by the first branch's backbone and the model of time."""
        assert self.temporal is not None
        images = frames.flatten(0, 1)
        branch = self.branch_1
        maps = branch.stages(images)[-1] if isinstance(branch, Backbone) else _as_map(branch.backbone, images)
        return self.temporal(maps.unflatten(0, (-1, frames.shape[1])))

    def _refuse_other_inputs(self, x1: Tensor, x2: Tensor | None, frames: Tensor | None) -> None:
        config = self.config
        if (x2 is not None) != (config.inputs == 2):
            raise ValueError(f"{1 if x2 is None else 2} images, and the model's inputs are {config.inputs}")
        if (frames is not None) != (config.temporal != "none"):
            raise ValueError(f"{'no' if frames is None else 'a'} clip, and the model's temporal is {config.temporal}")
        for name, tensor, axes in (("x1", x1, ()), ("x2", x2, ()), ("frames", frames, (config.frames,))):
            wanted = (*axes, 3, SIZE, SIZE)
            if tensor is not None and tuple(tensor.shape[1:]) != wanted:
                raise ValueError(f"{name} is {tuple(tensor.shape)}, and after the batch it must be {wanted}")


class VQAOfClip(VQA):
    """:class:`VQA` of one image and a clip, for those who give inputs in order and without names."""

    def forward(self, x1: Tensor, frames: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """As :meth:`VQA.forward`."""
        return super().forward(x1, frames=frames)


def summarised(summary: Tensor, places: Tensor) -> Tensor:
    """``(B, D)`` in front of ``(B, N, D)``."""
    return torch.cat([summary.unsqueeze(1), places], dim=1)


def at_size_of(first: Tensor, second: Tensor) -> Tensor:
    """The second map at the first's size: means where pixels become larger, bilinear where they become smaller."""
    height, width = first.shape[2:]
    if second.shape[2] > height:
        return F.adaptive_avg_pool2d(second, (height, width))
    if second.shape[2] < height:
        return F.interpolate(second, size=(height, width), mode="bilinear", align_corners=False)
    return second


def _branch(config: VQAConfig, name: str) -> nn.Module:
    if config.fusion in OF_STAGES:
        return Backbone(name, config.drop_path, stages_only=True)
    return extractor(
        name, config.feature_dim, config.dropout, config.drop_path, config.num_heads, config.attention_dropout
    )


def _clip_width(branch: nn.Module) -> int:
    """Channels of the map that a branch gives of a frame."""
    return branch.stage_widths[-1] if isinstance(branch, Backbone) else branch.backbone.width


def _as_map(backbone: Backbone, images: Tensor) -> Tensor:
    """The backbone's last map; of a ViT, its patch tokens in their places."""
    features = backbone(images)
    if backbone.name not in VITS:
        return features
    side = SIZE // 16
    return features[:, 1:].transpose(1, 2).unflatten(2, (side, side))


def _fusion(config: VQAConfig, first: nn.Module, second: nn.Module) -> nn.Module:
    dim, dropout = config.feature_dim, config.dropout
    if config.fusion in OF_STAGES:
        widths = [a + b for a, b in zip(first.stage_widths, second.stage_widths, strict=True)]
        kind = HierarchicalFeatureFusion if config.fusion == "hierarchical" else PyramidFeatureFusion
        return kind(widths, dim, dropout)
    if config.fusion == "cross":
        return CrossModalAttention(dim, config.num_heads, dropout, config.attention_dropout)
    if config.fusion == "bidirectional":
        return BiDirectionalCrossAttention(dim, config.num_heads, dropout, config.attention_dropout)
    if config.fusion == "self":
        return SelfAttentionFusion(dim, config.num_heads, config.attention_dropout)
    if config.fusion == "gated":
        return GatedFusion(dim, config.gate_hidden_dim, dropout)
    if config.fusion == "adaptive":
        return AdaptiveGatedFusion(dim, config.num_experts, dropout)
    if config.fusion == "dynamic":
        return DynamicWeightNetwork(dim, config.context_dim, 2, dropout)
    return QualityAwareFusion(dim, config.quality_dim, dropout)
