"""``exporter compare``: two bundles, or two reports of one, side by side; a gate for a pull request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exporter.cli import output
from exporter.cli.options import Device, Json, OptionalPath, Targets, TrustEngine
from exporter.errors import Refused

Place = "BUNDLE, BUNDLE@REPORT, or a file of --json"


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=f"What was: {Place}.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What is.")],
    target: Targets = None,
    max_slowdown: Annotated[
        str, typer.Option(metavar="PART", help="A shown slow-down counts from here on; 5% where not said.")
    ] = "",
    max_error: Annotated[
        str, typer.Option(metavar="TIMES", help="An error counts from so many times what it was; 2x where not said.")
    ] = "",
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Fail where it is not settled whether a slow-down is beyond what is allowed."),
    ] = False,
    stored: Annotated[bool, typer.Option("--stored", help="Time nothing: compare what reports hold.")] = False,
    across_devices: Annotated[
        bool, typer.Option("--across-devices", help="Compare what different devices said all the same.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=1.0, help="Time to measure each artifact for, at most.")] = 60.0,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads; 1 is timed by the processor's clock; 0 is all cores.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seeds the order of processes and blocks.")] = 0,
    device: Device = 0,
    trust_engine: TrustEngine = False,
    junit: Annotated[OptionalPath, typer.Option(help="Also write what was compared as JUnit XML.")] = None,
    markdown: Annotated[
        OptionalPath, typer.Option(metavar="FILE", help="Also write it as Markdown, for a pull request; - is stdout.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare two bundles, or two reports: parity, latency, size, layers, versions; 1 where B regressed."""
    from exporter.cli import console, render_comparison
    from exporter.comparison import Bounds, Measuring
    from exporter.comparison import compare as compared
    from exporter.preflight import Opening

    slowdown, error = _number("--max-slowdown", max_slowdown, "%"), _number("--max-error", max_error, "x")
    bounds = Bounds.of(None if slowdown is None else slowdown / 100, error, strict)
    _refuse_places(junit, markdown, json)
    measuring = None if stored else Measuring(seconds, threads, seed, Opening(device, trust_engine))
    with console.progress(json) as progress:
        found = compared(a, b, target or (), bounds, across_devices, measuring, progress)
    value = found.as_json()
    if junit is not None:
        output.write_page(junit, render_comparison.junit(value))
    if markdown is not None and str(markdown) != "-":
        output.write_page(markdown, render_comparison.markdown(value).encode())
    if str(markdown) == "-":
        print(render_comparison.markdown(value), end="")
    else:
        output.show(value, json, render_comparison.compared)
    raise typer.Exit(found.exit_code)


def _number(option: str, text: str, unit: str) -> float | None:
    """``5%`` or ``2x`` as a number; the unit must be there for parts, whose bare number could mean either."""
    if not text:
        return None
    least = 0.0 if unit == "%" else 1.0
    bare = text[: -len(unit)] if text.endswith(unit) else text if unit == "x" else ""
    try:
        number = float(bare)
    except ValueError:
        number = -1.0
    if not least <= number < float("inf"):
        why = "a part is said in per cent, 0 or more" if unit == "%" else "a factor is 1 or more"
        raise Refused("bad-option", f"{option} {text} is not {'PART%' if unit == '%' else 'TIMES'}", why=why,
                      next=f"{option} {'5%' if unit == '%' else '2x'}")  # fmt: skip
    return number


def _refuse_places(junit: Path | None, markdown: Path | None, json: bool) -> None:
    if junit is not None:
        output.refuse_unwritable("--junit", junit, "FILE.xml")
    if markdown is not None and str(markdown) != "-":
        output.refuse_unwritable("--markdown", markdown, "FILE.md")
    if str(markdown) == "-" and json:
        why = "standard output holds one JSON object, or one page of Markdown"
        raise Refused("bad-option", "--markdown - and --json print to the same place", why=why, next="--markdown FILE")
