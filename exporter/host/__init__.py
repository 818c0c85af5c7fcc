"""Host-side steps: what happens on the CPU before and after the graph. numpy only, addressed by name from a manifest.

A step is a function ``(values, **options) -> values`` on a dict of named arrays; :data:`STEPS` lists them all, so a
bundle runs on a device without the model's code. A step before the graph may leave a *record* for one after it
(``NAME.size``, ``NAME.tiles``, ``NAME.samples``): whoever runs the graph hands the records on, :func:`records`. An
option may be ``"H.min"`` or ``"H.max"``, a bound of dim ``H`` as ``--dim`` has left it, or ``"H.unit"``, what all its
sizes are multiples of: so a picture is padded and tiled to what the graph takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from exporter.errors import Refused, nearest
from exporter.host import frames, images, results, spectrum, tiles
from exporter.host.values import Values, is_record, records
from exporter.spec import Dim, HostStep

__all__ = ["STEPS", "Values", "apply", "is_record", "names_after", "records"]

STEPS: Mapping[str, Callable[..., Values]] = {
    "clamp": images.clamp,
    "crop": tiles.crop,
    "disparity": results.disparity,
    "frames": frames.frames,
    "image": images.image,
    "istft": spectrum.istft,
    "normalise": images.normalise,
    "pad": tiles.pad,
    "resize": images.resize,
    "score": results.score,
    "stft": spectrum.stft,
    "tile": tiles.tile,
    "unframe": frames.unframe,
    "untile": tiles.untile,
}

# What a step calls its result where its options do not say so.
GIVES = {
    "disparity": ("disparity",),
    "istft": ("audio", "sample_rate"),
    "score": ("score",),
    "unframe": ("audio", "sample_rate"),
}


def apply(steps: Sequence[HostStep], values: Values, dims: Sequence[Dim] = ()) -> Values:
    """Runs steps in order.

    Args:
        steps: from a definition or a manifest.
        values: named arrays to start from.
        dims: those of the model, for options such as ``"H.max"``.

    Raises:
        Refused: ``unknown-step`` for a name that is not in :data:`STEPS`, or whatever a step refuses.
    """
    bounds = {f"{dim.name}.{bound}": getattr(dim, bound) for dim in dims for bound in ("min", "max", "unit")}
    for step in steps:
        values = values | _step(step.step)(values, **_keywords(step.options, bounds))
    return values


def names_after(steps: Sequence[HostStep], names: Iterable[str]) -> list[str]:
    """The names of the values there are after the steps, for a start with ``names``: known before anything runs."""
    found = list(names)
    for step in steps:
        given = (step.options["to"],) if "to" in step.options else ()
        found += [*given, *(name for name in GIVES.get(step.step, ()) if not given or name == "sample_rate")]
    return list(dict.fromkeys(found))


def _step(name: str) -> Callable[..., Values]:
    if name not in STEPS:
        raise Refused(
            "unknown-step",
            f"no host step is called {name!r}{nearest(name, list(STEPS))}",
            why="host steps are the functions of exporter/host, named in the manifest; nothing else is ever run",
            next="open the bundle with the version of exporter that wrote it, or a newer one",
        )
    return STEPS[name]


def _keywords(options: Mapping[str, Any], bounds: Mapping[str, int]) -> dict[str, Any]:
    """Options as the arguments of a step: bounds of dims as numbers, and no argument named by a Python keyword."""
    names = {"from": "source", "to": "result"}
    return {names.get(key, key): _bounded(value, bounds) for key, value in options.items()}


def _bounded(value: Any, bounds: Mapping[str, int]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_bounded(entry, bounds) for entry in value]
    return bounds.get(value, value) if isinstance(value, str) else value
