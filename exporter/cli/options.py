"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")]
OptionalPath = Optional[Path]  # noqa: UP045  # typer reads it at run time, where Python 3.10 has no X | None in Annotated
