"""Recurrent layers that keep their dynamic axes: operators of our own with a shape rule and an ONNX translation.

``torch.export`` decomposes ``nn.GRU`` and its kin into one step per frame, which freezes the time axis at the example's
length; the stock ONNX exporter then reports success. Inside :func:`captured`, ``nn.RNN``, ``nn.GRU`` and ``nn.LSTM``
of any user's module become one operator each, whatever their layers, directions, biases, projections or layout, and
:func:`translations` turns each into ONNX nodes. Semantics: https://pytorch.org/docs/stable/generated/torch.nn.GRU.html
and https://onnx.ai/onnx/operators/onnx__GRU.html (gate order r,z,n -> z,r,h with ``linear_before_reset=1``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from exporter.errors import NotProven

# ONNX gate order as indices into PyTorch's.
GATES = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2), "RNN_TANH": (0,), "RNN_RELU": (0,)}


def _output_like(
    input: Tensor, states: Sequence[Tensor], num_layers: int, bidirectional: bool, batch_first: bool
) -> tuple[Tensor, list[Tensor]]:
    """Shape rule: sequence and batch follow the input, features the states; states keep their shape."""
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    return input.new_empty((*input.shape[:2], width)), [torch.empty_like(state) for state in states]


def _define(kind: str, run: Callable[..., tuple[Tensor, ...]], states: int) -> Any:
    """Registers ``exporter::<kind>`` with ``states`` hidden states."""
    state_args = ", ".join(f"Tensor h{i}" for i in range(states))
    results = ", ".join(["Tensor"] * (1 + states))
    options = "bool has_biases, int num_layers, bool bidirectional, bool batch_first"
    torch.library.define(
        f"exporter::{kind}", f"(Tensor input, {state_args}, Tensor[] weights, {options}) -> ({results})"
    )

    def eager(input: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        hidden, (weights, has_biases, num_layers, bidirectional, batch_first) = rest[:states], rest[states:]
        hx = list(hidden) if states == 2 else hidden[0]
        return run(input, hx, weights, has_biases, num_layers, 0.0, False, bidirectional, batch_first)

    def fake(input: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        hidden, (_, _, num_layers, bidirectional, batch_first) = rest[:states], rest[states:]
        output, new_states = _output_like(input, hidden, num_layers, bidirectional, batch_first)
        return (output, *new_states)

    torch.library.impl(f"exporter::{kind}", "CPU")(eager)
    torch.library.register_fake(f"exporter::{kind}")(fake)
    return getattr(torch.ops.exporter, kind).default


OPERATORS = {
    "GRU": _define("gru", torch._VF.gru, 1),
    "LSTM": _define("lstm", torch._VF.lstm, 2),
    "RNN_TANH": _define("rnn_tanh", torch._VF.rnn_tanh, 1),
    "RNN_RELU": _define("rnn_relu", torch._VF.rnn_relu, 1),
}


@contextmanager
def captured() -> Iterator[None]:
    """Within it, recurrent layers run as the operators of this file; eager behaviour is unchanged."""

    def replacement(kind: str) -> Callable[..., tuple[Tensor, ...]]:
        operator = OPERATORS[kind]

        def call(input: Tensor, hx: Any, weights: Any, *options: Any) -> tuple[Tensor, ...]:
            if not isinstance(weights, (list, tuple)):
                raise _packed(f"nn.{kind.split('_', maxsplit=1)[0]} is given a PackedSequence")
            has_biases, num_layers, _, _, bidirectional, batch_first = options
            states = tuple(hx) if isinstance(hx, (list, tuple)) else (hx,)
            return tuple(operator(input, *states, list(weights), has_biases, num_layers, bidirectional, batch_first))

        return call

    def refuse_packing(*_: Any) -> Any:
        raise _packed("forward packs a padded batch for a recurrent layer")

    with ExitStack() as patches:
        # Refused where it is made: on its way to the layer PyTorch would fail in words about something else.
        patches.enter_context(mock.patch.object(torch._VF, "_pack_padded_sequence", refuse_packing))
        for kind in OPERATORS:
            patches.enter_context(mock.patch.object(torch._VF, kind.lower(), replacement(kind)))
        yield


def _packed(what: str) -> NotProven:
    return NotProven(
        "packed-sequence",
        what,
        why="packed batches carry their lengths as data; a graph has no such type",
        next="pass padded tensors, and mask after the layer",
    )


def translations() -> dict[Any, Callable[..., Any]]:
    """The ONNX translation of every operator of this file, for ``torch.onnx.export(custom_translation_table=...)``."""
    return {operator: _translation(kind) for kind, operator in OPERATORS.items()}


def _translation(kind: str) -> Callable[..., Any]:
    def one_state(input, h0, weights, has_biases, num_layers, bidirectional, batch_first):  # type: ignore[no-untyped-def]
        options = (has_biases, num_layers, bidirectional, batch_first)
        output, (h,) = _recurrent(kind, input, (h0,), list(weights), *options)
        return output, h

    def two_states(input, h0, h1, weights, has_biases, num_layers, bidirectional, batch_first):  # type: ignore[no-untyped-def]
        options = (has_biases, num_layers, bidirectional, batch_first)
        output, (h, c) = _recurrent(kind, input, (h0, h1), list(weights), *options)
        return output, h, c

    return two_states if kind == "LSTM" else one_state


def _recurrent(
    kind: str,
    input: Any,
    states: tuple[Any, ...],
    weights: list[Any],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, list[Any]]:
    """Layers of ONNX nodes for one PyTorch recurrent module; time runs along the first axis inside."""
    from onnxscript import opset18 as op

    directions = 2 if bidirectional else 1
    per_direction = len(weights) // (num_layers * directions)
    if per_direction not in (2, 4):
        raise NotProven(
            "projected-lstm",
            "nn.LSTM with proj_size has no ONNX operator",
            why="ONNX's LSTM has no projection of the hidden state",
            next="apply the projection as a Linear after an LSTM, or write the cell out",
        )
    x = op.Transpose(input, perm=[1, 0, 2]) if batch_first else input
    finals: list[list[Any]] = [[] for _ in states]
    for layer in range(num_layers):
        first = layer * directions
        chosen = [weights[(first + d) * per_direction : (first + d + 1) * per_direction] for d in range(directions)]
        initial = [_rows(op, state, first, directions, num_layers) for state in states]
        x, last = _layer(op, kind, x, initial, chosen, has_biases)
        for kept, state in zip(finals, last, strict=True):
            kept.append(state)
    output = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x
    return output, [kept[0] if len(kept) == 1 else op.Concat(*kept, axis=0) for kept in finals]


def _rows(op: Any, state: Any, first: int, directions: int, num_layers: int) -> Any:
    """The states of one layer out of all layers' stacked states."""
    if num_layers == 1:
        return state
    return op.Slice(state, _ints(op, [first]), _ints(op, [first + directions]), _ints(op, [0]))


def _layer(
    op: Any, kind: str, x: Any, initial: list[Any], chosen: list[list[Any]], has_biases: bool
) -> tuple[Any, list[Any]]:
    """One layer, all directions: ``x (T, B, I)`` -> ``(T, B, directions * H)`` and its last states."""
    w = _stack(op, [_reordered(op, kind, d[0]) for d in chosen])
    r = _stack(op, [_reordered(op, kind, d[1]) for d in chosen])
    b = _stack(op, [_bias(op, kind, d[2], d[3]) for d in chosen]) if has_biases else None
    # In this PyTorch layer the recurrent weight's columns are the hidden width.
    attributes: dict[str, Any] = {"hidden_size": int(chosen[0][1].shape[1])}
    if len(chosen) == 2:
        attributes["direction"] = "bidirectional"
    if kind == "LSTM":
        y, h, c = op.LSTM(x, w, r, b, None, *initial, **attributes)
        last = [h, c]
    elif kind == "GRU":
        y, h = op.GRU(x, w, r, b, None, *initial, linear_before_reset=1, **attributes)
        last = [h]
    else:
        activation = {"RNN_TANH": "Tanh", "RNN_RELU": "Relu"}[kind]
        y, h = op.RNN(x, w, r, b, None, *initial, activations=[activation] * len(chosen), **attributes)
        last = [h]
    if len(chosen) == 1:
        return op.Squeeze(y, _ints(op, [1])), last
    # (T, directions, B, H) -> (T, B, directions * H)
    return op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), _ints(op, [0, 0, -1])), last


def _reordered(op: Any, kind: str, tensor: Any) -> Any:
    """Gates along the first axis in ONNX order."""
    order = GATES[kind]
    if len(order) == 1:
        return tensor
    width = int(tensor.shape[0]) // len(order)
    # One Gather of rows: it folds into the initializer, where a Split would not.
    return op.Gather(tensor, _ints(op, [gate * width + row for gate in order for row in range(width)]), axis=0)


def _bias(op: Any, kind: str, input_bias: Any, recurrent_bias: Any) -> Any:
    return op.Concat(_reordered(op, kind, input_bias), _reordered(op, kind, recurrent_bias), axis=0)


def _stack(op: Any, tensors: list[Any]) -> Any:
    """A leading axis of directions."""
    lifted = [op.Unsqueeze(tensor, _ints(op, [0])) for tensor in tensors]
    return lifted[0] if len(lifted) == 1 else op.Concat(*lifted, axis=0)


def _ints(op: Any, values: list[int]) -> Any:
    return op.Constant(value_ints=values)
