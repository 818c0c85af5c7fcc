"""The commands as a device runs them: values in, values out, by the same functions that run them anywhere."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.isolate import Limits

if TYPE_CHECKING:  # a device is looked at before it has what these import
    from exporter.preflight import Opening
    from exporter.stages import Progress

Asked = Mapping[str, Any]


def done(command: str, bundle: Path, own: Path, asked: Asked, progress: Progress) -> dict[str, Any]:
    """Runs a command and gives its object, as ``--json`` prints it.

    Args:
        command: its name.
        bundle: the bundle's folder here.
        own: the folder of files that came for this run alone.
        asked: its options, as values.
        progress: told what happens.
    """
    return dict(_finite(COMMANDS[command](bundle, own, asked, progress)))


def doctor(folder: Path) -> dict[str, Any]:
    """The object of ``exporter doctor`` here, and what is kept in our folder."""
    from exporter.looking import diagnosed

    found = diagnosed()
    return {**found, "machine": {**found["machine"], "kept_here_bytes": kept(folder)}}


def kept(folder: Path) -> int:
    """The bytes in a folder, in which another command may be working."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(place, name).stat().st_size
    return total


def lacking(runtimes: Sequence[str]) -> list[str]:
    """Which of these this Python has not; none is imported."""
    return [name for name in runtimes if find_spec(name.replace("-", "_")) is None]


def _verify(bundle: Path, _: Path, asked: Asked, progress: Progress) -> Asked:
    from exporter.verification import verify

    found = verify(bundle, asked["targets"], limits=_limits(asked), progress=progress, opening=_opening(asked))
    return found.as_json()


def _profile(bundle: Path, own: Path, asked: Asked, progress: Progress) -> Asked:
    from exporter.latency.subjects import Extras, profile
    from exporter.models.rebuild import Code

    code = Code(own / "checkpoint" / asked["checkpoint"] if asked["checkpoint"] else None)
    found = profile(
        bundle, asked["targets"], code, asked["seed"], asked["threads"], asked["seconds"], progress, False,
        _opening(asked), Extras.from_json(asked["extras"]),
    )  # fmt: skip
    return {"shown": found.as_json(), "kept": found.as_json(raw=True) if asked["save"] else None}


def _run(bundle: Path, own: Path, asked: Asked, progress: Progress) -> Asked:
    from exporter.run import run_file

    given, output = own / "input" / asked["input"], own / asked["output"]
    return run_file(bundle, asked["target"], given, output, None, progress, asked["dims"], _opening(asked))


def _compile(bundle: Path, _: Path, asked: Asked, progress: Progress) -> Asked:
    from exporter.pipeline import compile_bundle

    made = compile_bundle(
        bundle, asked["target"], asked["precision"], _limits(asked), progress, asked["extra"], asked["device"]
    )
    return {"shown": made.as_json(), "bytes": (bundle / "manifest.json").stat().st_size}


COMMANDS: dict[str, Callable[[Path, Path, Asked, Progress], Asked]] = {
    "verify": _verify, "profile": _profile, "run": _run, "compile": _compile,
}  # fmt: skip


def _limits(asked: Asked) -> Limits:
    """What was asked for; of memory, where nothing was, what this device has."""
    memory = asked["memory"]
    return Limits(asked["timeout"], memory * 2**20) if memory else Limits(asked["timeout"])


def _opening(asked: Asked) -> Opening:
    from exporter.preflight import Opening

    return Opening(asked["device"], asked["trust"], asked["options"])


def _finite(value: Any) -> Any:
    """Numbers that JSON has: one that is none, or has no end, is not known."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
