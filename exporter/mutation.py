"""Which line of a model writes to what it was given or to its buffers, or draws at random: operators say that."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

NO_USERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
# It changes running statistics without saying so, where it is in train mode.
BATCH_NORM, TRAINING = "aten.native_batch_norm.default", 5


class _Looking(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes where the first operator runs that writes to some tensors, and the first that draws."""

    def __init__(self, module: nn.Module, watched: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.paths = {id(part): f"{path} ({type(part).__name__})" for path, part in module.named_modules() if path}
        self.watched = {tensor.untyped_storage().data_ptr() for tensor in watched if tensor.numel()}
        self.written = self.drawn = ""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if not self.written and any(self._is_watched(value) for value in _changed(func, args, given)):
            self.written = _place(sys._getframe(1), self.paths)
        if not self.drawn and torch.Tag.nondeterministic_seeded in func.tags:
            self.drawn = _place(sys._getframe(1), self.paths)
        return func(*args, **given)

    def _is_watched(self, value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() in self.watched


def places(
    module: nn.Module, inputs: Sequence[torch.Tensor], call: Callable[[Sequence[torch.Tensor]], Any]
) -> tuple[str, str]:
    """``, FILE:LINE: text, smallest part that does: PATH (CLASS)`` of the first write to an input or a buffer, and of
    the first draw at random.

    Args:
        module: the model.
        inputs: what it is given; written to.
        call: calls it with them.

    Returns:
        The two places; nothing where no operator says that it does: one of the user's own may not.
    """
    looking = _Looking(module, [*inputs, *module.buffers()])
    with suppress(Exception), looking:  # it ran before; if it does not now, its place is not known
        call(inputs)
    return looking.written, looking.drawn


def _changed(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterable[Any]:
    """The arguments that an operator changes."""
    if str(func) == BATCH_NORM and args[TRAINING]:
        yield from args[3:5]
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield args[index] if index < len(args) else kwargs.get(argument.name)


def _place(frame: FrameType | None, paths: Mapping[int, str]) -> str:
    line, part = "", ""
    while frame is not None and not (line and part):
        code = frame.f_code
        if not line and not code.co_filename.startswith(NO_USERS):
            text = linecache.getline(code.co_filename, frame.f_lineno).strip()
            line = f", {code.co_filename}:{frame.f_lineno}: {text}"
        part = part or paths.get(id(frame.f_locals.get("self")), "")
        frame = frame.f_back
    return line + (f", smallest part that does: {part}" if part else "")
