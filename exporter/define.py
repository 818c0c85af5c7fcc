"""Define: a model definition becomes a module with weights, in eval mode, checked."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from exporter import checkpoint, models
from exporter.errors import NotProven
from exporter.graph import external_from, sha256
from exporter.manifest import Weights
from exporter.memory import give_back_what_is_freed
from exporter.parity.cases import Case, generated_inputs
from exporter.spec import ModelDef

STATISTICS = ("running_mean", "running_var")
# Seeded statistics stay unless some norm sees a variance this many times smaller than its own.
FAINT = 256.0


def definition(build: Mapping[str, Any]) -> ModelDef:
    """The definition a request names: see :attr:`exporter.request.Request.build`."""
    return models.of_build(build)


def parameters(definition: ModelDef) -> int:
    """How many parameters a definition's module has; where it can be built without memory for them, it is."""
    try:
        with torch.device("meta"):
            module = definition.build()
    except (RuntimeError, NotImplementedError):  # a constructor that looks at its own weights
        module = definition.build()
    return sum(parameter.numel() for parameter in module.parameters())


def eager(build: Mapping[str, Any]) -> nn.Module:
    """The reference module a request names, with its weights, in eval mode.

    Args:
        build: ``{"model": name, "options": {...}, "checkpoint": path or None, "seed": int}``.
    """
    return weighted(definition(build), build["checkpoint"], build["seed"])[0]


def part_of(definition: ModelDef, graph: str, module: nn.Module) -> nn.Module:
    """The piece of a deployed module that is traced as one of the definition's graphs."""
    if not definition.parts:
        return module
    piece = next(part for part in definition.parts if part.name == graph).module(module)
    set_eval(piece)
    return piece


def weighted(definition: ModelDef, checkpoint_file: str | None, seed: int) -> tuple[nn.Module, Weights]:
    """The definition's module with a checkpoint's weights, its own or seeded ones, checked and in eval mode.

    Raises:
        Refused: a checkpoint that is not of this model, or weights that are not finite.
        NotProven: a module that cannot be put in eval mode or computes with batch statistics.
    """
    torch.manual_seed(seed)
    module = definition.build()
    if checkpoint_file is None and definition.weighted:
        source = f"as {definition.source} gives them"
        weights = Weights("own", weights_digest(module), source, definition.licence, seed)
    elif checkpoint_file is None:
        seed_weights(module, seed)
        _settle_norms(definition, module)
        weights = Weights("seeded", weights_digest(module), f"seed {seed}", "none: these weights are noise", seed)
    else:
        path = Path(checkpoint_file)
        checkpoint.load(module, path)
        published = definition.checkpoint
        known = published is not None and published.sha256 == sha256(path)
        source = published.address if published and known else path.name
        licence = published.licence if published and known else "unknown: not the published file"
        weights = Weights("checkpoint", weights_digest(module), source, licence, None)
    checkpoint.refuse_not_finite(module)
    _refuse_doubles(definition, module)
    set_eval(module)
    return module, weights


def _refuse_doubles(definition: ModelDef, module: nn.Module) -> None:
    kinds = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    if kinds == {torch.float64}:  # where some are, they may be turned at use: what runs is looked at
        raise NotProven(
            "unsupported-dtype",
            "the weights are float64",
            where=f"model {definition.name}",
            why="what is exported computes in float32 or less; some targets would run float64 in another type, unsaid",
            next="call .float() on the module where it is made, and declare its inputs as f32",
        )


def seed_weights(module: nn.Module, seed: int) -> None:
    """Fills every trainable tensor so that outputs depend on it: no zero bias, no unit scale, no dead variance.

    Frozen parameters (analytic filterbanks) and buffers that are no statistics (grids, windows) keep their values. A
    tensor's values depend on its name and the seed alone, so that a new layer does not change the others.
    """
    buffers = {name: buffer for name, buffer in module.named_buffers() if name.endswith(STATISTICS)}
    trainable = {name: p.data for name, p in module.named_parameters() if p.requires_grad}
    for name, tensor in sorted({**buffers, **trainable}.items()):
        generator = torch.Generator().manual_seed(int(hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()[:12], 16))
        tensor.copy_(_seeded(name, tensor, generator))


def _settle_norms(definition: ModelDef, module: nn.Module) -> None:
    """Gives batch norms the statistics they see on one normal input, where a signal dies of those of the seed.

    In a deep network of gates and depthwise convolutions a signal under other statistics shrinks from block to block,
    until nothing that comes in moves what comes out. Found in float64 and rounded to 8 bits, the statistics are the
    same on every machine.
    """
    if not _norms(module):
        return
    before = {name: value.clone() for name, value in _statistics(module)}
    with in_double(module) as double:
        settled = _settled(definition, double.eval())
    for name, buffer in _statistics(module):
        buffer.copy_((settled or before)[name])


def _norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    return [norm for norm in norms if norm.running_var is not None]


def _statistics(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(name, value) for name, value in module.state_dict().items() if name.endswith(STATISTICS)]


def _settled(definition: ModelDef, double: nn.Module) -> dict[str, torch.Tensor] | None:
    """The statistics that the norms of a float64 module see; None where those that they have do."""
    case = Case("normal", "generated", "normal", {dim.name: dim.min for dim in definition.dims})
    given, norms = generated_inputs(definition, case), _norms(double)
    seen: dict[nn.Module, _Seen] = {}

    def run(settle: bool) -> None:
        hooks = [norm.register_forward_pre_hook(partial(_look, seen, settle)) for norm in norms]
        inputs = [torch.from_numpy(given[t.name]) for t in definition.inputs]
        inputs = [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs]
        try:
            with in_float64(double), torch.no_grad():
                double(*inputs, **{name: int(given[name]) for name in definition.repeats})
        finally:
            for hook in hooks:
                hook.remove()

    try:
        run(settle=False)
        if all(norm.ratio > 1 / FAINT for norm in seen.values()):
            return None
        run(settle=True)
    except (RuntimeError, TypeError, NotImplementedError):
        return None  # what does not run here is told, with its reason, where the reference is computed
    return {name: value.clone() for name, value in _statistics(double)}


@dataclass(frozen=True)
class _Seen:
    """The call of a norm with the most values per channel, and how their variance compares with the norm's own."""

    values: int
    ratio: float


def _look(seen: dict[nn.Module, _Seen], settle: bool, norm: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
    """Notes the largest call of a norm; takes on the statistics of that call if asked.

    A norm that several scales share is called once for each. Of nine values a statistic is a poor estimate: a channel
    in which they happen to agree would be blown up at every other scale.
    """
    (x,) = given
    values = x.transpose(0, 1).reshape(x.shape[1], -1)
    count = values.shape[1]
    largest = seen[norm].values if norm in seen else 1
    if count < largest or count < 2 or (count == largest and not settle):
        return
    variance, mean = torch.var_mean(values, dim=1, correction=0)
    assert isinstance(norm.running_var, torch.Tensor) and isinstance(norm.running_mean, torch.Tensor)
    if not settle:
        seen[norm] = _Seen(count, float((variance / norm.running_var).median()))
        return
    norm.running_mean.copy_(mean.bfloat16())
    norm.running_var.copy_(variance.bfloat16().clamp(min=torch.finfo(torch.float32).tiny))
    seen[norm] = _Seen(count + 1, 1.0)  # settled: later calls of that size leave it as it is


class Turning:
    """A module that is in float64 or in its own types, one at a time: of large weights there is room for one copy.

    To float64 and back is exact. What points to the weights from outside, a view of a buffer, does not follow.
    """

    def __init__(self, module: nn.Module) -> None:
        give_back_what_is_freed()
        self._module = module
        self._own: list[torch.dtype] = []

    def to_double(self) -> None:
        """The module in float64; its own types are given up tensor by tensor."""
        if not self._own:
            self._own = [tensor.dtype for tensor in self._tensors()]
            self._module.double()

    def back(self) -> None:
        """The module as it was."""
        owners = [(owner, key) for owner in self._module.modules() for key in owner._buffers]
        parameters = list(self._module.parameters())
        if self._own:
            for parameter, kind in zip(parameters, self._own, strict=False):
                parameter.data = parameter.data.to(kind)
            for (owner, key), kind in zip(owners, self._own[len(parameters) :], strict=True):
                held = owner._buffers[key]
                owner._buffers[key] = None if held is None else held.to(kind)
            self._own = []

    def _tensors(self) -> list[torch.Tensor]:
        """Parameters, then buffers as often as they are held."""
        held = [value for owner in self._module.modules() for value in owner._buffers.values()]
        return [*self._module.parameters(), *(torch.empty(0) if value is None else value for value in held)]


def is_large(module: nn.Module) -> bool:
    """Whether a second copy of the weights is one too many."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) >= external_from()


@contextmanager
def in_double(module: nn.Module) -> Iterator[nn.Module]:
    """The module in float64: a copy; of large weights the module itself, which is as it was afterwards."""
    if not is_large(module):
        yield copy.deepcopy(module).double()
        return
    turning = Turning(module)
    turning.to_double()
    try:
        yield module
    finally:
        turning.back()


@contextmanager
def in_float64(module: nn.Module) -> Iterator[None]:
    """How a module runs in float64.

    Modules that create tensors inside forward follow the default type, not their parameters'. A grouped convolution is
    one small call per group there, each a meeting of all threads: with 48 groups 3 ms on one thread, 756 ms on two of a
    busy machine.
    """
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    if any(isinstance(part, nn.modules.conv._ConvNd) and part.groups > 1 for part in module.modules()):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.set_num_threads(threads)


def _seeded(name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) * (high - low) + low

    if name.endswith("running_var"):
        return uniform(0.5, 1.5)
    if name.endswith("running_mean"):
        return uniform(-0.2, 0.2)
    if tensor.dim() >= 2 and "bias" not in name and not _is_norm_scale(name):
        fan_in = tensor[0].numel()
        return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) / math.sqrt(fan_in)
    if "bias" in name:
        return uniform(-0.2, 0.2)
    return uniform(0.5, 1.5) if _is_norm_scale(name) else uniform(0.1, 0.4)


def _is_norm_scale(name: str) -> bool:
    """Whether a tensor scales a normalised signal: such scales stay near one, whatever their rank."""
    owner = name.rsplit(".", 2)[-2] if name.count(".") else name
    return name.endswith("weight") and any(part in owner for part in ("bn", "norm", "ln"))


def weights_digest(module: nn.Module) -> str:
    """Hex digest of every name, type, shape and value of the state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def set_eval(module: nn.Module) -> None:
    """Puts the module in eval mode and proves it of every submodule.

    Raises:
        NotProven: ``train-mode`` or ``batch-statistics``.
    """
    module.eval()
    for name, part in module.named_modules():
        if part.training:
            raise NotProven(
                "train-mode",
                f"{name or 'the module'} ({type(part).__name__}) stays in train mode after eval()",
                where=f"model {type(module).__name__}",
                why="dropout and batch statistics would be exported",
                next="let train(False) reach every submodule",
            )
        if isinstance(part, nn.modules.batchnorm._NormBase) and _uses_batch_statistics(part):
            raise NotProven(
                "batch-statistics",
                f"{name} ({type(part).__name__}) has no running statistics: it normalises by its own batch",
                where=f"model {type(module).__name__}",
                why="its result for one sample depends on the others beside it",
                next=f"{type(part).__name__}(track_running_stats=True), or a norm that needs no statistics",
            )


def _uses_batch_statistics(part: nn.modules.batchnorm._NormBase) -> bool:
    return isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None
