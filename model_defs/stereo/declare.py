"""What the stereo definitions share: widths, tensors, dims, host steps, real inputs, rules of options. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from exporter.budget import FAIR, Budget
from exporter.settings import LARGEST, Settings
from exporter.spec import Dim, HostStep, Sample, Tensor

# The published widths: a hidden state, and the input of the coarsest recurrent unit.
HIDDEN, INPUTS = 128, 256
# What the context adds to three gates of a small and a large unit.
PREPARED = 6 * HIDDEN
# RAFT's lookup: levels of the pyramid, how far it reads to both sides on each, its channels.
PYRAMID_LEVELS, RADIUS = 4, 4
# How a likeness is read between pixels: from two neighbours, or by a sampling operator, as published.
SAMPLERS = ("gather", "grid")
LOOKED_UP = PYRAMID_LEVELS * (2 * RADIUS + 1)
# An upsampler mixes 3x3 coarse values.
NEIGHBOURS = 9
# The published evaluations end here.
MOST_ITERATIONS = 32
# The widest block that an option makes.
MOST_CHANNELS = 1024
LEVELS = ("04", "08", "16")
# Images are padded to the stride of the coarsest features.
STRIDE, SHORTEST = 32, 64
NARROWEST = {"base": 64, "realtime": 128}
# Why: the coarsest likenesses are averages over 8 columns at stride 4, in the real-time form at stride 8.
ONE_COLUMN = "the coarsest likenesses would be one column wide, and the published sampler then divides by 0: NaN"
TOO_SHORT = "the networks are untested: they were published for far taller images"
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
    """The flow at the finest level: from left to right, and so not positive where the disparity is not negative."""
    meaning = "flow from left to right in pixels at 1/4: the negative disparity"
    return Tensor("low", (1, 1, "H/4", "W/4"), meaning, low=-16.0, high=0.0)


def per_level(name: str, channels: int, meaning: str) -> tuple[Tensor, ...]:
    """One tensor per level of a network of stride 4, the finest first."""
    return tuple(
        Tensor(f"{name}{level}", (1, channels, f"H/{int(level)}", f"W/{int(level)}"), f"{meaning}, at 1/{int(level)}")
        for level in LEVELS
    )


def sizes(name: str, max_height: int, max_width: int, narrowest: int, why: str = ONE_COLUMN) -> tuple[Dim, Dim]:
    """Height and width up to the largest asked for; small ones are cheap to prove, and the graph is the same.

    Args:
        name: the model.
        max_height: pixels, a multiple of 32.
        max_width: pixels, a multiple of 32.
        narrowest: pixels: the least width.
        why: what happens in a narrower image.

    Raises:
        Refused: ``bad-option`` for a largest size that no image can be padded to.
    """
    for option, value, least, reason in (
        ("max_height", max_height, SHORTEST, TOO_SHORT),
        ("max_width", max_width, narrowest, why),
    ):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < least or value > LARGEST or value % STRIDE:
            rule = f"it is a multiple of {STRIDE} from {least} to {LARGEST}; below that {reason}"
            raise Settings(name).refusal(option, value, rule)
    return (
        Dim("H", SHORTEST, SHORTEST, max_height, STRIDE, f"below {SHORTEST} {TOO_SHORT}; max_height sets the end"),
        Dim("W", narrowest, narrowest, max_width, STRIDE, f"below {narrowest} {why}; max_width sets the end"),
    )


LEAST, UNITS = ["H.min", "W.min"], ["H.unit", "W.unit"]


def around(output: str, cropped: tuple[str, ...] = ()) -> dict[str, Any]:
    """Host steps, metrics and samples: from two pictures to a disparity map."""
    return {
        "before": (
            HostStep("image", {"to": "left", "high": 255.0}),
            HostStep("image", {"to": "right", "high": 255.0}),
            HostStep("pad", {"of": list(SIDES), "multiple": UNITS, "at_least": LEAST, "mode": "edge", "sides": "both"}),
        ),
        "after": (
            HostStep("crop", {"of": [output, *cropped], "like": "left"}),
            HostStep("disparity", {"from": output, "sign": -1}),
        ),
        "metrics": ("epe", "d1-all"),
        "samples": stereo_pairs,
        "calibration": other_pairs,
        "budget": Budget(decibels=FAIR, losses={"epe": 0.05}),
    }


def stereo_pairs() -> Iterator[Sample]:
    """A photograph seen from two sides by a known disparity, and a measured pair; none without scikit-image."""
    from .._photographs import count, stereo_from_photograph, stereo_pair

    makers = {"photograph": stereo_from_photograph, "motorcycle": stereo_pair} if count() else {}
    for name, maker in makers.items():
        left, right, disparity = maker(SAMPLE_HEIGHT, SAMPLE_WIDTH)
        yield Sample(name, {"left": left, "right": right}, {"disparity": disparity})


def other_pairs() -> Iterator[Sample]:
    """Other photographs seen from two sides, for scales of int8; none without scikit-image."""
    from .._photographs import count, stereo_from_photograph

    for index in range(1, min(count(), 4)):
        left, right, disparity = stereo_from_photograph(SAMPLE_HEIGHT, SAMPLE_WIDTH, index)
        yield Sample(f"photograph-{index}", {"left": left, "right": right}, {"disparity": disparity})


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


def idle_context(layers: int) -> tuple[str, ...]:
    """The context network's weights of the levels from ``layers`` on: they exist, and nothing runs them."""
    found: list[str] = []
    if layers < 2:
        found += _named("cnet.layer4.0", [*_BLOCK, *_STRIDED]) + _named("cnet.layer4.1", _BLOCK)
        for head in (0, 1):
            found += _named(f"cnet.outputs16.{head}.0", _BLOCK) + _named(f"cnet.outputs16.{head}", [("1", _CONV)])
    if layers < 3:
        found += _named("cnet.layer5.0", [*_BLOCK, *_STRIDED]) + _named("cnet.layer5.1", _BLOCK)
        found += _named("cnet.outputs32", [("0", _CONV), ("1", _CONV)])
    return tuple(found)


def idle_units(layers: int) -> tuple[str, ...]:
    """RAFT-Stereo's recurrent units of those levels. Selective-RAFT makes none that it does not run."""
    names = ("gru08", "gru16", "gru32")[layers:]
    return tuple(weight for name in names for weight in _named(f"update_block.{name}", _GATES))


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


def unit_options(name: str, options: Mapping[str, int]) -> None:
    """Refuses widths below 1 and kernels that would change the size.

    Raises:
        Refused: ``bad-option``.
    """
    settings = Settings(name)
    for option, value in options.items():
        settings.whole(option, value, most=MOST_CHANNELS)
        if option in ("kernel", "small", "large") and value % 2 == 0:
            rule = "it is odd: a padding of half an even kernel would change the size"
            raise settings.refusal(option, value, rule)
