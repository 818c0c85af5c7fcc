"""Trace: a module becomes an ONNX graph whose declared dims are dynamic and carry their declared names."""

from __future__ import annotations

import inspect
import logging
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from unittest import mock

import onnx_ir as ir
import torch
from torch import nn
from torch.export import Dim as ExportDim
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from exporter import attention, recurrent
from exporter.errors import NotProven
from exporter.graph import OPSET, SCOPE, SOURCE, Graph
from exporter.source_lines import line_of
from exporter.spec import Dim, ModelDef, Tensor, factors_of
from exporter.untraceable import OURS, untraceable


@runtime_checkable
class Written(Protocol):
    """A module that is a graph already: it is written, not traced."""

    def write(self, path: Path) -> None:
        """Writes the ``.onnx`` file."""


def trace(definition: ModelDef, module: nn.Module, path: Path) -> Graph:
    """Writes the module's graph to ``path``.

    Args:
        definition: names, shapes and dims of inputs and outputs.
        module: the module to trace, in eval mode; called with the definition's inputs in order.
        path: the ``.onnx`` file to write.

    Raises:
        NotProven: ``dim-specialised``, ``dim-narrowed``, ``dims-merged`` when a declared dim is not free in the
            graph; ``state-mutated`` when the module writes to its inputs or buffers; ``trace-failed`` otherwise.
    """
    program, symbols = capture(definition, module)
    traced_with(definition, module, program, symbols, path)
    return Graph(path)


def traced_with(
    definition: ModelDef, module: nn.Module, program: ExportedProgram, symbols: dict[str, str], path: Path
) -> ExportedProgram:
    """Writes the graph of what :func:`capture` gave.

    Returns:
        The program in the operators that were translated: what its nodes give has the names of the graph's values.
    """
    try:
        model, decomposed = translate(program)
    except Exception as error:
        raise untraceable(definition.name, module, _zeros(definition), error, program) from error
    _name(model, definition, symbols)
    _strip(model, definition)
    Graph.written(path, model)
    return decomposed


def capture(definition: ModelDef, module: nn.Module) -> tuple[ExportedProgram, dict[str, str]]:
    """The exported program and ``{symbol: dim name}``, with every promise about dims checked."""
    sizes, inputs = trace_sizes(definition.dims), _zeros(definition)
    with _recorded_specialisations() as lines, recurrent.captured(), attention.captured(), torch.no_grad(), _quiet():
        try:
            program = _exported(definition, module, inputs)
        except Exception as error:
            raise untraceable(definition.name, module, inputs, error) from error
    _refuse_mutation(definition, program)
    return program, _symbols(definition, program, sizes, lines)


def _zeros(definition: ModelDef) -> tuple[torch.Tensor, ...]:
    """Inputs of the sizes to trace at: their values do not matter."""
    sizes = trace_sizes(definition.dims)
    return tuple(torch.zeros(t.sized(sizes), dtype=getattr(torch, t.dtype)) for t in definition.inputs)


def _exported(definition: ModelDef, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> ExportedProgram:
    """The program with steps promised to PyTorch (``H`` is 32 units); where one does not hold, without promises.

    A promise lets it prove what every U-net needs, that halving and doubling gives the size back. A promise it finds
    broken stops it with a message of its own; left free, the dims are judged by `_symbols`, which can say more.
    """
    for promised in (True, False):
        shapes = _dynamic_shapes(definition, module, promised)
        try:
            return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
        except (torch._dynamo.exc.UserError, ValueError) as error:
            if not promised or "onstraint" not in str(error):
                raise
    raise AssertionError("unreachable")


def _free_axes(tensor: Tensor, free: Mapping[str, Dim]) -> Iterator[tuple[int, str, Dim]]:
    """``(axis, entry, dim)`` of every axis whose size is a free dim, or a part or multiple of one."""
    for axis, entry in enumerate(tensor.shape):
        if isinstance(entry, str) and factors_of(entry)[0] in free:
            yield axis, entry, free[factors_of(entry)[0]]


def trace_sizes(dims: Sequence[Dim]) -> dict[str, int]:
    """A size to trace each dim at: opt where possible, never 0 or 1, no two alike (equal sizes merge silently)."""
    sizes: dict[str, int] = {}
    for dim in dims:
        candidates = [dim.opt, *range(dim.opt, dim.max + 1, dim.step), *range(dim.min, dim.opt, dim.step)]
        free = [size for size in candidates[:64] if size > 1 and size not in sizes.values()]
        sizes[dim.name] = free[0] if free and not dim.fixed else dim.opt
    return sizes


def _dynamic_shapes(definition: ModelDef, module: nn.Module, promised: bool) -> tuple[Any, ...] | None:
    """One entry per parameter of ``forward``; the tensors of a ``*args`` share one nested entry."""
    free = {d.name: d for d in definition.dims if not d.fixed}
    units = {name: ExportDim(f"_{name}", min=d.min // d.unit, max=d.max // d.unit) for name, d in free.items()}

    def size(entry: str, dim: Dim) -> Any:
        _, factor, divisor = factors_of(entry)
        if promised and (dim.unit > 1 or entry != dim.name):
            return factor * dim.unit // divisor * units[dim.name]
        # AUTO never raises on a specialised dim: `_symbols` judges it, and can name size and source line.
        return ExportDim.AUTO(min=max(dim.min * factor // divisor, 0), max=dim.max * factor // divisor)

    shapes = tuple({axis: size(entry, dim) for axis, entry, dim in _free_axes(t, free)} for t in definition.inputs)
    if not any(shapes):
        return None
    parameters = inspect.signature(module.forward).parameters.values()
    named = sum(p.kind is not inspect.Parameter.VAR_POSITIONAL for p in parameters)
    several = named < len(parameters) and len(shapes) > named
    return (*shapes[:named], shapes[named:]) if several else shapes


@contextmanager
def _recorded_specialisations() -> Iterator[dict[str, str]]:
    """Records, for every symbol that becomes a constant, the user's source line where it happened."""
    lines: dict[str, str] = {}
    original = ShapeEnv._set_replacement

    def recording(self: ShapeEnv, symbol: Any, target: Any, message: str) -> None:
        if not target.free_symbols:
            lines.setdefault(str(symbol), _user_line())
        original(self, symbol, target, message)

    with mock.patch.object(ShapeEnv, "_set_replacement", recording):
        yield lines


def _user_line() -> str:
    """``file:line, in function: code`` of the innermost frame outside PyTorch and this package."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith((*OURS, "<")):
            return f"{frame.filename}:{frame.lineno}, in {frame.name}: {frame.line}"
    return "unknown line"


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch's notes about its own internals stay out of the user's log; its errors do not."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "torch._export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _refuse_mutation(definition: ModelDef, program: ExportedProgram) -> None:
    written = _written(program)
    if written:
        raise NotProven(
            "state-mutated",
            f"forward writes to {', '.join(written)}",
            where=f"model {definition.name}, stage trace",
            why="a graph has no memory: what is written inside is lost, and the second run differs from eager's",
            next="return the new value as an output and declare it as State in the definition",
        )


def _written(program: ExportedProgram) -> list[str]:
    """Names of the inputs, buffers and parameters that an operator of the graph writes to, perhaps through a view.

    The program's signature lists them only after PyTorch has made it functional, which happens while translating.
    """
    roots: dict[Any, str] = {}
    signature, written = program.graph_signature, dict[str, None]()
    held = {**signature.inputs_to_buffers, **signature.inputs_to_parameters}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            roots[node] = held.get(node.name, node.name)
        elif isinstance(node.target, torch._ops.OpOverload):
            for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
                if argument.alias_info is not None and isinstance(value, torch.fx.Node) and value in roots:
                    roots[node] = roots[value]
                    if argument.alias_info.is_write:
                        written[roots[value]] = None
        elif node.op == "call_function" and node.args and node.args[0] in roots:  # one of several views
            roots[node] = roots[node.args[0]]
    return list(written)


def _symbols(
    definition: ModelDef, program: ExportedProgram, sizes: dict[str, int], lines: dict[str, str]
) -> dict[str, str]:
    """``{symbol: dim name}`` after checking that every declared dim is one free symbol of its whole range."""
    users = set(program.graph_signature.user_inputs)
    placeholders = [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder" and n.name in users]
    free = {d.name: d for d in definition.dims if not d.fixed}
    symbols: dict[str, str] = {}
    for tensor, value in zip(definition.inputs, placeholders, strict=True):
        for axis, entry, dim in _free_axes(tensor, free):
            size = value.shape[axis]
            expression = size.node.expr if isinstance(size, torch.SymInt) else None
            coefficient, symbol = (1, None) if expression is None else expression.as_coeff_Mul()
            if symbol is None or not symbol.is_Symbol:
                raise _specialised(definition, dim, f"{tensor.name} axis {axis}", tensor.sized(sizes)[axis], lines)
            _, factor, divisor = factors_of(entry)
            # How many of this symbol the whole dim is: 32 units, or the axis itself.
            whole = int(coefficient) * divisor // factor
            name = dim.name if whole == 1 else f"{dim.name}/{whole}"
            if symbols.setdefault(str(symbol), name) != name:
                raise _merged(definition, symbols[str(symbol)].partition("/")[0], dim.name)
            _refuse_narrowed(definition, dim, whole, size.node.shape_env.var_to_range[symbol])
    return symbols


def _specialised(definition: ModelDef, dim: Dim, where: str, size: int, lines: dict[str, str]) -> NotProven:
    line = next(iter(lines.values()), "unknown line")
    return NotProven(
        "dim-specialised",
        f"dim {dim.name} froze at {size}, the size of the example",
        where=f"model {definition.name}, input {where}, {line}",
        why=f"{dim.name} is declared {dim}; a graph of one size breaks at the second",
        next=f"write that line without the size as a Python number, or fix the dim: --dim {dim.name}={size}",
    )


def _merged(definition: ModelDef, first: str, second: str) -> NotProven:
    return NotProven(
        "dims-merged",
        f"dims {first} and {second} became one: the graph needs them equal",
        where=f"model {definition.name}, stage trace",
        why="they are declared apart, and sizes that differ would break the graph",
        next="declare one dim for both, or remove what makes forward compare them",
    )


def _refuse_narrowed(definition: ModelDef, dim: Dim, whole: int, found: Any) -> None:
    # PyTorch takes every size for at least 2 from the start; whether 1 works is for the smallest case to show.
    if found.lower > max(dim.min // whole, 2) or found.upper < dim.max // whole:
        low, high = int(found.lower) * whole, min(int(found.upper) * whole, dim.max)
        raise NotProven(
            "dim-narrowed",
            f"dim {dim.name} works only for {low}..{high if high < dim.max else int(found.upper) * whole}",
            where=f"model {definition.name}, stage trace",
            why=f"it is declared {dim}; forward has a condition on the size that fails outside",
            next=f"--dim {dim.name}={low}:{dim.opt}:{high}, or mend forward",
        )


def translate(program: ExportedProgram) -> tuple[ir.Model, ExportedProgram]:
    """The ONNX form of an exported program, nothing folded, nothing fused; and the program as it was translated."""
    with _quiet():
        translated = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=recurrent.translations() | attention.translations(),
            optimize=False,
            verbose=False,
        )
    assert translated is not None
    assert translated.exported_program is not None
    return translated.model, translated.exported_program


def _name(model: ir.Model, definition: ModelDef, symbols: dict[str, str]) -> None:
    """Gives inputs, outputs and dims the definition's names."""
    graph = model.graph
    expected = len(definition.outputs)
    if len(graph.outputs) != expected:
        raise NotProven(
            "wrong-outputs",
            f"forward returns {len(graph.outputs)} tensors, the definition names {expected}",
            where=f"model {definition.name}, stage trace",
            why="an output without a name is an output nobody compares",
            next="name every output of forward, in order, in the definition",
        )
    _refuse_aliases(graph)
    _free_names(graph, {tensor.name for tensor in (*definition.inputs, *definition.outputs)})
    for value, tensor in zip(graph.inputs, definition.inputs, strict=True):
        value.name = tensor.name
    for value, tensor in zip(graph.outputs, definition.outputs, strict=True):
        value.name = tensor.name
    for value in _values(graph):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(d, symbols) for d in value.shape])


def _refuse_aliases(graph: ir.Graph) -> None:
    """An output that is an input or another output gets a node of its own, so that every name is one value."""
    seen: set[int] = {id(value) for value in graph.inputs}
    for index, value in enumerate(graph.outputs):
        if id(value) in seen or value.is_initializer():
            copy = ir.node("Identity", [value])
            copy.outputs[0].shape, copy.outputs[0].type = value.shape, value.type
            graph.append(copy)
            graph.outputs[index] = copy.outputs[0]
        seen.add(id(graph.outputs[index]))


def _free_names(graph: ir.Graph, taken: set[str]) -> None:
    """A weight or an inner value with an input's or an output's name gives it up: two values of one name are one."""
    for value in [*graph.initializers.values(), *(value for node in graph for value in node.outputs)]:
        if value.name in taken:
            value.name = f"{value.name}.inner"


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _renamed(dim: int | ir.SymbolicDim, symbols: dict[str, str]) -> int | str | None:
    """A size in the definition's words: ``8*s0`` where ``s0`` is ``H/32`` becomes ``H/4``."""
    if isinstance(dim, int) or dim.value is None:
        return dim if isinstance(dim, int) else None
    text = str(dim.value)
    multiple = re.fullmatch(r"(?:(\d+)\*)?(\w+)", text)
    if multiple and multiple[2] in symbols:
        name, _, whole = symbols[multiple[2]].partition("/")
        part = Fraction(int(multiple[1] or 1), int(whole or 1))
        return (
            name
            + (f"*{part.numerator}" if part.numerator > 1 else "")
            + (f"/{part.denominator}" if part.denominator > 1 else "")
        )
    return re.sub(r"[A-Za-z_]\w*", lambda match: _operand(symbols.get(match[0], match[0])), text)


def _operand(name: str) -> str:
    return f"({name})" if "/" in name else name


def _strip(model: ir.Model, definition: ModelDef) -> None:
    """Removes what differs between machines: stack traces hold paths, and the same inputs must give the same bytes."""
    for node in model.graph:
        scope = node.metadata_props.get("pkg.torch.onnx.name_scopes")
        source = line_of(node.metadata_props.get("pkg.torch.onnx.stack_trace") or "", OURS)
        node.metadata_props.clear()
        node.metadata_props.update({key: text for key, text in ((SCOPE, scope), (SOURCE, source)) if text})
    for value in [*_values(model.graph), *model.graph.initializers.values()]:
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.producer_name, model.producer_version = "exporter", None
    model.metadata_props.update(definition.metadata)


def stage(request: dict[str, Any], channel: Any) -> dict[str, Any]:
    """Child: builds the model and writes its traced graphs.

    Args:
        request: ``build`` (see :func:`define.eager`) and ``outputs``, ``{graph: .onnx file to write}``.
        channel: gets a progress event per graph.

    Returns:
        ``{"weights": ...}``: digest and source of the weights that were traced.
    """
    from exporter import define

    build = request["build"]
    definition = define.definition(build)
    module, weights = define.weighted(definition, build["checkpoint"], build["seed"])
    if definition.deploy is not None:
        module = definition.deploy(module)
        define.set_eval(module)
    for graph, path in request["outputs"].items():
        piece = definition.graph(graph)
        channel.send({"event": "progress", "what": f"tracing {piece.name}"})
        part = define.part_of(definition, graph, module)
        if isinstance(part, Written):
            part.write(Path(path))
        else:
            trace(piece, part, Path(path))
    return {"weights": weights.__dict__}
