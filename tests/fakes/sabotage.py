"""Ways in which an artifact can be wrong, each as small as a real fault would be."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from polygraphy.backend.base import BaseRunner

from exporter import program
from exporter.spec import factors_of, size_of
from exporter.target import Artifact, Options, Ran, Target

Arrays = dict[str, np.ndarray]
Tamper = Callable[[Arrays, Arrays], Arrays]


class TamperedRunner(BaseRunner):
    """The right runner, with ``tamper(inputs, outputs)`` in front of its answers."""

    def __init__(self, inner: BaseRunner, tamper: Tamper) -> None:
        super().__init__(prefix="tampered-runner")
        self.inner, self._tamper = inner, tamper

    def activate_impl(self) -> None:
        self.inner.activate()

    def deactivate_impl(self) -> None:
        self.inner.deactivate()

    def get_input_metadata_impl(self) -> Any:
        return self.inner.get_input_metadata()

    def infer_impl(self, feed_dict: Mapping[str, np.ndarray]) -> OrderedDict[str, np.ndarray]:
        right = {name: np.array(value) for name, value in self.inner.infer(feed_dict, check_inputs=False).items()}
        return OrderedDict(self._tamper(dict(feed_dict), right))


class TamperedTarget(Target):
    """A target that opens the right artifact and hands out other answers."""

    def __init__(self, right: Target, tamper: Tamper, ran: Ran | None = None) -> None:
        self._right, self._tamper, self._ran = right, tamper, ran
        self.name, self.precisions, self.rung = right.name, right.precisions, right.rung  # type: ignore[misc]

    def available(self) -> Any:
        return self._right.available()

    def compile(self, graph: Any, options: Options, folder: Any, progress: Any = None) -> Artifact:
        return self._right.compile(graph, options, folder)

    def open(self, artifact: Artifact, options: Options, form: str | None = None) -> BaseRunner:
        return TamperedRunner(self._right.open(artifact, options, form), self._tamper)

    def ran(self, runner: BaseRunner) -> Ran:
        assert isinstance(runner, TamperedRunner)
        return self._ran or self._right.ran(runner.inner)

    def timer(self, runner: BaseRunner, feeds: Mapping[str, np.ndarray]) -> Any:
        assert isinstance(runner, TamperedRunner)
        return self._right.timer(runner.inner, feeds)


@contextlib.contextmanager
def tampering(tamper: Tamper, ran: Ran | None = None) -> Iterator[None]:
    """Within it, every artifact's answers go through ``tamper``, and ``ran`` is what it says of itself."""
    opened, asked = program.open_artifact, program.ran

    def said(target: Target, runner: BaseRunner) -> Ran:
        assert isinstance(runner, TamperedRunner)
        return ran or asked(target, runner.inner)

    with (
        mock.patch.object(program, "open_artifact", lambda *given: TamperedRunner(opened(*given), tamper)),
        mock.patch.object(program, "ran", said),
    ):
        yield


# ---- answers


def changed(output: str, change: Callable[[np.ndarray], np.ndarray]) -> Tamper:
    """One output goes through ``change``."""
    return lambda inputs, outputs: outputs | {output: change(outputs[output])}


def one_nan(y: np.ndarray) -> np.ndarray:
    y = y.copy()
    y.flat[y.size // 2] = np.nan
    return y


def one_broken(y: np.ndarray) -> np.ndarray:
    """One element off by a thousandth of the largest."""
    y = y.copy()
    y.flat[y.size // 2] += 1e-3 * np.abs(y).max()
    return y


def shifted(y: np.ndarray) -> np.ndarray:
    """Off by one along the longest axis, as by a wrong pad."""
    return np.roll(y, 1, axis=int(np.argmax(y.shape)))


def swapped(first: str, second: str) -> Tamper:
    return lambda inputs, outputs: outputs | {first: outputs[second], second: outputs[first]}


def dropped(output: str) -> Tamper:
    return lambda inputs, outputs: {name: y for name, y in outputs.items() if name != output}


def extra(inputs: Arrays, outputs: Arrays) -> Arrays:
    return outputs | {"surprise": next(iter(outputs.values()))}


def last_answer() -> Tamper:
    """Gives what the call before it should have given; the first call is right."""
    kept: list[Arrays] = []

    def tamper(inputs: Arrays, outputs: Arrays) -> Arrays:
        kept.append(outputs)
        before = kept[-2] if len(kept) > 1 else outputs
        return {n: before[n] if before[n].shape == y.shape else y for n, y in outputs.items()}

    return tamper


def first_answer() -> Tamper:
    """Runs once per shape and answers from memory ever after."""
    kept: dict[Any, Arrays] = {}
    return lambda inputs, outputs: kept.setdefault(tuple(y.shape for y in outputs.values()), outputs)


def zeros(inputs: Arrays, outputs: Arrays) -> Arrays:
    return {name: np.zeros_like(y) for name, y in outputs.items()}


def constants(inputs: Arrays, outputs: Arrays) -> Arrays:
    return {name: np.full_like(y, 0.25) for name, y in outputs.items()}


# ---- graphs


def block_of(name: str) -> str:
    """The top-level block an initializer belongs to: ``encoder.0.widen.weight`` -> ``encoder.0``."""
    parts = name.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 and parts[1].isdigit() else parts[0]


def weights_of(model: onnx.ModelProto) -> dict[str, str]:
    """``{initializer: block}`` of every float weight.

    Folding renames weights; one whose name says nothing belongs to the block of the named weight that is used nearest
    before it in the graph's order, for weights stand where they are used.
    """
    floats = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and np.prod(t.dims) > 1}
    current, blocks = "", {}
    for node in model.graph.node:
        named = [name for name in node.input if name in floats and "." in name]
        current = block_of(named[0]) if named else current
        for name in node.input:
            if name in floats:
                blocks[name] = block_of(name) if "." in name else current
    return blocks


def largest_per_block(model: onnx.ModelProto) -> dict[str, str]:
    """``{block: its largest weight}``."""
    sizes = {t.name: int(np.prod(t.dims)) for t in model.graph.initializer}
    found: dict[str, str] = {}
    for name, block in weights_of(model).items():
        if block not in found or sizes[name] > sizes[found[block]]:
            found[block] = name
    return found


def scaled(model: onnx.ModelProto, name: str, factor: float, every: int = 1) -> onnx.ModelProto:
    """A copy with one initializer, or only every so-many-th of its elements, times ``factor``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = next(t for t in copy.graph.initializer if t.name == name)
    value = numpy_helper.to_array(tensor).copy()
    value.flat[::every] = (value.flat[::every] * np.float32(factor)).astype(value.dtype)
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    return copy


def lowered(model: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """A copy where every convolution's input is rounded to 16 bits: ``Cast`` there and back."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = []
    for node in copy.graph.node:
        if node.op_type == "Conv":
            low, back = f"{node.input[0]}_low_{node.name}", f"{node.input[0]}_back_{node.name}"
            nodes.append(helper.make_node("Cast", [node.input[0]], [low], to=kind))
            nodes.append(helper.make_node("Cast", [low], [back], to=TensorProto.FLOAT))
            node.input[0] = back
        nodes.append(node)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def frozen(model: onnx.ModelProto, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """A copy whose named dims are the numbers of ``sizes``, as the stock exporter leaves them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in [*copy.graph.input, *copy.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and factors_of(dim.dim_param)[0] in sizes:
                dim.dim_value = size_of(dim.dim_param, sizes)
    return copy
