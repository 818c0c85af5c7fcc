"""``exporter profile``: how fast, here, on a device, or as a phone's own runner said."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exporter.cli import options, output
from exporter.cli.options import BundlePath, Device, Json, Model, On, OptionalPath, TargetOptions, Targets, TrustEngine

SECONDS = 6.0


def profile(
    bundle: BundlePath,
    target: Targets = None,
    checkpoint: Annotated[OptionalPath, typer.Option(help="The weights, so that eager can be timed too.")] = None,
    model: Model = "",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of every subject; 0 is all cores.")] = 0,
    seconds: Annotated[float, typer.Option(min=1.0, help="Time to measure for.")] = SECONDS,
    seed: Annotated[int, typer.Option(help="Seeds the order of blocks.")] = 0,
    save: Annotated[bool, typer.Option("--save", help="Keep the report, with every sample, in the bundle.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail unless STABLE.")] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also time every layer, and hold it against what this machine reaches.")
    ] = False,
    sustained: Annotated[
        str, typer.Option(metavar="TIME", help="Then run each artifact without a pause: 60s, 5m. Heat, clocks, energy.")
    ] = "",
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=A,B,..", help="Time sizes of a dim, or threads, against one another instead."),
    ] = None,
    import_: Annotated[
        list[Path] | None,
        typer.Option("--import", metavar="FILE", help="Time nothing: read what a phone's own runner printed (USE.md)."),
    ] = None,
    label: Annotated[str, typer.Option("--as", metavar="LABEL", help="What that phone is to be called.")] = "",
    option: TargetOptions = None,
    on: On = "",
    device: Device = 0,
    trust_engine: TrustEngine = False,
    json: Json = False,
) -> None:
    """Time a bundle's artifacts and eager PyTorch (where it is) against one another."""
    from exporter.cli import console, render
    from exporter.latency.subjects import Extras
    from exporter.latency.subjects import profile as measure
    from exporter.latency.sweep import Sweep
    from exporter.models.rebuild import Code
    from exporter.preflight import Opening
    from exporter.verification import refuse_missing_checkpoint

    if import_ or label:
        beside = {
            "--on": on, "--layers": layers, "--sustained": sustained, "--sweep": sweep, "--option": option,
            "--checkpoint": checkpoint, "--model": model, "--threads": threads, "--seconds": seconds != SECONDS,
            "--seed": seed,
        }  # fmt: skip
        options.refuse_beside_import(bool(import_), save, label, beside)
        from exporter.latency.imported import imported

        value = imported(bundle, target or (), import_ or (), label or "a phone", save)
        output.show(value, json, render.profiled)
        raise typer.Exit(output.profile_code(value) or output.strict_code(strict, value))
    if sweep:
        options.refuse_beside_sweep({"--layers": layers, "--sustained": sustained})
    refuse_missing_checkpoint(checkpoint)
    opening = Opening(device, trust_engine, options.run_options(target or [], option))
    extras = Extras(layers, options.seconds(sustained, "--sustained"), Sweep.parse(sweep or ()))
    with console.progress(json) as progress:
        if on:
            from exporter.devices import commands

            options.refuse_on(on, {"--model": model})
            how = {"seed": seed, "threads": threads, "seconds": seconds, "extras": extras.as_json()}
            value = commands.profile(on, bundle, target or (), how, progress, save, opening, checkpoint)
        else:
            code = Code(checkpoint, model)
            found = measure(bundle, target or (), code, seed, threads, seconds, progress, save, opening, extras)
            value = found.as_json()
    output.show(value, json, render.profiled)
    raise typer.Exit(output.profile_code(value) or output.strict_code(strict, value))
