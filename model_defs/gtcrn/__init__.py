"""GTCRN, a speech enhancement network of 48,245 parameters, for whole recordings and frame by frame.

Source: Rong et al., "GTCRN: A Speech Enhancement Model Requiring Ultralow Computational Resources", ICASSP 2024;
https://github.com/Xiaobin-Rong/gtcrn (MIT). Written from the published equations and the checkpoint's keys and shapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.spec import Checkpoint, Dim, HostStep, ModelDef, State, Stream, Tensor, model

if TYPE_CHECKING:
    from torch import nn

SOURCE = "Rong et al., ICASSP 2024, github.com/Xiaobin-Rong/gtcrn"
LICENCE = "Apache-2.0 (this definition); MIT (published architecture and weights)"
PUBLISHED = Checkpoint(
    address="https://github.com/Xiaobin-Rong/gtcrn, stream/onnx_models/model_trained_on_dns3.tar",
    sha256="250fa2820ea9947704a62dda8e642ba773a067719c5e4294ad95aeab23f06442",
    licence="MIT",
)
# 16 kHz, frames of 512 samples every 256, periodic square-root Hann window on both sides.
STFT = {"sample_rate": 16000, "length": 512, "hop": 256, "window": "sqrt-hann"}
# Loud speech scaled to [-1, 1] reaches 31 in this spectrum.
REACH = 32.0


@model
def gtcrn() -> ModelDef:
    """A whole recording at once: ``spec (1, 257, T, 2)`` to ``enhanced`` of the same shape."""
    shape = (1, 257, "T", 2)
    return ModelDef(
        name="gtcrn",
        family="gtcrn",
        build=_network,
        deploy=_deploy_offline,
        inputs=(Tensor("spec", shape, "noisy STFT at 16 kHz: batch, bin, frame, re/im", low=-REACH, high=REACH),),
        outputs=(Tensor("enhanced", shape, "enhanced STFT, same layout"),),
        dims=(Dim("T", min=2, opt=63, max=4000),),
        checkpoint=PUBLISHED,
        before=(HostStep("stft", {**STFT, "to": "spec"}),),
        after=(HostStep("istft", {**STFT, "from": "enhanced"}),),
        metrics=("si-sdr",),
        source=SOURCE,
        licence=LICENCE,
    )


@model
def gtcrn_stream() -> ModelDef:
    """One frame of 16 ms: ``mix (1, 257, 1, 2)`` and the states to ``enhanced`` and the next states."""
    from .stream import STATES

    shape = (1, 257, 1, 2)
    states = [Tensor(s.input, s.shape, "state, zero before the first frame", low=-1.0, high=1.0) for s in STATES]
    next_states = [Tensor(s.output, s.shape, f"the next {s.input}") for s in STATES]
    return ModelDef(
        name="gtcrn-stream",
        family="gtcrn",
        build=_stream,
        deploy=_deploy_stream,
        inputs=(Tensor("mix", shape, "one frame of noisy STFT at 16 kHz", low=-REACH, high=REACH), *states),
        outputs=(Tensor("enhanced", shape, "the enhanced frame"), *next_states),
        state=tuple(State(s.input, s.output) for s in STATES),
        stream=Stream(input="mix", output="enhanced", axis=2, steps=128),
        checkpoint=PUBLISHED,
        before=(HostStep("stft", {**STFT, "to": "mix"}),),
        after=(HostStep("istft", {**STFT, "from": "enhanced"}),),
        metrics=("si-sdr",),
        source=SOURCE,
        licence=LICENCE,
    )


def _network() -> nn.Module:
    from .network import GTCRN

    return GTCRN()


def _deploy_offline(network: nn.Module) -> nn.Module:
    from .deploy import deploy_offline

    return deploy_offline(network)


def _stream() -> nn.Module:
    from .stream import GTCRNStream

    return GTCRNStream()


def _deploy_stream(stream: nn.Module) -> nn.Module:
    from .deploy import deploy_stream

    return deploy_stream(stream)
