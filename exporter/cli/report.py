"""``exporter report``: one page of all that a bundle holds."""

from __future__ import annotations

from typing import Annotated

import typer

from exporter.cli import output
from exporter.cli.options import BundlePath, Json, OptionalPath


def report(
    bundle: BundlePath,
    to: Annotated[
        OptionalPath, typer.Option("-o", "--output", help="The page; default MODEL.report.html beside the bundle.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a file that is no report of ours.")] = False,
    json: Json = False,
) -> None:
    """Write one HTML page of all that a bundle holds: verdicts, errors, latencies, what the model gives."""
    from exporter.cli import render
    from exporter.report import written

    page = written(bundle, to, replace)
    output.show({"schema": "exporter.report/1", "page": str(page), "bytes": page.stat().st_size}, json, render.reported)
