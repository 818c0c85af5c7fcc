"""What the definitions of this family share: tensors, dims, host steps, real inputs, rules of options. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from exporter.errors import Refused
from exporter.spec import Dim, HostStep, Sample, Tensor

# The coarsest features are at stride 32 where the published padding ends; a narrower image than 64 (real-time form:
# 128) would leave the coarsest likenesses one column wide, where the published sampler gives NaN.
STRIDE, NARROWEST = 32, {"base": 64, "realtime": 128}
LEVELS = ("04", "08", "16")
# A sample becomes 64 x 128 when it is padded to a multiple of 32.
SAMPLE_HEIGHT, SAMPLE_WIDTH = 60, 126

# ------------------------------------------------------------------------------------------------ networks


def images() -> tuple[Tensor, Tensor]:
    """The two inputs of a network."""
    shape = (1, 3, "H", "W")
    left, right = (Tensor(side, shape, f"{side} image, RGB, 0 to 255", low=0.0, high=255.0) for side in SIDES)
    return left, right


SIDES = ("left", "right")


def full(name: str) -> Tensor:
    """The flow at full size."""
    return Tensor(name, (1, 1, "H", "W"), "flow from left to right in pixels: the negative disparity")


def low() -> Tensor:
    """The flow at the finest level."""
    return Tensor("low", (1, 1, "H/4", "W/4"), "flow in pixels at 1/4", low=-16.0, high=0.0)


def per_level(name: str, channels: int, meaning: str) -> tuple[Tensor, ...]:
    """One tensor per level of a network of stride 4, the finest first."""
    return tuple(
        Tensor(f"{name}{level}", (1, channels, f"H/{int(level)}", f"W/{int(level)}"), f"{meaning}, at 1/{int(level)}")
        for level in LEVELS
    )


def sizes(name: str, max_height: int, max_width: int, narrowest: int) -> tuple[Dim, Dim]:
    """Height and width up to the largest asked for; small ones are cheap to prove, and the graph is the same.

    Raises:
        Refused: ``bad-option`` for a largest size that no image can be padded to.
    """
    for option, value in (("max_height", max_height), ("max_width", max_width)):
        if not isinstance(value, int) or isinstance(value, bool) or value < narrowest or value % STRIDE:
            rule = f"images are padded to a multiple of {STRIDE} and to at least {narrowest} pixels"
            raise bad_option(name, option, value, rule)
    return Dim("H", 64, 64, max_height, STRIDE), Dim("W", narrowest, narrowest, max_width, STRIDE)


LEAST = ["H.min", "W.min"]


def around(output: str, cropped: tuple[str, ...] = ()) -> dict[str, Any]:
    """Host steps, metrics and samples: from two pictures to a disparity map."""
    return {
        "before": (
            HostStep("image", {"to": "left", "high": 255.0}),
            HostStep("image", {"to": "right", "high": 255.0}),
            HostStep(
                "pad", {"of": list(SIDES), "multiple": STRIDE, "at_least": LEAST, "mode": "edge", "sides": "both"}
            ),
        ),
        "after": (
            HostStep("crop", {"of": [output, *cropped], "like": "left"}),
            HostStep("disparity", {"from": output, "sign": -1}),
        ),
        "metrics": ("epe", "d1-all"),
        "samples": stereo_pairs,
    }


def stereo_pairs() -> Iterator[Sample]:
    """A photograph seen from two sides by a known disparity, and a measured pair; none without scikit-image."""
    from .._photographs import count, stereo_from_photograph, stereo_pair

    makers = {"photograph": stereo_from_photograph, "motorcycle": stereo_pair} if count() else {}
    for name, maker in makers.items():
        left, right, disparity = maker(SAMPLE_HEIGHT, SAMPLE_WIDTH)
        yield Sample(name, {"left": left, "right": right}, {"disparity": disparity})


# ----------------------------------------------------------------------------------- weights that nothing shows

# A convolution in front of an instance normalisation: that takes its bias away, and its scale but for an epsilon of
# 1e-5 beside variances near 1. The first one's scale is seen: variances of plain images are small.
_STAGES = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1)]
_NORMALISED = [
    *(f"fnet.{block}.{conv}" for block in _STAGES for conv in ("conv1", "conv2")),
    "fnet.layer2.0.downsample.0",
    "fnet.layer3.0.downsample.0",
]
NORMALISED = {
    "fnet": ("fnet.conv1.bias", *(f"{conv}.{name}" for conv in _NORMALISED for name in ("weight", "bias"))),
    "shared": tuple(f"conv2.0.{conv}.{name}" for conv in ("conv1", "conv2") for name in ("weight", "bias")),
}

_CONV, _NORM = ("weight", "bias"), ("weight", "bias", "running_mean", "running_var")
_BLOCK = [(layer, names) for at in (1, 2) for layer, names in ((f"conv{at}", _CONV), (f"norm{at}", _NORM))]
_STRIDED = [("norm3", _NORM), ("downsample.0", _CONV), ("downsample.1", _NORM)]
_GATES = [(f"conv{gate}", _CONV) for gate in "zrq"]


def unused(layers: int, selective: bool) -> tuple[str, ...]:
    """Weights of the coarser levels, which exist in every checkpoint, where fewer than three levels are used.

    Args:
        layers: how many levels are used.
        selective: whether the units are selective, and named after strides 4, 8 and 16.
    """
    units = ("gru08", "gru16") if selective else ("gru16", "gru32")
    inner = (".small_gru", ".large_gru") if selective else ("",)
    found: list[str] = []
    for level in range(max(layers, 1), 3):
        stage = f"cnet.layer{level + 3}"
        found += [*_named(f"{stage}.0", [*_BLOCK, *_STRIDED]), *_named(f"{stage}.1", _BLOCK)]
        for head in (0, 1):
            if level == 1:
                found += [
                    *_named(f"cnet.outputs16.{head}.0", _BLOCK),
                    *_named(f"cnet.outputs16.{head}", [("1", _CONV)]),
                ]
            else:
                found += _named("cnet.outputs32", [(str(head), _CONV)])
        for part in inner:
            found += _named(f"update_block.{units[level - 1]}{part}", _GATES)
    return tuple(found)


def _named(prefix: str, layers: Iterable[tuple[str, tuple[str, ...]]]) -> list[str]:
    return [f"{prefix}.{layer}.{name}" for layer, names in layers for name in names]


# ------------------------------------------------------------------------------------------------- blocks


def state(hidden: int) -> Tensor:
    """The hidden state of a unit."""
    return Tensor("h", (1, hidden, "H", "W"), "hidden state")


def attention() -> Tensor:
    """The attention map of a selective unit."""
    return Tensor("attention", (1, 1, "H", "W"), "weight of the small kernel", low=0.0, high=1.0)


def features(name: str, channels: int, least: float = 0.0) -> Tensor:
    """Features as convolutions give them, after a ReLU unless ``least`` says otherwise."""
    return Tensor(name, (1, channels, "H", "W"), "features", low=least, high=4.0)


# ------------------------------------------------------------------------------------------------ options


def count(name: str, option: str, value: object, most: int) -> None:
    """Refuses what is no whole number from 1 to ``most``."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise bad_option(name, option, value, f"it is a whole number from 1 to {most}")


def one_of(name: str, option: str, value: object, known: tuple[str, ...]) -> None:
    """Refuses what is not one of ``known``."""
    if value not in known:
        raise bad_option(name, option, value, f"it is one of {', '.join(known)}")


def flag(name: str, option: str, value: object) -> None:
    """Refuses what is neither true nor false."""
    if not isinstance(value, bool):
        raise bad_option(name, option, value, "it is true or false")


def unit_options(name: str, options: Mapping[str, int]) -> None:
    """Refuses widths below 1 and kernels that would change the size."""
    for option, value in options.items():
        count(name, option, value, 1024)
        if option in ("kernel", "small", "large") and value % 2 == 0:
            raise bad_option(name, option, value, "it is odd: a padding of half an even kernel would change the size")


def bad_option(name: str, option: str, value: object, rule: str) -> Refused:
    """The refusal of an option's value."""
    return Refused(
        "bad-option",
        f"--set {option}={value} makes no {name}",
        where=f"model {name}, option {option}",
        why=rule,
        next=f"exporter models {name}",
    )
