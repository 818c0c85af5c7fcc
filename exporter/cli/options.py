"""Options that several commands share, and what their texts mean; refused before any work."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from exporter import registry
from exporter.errors import Refused

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds each stage may take.")]
Memory = Annotated[Optional[int], typer.Option("--memory", help="Megabytes each stage may use.")]  # noqa: UP045
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")]
Targets = Annotated[Optional[list[str]], typer.Option("--target", help="Only this target; may be repeated.")]  # noqa: UP045
TargetOptions = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--option", metavar="NAME=VALUE", help="An option of the target alone: exporter targets."),
]
Device = Annotated[int, typer.Option("--device", min=0, help="Which accelerator, where the machine has several.")]
Model = Annotated[
    str, typer.Option("--model", help="MODEL of your own, as exported: a bundle never says which code to run.")
]
TrustEngine = Annotated[
    bool, typer.Option("--trust-engine", help="Open engines that this user's machine did not build.")
]
On = Annotated[
    str,
    typer.Option("--on", metavar="DEVICE", help="Do it on another device: ssh://user@host[:port], or arm64, emulated."),
]
OptionalPath = Optional[Path]  # noqa: UP045  # typer reads it at run time, where Python 3.10 has no X | None in Annotated


def limits(timeout: float, memory: int | None) -> Any:
    """What each stage may use: seconds, and megabytes where they are said.

    Raises:
        Refused: ``bad-option`` for what leaves no room.
    """
    from exporter.isolate import Limits

    if not 0 < timeout < float("inf") or (memory is not None and memory <= 0):
        given = f"--memory {memory}" if 0 < timeout < float("inf") else f"--timeout {timeout:g}"
        why = "a limit is a positive number: of seconds, or of megabytes"
        raise Refused("bad-option", f"{given} leaves no stage any room", why=why, next="--timeout 1800 --memory 8000")
    return Limits(seconds=timeout, memory_bytes=memory * 2**20) if memory else Limits(seconds=timeout)


def settings(pairs: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts; a value that reads as a number or truth value is one."""
    import json

    settings: dict[str, Any] = {}
    for pair in pairs:
        key, found, text = pair.partition("=")
        if not found or not key:
            raise Refused("bad-option", f"--set {pair} is not KEY=VALUE", next="--set KEY=VALUE")
        try:
            settings[key] = json.loads(text)
        except ValueError:
            settings[key] = text
    return settings


def target_options(target: str, pairs: list[str] | None, when: str = "") -> dict[str, Any]:
    """``NAME=VALUE`` texts as options of a target."""
    from exporter import target_options as own

    return own.target_options(registry.target(target), pairs, when) if pairs else {}


def run_options(targets: list[str], pairs: list[str] | None) -> dict[str, Any]:
    """Options chosen anew at this run, of the one target that was named."""
    if not pairs:
        return {}
    if len(targets) != 1:
        why = "an option is one target's own: another may not have it, or mean another thing by it"
        raise Refused("bad-option", "--option needs one --target", why=why, next=f"--target TARGET --option {pairs[0]}")
    return target_options(targets[0].partition("/")[0], pairs, "run")


def refuse_on(on: str, given: Mapping[str, object]) -> None:
    """Refuses options that need what no device has: the model's own code, or PyTorch for a reference."""
    for option, value in given.items():
        if value:
            raise Refused(
                "bad-option", f"{option} is for this machine, and --on {on!a} is another", where=f"--on {on!a}",
                why="a device gets a bundle and no code of yours; a reference is computed where PyTorch is",
                next=f"leave out {option}, or --on; samples that an export was given travel in its bundle",
            )  # fmt: skip


def seconds(text: str, option: str) -> float:
    """The seconds that ``60``, ``60s``, ``5m`` or ``1h`` are; 0 for an empty text.

    Raises:
        Refused: ``bad-usage``.
    """
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]+)?)(s|m|h|)", text.strip())
    if text and (found is None or float(found[1]) <= 0):
        raise Refused(
            "bad-usage", f"{option} {text} is no time", where=f"option {option}",
            why="it is a number of seconds, or one with s, m or h behind it", next=f"{option} 60s",
        )  # fmt: skip
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0


def refuse_beside_sweep(given: Mapping[str, object]) -> None:
    """Refuses what a sweep does not do: its points are timed, and nothing else."""
    beside = next((option for option, value in given.items() if value), "")
    if beside:
        raise Refused(
            "bad-option", f"--sweep and {beside} are two runs", why="the points of a sweep are timed, and nothing else",
            next=f"exporter profile BUNDLE {beside}, and --sweep by itself",
        )  # fmt: skip


def refuse_beside_import(files: bool, save: bool, label: str, given: Mapping[str, object]) -> None:
    """Refuses what would measure beside ``--import``, which measures nothing; and ``--as`` without it."""
    beside = next((option for option, value in given.items() if value), "")
    if files and save and not label:
        raise Refused("bad-option", "--save needs a name for that phone", next="--as 'Pixel 8 cpu'",
                      why="under one name the figures of two phones would replace each other")  # fmt: skip
    if not files or beside:
        what = f"{beside} and --import are two things" if files else "--as names a phone whose files nobody gave"
        raise Refused("bad-option", what, why="what was measured elsewhere is read, and nothing is measured here",
                      next="--import FILE [--import FILE] --as LABEL")  # fmt: skip
