"""How a user's module is called: with tensors in a row, whatever its ``forward`` takes, and tensors in a row back.

A graph has named tensors and nothing else. What a ``forward`` takes and gives may be nested: tensors of a tuple, a
mapping or a dataclass get the names of their places, ``boxes.scores`` or ``output.0``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from exporter.errors import Refused

ONE = "output"


@dataclass(frozen=True)
class Call:
    """The arguments of ``forward``: ``(args, kwargs)`` as a tree, of which some leaves are tensors.

    Attributes:
        tree: its structure.
        leaves: every leaf in order; the tensors are of an example.
        names: what the tensors among them are called, in order.
    """

    tree: TreeSpec
    leaves: tuple[Any, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        """The call that these arguments are."""
        leaves, tree = tree_flatten((tuple(args), dict(kwargs)))
        named = dict[str, Any]()
        for name, value in [*zip(_names(module, len(args)), args, strict=True), *kwargs.items()]:
            named |= dict(_tensors(value, name))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        by_id = {id(leaf): name for name, leaf in named.items()}
        return cls(tree, tuple(leaves), tuple(by_id[id(tensor)] for tensor in tensors))

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The example's tensors, in order."""
        return tuple(leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor))

    def arguments(self, tensors: Sequence[torch.Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """``(args, kwargs)`` with these tensors in the place of the example's."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        args, kwargs = tree_unflatten(leaves, self.tree)
        return args, kwargs


def by_name(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Call:
    """The call that hands on tensors by the names of ``forward``'s parameters, or in order where none is one.

    Raises:
        Refused: ``bad-input`` for a name that is no parameter beside others that are.
    """
    parameters = inspect.signature(module.forward).parameters
    known = [name for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    used = [name for name in tensors if name in known]
    if used and len(used) < len(tensors):
        unknown = next(name for name in tensors if name not in known)
        raise Refused(
            "bad-input",
            f"forward has no parameter {unknown!r}",
            where=f"{type(module).__name__}.forward({', '.join(known)})",
            why="inputs are handed on by the names of its parameters, or all of them in order under names of your own",
            next="give every --input the name of a parameter",
        )
    positional = [n for n in known if parameters[n].kind is parameters[n].POSITIONAL_ONLY]
    if used and not positional:
        return _renamed(Call.of(module, (), tensors), tensors)
    return _renamed(Call.of(module, tuple(tensors.values()), {}), tensors)


def _renamed(call: Call, tensors: Mapping[str, torch.Tensor]) -> Call:
    """The call with the user's own names, by the order in which ``forward`` gets the tensors."""
    by_id = {id(tensor): name for name, tensor in tensors.items()}
    return Call(call.tree, call.leaves, tuple(by_id[id(tensor)] for tensor in call.tensors))


class _Row(nn.Module):
    """What a class of the user's becomes: the same but for ``forward``, which takes and gives tensors in a row."""

    _exporter_call: Call

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(tensor for _, tensor in self._named(tensors))

    def _named(self, tensors: Sequence[torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
        args, kwargs = self._exporter_call.arguments(tensors)
        return named_tensors(super().forward(*args, **kwargs))


def in_a_row(module: nn.Module, call: Call) -> nn.Module:
    """The module, called with the tensors of ``call`` in a row.

    It stays what it is, with its names of weights and of modules: only its class has another ``forward``.
    """
    kind = type(module)
    module._exporter_call = call  # type: ignore[assignment]
    module.__class__ = type(kind.__name__, (_Row, kind), {"__module__": kind.__module__})
    return module


def positional(module: nn.Module, count: int) -> nn.Module:
    """The module, called with so many tensors in order; of what it gives, the tensors alone."""
    given = [torch.empty(0) for _ in range(count)]
    leaves, tree = tree_flatten((tuple(given), {}))
    return in_a_row(module, Call(tree, tuple(leaves), ("",) * count))


def named_outputs(module: nn.Module, tensors: Sequence[torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
    """What a module gives of tensors in a row, by name."""
    return module._named(tensors) if isinstance(module, _Row) else named_tensors(module(*tensors))


def named_tensors(value: Any) -> list[tuple[str, torch.Tensor]]:
    """The tensors in what a ``forward`` gave, under stable names: of mappings and fields their own, else places."""
    found = list(_tensors(value, ONE)) if isinstance(value, torch.Tensor) else list(_tensors(value, ""))
    return [(name if not name[:1].isdigit() else f"{ONE}.{name}", tensor) for name, tensor in found]


def _tensors(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
        return
    for key, item in _items(value):
        yield from _tensors(item, f"{name}.{key}" if name else key)


def _items(value: Any) -> list[tuple[str, Any]]:
    """The parts of a value that may hold tensors; of numbers, texts and None there are none."""
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items()]
    if is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    return [(str(index), item) for index, item in enumerate(value)] if isinstance(value, (list, tuple)) else []


def _names(module: nn.Module, count: int) -> list[str]:
    """The names of the first parameters of ``forward``; of a row of arguments, numbered ones."""
    parameters = inspect.signature(module.forward).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:count]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "input")
    return [*named, *(f"{rest}.{index}" for index in range(count - len(named)))]
