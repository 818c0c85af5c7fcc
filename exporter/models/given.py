"""``--input NAME=SHAPE[:TYPE[:LOW:HIGH]]``: what a user says of an input of their own model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from exporter.errors import Refused
from exporter.spec import Dim, Tensor, factors_of, sizes_in

TYPES = {
    "f16": "float16", "f32": "float32", "f64": "float64", "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64",
    "u8": "uint8", "bool": "bool",
}  # fmt: skip
# The range of whole numbers of which nobody said one, as long as that may still be found.
UNSAID = (0.0, 0.0)
GUESS = "drawn from 0..1, for nothing says which whole numbers it may be"
EXAMPLE = "--input x=1x3x224x224:f32"
FORM = re.compile(r"(?P<name>[^=]+)=(?P<shape>[^:]*)(:(?P<type>\w+)(:(?P<low>[-+.\deE]+):(?P<high>[-+.\deE]+))?)?")


def given_inputs(texts: Sequence[str]) -> tuple[Tensor, ...]:
    """The inputs that were said, in order.

    A size is a number or names a dim, or a part or multiple of one: ``x=1x3xHxW``, ``y=1,3,H/4,W``.

    Raises:
        Refused: ``bad-input``.
    """
    found = tuple(_given(text) for text in texts)
    names = [tensor.name for tensor in found]
    for name in names:
        if names.count(name) > 1:
            raise _bad(f"--input {name}=... is given twice", "an input has one shape and one type")
    return found


def with_ranges(
    inputs: Sequence[Tensor], texts: Sequence[str], tables: Mapping[str, int], shown: str
) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
    """The inputs of a file, which says what they are and not which numbers they may have.

    Args:
        inputs: as the file has them.
        texts: of ``--input``, which may give a range to each.
        tables: by name how many entries there are of what an input is an index of.
        shown: the file, for errors.

    Returns:
        The inputs with their ranges, each with how it came to it as its meaning, and what is to be told of guesses.

    Raises:
        Refused: ``bad-input`` for an input that the file has not, or has in another shape or type.
    """
    said = {tensor.name: tensor for tensor in given_inputs(texts)}
    known = {tensor.name: tensor for tensor in inputs}
    for name, tensor in said.items():
        same = known.get(name)
        if same is None or (same.shape, same.dtype) != (tensor.shape, tensor.dtype):
            raise _bad(
                f"--input {name}=... is no input of {shown} in that shape and type",
                f"{shown} has its inputs already, of which the range alone may be said: "
                + ", ".join(map(text_of, inputs)),
                f"--input {text_of(same or inputs[0])}:0:99",
            )
    ranged = tuple(_ranged(tensor, said.get(tensor.name), tables.get(tensor.name, 0)) for tensor in inputs)
    guessed = [tensor for tensor in ranged if tensor.meaning == GUESS]
    notes = [f"input {tensor.name}: {GUESS}; give --input {text_of(tensor)}:0:99" for tensor in guessed]
    return ranged, tuple(notes)


def _ranged(tensor: Tensor, said: Tensor | None, entries: int) -> Tensor:
    if said is not None and not unsaid(said):
        return replace(tensor, low=said.low, high=said.high, meaning="in the range of --input")
    if not is_whole(tensor.dtype):
        return tensor
    found = indexing(tensor, entries)
    return found if not unsaid(found) else replace(found, low=0.0, high=1.0, meaning=GUESS)


def indexing(tensor: Tensor, entries: int) -> Tensor:
    """An input in the range of the table that it is an index of; itself where it is of none."""
    if not is_whole(tensor.dtype) or entries < 2:
        return tensor
    return replace(tensor, low=0.0, high=entries - 1.0, meaning=f"index of one of {entries} entries")


def unsaid(tensor: Tensor) -> bool:
    """Whether nothing says yet which whole numbers an input may be."""
    return is_whole(tensor.dtype) and (tensor.low, tensor.high) == UNSAID


def refuse_unsaid(inputs: Sequence[Tensor]) -> None:
    """Refuses whole numbers without a range.

    Raises:
        Refused: ``bad-input``.
    """
    for tensor in filter(unsaid, inputs):
        text = f"--input {text_of(tensor)}"
        why = "numbers that the model does not know, such as tokens beyond its table, would make it fail"
        raise _bad(f"{text}: nothing says which whole numbers it may be", why, f"{text}:0:99")


def is_whole(dtype: str) -> bool:
    """Whether a type has whole numbers, more than the two of truth values."""
    return dtype.startswith(("int", "uint"))


def text_of(tensor: Tensor) -> str:
    """An input as ``--input`` says it, without its range."""
    short = {long: short for short, long in TYPES.items()}
    return f"{tensor.name}={','.join(map(str, tensor.shape))}:{short.get(tensor.dtype, tensor.dtype)}"


def given_dims(texts: Sequence[str], inputs: Sequence[Tensor]) -> tuple[Dim, ...]:
    """The dims that the shapes of inputs name, each with the range that ``--dim`` gives it.

    Raises:
        Refused: ``bad-dim`` for a dim without a range, or a range of no dim.
    """
    named = list(dict.fromkeys(factors_of(e)[0] for t in inputs for e in t.shape if isinstance(e, str)))
    ranges = dict(text.partition("=")[::2] for text in texts)
    if len(ranges) < len(texts):
        raise Refused(
            "bad-dim",
            f"--dim is given twice for one of {', '.join(ranges)}",
            where="--dim",
            why="a dim has one range",
            next="leave one of them out",
        )
    for name in [*named, *ranges]:
        if name not in ranges or name not in named:
            what = f"{name} has no range" if name in named else f"--dim {name}={ranges[name]} names no axis of an input"
            raise Refused(
                "bad-dim",
                what,
                where=f"--input {', '.join(t.name for t in inputs)}" if inputs else "--dim",
                why="a dim is a name in the shape of an --input, with the sizes that it may have",
                next=f"--dim {name}=1:4:16" if name in named else f"--input x=1x3x{name}x{name} --dim {name}=32:64:128",
            )
    return tuple(dim_of(name, ranges[name]) for name in named)


def dim_of(name: str, text: str) -> Dim:
    """The dim that ``--dim NAME=TEXT`` says.

    Raises:
        Refused: ``bad-dim``.
    """
    numbers = sizes_in(text)
    if not numbers:
        raise Refused(
            "bad-dim",
            f"--dim {name}={text} is neither a size nor MIN:OPT:MAX[:STEP]",
            why="a dim's sizes are tested from the least to the largest",
            next=f"--dim {name}=32:64:128",
        )
    low, opt, high = numbers[:3]
    return Dim(name, low, opt, high, numbers[3] if len(numbers) == 4 else 1)


def _given(text: str) -> Tensor:
    found = FORM.fullmatch(text)
    if found is None:
        raise _bad(f"--input {text} is not NAME=SHAPE[:TYPE[:LOW:HIGH]]", "a shape is what a graph is made for")
    name, kind = found["name"], found["type"] or "f32"
    dtype = TYPES.get(kind, kind)
    if dtype not in TYPES.values():
        raise _bad(f"--input {text}: {kind} is no type", f"types are {', '.join(TYPES)}")
    low, high = _range(text, dtype, found["low"], found["high"])
    return Tensor(name, _shape(text, found["shape"]), "", dtype, low, high)


def _shape(text: str, shape: str) -> tuple[int | str, ...]:
    entries = shape.split("," if "," in shape else "x") if shape else []  # a dim's name may hold an x: then commas
    sizes = tuple(int(entry) if entry.isdigit() else entry.strip() for entry in entries)
    for size in sizes:
        if isinstance(size, str):
            factors_of(size)
        elif size < 1:
            raise _bad(f"--input {text}: a size is {size}", "nothing could be compared of an empty input")
    return sizes


def _range(text: str, dtype: str, low: str | None, high: str | None) -> tuple[float, float]:
    whole = is_whole(dtype)
    if low is None or high is None:
        return UNSAID if whole else (0.0, 1.0) if dtype == "bool" else (-1.0, 1.0)
    try:
        values = float(low), float(high)
    except ValueError:
        raise _bad(f"--input {text}: {low}:{high} is no range", "LOW and HIGH are numbers") from None
    if not values[0] < values[1] or (whole and not (values[0].is_integer() and values[1].is_integer())):
        raise _bad(f"--input {text}: {low}:{high} is no range", "LOW lies below HIGH, whole where the input is")
    return values


def _bad(what: str, why: str, next: str = EXAMPLE) -> Refused:
    return Refused("bad-input", what, where="--input", why=why, next=next)
