"""Inputs that are indices: how many entries the table has that each looks up, so that no number is drawn beyond it.

Of a graph its nodes say so, of a module one run of it. What neither shows is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

# Operators of a graph that give the numbers they are given: in another place, shape or type.
MOVES = frozenset({"Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
# And those between a table's values as they are stored and as they are looked up.
STORES = frozenset({"Cast", "DequantizeLinear", "Identity"})


def of_graph(model: onnx.ModelProto) -> dict[str, int]:
    """``{input: entries}`` of every input that a ``Gather`` takes for indices into a weight; the fewest entries."""
    nodes = {output: node for node in model.graph.node for output in node.output}
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    inputs = {value.name for value in model.graph.input} - sizes.keys()
    found = dict[str, int]()
    for node in model.graph.node:
        if node.op_type == "Gather":
            table, indices = _behind(node.input[0], nodes, STORES), _behind(node.input[1], nodes, MOVES)
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            if indices in inputs and table in sizes and -len(sizes[table]) <= axis < len(sizes[table]):
                found[indices] = min(found.get(indices, sizes[table][axis]), sizes[table][axis])
    return found


def _behind(name: str, nodes: Mapping[str, onnx.NodeProto], through: frozenset[str]) -> str:
    """The value that a value is made of by operators that change no number."""
    while name in nodes and nodes[name].op_type in through:
        name = nodes[name].input[0]
    return name


def of_module(module: nn.Module, tensors: Mapping[str, torch.Tensor], arguments: Any) -> dict[str, int]:
    """``{input: entries}`` of every input that looks something up in a weight; the fewest entries.

    Args:
        module: what takes them.
        tensors: an example of every input, of whole numbers zeros: every table has an entry 0.
        arguments: ``(args, kwargs)`` of a call of ``module`` with those very tensors.
    """
    looking = _Looking(module, tensors)
    args, kwargs = arguments
    try:
        with torch.no_grad(), looking:
            module(*args, **kwargs)
    except Exception:
        return looking.found  # what does not run on zeros is told where it is run on inputs
    return looking.found


class _Looking(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every lookup in a weight by numbers that lie in an input's memory, or were copied from there."""

    def __init__(self, module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = dict[str, int]()
        self._held = {_place(tensor) for tensor in [*module.parameters(), *module.buffers()]}
        self._names = {_place(tensor): name for name, tensor in tensors.items()}
        self._copies = list[torch.Tensor]()  # alive, so that no other tensor gets their memory

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in (torch.ops.aten._to_copy, torch.ops.aten.clone) and _place(args[0]) in self._names:
            self._names[_place(result)] = self._names[_place(args[0])]
            self._copies.append(result)
        for indices, entries in _lookups(packet, args):
            name = self._names.get(_place(indices))
            if name is not None and _place(args[0]) in self._held:
                self.found[name] = min(self.found.get(name, entries), entries)
        return result


def _lookups(packet: Any, args: Sequence[Any]) -> Iterator[tuple[torch.Tensor, int]]:
    """The indices of an operator into its first argument, with the entries that there are."""
    aten = torch.ops.aten
    if packet in (aten.embedding, aten.embedding_bag, aten._embedding_bag, aten._embedding_bag_forward_only):
        yield args[1], args[0].shape[0]
    elif packet in (aten.index_select, aten.gather):
        yield args[2], args[0].shape[args[1]]
    elif packet is aten.index:
        yield from ((at, size) for at, size in zip(args[1], args[0].shape, strict=False) if at is not None)


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
