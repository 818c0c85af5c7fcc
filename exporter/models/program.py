"""A program that ``torch.export`` saved, as a module; only children open one."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from exporter.errors import NotProven, Refused
from exporter.models import tables
from exporter.models.derive import OWN, Asked, with_outputs
from exporter.models.given import UNSAID, is_whole, unsaid, with_ranges
from exporter.models.place import Place
from exporter.spec import Dim, ModelDef, Tensor

# Operators that do something else while training, and the argument that says so.
TRAINING = {"aten.dropout.default": 2, "aten.native_dropout.default": 2, "aten.batch_norm.default": 5}


class Program(nn.Module):
    """The module of a program, which takes and gives tensors in a row and is in no mode."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.program = program.module()
        for part in self.modules():
            part.training = False

    def train(self, mode: bool = True) -> Program:  # noqa: ARG002  # nn.Module's own
        """A program was exported in one mode, and stays in it."""
        return self

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.program(*tensors)


def of_program(place: Place, asked: Asked) -> ModelDef:
    """The definition of a saved program: its inputs and dims are what it was exported with.

    Raises:
        Refused: ``bad-program`` for a file that is none, or of a newer PyTorch; ``bad-input``; ``bad-dim``.
        NotProven: ``train-mode``.
    """
    path = Path(place.place)
    program = _loaded(path)
    _refuse_training(program, path)
    bare, dims = _interface(program, asked.dims, place)
    module, sizes = Program(program), {dim.name: dim.opt for dim in dims}
    zeros = {t.name: torch.zeros(t.sized(sizes), dtype=getattr(torch, t.dtype)) for t in bare}
    looked_up = tables.of_module(module, zeros, (tuple(zeros.values()), {})) if any(map(unsaid, bare)) else {}
    inputs, notes = with_ranges(bare, asked.inputs, looked_up, place.shown)
    definition = ModelDef(
        place.label, OWN, lambda: Program(_loaded(path)), inputs, (), place.shown, "the user's own", dims=dims,
        weighted=True, notes=notes,
    )  # fmt: skip
    return with_outputs(definition, module, place)


def _loaded(path: Path) -> ExportedProgram:
    try:
        return torch.export.load(path)
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        wrote = _writer(path)
        first = f"PyTorch {wrote} wrote it" if wrote not in ("", torch.__version__) else first
        raise Refused(
            "bad-program",
            f"{path.name} does not load: {first}",
            where=f"file {path.name}, torch {torch.__version__}",
            why="a program is read by the PyTorch that wrote it, or a newer one",
            next="torch.export.save(torch.export.export(model, inputs), FILE) with this version of PyTorch",
        ) from error


def _writer(path: Path) -> str:
    """The version of PyTorch that wrote a program, where the file says one."""
    with (
        suppress(OSError, ValueError, KeyError, TypeError, StopIteration, zipfile.BadZipFile),
        zipfile.ZipFile(path) as archive,
    ):
        name = next(name for name in archive.namelist() if name.endswith("models/model.json"))
        return str(json.loads(archive.read(name))["torch_version"])[:40]
    return ""


def _refuse_training(program: ExportedProgram, path: Path) -> None:
    for node in program.graph.nodes:
        place = TRAINING.get(str(node.target))
        if place is not None and len(node.args) > place and node.args[place] is True:
            raise NotProven(
                "train-mode",
                f"{node.name} ({node.target}) was exported in train mode",
                where=f"program {path.name}",
                why="dropout and batch statistics would be part of every answer",
                next="call model.eval() before torch.export.export",
            )


Interface = tuple[tuple[Tensor, ...], tuple[Dim, ...]]


def _interface(program: ExportedProgram, texts: Sequence[str], place: Place) -> Interface:
    users = set(program.graph_signature.user_inputs)
    values = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder" and n.name in users}
    asked = dict(text.partition("=")[::2] for text in texts)
    dims, inputs = dict[str, Dim](), list[Tensor]()
    for name, value in values.items():
        if not isinstance(value, torch.Tensor):
            raise Refused(
                "bad-program",
                f"its input {name} is {type(value).__name__}, no tensor",
                where=f"program {place.shown}",
                why="a graph has tensors",
                next="export it with tensors alone",
            )
        shape = tuple(_entry(size, program, asked, dims, name) for size in value.shape)
        dtype = str(value.dtype).removeprefix("torch.")
        low, high = UNSAID if is_whole(dtype) else (0.0 if dtype == "bool" else -1.0, 1.0)
        inputs.append(Tensor(name, shape, "", dtype, low, high))
    for name, text in asked.items():
        if name not in dims:
            raise Refused(
                "bad-dim",
                f"--dim {name}={text} names no dim of {place.shown}",
                where=f"program {place.shown}",
                why=f"its dims are {', '.join(dims) or 'none: every size is fixed'}",
                next="leave it out, or export the program with that dim dynamic",
            )
    return tuple(inputs), tuple(dims.values())


def _entry(size: Any, program: ExportedProgram, asked: dict[str, str], dims: dict[str, Dim], where: str) -> int | str:
    if isinstance(size, int):
        return size
    expression = size.node.expr
    coefficient, symbol = expression.as_coeff_Mul()
    if not symbol.is_Symbol:
        raise Refused(
            "bad-program",
            f"a size of its input {where} is {expression}",
            where="its symbolic shapes",
            why="a dim is a size, a part or a multiple of one",
            next="export it with simpler dynamic shapes",
        )
    name = str(symbol)
    if name not in dims:
        dims[name] = _dim(name, program, size, asked.get(name), where)
    return name if coefficient == 1 else f"{name}*{int(coefficient)}"


def _dim(name: str, program: ExportedProgram, size: Any, text: str | None, where: str) -> Dim:
    found = program.range_constraints[size.node.expr.free_symbols.pop()]
    low, high = max(int(found.lower), 1), float(found.upper) if found.upper.is_finite else math.inf
    hint = int(size.node.hint) if size.node.hint is not None else low
    if text is not None:
        whole = Dim(name, low, max(hint, low), int(min(high, 2**20)))
        return whole.narrowed(text)
    if high > 2**20:
        raise Refused(
            "bad-dim",
            f"dim {name} of input {where} has no end",
            where=f"program of {len(list(program.graph.nodes))} nodes",
            why="a dim's sizes are tested from the least to the largest",
            next=f"--dim {name}={low}:{hint}:{2 * hint}",
        )
    return Dim(name, low, min(max(hint, low), int(high)), int(high))
