"""What ``MODEL`` says: where a model is to be found. Text only; nothing is opened or imported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from exporter import registry
from exporter.errors import Refused, nearest

# What files of data end in: programs that PyTorch exported, and graphs.
ENDINGS = {".pt2": "program", ".onnx": "graph"}
FILES = ("file", *ENDINGS.values())
IDENTIFIER = r"[A-Za-z_]\w*"


@dataclass(frozen=True)
class Place:
    """Where a model is.

    Attributes:
        kind: ``registered``, ``collection`` (a function of ours that
            takes a name after a colon), ``file`` or ``package`` (a
            function in one), ``program`` or ``graph``.
        place: the definition's name, the file, or the package's dotted name.
        name: what is asked for there; empty where the place says it all.
    """

    kind: str
    place: str
    name: str = ""

    @property
    def text(self) -> str:
        """It as ``MODEL``, files by their whole path: a child may stand in another folder."""
        place = str(Path(self.place).resolve()) if self.kind in FILES else self.place
        return f"{place}:{self.name}" if self.name else place

    @property
    def label(self) -> str:
        """A name for the bundle: letters, digits, dashes and dots."""
        text = self.name or (Path(self.place).stem if self.kind in FILES else self.place)
        return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "model"

    @property
    def shown(self) -> str:
        """It as a person says it, without where files lie on this machine."""
        place = Path(self.place).name if self.kind in FILES else self.place
        return f"{place}:{self.name}" if self.name else place


def placed(text: str) -> Place:
    """The place that ``MODEL`` names.

    Raises:
        Refused: ``unknown-model`` where it names none.
    """
    kind = ENDINGS.get(Path(text).suffix)
    if kind is not None:
        return _existing(Place(kind, text), text)
    before, colon, name = text.rpartition(":")
    if not colon and text.endswith(".py"):
        before, name = text, ""  # told below, with what is missing
    elif not colon:
        return Place("registered", text)
    if name and before in registry.collections():
        return Place("collection", before, name)
    if before.endswith(".py") and re.fullmatch(IDENTIFIER, name):
        return _existing(Place("file", before, name), before)
    if re.fullmatch(rf"{IDENTIFIER}(\.{IDENTIFIER})*", before) and re.fullmatch(IDENTIFIER, name):
        return Place("package", before, name)
    what = "function" if before.endswith(".py") else "model"
    raise Refused(
        "unknown-model",
        f"{text!r} names no {what}{nearest(before, registry.collections())}",
        where="MODEL",
        why="it is a name of exporter models, FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION, "
        + "".join(f"{name}:NAME, " for name in registry.collections())
        + f"or a file that ends in {' or '.join(ENDINGS)}",
        next=f"{before}:FUNCTION" if before.endswith(".py") else "exporter models",
    )


def _existing(place: Place, file: str) -> Place:
    if not Path(file).is_file():
        raise Refused(
            "missing-file",
            f"there is no file {file}",
            where=f"MODEL {place.shown}",
            why="the model is built by what is in it",
            next=f"ls {Path(file).parent}",
        )
    return place
