"""A graph: portable, may be copied anywhere. What is compiled from it is another type (:mod:`exporter.target`)."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.external import SUFFIX, refuse_bad

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


# The operator set graphs are traced in; a target that wants another is given its own (``Target.opset``).
OPSET = 18

# Which modules of the model a node is inside of, the outermost first, then its own name: a node's metadata.
SCOPE = "scope"
# Which line of the user's code a node comes from: a node's metadata.
SOURCE = "source"


# Bytes up to which a tensor stays in the graph itself, and what the others begin at a multiple of, for who maps them.
INSIDE, ALIGNED = 1 << 10, 1 << 12


def noted(node: onnx.NodeProto, key: str) -> str | None:
    """What is written at a node under a key: :data:`SCOPE`, :data:`SOURCE`."""
    return next((entry.value for entry in node.metadata_props if entry.key == key), None)


def scope_of(node: onnx.NodeProto) -> str | None:
    """The scope as it is written at a node."""
    return noted(node, SCOPE)


def module_of(scope: str | None) -> str:
    """The path of the innermost module (``encoder.0.conv``); nothing where it is the model itself, or not known."""
    try:
        modules = ast.literal_eval(scope) if scope else []
    except (ValueError, SyntaxError):  # a graph of somebody else's, with a scope of another kind
        modules = []
    return str(modules[-2]) if isinstance(modules, list) and len(modules) > 1 else ""


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def data_of(graph: str) -> str:
    """The name of a graph's external data, if it has any: that of the graph, and ``.data``."""
    return graph + SUFFIX


def external_from() -> int:
    """From how many bytes of weights on a graph is written as two files; ``EXPORTER_EXTERNAL_FROM`` says otherwise.

    Protobuf ends at 2 GiB, and some of its readers copy a graph once or twice on the way; one file is easier to carry
    about. Half of that leaves room for what passes add.
    """
    return int(os.environ.get("EXPORTER_EXTERNAL_FROM") or 1 << 30)


@dataclass(frozen=True)
class Graph:
    """An ONNX file, with its external data beside it where its weights are large.

    ``onnx`` is imported only when its content is asked for: the device side never needs it.
    """

    path: Path

    @property
    def data(self) -> Path:
        """Where its external data lies, if it has any."""
        return self.path.with_name(data_of(self.path.name))

    @property
    def files(self) -> tuple[Path, ...]:
        """The graph itself, and its data if it has any."""
        return (self.path, self.data) if self.data.is_file() else (self.path,)

    @property
    def roles(self) -> dict[str, Path]:
        """The same by the roles that an artifact has them in: ``onnx``, and ``data`` if it has any."""
        return dict(zip(("onnx", "data"), self.files, strict=False))

    def digest(self) -> str:
        """Hex SHA-256 of the file; of two files, of their digests."""
        found = [sha256(path) for path in self.files]
        return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()

    def load(self) -> onnx.ModelProto:
        """The parsed model, with all of its weights in memory.

        Raises:
            Refused: what :func:`exporter.external.refuse_bad` raises.
        """
        import onnx

        refuse_bad(self.path)
        return onnx.load(str(self.path))

    def linked(self) -> onnx.ModelProto:
        """The parsed model; weights that lie beside it stay there, and are named by their absolute place.

        So it goes through ``onnx_ir`` and back wherever it is written next, and ``onnx_ir`` maps what is asked for.

        Raises:
            Refused: what :func:`exporter.external.refuse_bad` raises.
        """
        import onnx

        refuse_bad(self.path)
        model = onnx.load(str(self.path), load_external_data=False)
        for tensor in tensors_of(model.graph):
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = str(self.path.parent.resolve() / entry.value)
        return model

    @classmethod
    def written(cls, path: Path, model: onnx.ModelProto | ir.Model) -> Graph:
        """Writes a model: one file, or two from :func:`external_from` on. Tensors up to 1 KiB, shapes among them, stay
        in the graph: who looks at it needs no weights.

        Args:
            path: the ``.onnx`` file to write.
            model: what to write; a tensor that is lazy, or linked, is in memory by itself alone while it is written.
        """
        import onnx
        import onnx_ir as ir

        graph = cls(path)
        loaded = ir.from_proto(model) if isinstance(model, onnx.ModelProto) else model
        values = [value for each in loaded.graphs() for value in each.initializers.values()]
        sizes = [value.const_value.nbytes for value in values if value.const_value is not None]
        if sum(sizes) >= external_from() and max(sizes, default=0) > INSIDE:
            ir.save(
                loaded, path, external_data=graph.data.name, size_threshold_bytes=INSIDE, alignment=ALIGNED,
                align_threshold=INSIDE,
            )  # fmt: skip
            return graph
        if any(isinstance(value.const_value, ir.ExternalTensor) for value in values):
            model = ir.external_data.load_to_model(loaded)
        proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
        graph.data.unlink(missing_ok=True)
        path.write_bytes(proto.SerializeToString(deterministic=True))
        return graph

    def copied(self, path: Path) -> Graph:
        """A copy of it at ``path``; with external data in that folder, under its own name: it names its data by it."""
        if not self.data.is_file():
            shutil.copyfile(self.path, path)
            return Graph(path)
        for file in self.files:
            shutil.copyfile(file, path.with_name(file.name))
        return Graph(path.with_name(self.path.name))

    def moved(self, folder: Path) -> Graph:
        """It and its data in another folder of the same file system, under their own names."""
        for file in self.files:
            file.replace(folder / file.name)
        return Graph(folder / self.path.name)


def apart_from_data(model: onnx.ModelProto, call: Callable[[onnx.ModelProto], onnx.ModelProto]) -> onnx.ModelProto:
    """What a library that knows no external data makes of a linked model: such weights are inputs meanwhile.

    Args:
        model: the model; it stays as it is.
        call: what is done to it.
    """
    held = {tensor.name: tensor for tensor in model.graph.initializer if tensor.external_data}
    if not held:
        return call(model)
    inputs = {value.name for value in model.graph.input}
    shown = without(model, held)
    made = call(shown)
    values = [value for value in made.graph.input if value.name not in held or value.name in inputs]
    del made.graph.input[:]
    made.graph.input.extend(values)
    made.graph.initializer.extend(held.values())
    return made


def without(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy of a model with these of its weights as inputs, after its own."""
    import onnx

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    kept = [tensor for tensor in shown.graph.initializer if tensor.name not in names]
    del shown.graph.initializer[:]
    shown.graph.initializer.extend(kept)
    inputs = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name in names and tensor.name not in inputs:
            shown.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return shown


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a graph that may have external data, those of graphs inside among them."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else [])
            yield from attribute.tensors
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from tensors_of(inner)
