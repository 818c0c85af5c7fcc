"""Commands. Each parses, calls one function of the core, and prints; heavy imports happen inside."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Optional

import typer

from exporter import registry
from exporter.cli import options, output
from exporter.cli.compare import compare
from exporter.cli.options import (
    BundlePath,
    Device,
    Json,
    Memory,
    Model,
    On,
    OptionalPath,
    TargetOptions,
    Targets,
    Timeout,
    TrustEngine,
)
from exporter.cli.profile import profile
from exporter.cli.report import report
from exporter.errors import Refused

app = typer.Typer(
    name="exporter",
    help="Ship a PyTorch model: trace, simplify, compile, verify, profile, and bundle it. Never OK and wrong.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ENDINGS = (signal.SIGINT, signal.SIGTERM)
COLLECTIONS = ", ".join(f"{name}:NAME" for name in registry.collections())
EXPORTS, BUNDLES, LISTS = "Export a model", "Work on a bundle", "Look around"


def _export_command(target: str) -> Callable[..., None]:
    def export(
        model: Annotated[
            str,
            typer.Argument(help=f"A name of exporter models, or your own: FILE.py:FUNCTION, {COLLECTIONS}, a .pt2."),
        ],
        folder: Annotated[
            OptionalPath, typer.Option("-o", "--output", help="The bundle; default MODEL.bundle.")
        ] = None,
        checkpoint: Annotated[OptionalPath, typer.Option(help="Weights; without it they are seeded noise.")] = None,
        precision: Annotated[
            str, typer.Option(help="Precision to compile for; auto is the fastest within the budget.")
        ] = "fp32",
        budget: Annotated[
            Optional[list[str]],  # noqa: UP045
            typer.Option(metavar="NAME:BOUND", help="What it may cost: amplification:2, snr:30 (dB), si-sdr:0.1."),
        ] = None,
        dim: Annotated[Optional[list[str]], typer.Option(help="NAME=MIN:OPT:MAX[:STEP] or NAME=VALUE.")] = None,  # noqa: UP045
        input_: Annotated[
            Optional[list[str]],  # noqa: UP045
            typer.Option("--input", metavar="NAME=SHAPE:TYPE", help="Of your own model: x=1x3xHxW, ids=1x9:i64:0:99."),
        ] = None,
        setting: Annotated[Optional[list[str]], typer.Option("--set", help="KEY=VALUE of the definition.")] = None,  # noqa: UP045
        samples: Annotated[OptionalPath, typer.Option(help="Real inputs to judge on: .wav .npz .safetensors.")] = None,
        calibration: Annotated[
            OptionalPath, typer.Option(help="Real inputs that int8 takes its scales from; apart from --samples.")
        ] = None,
        seed: Annotated[int, typer.Option(help="Seeds weights and the order of timings.")] = 0,
        threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves it to the runtime.")] = 0,
        replace: Annotated[bool, typer.Option("--replace", help="Give up another graph in the bundle.")] = False,
        profile: Annotated[bool, typer.Option("--profile/--no-profile", help="Measure latency.")] = True,
        strict: Annotated[bool, typer.Option("--strict", help="Fail unless the profile is STABLE.")] = False,
        option: TargetOptions = None,
        device: Device = 0,
        timeout: Timeout = 1800.0,
        memory: Memory = None,
        no_cache: Annotated[
            bool, typer.Option("--no-cache", help="Take no stage from the cache, and keep none there.")
        ] = False,
        json: Json = False,
    ) -> None:
        from exporter.cli import console, render
        from exporter.pipeline import export as run
        from exporter.request import Request

        request = Request(
            model=model, target=target, output=folder, checkpoint=checkpoint, precision=precision,
            dims=tuple(dim or ()), inputs=tuple(input_ or ()), settings=options.settings(setting or []),
            samples=samples, calibration=calibration, budget=tuple(budget or ()), seed=seed, threads=threads,
            replace=replace, profile=profile, extra=options.target_options(target, option), device=device,
            limits=options.limits(timeout, memory), cache=not no_cache,
        )  # fmt: skip
        with console.progress(json) as progress:
            exported = run(request, progress)
        output.show(exported.as_json(), json, render.exported)
        code = exported.verification.verdict.exit_code
        profiled = exported.profile.as_json() if exported.profile else None
        raise typer.Exit(code or output.strict_code(strict, profiled))

    export.__doc__ = f"Export MODEL for {target}."
    return export


for _target in registry.target_names():
    app.command(_target, rich_help_panel=EXPORTS)(_export_command(_target))


@app.command("compile", rich_help_panel=BUNDLES)
def compile_(
    bundle: BundlePath,
    target: Annotated[str, typer.Option(help="The target to compile for.")],
    precision: Annotated[str, typer.Option(help="Precision to compile for.")] = "fp32",
    option: TargetOptions = None,
    device: Device = 0,
    on: On = "",
    timeout: Timeout = 1800.0,
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Compile a bundle's graph on the machine that has the runtime, and verify it there."""
    from exporter import pipeline
    from exporter.cli import console, render

    extra, limits = options.target_options(target, option), options.limits(timeout, memory)
    with console.progress(json) as progress:
        if on:
            from exporter.devices import commands

            there = {"timeout": timeout, "memory": memory}
            value = commands.compile_(on, bundle, target, precision, there, progress, extra, device)
        else:
            value = pipeline.compile_bundle(bundle, target, precision, limits, progress, extra, device).as_json()
    output.show(value, json, render.exported)
    raise typer.Exit(output.verify_code(value))


@app.command(rich_help_panel=BUNDLES)
def verify(
    bundle: BundlePath,
    target: Targets = None,
    samples: Annotated[OptionalPath, typer.Option(help="Real inputs to judge on as well (needs torch).")] = None,
    checkpoint: Annotated[OptionalPath, typer.Option(help="The weights, for the reference of --samples.")] = None,
    model: Model = "",
    junit: Annotated[OptionalPath, typer.Option(help="Also write the verdicts as JUnit XML.")] = None,
    save: Annotated[bool, typer.Option("--save", help="Keep the report in the bundle.")] = False,
    on: On = "",
    device: Device = 0,
    trust_engine: TrustEngine = False,
    timeout: Timeout = 1800.0,
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Verify a bundle's artifacts here; needs neither PyTorch nor the model's code."""
    from exporter.cli import console, render
    from exporter.models.rebuild import Code
    from exporter.preflight import Opening
    from exporter.verification import verify as check

    opening, limits = Opening(device, trust_engine), options.limits(timeout, memory)
    if junit is not None:
        output.refuse_unwritable("--junit", junit, "FILE.xml")
    with console.progress(json) as progress:
        if on:
            from exporter.devices import commands

            options.refuse_on(on, {"--samples": samples, "--checkpoint": checkpoint, "--model": model})
            there = {"timeout": timeout, "memory": memory}
            value = commands.verify(on, bundle, target or (), there, progress, save, opening)
        else:
            code = Code(checkpoint, model)
            value = check(bundle, target or (), samples, code, limits, progress, save, opening).as_json()
    if junit is not None:
        output.write_junit(junit, value)
    output.show(value, json, render.verified)
    raise typer.Exit(output.verify_code(value))


app.command(rich_help_panel=BUNDLES)(profile)


@app.command(rich_help_panel=BUNDLES)
def diagnose(
    bundle: BundlePath,
    target: Annotated[str, typer.Option(metavar="NAME[/PRECISION]", help="Only this target.")] = "",
    case: Annotated[str, typer.Option(metavar="NAME", help="Only this case; the smallest that fail otherwise.")] = "",
    simplify_pass: Annotated[
        str, typer.Option("--pass", metavar="NAME", help="A simplify pass that was dropped.")
    ] = "",
    folder: Annotated[
        OptionalPath,
        typer.Option("-o", "--output", help="The bundle of what fails by itself; default NAME.failing.bundle."),
    ] = None,
    checkpoint: Annotated[OptionalPath, typer.Option(help="The weights, where tracing is to blame.")] = None,
    model: Model = "",
    device: Device = 0,
    trust_engine: TrustEngine = False,
    timeout: Timeout = 1800.0,
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Find the first node whose answer is wrong, in the first hop that fails; write what fails by itself."""
    from exporter.cli import console, render_diagnosis
    from exporter.diagnose import diagnose as find
    from exporter.models.rebuild import Code
    from exporter.preflight import Opening

    limits, opening = options.limits(timeout, memory), Opening(device, trust_engine)
    with console.progress(json) as progress:
        code = Code(checkpoint, model)
        found = find(bundle, target, case, simplify_pass, folder, code, limits, progress, opening)
    output.show(found.as_json(), json, render_diagnosis.diagnosed)
    raise typer.Exit(found.verdict.exit_code)


@app.command(rich_help_panel=BUNDLES)
def run(
    bundle: BundlePath,
    input: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A recording, a picture, or named arrays; a folder of pictures named after the inputs.",
        ),
    ],
    target: Annotated[str, typer.Option(help="The target to run.")],
    to: Annotated[Path, typer.Option("-o", "--output", help="The file to write: .wav, .png, .pfm, .json or .npz.")],
    dim: Annotated[list[str] | None, typer.Option(metavar="NAME=COUNT", help="How often a repeated part runs.")] = None,
    on: On = "",
    device: Device = 0,
    trust_engine: TrustEngine = False,
    json: Json = False,
) -> None:
    """Run one real input through an artifact, with the model's steps before and after; needs no PyTorch."""
    from exporter.cli import console, render
    from exporter.preflight import Opening
    from exporter.run import run_file

    opening = Opening(device, trust_engine)
    with console.progress(json) as progress:
        if on:
            from exporter.devices import commands

            value = commands.run(on, bundle, target, input, to, dim or (), progress, opening)
        else:
            value = run_file(bundle, target, input, to, None, progress, dim or (), opening)
    output.show({"schema": "exporter.run/1", "output": str(to), **value}, json, render.ran)


app.command(rich_help_panel=BUNDLES)(compare)
app.command(rich_help_panel=BUNDLES)(report)


@app.command(rich_help_panel=BUNDLES)
def inspect(bundle: BundlePath, json: Json = False) -> None:
    """Show what a bundle holds, after checking every file against its digest."""
    from exporter.cli import render
    from exporter.looking import inspected

    output.show(inspected(bundle), json, render.inspected)


@app.command(rich_help_panel=LISTS)
def models(name: Annotated[Optional[str], typer.Argument(help="Only this one.")] = None, json: Json = False) -> None:  # noqa: UP045
    """List the model definitions, with their inputs, dims, state and sources."""
    from exporter.cli import render
    from exporter.looking import listed_models

    output.show(listed_models(name), json, render.models)


@app.command(rich_help_panel=EXPORTS)
def init(
    model: Annotated[str, typer.Argument(help="FILE.py:FUNCTION or PACKAGE:FUNCTION of your own.")],
    file: Annotated[OptionalPath, typer.Option("-o", "--output", help="The file; default beside yours.")] = None,
    input_: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--input", metavar="NAME=SHAPE:TYPE", help="What it takes, where it has no example."),
    ] = None,
    dim: Annotated[Optional[list[str]], typer.Option(help="NAME=MIN:OPT:MAX of a dim in an --input.")] = None,  # noqa: UP045
    setting: Annotated[Optional[list[str]], typer.Option("--set", help="KEY=VALUE of the function.")] = None,  # noqa: UP045
    samples: Annotated[OptionalPath, typer.Option(help="Real inputs, where it has no example.")] = None,
    timeout: Timeout = 1800.0,
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Write a commented definition of a model of your own, to be gone on from."""
    from exporter.cli import console, render
    from exporter.models.scaffold import scaffold
    from exporter.request import Request

    request = Request(
        model=model, target="", dims=tuple(dim or ()), inputs=tuple(input_ or ()),
        settings=options.settings(setting or []), samples=samples, limits=options.limits(timeout, memory),
    )  # fmt: skip
    with console.progress(json) as progress:
        path, name = scaffold(request, file, progress)
    output.show({"schema": "exporter.init/1", "file": str(path), "model": name}, json, render.written)


@app.command(rich_help_panel=LISTS)
def targets(json: Json = False) -> None:
    """List the targets, whether each can run here, and what is missing."""
    from exporter.cli import render
    from exporter.looking import listed_targets

    output.show(listed_targets(), json, render.targets)


@app.command(rich_help_panel=LISTS)
def doctor(on: On = "", json: Json = False) -> None:
    """Check this machine, or another: versions, runtimes, what would stand in the way."""
    from exporter.cli import console, render
    from exporter.looking import diagnosed

    if on:
        from exporter.devices import commands

        with console.progress(json) as progress:
            found = commands.doctor(on, progress)
    else:
        found = diagnosed()
    output.show(found, json, render.doctor)
    raise typer.Exit(0 if found["ok"] else 3)


@app.command(rich_help_panel=LISTS)
def cache(
    prune: Annotated[bool, typer.Option("--prune", help="Remove what is damaged, or over the limit.")] = False,
    older_than: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="TIME", help="With --prune: also what was not used for so long, such as 7d or 12h."),
    ] = None,
    max_size: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="SIZE", help="With --prune: keep no more than this, such as 2G."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="With --prune: all of it.")] = False,
    json: Json = False,
) -> None:
    """Show what exports keep of their stages for the next one, or prune it. EXPORTER_CACHE_MB bounds it; 0 is none."""
    from exporter.cache import listing, of_this_user
    from exporter.cli import render

    if not prune and (everything or older_than is not None or max_size is not None):
        why = "what is listed is never removed by looking at it"
        raise Refused(
            "bad-option", "what to prune is said without --prune", why=why, next="exporter cache --prune --all"
        )
    own = of_this_user()
    found = listing.pruned(own, older_than, max_size, everything) if prune else listing.listed(own)
    output.show(found, json, render.cached)


@app.command(rich_help_panel=LISTS)
def explain(code: Annotated[str, typer.Argument(help="The word in error[...].")]) -> None:
    """Explain an error code: what it means, why the rule exists, what to do."""
    from exporter.explain import page

    print(page(code))


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from exporter import __version__

        print(f"exporter {__version__}")
        raise typer.Exit(0)


def main() -> None:
    """The entry of the ``exporter`` command: every way out has its documented exit code."""
    for number in ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as for a command in the background
            signal.signal(number, _ended)
    sys.exit(output.guarded(app, as_json="--json" in sys.argv[1:]))


def _ended(*_: object) -> None:
    """Ctrl-C, and a polite kill: children gone, staging gone. A second one must not disturb the cleaning up."""
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
