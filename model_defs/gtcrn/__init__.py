"""GTCRN, a speech enhancement network of 48,245 parameters, for whole recordings and frame by frame.

Source: Rong et al., "GTCRN: A Speech Enhancement Model Requiring Ultralow Computational Resources", ICASSP 2024;
https://github.com/Xiaobin-Rong/gtcrn (MIT). Written from the published equations and the checkpoint's keys and shapes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from exporter.budget import FAIR, Budget
from exporter.settings import Settings
from exporter.spec import Checkpoint, Dim, HostStep, ModelDef, Sample, State, Stream, Tensor, model

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
# The first in numpy; the others by their libraries, where those are installed.
METRICS = ("si-sdr", "pesq", "stoi")
# What int8 may cost on real speech; a difference of 1 dB is just audible.
BUDGET = Budget(decibels=FAIR, losses={"si-sdr": 0.1})
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
        metrics=METRICS,
        samples=_recordings,
        calibration=_other_recordings,
        budget=BUDGET,
        source=SOURCE,
        licence=LICENCE,
    )


@model
def gtcrn_stream(signature: str = "layers") -> ModelDef:
    """One frame of 16 ms: ``mix (1, 257, 1, 2)`` and the states to ``enhanced`` and the next states.

    Args:
        signature: ``layers``, a state per layer, which is fastest; or ``published``, the three caches, names and order
            of the authors' streaming graph with the metadata that sherpa-onnx reads, for programs written for it.

    Raises:
        Refused: ``bad-option``.
    """
    Settings("gtcrn-stream").one_of("signature", signature, ("layers", "published"))
    if signature == "published":
        from .published import CACHES as STATES
        from .published import METADATA

        build, deploy, output, metadata = _stream_published, _deploy_published, "enh", METADATA
    else:
        from .stream import STATES

        build, deploy, output, metadata = _stream, _deploy_stream, "enhanced", {}
    shape = (1, 257, 1, 2)
    states, next_states = _state_tensors(STATES)
    return ModelDef(
        name="gtcrn-stream",
        family="gtcrn",
        build=build,
        deploy=deploy,
        inputs=(Tensor("mix", shape, "one frame of noisy STFT at 16 kHz", low=-REACH, high=REACH), *states),
        outputs=(Tensor(output, shape, "the enhanced frame"), *next_states),
        state=tuple(State(s.input, s.output) for s in STATES),
        stream=Stream(input="mix", output=output, axis=2, steps=128),
        checkpoint=PUBLISHED,
        before=(HostStep("stft", {**STFT, "to": "mix"}),),
        after=(HostStep("istft", {**STFT, "from": output}),),
        metrics=METRICS,
        samples=_recordings,
        calibration=_other_recordings,
        budget=BUDGET,
        source=SOURCE,
        licence=LICENCE,
        metadata=metadata,
        options={"signature": signature},
    )


@model
def gtcrn_stream_audio() -> ModelDef:
    """16 ms of sound: ``audio_in (1, 256)`` and the states to ``audio_out`` and the next; no STFT outside.

    The answer is 256 samples late.
    """
    from .audio import AUDIO_STATES, HOP

    states, next_states = _state_tensors(AUDIO_STATES)
    frames = {"sample_rate": STFT["sample_rate"], "delay": HOP}
    return ModelDef(
        name="gtcrn-stream-audio",
        family="gtcrn",
        build=_audio,
        deploy=_deploy_audio,
        inputs=(Tensor("audio_in", (1, HOP), "noisy samples at 16 kHz", low=-1.0, high=1.0), *states),
        outputs=(Tensor("audio_out", (1, HOP), "the enhanced samples before those"), *next_states),
        state=tuple(State(s.input, s.output) for s in AUDIO_STATES),
        stream=Stream(input="audio_in", output="audio_out", axis=1, steps=128),
        checkpoint=PUBLISHED,
        before=(HostStep("frames", {**frames, "length": HOP, "to": "audio_in"}),),
        after=(HostStep("unframe", {**frames, "from": "audio_out", "like": "audio_in"}),),
        metrics=METRICS,
        samples=_recordings,
        calibration=_other_recordings,
        budget=BUDGET,
        source=SOURCE,
        licence=LICENCE,
    )


def _state_tensors(states: Iterable[Any]) -> tuple[list[Tensor], list[Tensor]]:
    """The inputs and the outputs that carry states from step to step."""
    given = [Tensor(s.input, s.shape, "state, zero before the first frame", low=-1.0, high=1.0) for s in states]
    return given, [Tensor(s.output, s.shape, f"the next {s.input}") for s in states]


def _recordings() -> Iterable[Sample]:
    from .recordings import recordings

    return recordings()


def _other_recordings() -> Iterable[Sample]:
    from .recordings import other_recordings

    return other_recordings()


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


def _stream_published() -> nn.Module:
    from .published import GTCRNStreamPublished

    return GTCRNStreamPublished()


def _deploy_published(stream: nn.Module) -> nn.Module:
    from .deploy import deploy_stream
    from .published import DeployedStreamPublished

    return deploy_stream(stream, DeployedStreamPublished)


def _audio() -> nn.Module:
    from .audio import GTCRNAudio

    return GTCRNAudio()


def _deploy_audio(stream: nn.Module) -> nn.Module:
    from .audio import DeployedAudio
    from .deploy import deploy_stream

    return deploy_stream(stream, DeployedAudio)
