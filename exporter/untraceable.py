"""Why a module does not become a graph: what kind of failure, at which line, in which smallest part, and the remedy."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import nn
from torch.export import ExportedProgram

from exporter.errors import NotProven

OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# PyTorch's notes of where a node of a program is from.
FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')


@dataclass(frozen=True)
class Kind:
    """A kind of failure: the words by which PyTorch's errors are known, and what to say of it."""

    code: str
    words: tuple[str, ...]
    why: str
    next: str


KINDS = (
    Kind(
        "data-dependent",
        ("GuardOnDataDependentSymNode", "data-dependent", "DYNAMIC_CONTROL_FLOW"),
        "a graph takes the same way whatever the values of tensors are: sizes it may depend on, values it may not",
        "at that line: torch.where for a choice, torch.cond for a branch, a fixed count or State for a loop",
    ),
    Kind(
        "missing-operator",
        ("DispatchError", "No ONNX function found", "No decompositions", "is not supported in this export path"),
        "a graph is made of ONNX's operators, and none or no combination of them is known for this one",
        "write that line with other operators, or give what it computes as an input",
    ),
    Kind(
        "unsupported-dtype",
        ("omplex", "Unsupported dtype", "unsupported dtype", "float8", "ScalarType", "not implemented for 'Complex"),
        "graphs for devices have real numbers, whole numbers and truth values",
        "compute with real and imaginary parts side by side, or in another type",
    ),
    Kind(
        "too-large",
        ("MemoryError", "exceeds maximum protobuf size", "DefaultCPUAllocator: can't allocate"),
        "the graph, or what tracing it takes, did not fit",
        "--memory MEGABYTES, smaller --dim sizes, or a machine with more memory",
    ),
    Kind(
        "leaves-torch",
        (".numpy() is not supported", "from_numpy", "FakeTensor", "__array__"),
        "what numpy or another library computes is not seen by PyTorch, and would be a constant in the graph",
        "compute it with torch at that line, or outside of forward",
    ),
)  # fmt: skip
SCRIPTED = Kind(
    "scripted-part",
    (),
    "a TorchScript module has lost the Python that is traced",
    "put the Python module it was scripted from in its place, with its state_dict()",
)
OTHER = Kind(
    "trace-failed",
    (),
    "a graph can only hold what does not depend on the values of tensors",
    "replace data-dependent control flow at that line by torch.where or torch.cond",
)


def untraceable(
    name: str,
    module: nn.Module,
    inputs: Sequence[torch.Tensor],
    error: Exception,
    program: ExportedProgram | None = None,
) -> NotProven:
    """The error to show: ours where one lies at the bottom, else what kind it is, with line, part and remedy.

    Args:
        name: the model's.
        module: what was traced.
        inputs: what it was traced with.
        error: what PyTorch raised.
        program: what was to be translated, where the error is of translating.
    """
    chain = list(_chain(error))
    ours = next((cause for cause in chain if isinstance(cause, NotProven)), None)
    if ours is not None:
        ours.where = ours.where or f"model {name}, stage trace"
        return ours
    traceback.print_exception(error)  # whole, to the log
    kind, scripted = _kind(chain), _scripted(module)
    if scripted and kind is OTHER:  # what PyTorch says of it is about an argument too many
        what, where = f"{scripted} is a TorchScript module", f"model {name}, stage trace"
        return NotProven(SCRIPTED.code, what, where=where, why=SCRIPTED.why, next=SCRIPTED.next)
    node = _node(chain, program)
    line = _line_of_node(node) if node is not None else _line(error.__traceback__)
    part = _path_of_node(node) if node is not None else _path(module, error.__traceback__)
    smallest = _smallest(module, inputs, part)
    place = f", smallest part that fails: {smallest}" if smallest else ""
    where = f"model {name}, stage trace{line}{place}"
    return NotProven(kind.code, _what(kind, chain, node), where=where, why=kind.why, next=kind.next)


def _scripted(module: nn.Module) -> str:
    """The path of the first part that is TorchScript; empty where none is."""
    parts = (path for path, part in module.named_modules() if isinstance(part, torch.jit.ScriptModule))
    return next(parts, "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it, the innermost last."""
    seen = set[int]()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _kind(chain: Sequence[BaseException]) -> Kind:
    said = [f"{type(cause).__name__} {cause}" for cause in chain]
    # From the innermost out: what is above it repeats it in words of its own, whole graphs among them.
    for text in reversed(said):
        for kind in KINDS:
            if any(word in text[:2000] for word in kind.words):
                return kind
    return OTHER


def _what(kind: Kind, chain: Sequence[BaseException], node: torch.fx.Node | None) -> str:
    if kind.code == "missing-operator" and node is not None:
        return f"there is no way to write {node.target} in ONNX"
    known = (c for c in reversed(chain) if any(word in f"{type(c).__name__} {c}" for word in kind.words))
    cause = next(known, chain[-1])
    first = next((text for text in str(cause).splitlines() if text.strip()), "")
    return f"{type(cause).__name__}: {COLOURS.sub('', first)}"


def _node(chain: Sequence[BaseException], program: ExportedProgram | None) -> torch.fx.Node | None:
    """The node of the program that was being translated."""
    names = [found[1] for cause in chain if (found := re.search(r"translating node %(\w+)", str(cause)))]
    if not names or program is None:
        return None
    nodes = {node.name: node for node in program.graph.nodes}
    if not set(names) & nodes.keys():  # operators are taken apart before they are translated
        with suppress(Exception):
            nodes = {node.name: node for node in program.run_decompositions().graph.nodes}
    return next((nodes[name] for name in names if name in nodes), None)


def _line_of_node(node: torch.fx.Node) -> str:
    frames = [found.groupdict() for found in FRAME.finditer(node.stack_trace or "")]
    own = [frame for frame in frames if not frame["file"].startswith(OURS)]
    return _shown(own[-1]["file"], int(own[-1]["line"])) if own else ""


def _line(trace: TracebackType | None) -> str:
    frames = [frame for frame in traceback.extract_tb(trace) if not frame.filename.startswith((*OURS, "<"))]
    return _shown(frames[-1].filename, frames[-1].lineno or 0) if frames else ""


def _shown(file: str, line: int) -> str:
    return f", {file}:{line}: {linecache.getline(file, line).strip()}"


def _path_of_node(node: torch.fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _path(module: nn.Module, trace: TracebackType | None) -> str:
    """The innermost submodule whose code was running."""
    paths, found = {id(part): path for path, part in module.named_modules()}, ""
    while trace is not None:
        running = trace.tb_frame.f_locals.get("self")
        found = paths.get(id(running), found)
        trace = trace.tb_next
    return found


def _smallest(module: nn.Module, inputs: Sequence[torch.Tensor], path: str) -> str:
    """The smallest submodule towards ``path`` that fails alone with what it is given there: tried, not guessed."""
    parts = path.split(".") if path else []
    for depth in range(len(parts), 0, -1):
        place = ".".join(parts[:depth])
        try:
            piece = module.get_submodule(place)
        except AttributeError:
            continue
        given = _given(module, inputs, piece)
        if given is not None and not _translates(piece, *given):
            return f"{place} ({type(piece).__name__})"
    return ""


Given = tuple[tuple[object, ...], dict[str, object]]


def _given(module: nn.Module, inputs: Sequence[torch.Tensor], piece: nn.Module) -> Given | None:
    """What a submodule is called with first."""
    seen = list[Given]()

    def look(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        seen.append((args, kwargs))

    try:
        hook = piece.register_forward_pre_hook(look, with_kwargs=True)
    except RuntimeError:  # a scripted one takes no hooks
        return None
    try:
        with torch.no_grad():
            module(*(tensor.clone() for tensor in inputs))
    except Exception:  # it may not run on zeros: then there is nothing to try it with
        return seen[0] if seen else None
    finally:
        hook.remove()
    return seen[0] if seen else None


def _translates(piece: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
    try:
        with torch.no_grad():
            program = torch.export.export(piece, args, kwargs, strict=False)
        torch.onnx.export(program, (), dynamo=True, optimize=False, verbose=False)
    except Exception:
        return False
    return True
