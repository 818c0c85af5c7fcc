"""How a model with state is driven along a longer signal: one call per slice, on its own fed-back state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from exporter.spec import State, Stream

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]


def driven(
    call: Callable[[Arrays], dict[str, Array]], inputs: Arrays, steps: int, stream: Stream, states: Sequence[State]
) -> Iterator[dict[str, Array]]:
    """The outputs of every step.

    Args:
        call: one call of the model; the arrays it returns stay as they are.
        inputs: by name; the streamed one holds all steps along the stream's axis, states hold their first value.
        steps: how many slices the streamed input is cut into.
        stream: which input is cut, and along which axis.
        states: which output is fed back to which input.
    """
    current = dict(inputs)
    for piece in np.split(inputs[stream.input], steps, stream.axis):
        outputs = call({**current, stream.input: piece})
        yield outputs
        current |= {state.input: outputs[state.output] for state in states}


def joined(steps: Iterable[dict[str, Array]], stream: Stream) -> dict[str, Array]:
    """The whole signal: the streamed output of every step along the stream's axis, and the last value of the rest."""
    pieces, last = list[Array](), dict[str, Array]()
    for last in steps:
        pieces.append(last[stream.output])
    return {**last, stream.output: np.concatenate(pieces, stream.axis)}
