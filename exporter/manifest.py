"""The manifest of a bundle: typed values, and strict ways from and to bytes.

A manifest is data that its reader may not trust. Decoding refuses whatever could be read in two ways, name a file
outside the bundle, or make a reader allocate without bound. ``docs/bundle-format.md`` lists the rules; every MUST
there is a check here and has a test.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, NoReturn, TypeVar

from exporter.budget import POOR, Budget
from exporter.errors import ExporterError, Refused
from exporter.spec import Dim, HostStep, State, Step, Stream, Tensor, factors_of
from exporter.target import INTEGER

# Stands for the bundle's own place in commands that it holds.
BUNDLE = "BUNDLE"
SCHEMA_NAME = "exporter.bundle"
SCHEMA_NUMBER = 2
SCHEMA = f"{SCHEMA_NAME}/{SCHEMA_NUMBER}"

MAX_BYTES = 4 << 20
MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_ENTRIES = 10_000
MAX_TEXT = 8192
MAX_NAME = 256
MAX_SIZE = 1 << 31  # of one dim
MAX_ELEMENTS = 1 << 36  # of one tensor at its largest
MAX_RANK = 16
MAX_FILE_BYTES = 1 << 44
MAX_COUNT = 1 << 31  # of steps, repetitions, threads
MAX_WHOLE = (1 << 64) - 1  # any other whole number
MAX_PATH, MAX_COMPONENT, MAX_COMPONENTS = 240, 128, 8

DTYPES = frozenset({"bool", "float16", "bfloat16", "float32", "float64"}) | {
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}
WEIGHT_KINDS = ("seeded", "checkpoint")
PASS_VERDICTS = ("kept", "dropped", "no change")
STATUSES = ("compiled", "incomplete")

# Text that people write or that tools print; names and addresses are held to stricter rules.
FREE_TEXT = frozenset({"reason", "advice", "next", "meaning"})

WHY = "a bundle may come from anyone, so its manifest must have exactly one meaning"
NEXT = "export the model again, or get the bundle again from where it was made"


# -------------------------------------------------------------------------------------------------------- values


@dataclass(frozen=True)
class ModelInfo:
    """Which model it is, so that the place with its code can build it again."""

    name: str
    family: str
    options: dict[str, Any]
    source: str
    licence: str
    parameters: int
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weights:
    """Where the weights come from; ``seeded`` ones are noise and every verdict line says so."""

    kind: str
    digest: str
    source: str
    licence: str
    seed: int | None = None


@dataclass(frozen=True)
class PassRecord:
    """What became of one simplification: ``kept``, ``dropped`` or ``no change``."""

    name: str
    verdict: str
    reason: str = ""


@dataclass(frozen=True)
class GraphFiles:
    """One graph before and after simplification, and its own inputs and outputs.

    ``work`` is a file of the multiplications each node takes, ``{node: [operator, count]}``.
    """

    traced: str
    simplified: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    passes: tuple[PassRecord, ...] = ()
    work: str = ""


@dataclass(frozen=True)
class CaseInfo:
    """One set of inputs with its reference, in one file."""

    name: str
    kind: str
    scale: str
    sizes: dict[str, int]
    steps: int
    file: str


@dataclass(frozen=True)
class CalibrationInfo:
    """What a quantiser took its scales from: where it came from, the digest of all of it, a file per input.

    ``real`` says whether they are inputs as users have them; generated ones are noise in the declared range.
    """

    source: str
    digest: str
    files: tuple[str, ...]
    real: bool = True


@dataclass(frozen=True)
class TargetInfo:
    """A compiled artifact, or the place kept for one that another machine has to make.

    ``graphs`` are those it is compiled from where they are not the simplified ones (a lower precision is written into
    them); ``options`` are the target's own. ``way`` is how it came to its precision; the nodes ``kept`` stay above it,
    each with the reason, and so do those that the target's compiling ``left``; ``budget`` is what it may cost.
    """

    target: str
    precision: str
    files: dict[str, str]
    forms: tuple[str, ...]
    fingerprint: dict[str, str]
    stored: str
    threads: int
    advice: tuple[str, ...] = ()
    status: str = "compiled"
    next: str = ""
    graphs: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    way: str = ""
    kept: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    calibration: CalibrationInfo | None = None
    budget: Budget = field(default_factory=Budget)

    def finish(self, bundle: object) -> str:
        """The command that finishes it, for a bundle that lies there: it may have been moved since."""
        return self.next.replace(BUNDLE, shlex.quote(str(bundle)))


@dataclass(frozen=True)
class FileInfo:
    """What a file must be, to the byte."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """Everything a bundle says of itself. ``files`` is filled in when the bundle is committed.

    ``yardsticks`` are files of eager's own error over the cases, one per precision below the model's own.
    """

    model: ModelInfo
    weights: Weights
    key: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    graphs: dict[str, GraphFiles]
    program: tuple[Step, ...]
    dims: tuple[Dim, ...] = ()
    state: tuple[State, ...] = ()
    stream: Stream | None = None
    before: tuple[HostStep, ...] = ()
    after: tuple[HostStep, ...] = ()
    cases: tuple[CaseInfo, ...] = ()
    yardsticks: dict[str, str] = field(default_factory=dict)
    targets: dict[str, TargetInfo] = field(default_factory=dict)
    reports: dict[str, str] = field(default_factory=dict)
    onnx_tests: tuple[str, ...] = ()
    tools: dict[str, str] = field(default_factory=dict)
    files: dict[str, FileInfo] = field(default_factory=dict)
    schema: str = SCHEMA

    @property
    def repeats(self) -> tuple[str, ...]:
        """The dims that count how often a graph runs, and are no size of a tensor."""
        return tuple(dict.fromkeys(step.repeat for step in self.program if isinstance(step.repeat, str)))

    def graph_tensors(self, name: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Inputs and outputs of one of its graphs."""
        return self.graphs[name].inputs, self.graphs[name].outputs


def mentioned(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Every file the manifest names, with the place in the JSON where it does."""
    for name, graph in manifest.graphs.items():
        yield f"graphs.{name}.traced", graph.traced
        yield f"graphs.{name}.simplified", graph.simplified
        if graph.work:
            yield f"graphs.{name}.work", graph.work
    for index, case in enumerate(manifest.cases):
        yield f"cases[{index}].file", case.file
    for name, file in manifest.yardsticks.items():
        yield f"yardsticks.{name}", file
    for key, target in manifest.targets.items():
        for role, file in target.files.items():
            yield f"targets.{key}.files.{role}", file
        for name, file in target.graphs.items():
            yield f"targets.{key}.graphs.{name}", file
        for index, file in enumerate(target.calibration.files if target.calibration else ()):
            yield f"targets.{key}.calibration.files[{index}]", file
    for name, file in manifest.reports.items():
        yield f"reports.{name}", file
    for index, file in enumerate(manifest.onnx_tests):
        yield f"onnx_tests[{index}]", file


# ------------------------------------------------------------------------------------------------- to and from bytes


def decode(data: bytes, where: str = "manifest.json") -> Manifest:
    """The manifest in ``data``.

    Args:
        data: the whole file.
        where: what to call it in errors.

    Raises:
        Refused: ``newer-schema``; ``bad-manifest`` for everything else that is wrong.
    """
    try:
        return _decode(data)
    except _Wrong as wrong:
        place = f"{where}: {wrong.place}" if wrong.place else where
        raise Refused(
            "bad-manifest", _printable(wrong.what), where=_printable(place), why=wrong.why, next=NEXT
        ) from None
    except Refused as error:
        error.where = f"{where}: {error.where}"
        raise


def encode(manifest: Manifest) -> bytes:
    """The bytes of a manifest, the same for equal manifests. What :func:`decode` would refuse is refused here."""
    try:
        text = json.dumps(_plain(manifest, ""), indent=1, allow_nan=False)
        data = text.encode("ascii") + b"\n"
    except (ValueError, RecursionError) as error:
        raise Refused("bad-manifest", f"the manifest cannot be written: {error}", why=WHY, next=NEXT) from None
    except _Wrong as wrong:
        raise Refused("bad-manifest", wrong.what, where=wrong.place, why=wrong.why, next=NEXT) from None
    decode(data)
    return data


def _decode(data: bytes) -> Manifest:
    value = _upgraded(_parse(data))
    manifest: Manifest = _read(Manifest, value, "")
    _check(manifest)
    return manifest


class _Wrong(Exception):
    """What is wrong, and where in the JSON."""

    def __init__(self, place: str, what: str, why: str = WHY) -> None:
        super().__init__(what)
        self.place = "".join(letter if letter.isprintable() else "?" for letter in place)
        self.what, self.why = what, why


def _wrong(place: str, what: str, why: str = WHY) -> NoReturn:
    raise _Wrong(place, what, why)


def _plain(value: Any, name: str) -> Any:
    """A value as JSON, dicts in the order of their keys so that equal manifests are equal bytes."""
    if is_dataclass(value) and not isinstance(value, type):
        ordered = sorted(fields(value), key=lambda f: f.name != "schema")
        return {f.name: _plain(getattr(value, f.name), f.name) for f in ordered}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            _wrong(name, "the keys of an object must be text")
        return {key: _plain(value[key], key) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item, name) for item in value]
    if isinstance(value, str):
        return _scrubbed(value) if name in FREE_TEXT else value
    if value is None or isinstance(value, (bool, int, float)):
        return value
    _wrong(name, f"{value!r} is no JSON value")


def _printable(text: str) -> str:
    """Text that drives no terminal and hides nothing: what cannot be printed is written as its code."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)


def _scrubbed(text: str) -> str:
    """Free text as the decoder takes it: a tool's message may hold terminal escapes, and be long."""
    clean = "".join("\N{REPLACEMENT CHARACTER}" if _control(letter) else letter for letter in text)
    return clean if len(clean) <= MAX_TEXT else clean[: MAX_TEXT - 3] + "..."


# ------------------------------------------------------------------------------------------------- bytes to JSON


def _parse(data: bytes) -> Any:
    if len(data) > MAX_BYTES:
        _wrong("", f"it has {len(data)} bytes; at most {MAX_BYTES} are read")
    _measure(data)
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=lambda name: _wrong("", f"{name} is no JSON number"),
            parse_float=_float,
            parse_int=_int,
        )
    except UnicodeDecodeError as error:
        _wrong("", f"it is not UTF-8: {error}")
    except (ValueError, RecursionError) as error:
        _wrong("", f"it is not JSON: {error}")


def _measure(data: bytes) -> None:
    """Bounds depth and number of values before a parser allocates anything for them."""
    depth = values = 0
    inside = False
    for match in re.finditer(rb'\\.|["\[\]{},]', data, re.DOTALL):
        token = match.group()
        if token == b'"':
            inside = not inside
        elif inside or token[0] == 0x5C:
            continue
        elif token in b"[{":
            depth += 1
        elif token in b"]}":
            depth -= 1
        else:
            values += 1
        if depth > MAX_DEPTH:
            _wrong("", f"it is nested deeper than {MAX_DEPTH}")
        if values > MAX_VALUES:
            _wrong("", f"it has more than {MAX_VALUES} values")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            why = "readers differ in whether the first or the last of two equal keys counts"
            _wrong(key[:MAX_NAME], f"the key {key[:MAX_NAME]!r} is there twice", why)
        found[key] = value
    return found


def _int(text: str) -> int:
    if len(text) > 20:
        _wrong("", f"the number {text[:20]}... has {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    number = float(text) if len(text) <= 64 else math.nan
    if not math.isfinite(number):
        _wrong("", f"the number {text[:40]} is out of range")
    return number


# Functions that turn the JSON of schema N into that of schema N + 1, so that every old bundle still opens.
def _with_lower_precisions(value: dict[str, Any]) -> dict[str, Any]:
    """Schema 2 knows graphs of a lower precision, their yardsticks, and options of a target."""
    upgraded: dict[str, Any] = _added(value, "", yardsticks={}) | {"schema": f"{SCHEMA_NAME}/2"}
    targets = value.get("targets")
    if isinstance(targets, dict):
        budget: dict[str, Any] = {"amplification": None, "decibels": None, "losses": {}}
        more: dict[str, Any] = {
            "graphs": {}, "options": {}, "way": "", "kept": {}, "left": {}, "calibration": None, "budget": budget,
        }  # fmt: skip
        upgraded["targets"] = {key: _added(info, f"targets.{key}", **more) for key, info in targets.items()}
    graphs = value.get("graphs")
    if isinstance(graphs, dict):
        upgraded["graphs"] = {key: _added(graph, f"graphs.{key}", work="") for key, graph in graphs.items()}
    return upgraded


def _added(value: Any, place: str, **more: Any) -> Any:
    """An object with keys that its schema did not have; what is no object is refused later, where types are read."""
    if not isinstance(value, dict):
        return value
    for key in more.keys() & value.keys():
        _wrong(_at(place, key), f"the key {key!r} is unknown in that schema")
    return {**value, **more}


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _with_lower_precisions}


def _upgraded(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        _wrong("", "it is no JSON object")
    schema = value.get("schema")
    match = re.fullmatch(re.escape(SCHEMA_NAME) + r"/([1-9][0-9]{0,5})", schema) if isinstance(schema, str) else None
    if match is None:
        _wrong("schema", f"schema is {_shown(schema)}, not {SCHEMA}")
    number = int(match.group(1))
    if number > SCHEMA_NUMBER:
        raise Refused(
            "newer-schema",
            f"the bundle has schema {number}; this exporter reads up to {SCHEMA_NUMBER}",
            where="schema",
            why="a newer schema may mean things this version would silently ignore",
            next="upgrade exporter: pip install --upgrade exporter",
        )
    current: dict[str, Any] = value
    for older in range(number, SCHEMA_NUMBER):
        current = UPGRADES[older](current)
    return current


# ------------------------------------------------------------------------------------------------- JSON to values

Kind = TypeVar("Kind")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}


def _read(hint: Any, value: Any, place: str) -> Any:
    """The value as its type annotation says it must be; nothing is converted but a whole number to a float."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return _any(value, place)
    if isinstance(hint, type) and is_dataclass(hint):
        return _record(hint, value, place)
    if origin in (typing.Union, types.UnionType):
        return _either(inner, value, place)
    if origin is tuple:
        items = _bounded(_expect(list, value, place), place)
        return tuple(_read(inner[0], item, f"{place}[{index}]") for index, item in enumerate(items))
    if origin is not None:  # dict and Mapping
        return _mapping(inner[1], value, place)
    return _scalar(hint, value, place)


def _record(kind: Any, value: Any, place: str) -> Any:
    found = _expect(dict, value, place)
    hints = _hints(kind)
    unknown, absent = sorted(found.keys() - hints.keys()), sorted(hints.keys() - found.keys())
    if unknown:
        _wrong(_at(place, unknown[0]), f"the key {unknown[0][:MAX_NAME]!r} is unknown")
    if absent:
        _wrong(_at(place, absent[0]), f"the key {absent[0]!r} is absent")
    values = {name: _read(hint, found[name], _at(place, name)) for name, hint in hints.items()}
    try:
        return kind(**values)
    except ExporterError as error:
        _wrong(place, error.what, error.why)


def _either(kinds: Iterable[Any], value: Any, place: str) -> Any:
    for kind in kinds:
        if kind is type(None) and value is None:
            return None
        if (kind in (str, int) and type(value) is kind) or (kind is float and type(value) in (int, float)):
            return _scalar(kind, value, place)
        if is_dataclass(kind) and isinstance(value, dict):
            return _read(kind, value, place)
    names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
    _wrong(place, f"{_shown(value)} is not {names}")


def _mapping(hint: Any, value: Any, place: str) -> dict[str, Any]:
    found = _bounded(_expect(dict, value, place), place)
    for key in found:
        _name(key, place)
    return {key: _read(hint, item, _at(place, key)) for key, item in found.items()}


def _any(value: Any, place: str) -> Any:
    """An option's value: any JSON, its text held to the rules for text."""
    if isinstance(value, dict):
        return _mapping(Any, value, place)
    if isinstance(value, list):
        return [_any(item, f"{place}[{index}]") for index, item in enumerate(_bounded(value, place))]
    return value if value is None or type(value) is bool else _scalar(type(value), value, place)


def _scalar(hint: type, value: Any, place: str) -> Any:
    if hint is float and type(value) is int:
        return float(value)
    _expect(hint, value, place)
    if hint is str:
        return _text(value, place)
    if hint is int and abs(value) > MAX_WHOLE:
        _wrong(place, f"{value} is out of range")
    return value


def _expect(kind: type[Kind], value: Any, place: str) -> Kind:
    if type(value) is not kind:  # exact: True is an int to isinstance, not to us
        _wrong(place, f"{_shown(value)} is not {kind.__name__}")
    return value


def _bounded(found: Any, place: str) -> Any:
    if len(found) > MAX_ENTRIES:
        _wrong(place, f"it has {len(found)} entries; at most {MAX_ENTRIES} are read")
    return found


def _control(letter: str) -> bool:
    """Whether a letter could drive a terminal or is no text: control codes, half surrogates, direction overrides."""
    code = ord(letter)
    low = (code < 0x20 and letter not in "\n\t") or 0x7F <= code < 0xA0
    return low or 0xD800 <= code < 0xE000 or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069


def _text(text: str, place: str) -> str:
    if len(text) > MAX_TEXT:
        _wrong(place, f"its text has {len(text)} letters; at most {MAX_TEXT} are read")
    bad = next((letter for letter in text if _control(letter)), None)
    if bad is not None:
        _wrong(place, f"its text holds the control character U+{ord(bad):04X}")
    return text


def _name(text: str, place: str) -> str:
    if not text or len(text) > MAX_NAME or text != text.strip():
        _wrong(place, f"{_shown(text)} is no name: 1 to {MAX_NAME} letters, no space at its ends")
    if any(letter in "\n\t" or _control(letter) for letter in text):
        _wrong(place, f"the name {_shown(text)} holds a control character")
    return text


def _at(place: str, key: str) -> str:
    return f"{place}.{key[:MAX_NAME]}" if place else key[:MAX_NAME]


def _shown(value: Any) -> str:
    text = ascii(value) if isinstance(value, (str, int, float, type(None))) else type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."


# ------------------------------------------------------------------------------------------------- file names

COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
OURS = frozenset({"manifest.json", "manifest.json.tmp", "use.md"})


def file_name_problem(name: str) -> str | None:
    """Why ``name`` cannot name a file of a bundle on every system; None when it can.

    Only relative names of plain letters pass, so that what is refused needs no list: ``..``, absolute names, drive
    letters, backslashes, control characters, hidden files and options (``.x``, ``-x``).
    """
    parts = name.split("/")
    if len(name) > MAX_PATH or len(parts) > MAX_COMPONENTS or any(len(part) > MAX_COMPONENT for part in parts):
        return f"longer than {MAX_PATH} letters, {MAX_COMPONENTS} folders or {MAX_COMPONENT} letters in one of them"
    for part in parts:
        if not COMPONENT.fullmatch(part) or part.endswith("."):
            return f"{_shown(part)} is not made of letters, digits and ._+- (not first . + - nor last .)"
        if part.split(".")[0].casefold() in RESERVED:
            return f"{part!r} is a reserved name on Windows"
    if name.casefold() in OURS:
        return f"{name!r} is a name of the bundle itself"
    return None


def _check_files(manifest: Manifest) -> None:
    spelling: dict[str, str] = {}
    for name, info in manifest.files.items():
        place = _at("files", name)
        _file_name(name, place)
        _digest(info.sha256, f"{place}.sha256")
        _within(info.bytes, 0, MAX_FILE_BYTES, f"{place}.bytes")
        _no_clash(name, spelling, place)
    folders = {name.rpartition("/")[0] for name in manifest.files}
    folders |= {"/".join(folder.split("/")[:depth]) for folder in folders for depth in range(1, MAX_COMPONENTS)}
    both = sorted(folders & manifest.files.keys())
    if both:
        _wrong(_at("files", both[0]), f"{both[0]!r} is a file and a folder")


def _no_clash(name: str, spelling: dict[str, str], place: str) -> None:
    parts = name.split("/")
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        if spelling.setdefault(path.casefold(), path) != path:
            why = "on systems that ignore case one file would overwrite the other"
            _wrong(place, f"{path!r} differs only in case from {spelling[path.casefold()]!r}", why)


def _file_name(name: str, place: str) -> None:
    problem = file_name_problem(name)
    if problem is not None:
        _wrong(place, f"file name {_shown(name)}: {problem}", "a bundle's files stay inside it, on every system")


# ------------------------------------------------------------------------------------------------- meaning


def _check(manifest: Manifest) -> None:
    """What types cannot say: numbers in bounds, names that refer to something, files that are declared."""
    _digest(manifest.key, "key")
    _check_model(manifest)
    _check_tensors(manifest)
    _check_flow(manifest)
    _check_cases(manifest)
    for key, target in manifest.targets.items():
        _check_target(manifest, key, target, f"targets.{key}")
    _check_files(manifest)
    for place, name in mentioned(manifest):
        _file_name(name, place)
        if name not in manifest.files:
            _wrong(place, f"the file {name!r} is not in files", "a file without a digest could be anything")


def _check_model(manifest: Manifest) -> None:
    model, weights = manifest.model, manifest.weights
    _name(model.name, "model.name")
    _name(model.family, "model.family")
    _within(model.parameters, 0, MAX_WHOLE, "model.parameters")
    _one_of(weights.kind, WEIGHT_KINDS, "weights.kind")
    _digest(weights.digest, "weights.digest")
    if weights.seed is not None:
        _within(weights.seed, 0, MAX_WHOLE, "weights.seed")


def _check_tensors(manifest: Manifest) -> None:
    _unique((dim.name for dim in manifest.dims), "dims")
    for index, dim in enumerate(manifest.dims):
        _within(dim.max, 1, MAX_SIZE, f"dims[{index}].max")
        _within(dim.step, 1, MAX_SIZE, f"dims[{index}].step")
    largest = {dim.name: dim.max for dim in manifest.dims}
    sides = [("inputs", manifest.inputs), ("outputs", manifest.outputs)]
    for name, graph in manifest.graphs.items():
        sides += [(f"graphs.{name}.inputs", graph.inputs), (f"graphs.{name}.outputs", graph.outputs)]
    for side, tensors in sides:
        if not tensors:
            _wrong(side, "it is empty")
        _unique((tensor.name for tensor in tensors), side)
        for index, tensor in enumerate(tensors):
            _check_tensor(tensor, largest, f"{side}[{index}]")


def _check_tensor(tensor: Tensor, largest: Mapping[str, int], place: str) -> None:
    _one_of(tensor.dtype, DTYPES, f"{place}.dtype")
    if len(tensor.shape) > MAX_RANK:
        _wrong(f"{place}.shape", f"it has {len(tensor.shape)} axes; at most {MAX_RANK} are read")
    for axis, size in enumerate(tensor.shape):
        if isinstance(size, str):
            _known(_dim_of(size, f"{place}.shape[{axis}]"), largest, "dims", f"{place}.shape[{axis}]")
        else:
            _within(size, 0, MAX_SIZE, f"{place}.shape[{axis}]")
    elements = math.prod(tensor.sized(largest))
    if elements > MAX_ELEMENTS:
        _wrong(f"{place}.shape", f"it has {elements} elements at its largest; at most {MAX_ELEMENTS} are read")
    if tensor.low > tensor.high:
        _wrong(f"{place}.low", f"low {tensor.low} is above high {tensor.high}")


def _dim_of(entry: str, place: str) -> str:
    try:
        return factors_of(entry)[0]
    except Refused as error:
        _wrong(place, error.what, error.why)


def _check_flow(manifest: Manifest) -> None:
    inputs = {tensor.name: len(tensor.shape) for tensor in manifest.inputs}
    outputs = {tensor.name: len(tensor.shape) for tensor in manifest.outputs}
    for index, state in enumerate(manifest.state):
        _known(state.input, inputs, "inputs", f"state[{index}].input")
        _known(state.output, outputs, "outputs", f"state[{index}].output")
    stream = manifest.stream
    if stream is not None:
        _known(stream.input, inputs, "inputs", "stream.input")
        _known(stream.output, outputs, "outputs", "stream.output")
        _within(stream.axis, 0, min(inputs[stream.input], outputs[stream.output]) - 1, "stream.axis")
        _within(stream.steps, 1, MAX_COUNT, "stream.steps")
    if not manifest.graphs or not manifest.program:
        _wrong("program", "a bundle without a graph or without a program runs nothing")
    for index, step in enumerate(manifest.program):
        _known(step.graph, manifest.graphs, "graphs", f"program[{index}].graph")
        if isinstance(step.repeat, str):
            _known(step.repeat, [dim.name for dim in manifest.dims], "dims", f"program[{index}].repeat")
        else:
            _within(step.repeat, 1, MAX_COUNT, f"program[{index}].repeat")
        for number, state in enumerate(step.state):
            _name(state.input, f"program[{index}].state[{number}].input")
            _name(state.output, f"program[{index}].state[{number}].output")
    for side, steps in (("before", manifest.before), ("after", manifest.after)):
        for index, host in enumerate(steps):
            _name(host.step, f"{side}[{index}].step")
    for name, graph in manifest.graphs.items():
        for index, done in enumerate(graph.passes):
            _name(done.name, f"graphs.{name}.passes[{index}].name")
            _one_of(done.verdict, PASS_VERDICTS, f"graphs.{name}.passes[{index}].verdict")


def _check_cases(manifest: Manifest) -> None:
    dims = {dim.name for dim in manifest.dims}
    _unique((case.name for case in manifest.cases), "cases")
    for index, case in enumerate(manifest.cases):
        for dim, size in case.sizes.items():
            _known(dim, dims, "dims", f"cases[{index}].sizes")
            _within(size, 0, MAX_SIZE, f"cases[{index}].sizes.{dim}")
        _within(case.steps, 0, MAX_COUNT, f"cases[{index}].steps")


def _check_target(manifest: Manifest, key: str, target: TargetInfo, place: str) -> None:
    if key != f"{_name(target.target, place)}/{_name(target.precision, place)}":
        _wrong(place, f"the key is not {target.target}/{target.precision}")
    _one_of(target.status, STATUSES, f"{place}.status")
    _within(target.threads, 0, MAX_COUNT, f"{place}.threads")
    _check_budget(target.budget, f"{place}.budget")
    judged_by_eager = target.precision != "fp32" and target.way not in INTEGER
    if target.graphs and judged_by_eager and target.precision not in manifest.yardsticks:
        _wrong(f"{place}.graphs", f"there is no yardstick of {target.precision}", "it could not be judged")
    if target.graphs and target.graphs.keys() != manifest.graphs.keys():
        _wrong(f"{place}.graphs", "it names some of the graphs and not the others")
    # Of several graphs each has every form: a form is a role of theirs, not of the whole.
    prefixes = [""] if len(manifest.graphs) == 1 else [f"{graph}." for graph in manifest.graphs]
    for role in [prefix + form for form in target.forms for prefix in prefixes]:
        _known(role, target.files, f"{place}.files", f"{place}.forms")
    if target.status == "compiled" and not target.forms:
        _wrong(f"{place}.forms", "it is compiled and has no form that runs")


def _check_budget(budget: Budget, place: str) -> None:
    bounds = {"amplification": budget.amplification, "decibels": budget.decibels}
    bounds |= {f"losses.{metric}": bound for metric, bound in budget.losses.items()}
    for name, bound in bounds.items():
        if bound is not None and bound < (POOR if name == "decibels" else 0):
            _wrong(f"{place}.{name}", f"{bound:g} is no bound", "what is below that would be met by anything")


def _digest(text: str, place: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        _wrong(place, f"{_shown(text)} is no sha256: 64 digits of 0-9a-f")


def _within(number: int, low: int, high: int, place: str) -> None:
    if not low <= number <= high:
        _wrong(place, f"{number} is not within {low}..{high}")


def _one_of(text: str, allowed: Iterable[str], place: str) -> None:
    if text not in allowed:
        _wrong(place, f"{_shown(text)} is none of {', '.join(sorted(allowed))}")


def _known(name: str, known: Iterable[str], what: str, place: str) -> None:
    if name not in known:
        _wrong(place, f"{_shown(name)} is not in {what}")


def _unique(names: Iterable[str], place: str) -> None:
    seen: set[str] = set()
    for name in names:
        _name(name, place)
        if name in seen:
            _wrong(place, f"the name {name!r} is there twice")
        seen.add(name)
