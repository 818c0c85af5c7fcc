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
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from exporter.errors import Refused

ONE = "output"
# Attributes under which modules are known to keep an example of their inputs.
EXAMPLES = ("example_inputs", "example_input_array")
# How tensors reach a ``forward``.
IN_ORDER, BY_NAME, NESTED = "in order", "by name", "nested"


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


def example_of(module: nn.Module) -> Any:
    """The example of its inputs that a module keeps itself; None where it keeps none."""
    example = next((getattr(module, name) for name in EXAMPLES if getattr(module, name, None) is not None), None)
    return example() if callable(example) and not isinstance(example, nn.Module) else example


def shown(module: nn.Module, example: Any) -> Call:
    """The call that an example is: a tensor, a tuple of arguments, ``(args, kwargs)``, or a mapping."""
    # Each tensor an object of its own: one that is given twice is two inputs.
    example = tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf, example)
    if isinstance(example, Mapping) and all(isinstance(name, str) for name in example):
        tensors = {name: value for name, value in example.items() if isinstance(value, torch.Tensor)}
        if len(tensors) == len(example):
            return by_name(module, tensors)
        return Call.of(module, (), example)
    if isinstance(example, (tuple, list)):
        pair = len(example) == 2 and isinstance(example[0], tuple) and isinstance(example[1], dict)
        return Call.of(module, *example) if pair else Call.of(module, example, {})
    return Call.of(module, (example,), {})


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


def as_shown(module: nn.Module, example: Any = None) -> nn.Module:
    """The module, called with tensors in a row, each handed on to where an example, or its own, has one."""
    return in_a_row(module, shown(module, example_of(module) if example is None else example))


def by_names(module: nn.Module, *names: str) -> nn.Module:
    """The module, called with tensors in a row, handed on as the parameters of ``forward`` that have these names."""
    return in_a_row(module, by_name(module, {name: torch.empty(0) for name in names}))


def handed(module: nn.Module) -> str:
    """How tensors in a row reach the ``forward`` of a module that is called with them."""
    if not isinstance(module, _Row):
        return IN_ORDER
    args, kwargs = module._exporter_call.arguments(module._exporter_call.tensors)
    if not all(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values())):
        return NESTED
    theirs: type[nn.Module] = type(module).__mro__[2]  # behind the class of a row and ours
    free = [p.name for p in inspect.signature(theirs.forward).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    free = free[1 : len(kwargs) + 1]
    return IN_ORDER if not kwargs or (not args and list(kwargs) == free) else BY_NAME


def positional(module: nn.Module, count: int) -> nn.Module:
    """The module, called with so many tensors in order; of what it gives, the tensors alone."""
    if isinstance(module, _Row):  # its definition knows where they go
        return module
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
