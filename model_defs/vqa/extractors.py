"""Branches: an image to a vector, to tokens, or to four stage maps, by timm's backbones.

A branch takes RGB images ``(B, 3, H, W)``, 0 to 1, and normalises them itself, because its neighbour may have been
trained on another normalisation. Backbones start from random numbers: nothing is ever downloaded, and published
weights are given to :meth:`Backbone.load`.

Source: the document's extractors; EfficientNet (Tan and Le, ICML 2019, arxiv.org/abs/1905.11946), ViT (Dosovitskiy et
al., ICLR 2021, arxiv.org/abs/2010.11929), ConvNeXt (Liu et al., CVPR 2022, arxiv.org/abs/2201.03545).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from exporter import checkpoint

from .._timm import backbone as timm_backbone
from .attention import MultiHeadAttention
from .config import CONVNEXTS, EFFICIENTNETS, SIZE, UNIT, VITS

# Of the images that the published weights were trained on: ImageNet's, and what ViT's authors took instead.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
STAGES = 4
CLASSIFIERS = ("classifier.", "head.")
# Of EfficientNet: what comes after its last stage.
AFTER_STAGES = ("conv_head.", "bn2.")


class Backbone(nn.Module):
    """A timm network of any of the document's sizes, with its normalisation inside.

    Args:
        name: one of :data:`.config.BACKBONES`.
        drop_path: rate at which residual branches are dropped in training.
        stages_only: leaves out what comes after the last stage; then only :meth:`stages` works.

    Raises:
        Incomplete: ``runtime-absent`` when timm is not installed.
    """

    def __init__(self, name: str, drop_path: float = 0.0, stages_only: bool = False) -> None:
        super().__init__()
        self.name = name
        mean, std = HALVES if name in VITS else IMAGENET
        # Frozen parameters, not buffers: they are constants of the published weights, and stay what they are.
        self.mean = nn.Parameter(torch.tensor(mean).reshape(3, 1, 1), requires_grad=False)
        self.std = nn.Parameter(torch.tensor(std).reshape(3, 1, 1), requires_grad=False)
        self.model = timm_backbone(name, drop_path_rate=drop_path)
        self.width: int = self.model.num_features
        channels = [info["num_chs"] for info in self.model.feature_info]
        self.stage_widths: tuple[int, ...] = tuple(channels[-STAGES:])
        if name in CONVNEXTS:
            self.model.head = nn.Identity()  # a LayerNorm for the classifier; the projection has one of its own
        self._left_out = CLASSIFIERS
        if stages_only and name in EFFICIENTNETS:
            self.model.conv_head = self.model.bn2 = nn.Identity()
            self._left_out += AFTER_STAGES

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to the last map ``(B, width, h, w)``; of a ViT, to tokens ``(B, 1 + N, width)``."""
        features: Tensor = self.model.forward_features(self._normalised(image))
        return features

    def stages(self, image: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` to four maps ``(B, stage_widths[i], h, w)``.

        Those of EfficientNet and ConvNeXt have 1/4, 1/8, 1/16 and 1/32 of the image's size. A ViT has one size: its
        maps, all 1/16, are those after a quarter, half, three quarters and all of its blocks.
        """
        given = self._normalised(image)
        if self.name in VITS:
            depth = len(self.model.blocks)
            indices = [depth * part // STAGES - 1 for part in range(1, STAGES + 1)]
            return tuple(self.model.forward_intermediates(given, indices=indices, norm=True, intermediates_only=True))
        return tuple(self.model.forward_intermediates(given, indices=STAGES, intermediates_only=True))

    def load(self, published: Mapping[str, Tensor], where: str = "") -> None:
        """Takes the published weights of this very backbone, and leaves out those of parts that it has not.

        Args:
            published: weights by timm's names, as :func:`exporter.checkpoint.read` gives them.
            where: what errors say they are from, such as the file.

        Raises:
            Refused: ``wrong-checkpoint`` with the keys that are missing, unexpected or of another shape, and the
                nearest names; ``nan-weights``.
        """
        kept = {name: value for name, value in published.items() if not name.startswith(self._left_out)}
        # A batch norm's count of steps decides nothing here, and files older than it lack it.
        counts = {k: v for k, v in self.model.state_dict().items() if k.endswith(".num_batches_tracked")}
        checkpoint.load_state(self.model, counts | kept, where or f"published weights of {self.name}")

    def _normalised(self, image: Tensor) -> Tensor:
        check_image(image, self.name)
        return (image - self.mean) / self.std


class Extractor(nn.Module):
    """A backbone and what makes one vector, and tokens of the same width, of its last map."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to features ``(B, D)``."""
        return self.pool(self.backbone(image))

    def tokens(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, 3, H, W)`` to features ``(B, D)`` and the tokens of every place ``(B, N, D)``, of one run."""
        features = self.backbone(image)
        return self.pool(features), self.places(features)

    def pool(self, features: Tensor) -> Tensor:
        """What the backbone gives to ``(B, D)``."""
        raise NotImplementedError

    def places(self, features: Tensor) -> Tensor:
        """What the backbone gives to ``(B, N, D)``."""
        raise NotImplementedError


class EfficientNetExtractor(Extractor):
    """Mean and maximum of the last map, reduced, projected, and weighed channel by channel.

    Args:
        name: one of :data:`.config.EFFICIENTNETS`.
        dim: width of the features, a multiple of 16.
        dropout: in training.
        drop_path: of the backbone, in training.
        gate: whether features are weighed (squeeze and excitation).
    """

    def __init__(
        self,
        name: str = "efficientnet_b3",
        dim: int = 512,
        dropout: float = 0.2,
        drop_path: float = 0.0,
        gate: bool = True,
    ) -> None:
        super().__init__(Backbone(name, drop_path))
        width = self.backbone.width
        self.pool_reduce = nn.Linear(2 * width, width)
        # LayerNorm, not BatchNorm: it is the same for a batch of one.
        self.projection = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.LayerNorm(width // 2),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width // 2, dim),
            nn.LayerNorm(dim),
        )
        hidden = dim // UNIT
        self.gate = (
            nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim), nn.Sigmoid()) if gate else None
        )

    def pool(self, features: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, D)``."""
        both = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        return self._gated(self.projection(self.pool_reduce(both)))

    def places(self, features: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, h w, D)``."""
        return self._gated(self.projection(features.flatten(2).transpose(1, 2)))

    def _gated(self, features: Tensor) -> Tensor:
        return features if self.gate is None else features * self.gate(features)


class ViTExtractor(Extractor):
    """The class token and four learned queries over the patch tokens; images are 224 by 224.

    Args:
        name: one of :data:`.config.VITS`.
        dim: width of the features.
        heads: of the queries' attention, a divisor of ``dim``.
        dropout: in training, of the projection.
        attention_dropout: in training, of the queries' weights.
        drop_path: of the backbone, in training.
    """

    def __init__(
        self,
        name: str = "vit_base_patch16_224",
        dim: int = 512,
        heads: int = 8,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(Backbone(name, drop_path))
        width = self.backbone.width
        # No norm in front: the backbone ends in one.
        self.projection = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width // 2, dim),
            nn.LayerNorm(dim),
        )
        self.attention_pool = MultiHeadAttention(dim, heads, attention_dropout)
        self.query_tokens = nn.Parameter(torch.randn(1, 4, dim) * 0.02)

    def pool(self, features: Tensor) -> Tensor:
        """``(B, 1 + N, C)`` to ``(B, D)``."""
        projected = self.projection(features)
        queries = self.query_tokens.expand(features.shape[0], -1, -1)
        attended, _ = self.attention_pool(queries, projected[:, 1:])
        return (projected[:, 0] + attended.mean(dim=1)) / 2

    def places(self, features: Tensor) -> Tensor:
        """``(B, 1 + N, C)`` to ``(B, N, D)``."""
        return self.projection(features[:, 1:])


class ConvNeXtExtractor(Extractor):
    """Mean, maximum and a learned mean of the last map, averaged and projected.

    Args:
        name: one of :data:`.config.CONVNEXTS`.
        dim: width of the features.
        dropout: in training.
        drop_path: of the backbone, in training.
    """

    def __init__(
        self, name: str = "convnext_base", dim: int = 512, dropout: float = 0.1, drop_path: float = 0.1
    ) -> None:
        super().__init__(Backbone(name, drop_path))
        width = self.backbone.width
        # No bias at the end: the softmax over places would not see it.
        self.attention_pool = nn.Sequential(
            nn.Conv2d(width, width // 8, 1), nn.ReLU(), nn.Conv2d(width // 8, 1, 1, bias=False)
        )
        self.projection = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width // 2, dim),
            nn.LayerNorm(dim),
        )

    def pool(self, features: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, D)``; the learned mean's weights sum to 1 over places, whatever their number."""
        weights = torch.softmax(self.attention_pool(features).flatten(1), dim=1).unsqueeze(1)
        places = features.flatten(2)
        return self.projection((places.mean(dim=2) + places.amax(dim=2) + (places * weights).sum(dim=2)) / 3)

    def places(self, features: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, h w, D)``."""
        return self.projection(features.flatten(2).transpose(1, 2))


class MultiScaleExtractor(nn.Module):
    """One image at several scales through one shared extractor; the features are fused.

    Scaling averages over what a smaller pixel covers (bilinear with antialiasing), by two matrix products with fixed
    matrices: the sizes are known when the module is built, and every runtime knows a product.

    Args:
        extractor: of EfficientNet or ConvNeXt.
        size: pixels of a side of the image.
        scales: pixels of a side it is scaled to.
        dim: width of the features.

    Raises:
        ValueError: for an extractor on a ViT, which knows one size.
    """

    def __init__(
        self, extractor: Extractor, size: int = 512, scales: Sequence[int] = (224, 384, 512), dim: int = 512
    ) -> None:
        super().__init__()
        if extractor.backbone.name in VITS:
            raise ValueError(f"{extractor.backbone.name} takes {SIZE} pixels, and no other scale")
        self.extractor = extractor
        self.resampling = nn.ParameterList(
            nn.Parameter(resampling(size, scale), requires_grad=False) for scale in scales if scale != size
        )
        self.scales = tuple(scales)
        self.size = size
        self.fusion_layer = nn.Linear(dim * len(scales), dim)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 3, size, size)`` to features ``(B, D)``.

        Raises:
            ValueError: for another size.
        """
        if tuple(image.shape[2:]) != (self.size, self.size):
            raise ValueError(f"the image is {tuple(image.shape[2:])}, and the scales are of {self.size} pixels")
        matrices = iter(self.resampling)
        scaled = [image if scale == self.size else _resized(image, next(matrices)) for scale in self.scales]
        return self.fusion_layer(torch.cat([self.extractor(x) for x in scaled], dim=1))


def extractor(
    name: str, dim: int, dropout: float, drop_path: float, heads: int | None = 8, attention_dropout: float | None = 0.1
) -> Extractor:
    """The extractor of a backbone; ``heads`` and ``attention_dropout`` belong to a ViT's."""
    if name in VITS:
        assert heads is not None and attention_dropout is not None
        return ViTExtractor(name, dim, heads, dropout, attention_dropout, drop_path)
    kind = EfficientNetExtractor if name in EFFICIENTNETS else ConvNeXtExtractor
    return kind(name, dim, dropout, drop_path)


def resampling(size: int, wanted: int) -> Tensor:
    """``(wanted, size)``: the part that every new pixel takes of every old one.

    Triangles as wide as the new pixel, or as the old one where that is wider, cut at the border and scaled to a sum
    of one: what ``interpolate(mode="bilinear", antialias=True)`` computes.
    """
    scale = size / wanted
    centre = (torch.arange(wanted, dtype=torch.float64) + 0.5) * scale
    distance = (torch.arange(size, dtype=torch.float64) + 0.5 - centre[:, None]).abs() / max(scale, 1.0)
    weights = (1.0 - distance).clamp(min=0.0)
    return (weights / weights.sum(dim=1, keepdim=True)).float()


def _resized(image: Tensor, matrix: Tensor) -> Tensor:
    return matrix @ image @ matrix.T


def check_image(image: Tensor, name: str) -> None:
    """A ViT of timm says so itself; the others would take gray pictures for a broadcast.

    Raises:
        ValueError: for anything but ``(B, 3, H, W)``.
    """
    if image.dim() != 4 or image.shape[1] != 3:
        raise ValueError(f"{name} takes RGB images (B, 3, H, W), not {tuple(image.shape)}")
