"""External data of a graph: which bytes of which files its tensors say they are, read without a library and checked.

Where a graph is opened there may be no ``onnx`` (a device has the runtime alone), and a runtime may read whatever a
graph names. The bytes of the graph are walked as https://onnx.ai/onnx/api/classes.html has them, weights skipped; what
leads out of its folder, is not there, ends beyond its file or is taken twice is refused before anything is opened.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PurePosixPath
from typing import NoReturn

from exporter.errors import Refused

# How the name of a graph ends, and what the data of one that we wrote is called: the graph's own name, and this.
GRAPH = ".onnx"
SUFFIX = ".data"
# A key that every tensor with external data has. A graph without it needs no closer look.
LOCATION = b"location"
DEEPEST = 64  # of messages in one another; protobuf's own parsers stop at 100

# Which fields of which messages lead to tensors: {message: {field: message}}.
LEADING: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
# Of a tensor: its sizes, type, name and the entries of its external data, each a key and a value.
DIMS, KIND, NAME, EXTERNAL = 1, 2, 8, 13
# Bits of an element by ONNX's number of its type; texts have none.
BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16, 17: 8,
    18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """A tensor whose values lie in another file.

    Attributes:
        tensor: its name.
        location: the file, as the graph names it.
        offset: where in the file it begins.
        length: how many bytes it has by what the graph says; None where it does not.
        size: how many bytes its type and shape take; None where they do not tell.
    """

    tensor: str
    location: str
    offset: int
    length: int | None
    size: int | None


def refuse_bad(graph: Path, declared: Collection[str] | None = None) -> None:
    """Checks all external data of a graph, without reading any.

    Args:
        graph: the ``.onnx`` file.
        declared: the files that it may refer to, by their names from its folder; any in there where None.

    Raises:
        Refused: ``bad-external-data`` naming the tensor and what is wrong with it.
    """
    from exporter.bundle.safe_open import open_file  # it comes with bundles, and those with graphs

    by_file: dict[str, list[Reference]] = {}
    for reference in references(graph):
        _refuse_escaping(graph, reference)
        if declared is not None and reference.location not in declared:
            _refuse(graph, reference, f"lies in {reference.location!r}, which belongs to no graph of the bundle")
        by_file.setdefault(str(PurePosixPath(reference.location)), []).append(reference)
    for location, found in by_file.items():
        try:
            with open_file(graph.parent, location) as file:
                available = os.fstat(file).st_size
        except (Refused, OSError) as error:
            _refuse(graph, found[0], f"lies in a file that is not read: {getattr(error, 'what', error)}")
        _refuse_overlapping(graph, found, available)


def references(graph: Path) -> list[Reference]:
    """Every tensor of a graph that has external data, in the order of the file.

    Raises:
        Refused: ``bad-external-data`` where the file cannot be read as a graph that has some.
    """
    with graph.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # nothing to map
            return []
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data.find(LOCATION) < 0:
                return []
            try:
                return list(_in_message(data, 0, len(data), "model", 0))
            except (_Malformed, UnicodeDecodeError, ValueError, RecursionError) as error:
                raise _unreadable(graph, str(error)) from None


class _Malformed(Exception):
    """Bytes that are no message."""


def _in_message(data: mmap.mmap, start: int, end: int, kind: str, depth: int) -> Iterator[Reference]:
    if depth > DEEPEST:
        raise _Malformed(f"it is nested deeper than {DEEPEST}")
    for number, low, high in _fields(data, start, end):
        below = LEADING[kind].get(number)
        if below == "tensor":
            yield from _in_tensor(data, low, high)
        elif below is not None:
            yield from _in_message(data, low, high, below, depth + 1)


def _in_tensor(data: mmap.mmap, start: int, end: int) -> Iterator[Reference]:
    tensor = _Tensor()
    for number, low, high in _fields(data, start, end):
        tensor.take(data, number, low, high)
    if tensor.entries:
        said = tensor.entries
        length = int(said["length"]) if "length" in said else None
        yield Reference(tensor.name, said.get("location", ""), int(said.get("offset", 0)), length, tensor.size)


@dataclass
class _Tensor:
    """What is known of a tensor so far."""

    name: str = ""
    kind: int = 0
    dims: list[int] = field(default_factory=list)
    entries: dict[str, str] = field(default_factory=dict)

    def take(self, data: mmap.mmap, number: int, low: int, high: int) -> None:
        if number == NAME:
            self.name = data[low:high].decode()
        elif number == KIND:
            self.kind = _varint(data, low, high)[0]
        elif number == DIMS:  # one by one, or all of them packed
            while low < high:
                size, low = _varint(data, low, high)
                self.dims.append(size)
        elif number == EXTERNAL:
            texts = {of: data[a:b].decode() for of, a, b in _fields(data, low, high)}
            if texts.get(1, "") in self.entries:  # readers differ in which of two they take
                raise _Malformed(f"tensor {self.name!r} says its {texts.get(1, '')} twice")
            self.entries[texts.get(1, "")] = texts.get(2, "")

    @property
    def size(self) -> int | None:
        bits = BITS.get(self.kind)
        return None if bits is None else -(-prod(self.dims) * bits // 8)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """``(number, first byte, end)`` of the fields of a message; of a number the bytes that hold it."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        low = at
        if wire == 0:
            _, at = _varint(data, at, end)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            length, low = _varint(data, at, end)
            at = low + length
        else:
            raise _Malformed(f"byte {at} begins no field")
        if at > end:
            raise _Malformed(f"a field at byte {low} ends beyond what holds it")
        yield number, low, at


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number and where the next field begins."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Malformed(f"a number before byte {at} has no end")


def _refuse_escaping(graph: Path, reference: Reference) -> None:
    location = reference.location
    parts = location.split("/")
    if not location or "\\" in location or "\0" in location or location.startswith("/") or ".." in parts:
        _refuse(graph, reference, f"lies in {location!r}, which is no file of the graph's own folder")


def _refuse_overlapping(graph: Path, found: list[Reference], available: int) -> None:
    """Every tensor within its file, and no byte of it in two: a small file must not fill the memory many times."""
    last = 0
    for reference in sorted(found, key=lambda of: (of.offset, of.size or 0)):
        size = reference.length if reference.length is not None else reference.size
        if size is None or reference.size is None or size != reference.size:
            _refuse(graph, reference, f"has {size} bytes, and its type and shape take {reference.size}")
        if reference.offset < last:
            _refuse(graph, reference, f"begins at byte {reference.offset}, within another that ends at {last}")
        last = reference.offset + size
        if last > available:
            _refuse(graph, reference, f"ends at byte {last}, and {reference.location} has {available}")


def _refuse(graph: Path, reference: Reference, how: str) -> NoReturn:
    raise Refused(
        "bad-external-data",
        f"tensor {reference.tensor!r} {how}",
        where=f"graph {graph}",
        why="a graph may name any file; only its own data beside it is read, every byte at most once",
        next="fetch the graph again together with its data file, or write both again: onnx_ir.save(model, PATH,"
        " external_data=NAME)",
    )


def _unreadable(graph: Path, reason: str) -> Refused:
    return Refused(
        "bad-external-data",
        f"{graph.name} cannot be read as a graph with external data: {reason}",
        where=f"graph {graph}",
        why="what it refers to has to be known before anything opens it",
        next="fetch the graph again together with its data file",
    )
