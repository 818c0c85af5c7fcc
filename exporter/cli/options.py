"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")]
OptionalPath = Optional[Path]  # noqa: UP045  # typer reads it at run time, where Python 3.10 has no X | None in Annotated
Targets = Annotated[Optional[list[str]], typer.Option("--target", help="Only this target; may be repeated.")]  # noqa: UP045
Device = Annotated[int, typer.Option("--device", min=0, help="Which accelerator, where the machine has several.")]
TrustEngine = Annotated[
    bool, typer.Option("--trust-engine", help="Open engines that this user's machine did not build.")
]
