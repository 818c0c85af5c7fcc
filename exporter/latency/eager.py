"""The subject that all others are compared with: the model in eager PyTorch, on a processor or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from exporter.errors import Incomplete, Refused
from exporter.latency.opened import Arrays, Opened
from exporter.target import DeviceCall


def open_eager(request: Mapping[str, Any], feeds: Arrays) -> Opened:
    """Rebuilds the model; loading includes the import of PyTorch, as it does for whoever runs it."""
    import torch

    from exporter.define import eager as built

    device = torch.device(request.get("device", "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise Incomplete("torch-absent", "torch here cannot use the GPU", next="install a build of torch with CUDA")
    torch.set_num_threads(request["threads"])
    _set_tf32(bool(request.get("tf32", False)))
    dtype = _eager_dtype(request.get("precision", "fp32"))
    module = built(request["build"]).to(device=device, dtype=dtype)
    inputs = [_placed(torch.from_numpy(feeds[name]), device, dtype) for name in request["inputs"]]
    counts = {name: int(feeds[name]) for name in request.get("repeats", [])}
    names = list(request["outputs"])

    @torch.inference_mode()
    def call() -> Any:
        return module(*inputs, **counts)

    def facts() -> dict[str, Any]:
        kinds = sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters()})
        return {"precision": "+".join(_short(kind) for kind in kinds) or "fp32", "layers": {}, "providers": {}}

    if device.type == "cuda":
        timed = _CudaCall(call, inputs, names)
        return Opened(timed, lambda: timed, lambda last: last.outputs(), lambda last: last.spoil(), facts, lambda: None)
    # Eager returns tensors of its own making, which may be views of its inputs or weights: never write into them.
    return Opened(call, lambda: call, lambda last: _named(last, names), lambda _: None, facts, lambda: None)


class _CudaCall(DeviceCall):
    """Eager on a GPU, timed as a compiled artifact there is: between two events of one stream, copies apart."""

    def __init__(self, call: Callable[[], Any], inputs: Sequence[Any], names: Sequence[str]) -> None:
        import torch

        self._call, self._inputs, self._names, self._last = call, inputs, names, None
        self._start, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

    def __call__(self) -> _CudaCall:
        self._start.record()
        self._last = self._call()
        self._end.record()
        self._end.synchronize()  # a launch is not a result
        return self

    def elapsed_ns(self) -> float:
        return float(self._start.elapsed_time(self._end)) * 1e6

    def copies_ns(self) -> tuple[float, float]:
        hosts = [tensor.cpu().pin_memory() for tensor in self._inputs]
        outputs = _flat(self._last)
        return (
            self._timed(lambda: [host.to(tensor.device) for host, tensor in zip(hosts, self._inputs, strict=True)]),
            self._timed(lambda: [tensor.cpu() for tensor in outputs]),
        )

    def _timed(self, work: Callable[[], Any]) -> float:
        self._start.record()
        work()
        self._end.record()
        self._end.synchronize()
        return self.elapsed_ns()

    def outputs(self) -> Arrays:
        return _named(self._last, self._names)

    def spoil(self) -> None:
        """Nothing: eager returns tensors of its own making, which may be views of its inputs or weights."""


def _eager_dtype(precision: str) -> Any:
    import torch

    known = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision not in known:
        raise Refused(
            "eager-precision",
            f"eager PyTorch cannot be timed in {precision}",
            why=f"it is timed in one of {', '.join(known)}",
            next="profile with --precision fp32, or leave the eager subject out",
        )
    return known[precision]


def _short(kind: str) -> str:
    return {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}.get(kind, kind)


def _set_tf32(allowed: bool) -> None:
    """The same arithmetic as the target's: TF32 is a precision of its own."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _placed(tensor: Any, device: Any, dtype: Any) -> Any:
    return tensor.to(device=device, dtype=dtype) if tensor.is_floating_point() else tensor.to(device)


def _named(outputs: Any, names: Sequence[str]) -> Arrays:
    """What a module returned, as arrays under the definition's names."""
    flat = _flat(outputs)
    if len(flat) != len(names):
        # Cutting the longer one would drop an output unseen; naming none of them makes the check fail on all.
        return {}
    return {name: _array(tensor) for name, tensor in zip(names, flat, strict=True)}


def _flat(outputs: Any) -> list[Any]:
    """Nested dicts, tuples and lists of tensors, in order."""
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if not isinstance(outputs, (tuple, list)):
        return [outputs]
    return [tensor for part in outputs for tensor in _flat(part)]


def _array(tensor: Any) -> np.ndarray:
    wide = tensor.double() if tensor.is_floating_point() else tensor
    array: np.ndarray = wide.cpu().numpy()
    return array
