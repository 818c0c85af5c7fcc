"""Stereo matching by recurrent refinement: RAFT-Stereo, Selective-RAFT, and the blocks that they are made of.

Sources: Lipson et al., "RAFT-Stereo", 3DV 2021, https://arxiv.org/abs/2109.07547,
https://github.com/princeton-vl/RAFT-Stereo (MIT); Wang et al., "Selective-Stereo", CVPR 2024,
https://arxiv.org/abs/2403.00486, https://github.com/Windsrain/Selective-Stereo (MIT); Wen et al., "FoundationStereo",
CVPR 2025, https://arxiv.org/abs/2501.09898, whose code and weights are for non-commercial use: none of either is here.
Written from the published equations and the checkpoints' keys and shapes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from exporter.settings import Settings
from exporter.spec import Checkpoint, Dim, ModelDef, Part, State, Tensor, model

from . import declare
from .declare import (
    HIDDEN,
    INPUTS,
    LEVELS,
    LOOKED_UP,
    MOST_CHANNELS,
    MOST_ITERATIONS,
    NARROWEST,
    NEIGHBOURS,
    NORMALISED,
    SAMPLERS,
)

if TYPE_CHECKING:
    from torch import nn

RAFT = "Lipson et al., 3DV 2021, arxiv.org/abs/2109.07547"
SELECTIVE = "Wang et al., CVPR 2024, arxiv.org/abs/2403.00486"
FOUNDATION = "Wen et al., CVPR 2025, arxiv.org/abs/2501.09898; the document's listing"
LICENCE = "Apache-2.0 (this definition); MIT (published architecture and weights)"
BLOCK_LICENCE = "Apache-2.0 (this definition, from the published equations)"
FOUNDATION_LICENCE = (
    "Apache-2.0 (this definition, written from the equations); the code where this form comes from, "
    "github.com/NVlabs/FoundationStereo, is under NVIDIA's non-commercial licence: none of it is here"
)
RAFT_WEIGHTS = {
    variant: Checkpoint(f"https://github.com/princeton-vl/RAFT-Stereo, models.zip: raftstereo-{file}.pth", None, "MIT")
    for variant, file in (("base", "sceneflow"), ("realtime", "realtime"))
}
REALTIME_UNDETECTABLE = (*NORMALISED["shared"], *declare.idle_context(2), *declare.idle_units(2))
SELECTIVE_WEIGHTS = Checkpoint(
    address="https://github.com/Windsrain/Selective-Stereo, the folder that its README links: sceneflow.pth of RAFT",
    sha256=None,
    licence="MIT",
)
PYRAMID = ("pixel", "mean of 2 pixels", "mean of 4 pixels", "mean of 8 pixels")


# ---------------------------------------------------------------------------------------------------- networks


@model
def raft_stereo(
    variant: str = "base", iterations: int = 8, sampler: str = "gather", max_height: int = 128, max_width: int = 128
) -> ModelDef:
    """RAFT-Stereo, the iterations unrolled: ``left``, ``right (1, 3, H, W)`` to the flow, the negative disparity.

    Args:
        variant: ``base`` (11,116,176 parameters) or ``realtime`` (9,865,568: one trunk for features and context,
            stride 8, two levels, the coarser one updated twice as often).
        iterations: how often the flow is updated, 1 to 32.
        sampler: ``gather`` reads the correlation without a sampling operator, ``grid`` with one, as published.
        max_height: pixels, a multiple of 32: the largest image.
        max_width: the same of its width.

    Raises:
        Refused: ``bad-option``.
    """
    name = "raft-stereo"
    settings = Settings(name)
    settings.one_of("variant", variant, tuple(NARROWEST))
    settings.one_of("sampler", sampler, SAMPLERS)
    settings.whole("iterations", iterations, most=MOST_ITERATIONS)
    factor, narrowest = 8 if variant == "realtime" else 4, NARROWEST[variant]
    low = Tensor("flow_low", (1, 2, f"H/{factor}", f"W/{factor}"), f"flow in pixels at 1/{factor}; across lines 0")
    return ModelDef(
        name=name,
        family="stereo",
        build=partial(_raft, variant, iterations),
        deploy=partial(_deployed, "deploy_raft", sampler=sampler),
        inputs=declare.images(),
        outputs=(low, declare.full("flow_up")),
        dims=declare.sizes(name, max_height, max_width, narrowest),
        checkpoint=RAFT_WEIGHTS[variant],
        **declare.around("flow_up"),
        undetectable=NORMALISED["fnet"] if variant == "base" else REALTIME_UNDETECTABLE,
        source=f"{RAFT}, github.com/princeton-vl/RAFT-Stereo",
        licence=LICENCE,
        options={
            "variant": variant, "iterations": iterations, "sampler": sampler,
            "max_height": max_height, "max_width": max_width,
        },
    )  # fmt: skip


@model
def selective_raft(
    iterations: int = 8,
    layers: int = 3,
    attention_map: bool = False,
    predictions: str = "last",
    sampler: str = "gather",
    max_height: int = 128,
    max_width: int = 128,
) -> ModelDef:
    """Selective-RAFT, the iterations unrolled: ``left``, ``right (1, 3, H, W)`` to the flow, the negative disparity.

    Args:
        iterations: how often the flow is updated, 1 to 32; the graph grows with it.
        layers: levels of recurrent units, 1 to 3; as published, no unit exists beyond them, and so the published
            weights, of 3, fit no other number.
        attention_map: whether the attention map of each level is an output too.
        predictions: ``last``, or ``all``: also the flow at full size after every iteration.
        sampler: ``gather`` reads the correlation without a sampling operator, ``grid`` with one, as published.
        max_height: pixels, a multiple of 32: the largest image.
        max_width: the same of its width.

    Raises:
        Refused: ``bad-option``.
    """
    name = "selective-raft"
    settings = Settings(name)
    settings.one_of("predictions", predictions, ("last", "all"))
    settings.one_of("sampler", sampler, SAMPLERS)
    settings.whole("iterations", iterations, most=MOST_ITERATIONS)
    settings.whole("layers", layers, most=len(LEVELS))
    settings.flag("attention_map", attention_map)
    maps = declare.per_level("attention", 1, "weight of the small kernel, 0 to 1")[: layers if attention_map else 0]
    every = [Tensor("predictions", (iterations, 1, "H", "W"), "flow in pixels after each iteration")]
    every = every if predictions == "all" else []
    return ModelDef(
        name=name,
        family="stereo",
        build=partial(_selective, iterations, attention_map, predictions == "all", layers),
        deploy=partial(_deployed, "deploy_selective", sampler=sampler),
        inputs=declare.images(),
        outputs=(declare.low(), declare.full("up"), *maps, *every),
        dims=declare.sizes(name, max_height, max_width, NARROWEST["base"]),
        checkpoint=SELECTIVE_WEIGHTS if layers == len(LEVELS) else None,
        **declare.around("up", tuple(tensor.name for tensor in every)),
        undetectable=(*NORMALISED["fnet"], *declare.idle_context(layers)),
        source=f"{SELECTIVE}, github.com/Windsrain/Selective-Stereo",
        licence=LICENCE,
        options={
            "iterations": iterations, "layers": layers, "attention_map": attention_map, "predictions": predictions,
            "sampler": sampler, "max_height": max_height, "max_width": max_width,
        },
    )  # fmt: skip


@model
def selective_raft_loop(
    attention_map: bool = False, sampler: str = "gather", max_height: int = 96, max_width: int = 128
) -> ModelDef:
    """Selective-RAFT as three graphs, so that the number of iterations is chosen at every run.

    Args:
        attention_map: whether the attention map of each level is an output too.
        sampler: ``gather`` reads the correlation without a sampling operator, ``grid`` with one, as published.
        max_height: pixels, a multiple of 32: the largest image.
        max_width: the same of its width.

    Raises:
        Refused: ``bad-option``.
    """
    name = "selective-raft-loop"
    Settings(name).flag("attention_map", attention_map)
    Settings(name).one_of("sampler", sampler, SAMPLERS)
    state = (*declare.per_level("hidden", HIDDEN, "hidden state"), declare.low())
    following = tuple(Tensor(f"next_{t.name}", t.shape, f"the next {t.name}") for t in state)
    maps = declare.per_level("attention", 1, "weight of the small kernel, 0 to 1")
    context = declare.per_level(
        "context", declare.PREPARED, "what the context adds to the gates of the small and the large unit"
    )
    pyramid = tuple(
        Tensor(f"correlation{at}", (1, "H/4", "W/4", f"W/{4 * 2**at}"), f"likeness to every {what} of the right line")
        for at, what in enumerate(PYRAMID)
    )
    needed = (*state[:3], *context, *maps, *pyramid, state[3])
    return ModelDef(
        name=name,
        family="stereo",
        build=partial(_selective, 1, attention_map),
        deploy=partial(_deployed, "deploy_selective", sampler=sampler),
        inputs=declare.images(),
        outputs=(declare.low(), declare.full("up"), *(maps if attention_map else ())),
        dims=(*declare.sizes(name, max_height, max_width, NARROWEST["base"]), Dim("iterations", 1, 8, MOST_ITERATIONS)),
        parts=(
            Part("encoder", partial(_graph, "Encoder"), declare.images(), needed),
            Part(
                "update",
                partial(_graph, "Update"),
                needed,
                following,
                repeat="iterations",
                state=tuple(State(t.name, n.name) for t, n in zip(state, following, strict=True)),
            ),
            Part("upsampler", partial(_graph, "Upsampler"), (state[0], state[3]), (declare.full("up"),)),
        ),
        checkpoint=SELECTIVE_WEIGHTS,
        **declare.around("up"),
        undetectable=NORMALISED["fnet"],
        source=f"{SELECTIVE}, github.com/Windsrain/Selective-Stereo",
        licence=LICENCE,
        options={
            "attention_map": attention_map, "sampler": sampler, "max_height": max_height, "max_width": max_width
        },
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------ blocks


@model
def raft_conv_gru(hidden: int = HIDDEN, inputs: int = INPUTS, kernel: int = 3) -> ModelDef:
    """The convolutional recurrent unit: ``h`` and ``x`` to the next ``h``.

    Args:
        hidden: channels of the hidden state, 1 to 1024.
        inputs: channels of the input, 1 to 1024.
        kernel: odd size of the kernels, to 1023.

    Raises:
        Refused: ``bad-option``.
    """
    name, options = "raft-conv-gru", {"hidden": hidden, "inputs": inputs, "kernel": kernel}
    return _unit(
        name, "RaftConvGRU", options, RAFT, (declare.state(hidden), declare.features("x", inputs)), "deploy_gru"
    )


@model
def raft_conv_gru_hx(hidden: int = HIDDEN, inputs: int = INPUTS, kernel: int = 3) -> ModelDef:
    """The unit whose gates read features ``hx`` made of state and input elsewhere, as in the document's listing.

    Args:
        hidden: channels of the hidden state, 1 to 1024.
        inputs: channels of the input, 1 to 1024.
        kernel: odd size of the kernels, to 1023.

    Raises:
        Refused: ``bad-option``.
    """
    name, options = "raft-conv-gru-hx", {"hidden": hidden, "inputs": inputs, "kernel": kernel}
    given = (declare.state(hidden), declare.features("x", inputs), declare.features("hx", hidden + inputs))
    return _unit(name, "RaftConvGRUHX", options, FOUNDATION, given)


@model
def context_conv_gru(hidden: int = HIDDEN, inputs: int = INPUTS, kernel: int = 3) -> ModelDef:
    """RAFT-Stereo's unit: the context ``cz``, ``cr``, ``cq`` is added inside the gates.

    Args:
        hidden: channels of the hidden state, 1 to 1024.
        inputs: channels of the input, 1 to 1024.
        kernel: odd size of the kernels, to 1023.

    Raises:
        Refused: ``bad-option``.
    """
    name, options = "context-conv-gru", {"hidden": hidden, "inputs": inputs, "kernel": kernel}
    context = [declare.features(f"c{gate}", hidden, -4.0) for gate in "zrq"]
    given = (declare.state(hidden), *context, declare.features("x", inputs))
    return _unit(name, "ContextConvGRU", options, RAFT, given, "deploy_context_gru")


@model
def selective_conv_gru(hidden: int = HIDDEN, inputs: int = INPUTS, small: int = 1, large: int = 3) -> ModelDef:
    """Selective-Stereo's unit: a small and a large kernel, mixed by the attention.

    Args:
        hidden: channels of the hidden state, 1 to 1024.
        inputs: channels of the input, 1 to 1024.
        small: odd size of the kernels of the unit that keeps detail, to 1023.
        large: odd size of the kernels of the unit that sees around a pixel, to 1023.

    Raises:
        Refused: ``bad-option``.
    """
    name, options = "selective-conv-gru", {"hidden": hidden, "inputs": inputs, "small": small, "large": large}
    given = (declare.attention(), declare.state(hidden), declare.features("x", inputs))
    return _unit(name, "SelectiveConvGRU", options, SELECTIVE, given, "deploy_selective_gru")


@model
def selective_conv_gru_fused(hidden: int = HIDDEN, inputs: int = INPUTS, small: int = 1, large: int = 3) -> ModelDef:
    """The document's unit, which is FoundationStereo's: state and input joined by ``conv0`` and ``conv1`` first.

    Args:
        hidden: channels of the hidden state, 1 to 1024.
        inputs: channels of the input, 1 to 1024.
        small: odd size of the kernels of the unit that keeps detail, to 1023.
        large: odd size of the kernels of the unit that sees around a pixel, to 1023.

    Raises:
        Refused: ``bad-option``.
    """
    name, options = "selective-conv-gru-fused", {"hidden": hidden, "inputs": inputs, "small": small, "large": large}
    given = (declare.attention(), declare.state(hidden), declare.features("x", inputs))
    return _unit(name, "SelectiveConvGRUFused", options, FOUNDATION, given)


@model
def channel_attention(channels: int = HIDDEN, ratio: int = 16) -> ModelDef:
    """A weight for each channel of the context: ``x (1, channels, H, W)`` to ``weights (1, channels, 1, 1)``.

    Args:
        channels: of the context, 1 to 1024.
        ratio: how many times narrower the hidden layer is, 1 to ``channels``; 16 in every published network.

    Raises:
        Refused: ``bad-option``.
    """
    name = "channel-attention"
    return _attention_block(
        name, "ChannelAttention", channels, ratio, (Tensor("weights", (1, channels, 1, 1), "weights, 0 to 1"),)
    )


@model
def spatial_attention(channels: int = HIDDEN) -> ModelDef:
    """A weight for each pixel: ``x (1, channels, H, W)`` to ``attention (1, 1, H, W)``.

    Args:
        channels: of the context, 1 to 1024.

    Raises:
        Refused: ``bad-option``.
    """
    name = "spatial-attention"
    return _attention_block(name, "SpatialAttention", channels, None, (declare.attention(),))


@model
def contextual_attention(channels: int = HIDDEN, ratio: int = 16) -> ModelDef:
    """Both in a row: the context with its channels weighted, and the attention map of that.

    Args:
        channels: of the context, 1 to 1024.
        ratio: how many times narrower the hidden layer is, 1 to ``channels``; 16 in every published network.

    Raises:
        Refused: ``bad-option``.
    """
    name = "contextual-attention"
    weighted = Tensor("weighted", (1, channels, "H", "W"), "context, each channel times its weight")
    return _attention_block(name, "ContextualAttention", channels, ratio, (weighted, declare.attention()))


@model
def correlation_lookup(sampler: str = "gather", channels: int = INPUTS) -> ModelDef:
    """The likeness of two lines read around a flow: features and ``flow`` to ``looked_up (1, 36, H, W)``.

    Args:
        sampler: ``gather`` deploys without a sampling operator, ``grid`` with it, as published.
        channels: channels of the features.

    Raises:
        Refused: ``bad-option``.
    """
    name = "correlation-lookup"
    Settings(name).one_of("sampler", sampler, SAMPLERS)
    Settings(name).whole("channels", channels, most=MOST_CHANNELS)
    sides = [declare.features(side, channels, -4.0) for side in ("left", "right")]
    flow = Tensor("flow", (1, 1, "H", "W"), "flow from left to right, pixels", low=-24.0, high=8.0)
    return ModelDef(
        name=name,
        family="stereo",
        build=partial(_made, "correlation", "CorrelationLookup"),
        deploy=partial(_deployed, "deploy_lookup") if sampler == "gather" else None,
        inputs=(*sides, flow),
        outputs=(Tensor("looked_up", (1, LOOKED_UP, "H", "W"), "four levels of nine taps, the finest level first"),),
        dims=(Dim("H", 2, 8, 24), Dim("W", 16, 32, 80, 8, f"below 16 {declare.ONE_COLUMN}")),
        source=RAFT,
        licence=BLOCK_LICENCE,
        options={"sampler": sampler, "channels": channels},
    )


@model
def convex_upsample(factor: int = 4) -> ModelDef:
    """Full resolution: ``flow (1, 1, H, W)`` and ``mask (1, 9 * factor^2, H, W)`` to the flow ``up``.

    Args:
        factor: how many times larger, 1 to 16; published with 4, and with 8 in the real-time form.

    Raises:
        Refused: ``bad-option``.
    """
    Settings("convex-upsample").whole("factor", factor, most=16)
    return ModelDef(
        name="convex-upsample",
        family="stereo",
        build=partial(_made, "upsample", "ConvexUpsample", factor=factor),
        deploy=partial(_deployed, "deploy_upsample"),
        inputs=(
            Tensor("flow", (1, 1, "H", "W"), "flow in pixels of its size", low=-32.0, high=0.0),
            Tensor("mask", (1, NEIGHBOURS * factor**2, "H", "W"), "scores of the neighbours", low=-8.0, high=8.0),
        ),
        outputs=(Tensor("up", (1, 1, f"H*{factor}", f"W*{factor}"), "flow in pixels of the full size"),),
        dims=(Dim("H", 2, 16, 48), Dim("W", 2, 16, 48)),
        source="Teed and Deng, ECCV 2020, arxiv.org/abs/2003.12039",
        licence=BLOCK_LICENCE,
        options={"factor": factor},
    )


# ---------------------------------------------------------------------------------------------- what they share


def _unit(
    name: str, kind: str, options: dict[str, int], source: str, inputs: tuple[Tensor, ...], deploy: str | None = None
) -> ModelDef:
    declare.unit_options(name, options)
    return ModelDef(
        name=name,
        family="stereo",
        build=partial(_made, "gru", kind, **options),
        deploy=partial(_deployed, deploy) if deploy else None,
        inputs=inputs,
        outputs=(Tensor("next_h", (1, options["hidden"], "H", "W"), "the next hidden state"),),
        dims=(Dim("H", 2, 8, 24), Dim("W", 2, 12, 36)),
        source=source,
        licence=FOUNDATION_LICENCE if source == FOUNDATION else BLOCK_LICENCE,
        options=options,
    )


def _attention_block(name: str, kind: str, channels: int, ratio: int | None, outputs: tuple[Tensor, ...]) -> ModelDef:
    options = {"channels": channels} | ({} if ratio is None else {"ratio": ratio})
    for option, most in (("channels", MOST_CHANNELS), ("ratio", channels)):
        if option in options:
            Settings(name).whole(option, options[option], most=most)
    return ModelDef(
        name=name,
        family="stereo",
        build=partial(_made, "attention", kind, **({} if ratio is None else options)),
        inputs=(declare.features("x", channels),),
        outputs=outputs,
        dims=(Dim("H", 2, 16, 48), Dim("W", 2, 24, 72)),
        source=SELECTIVE,
        licence=BLOCK_LICENCE,
        options=options,
    )


def _made(file: str, kind: str, **options: int) -> nn.Module:
    from . import attention, correlation, gru, upsample

    files = {"attention": attention, "correlation": correlation, "gru": gru, "upsample": upsample}
    made: nn.Module = getattr(files[file], kind)(**options)
    return made


def _raft(variant: str, iterations: int) -> nn.Module:
    from .raft import VARIANTS, RaftStereo

    return RaftStereo(VARIANTS[variant], iterations)


def _selective(iterations: int, attention_map: bool, predictions: bool = False, layers: int = 3) -> nn.Module:
    from .raft import Shape
    from .selective import SelectiveRaft

    return SelectiveRaft(Shape(layers=layers), iterations, attention_map, predictions)


def _deployed(rewrite: str, module: nn.Module, **options: str) -> nn.Module:
    from . import deploy

    deployed: nn.Module = getattr(deploy, rewrite)(module, **options)
    return deployed


def _graph(kind: str, network: nn.Module) -> nn.Module:
    from . import selective

    graph: nn.Module = getattr(selective, kind)(network)
    return graph
