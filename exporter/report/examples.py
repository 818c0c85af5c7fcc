"""What people look at and listen to of a bundle's real inputs: given, right, and what each artifact gave.

It is gathered in a child: host steps run on what a bundle says, which may come from anyone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter import host
from exporter.bundle import Bundle, read_tensors, under, write_tensors
from exporter.errors import ExporterError
from exporter.host.preview import AUDIO, DISPARITY, IMAGE, MOST_CASES, RATE, SCORE, SIDE, previews, undone
from exporter.host.values import Array, Values
from exporter.isolate import Channel, Limits
from exporter.manifest import CaseInfo, Manifest
from exporter.stages import Stages, scratch, silent

LIMITS = Limits(seconds=60.0, memory_bytes=4 << 30)
LONGEST = 192_000 * 10  # samples of a recording that a page would take
KINDS = {AUDIO: (np.int16, 1), IMAGE: (np.uint8, 3), DISPARITY: (np.float32, 2), SCORE: (np.float32, 1)}


@dataclass(frozen=True)
class Version:
    """One version of what there is to look at.

    Attributes:
        kind: ``given``, ``truth``, ``reference``, ``eager`` or ``artifact``.
        name: which input, or which artifact; else nothing.
        values: as :func:`exporter.host.preview.previews` gives them.
    """

    kind: str
    name: str
    values: Mapping[str, Array]


@dataclass(frozen=True)
class Example:
    """One real input, in all its versions."""

    case: str
    versions: tuple[Version, ...]


@dataclass(frozen=True)
class Examples:
    """All that there is to look at; where it could not be gathered, why."""

    found: tuple[Example, ...] = ()
    problem: str = ""


def gathered(bundle: Bundle) -> Examples:
    """The examples of a bundle, by way of a child."""
    if not any(case.scale == "sample" for case in bundle.manifest.cases):
        return Examples()
    with scratch() as folder:
        file = folder / "examples.safetensors"
        request = {"bundle": str(bundle.path.resolve()), "file": str(file)}
        outcome = Stages(folder, LIMITS, silent).attempt("examples", "exporter.report.examples:gather", request)
        if outcome.error is not None:
            return Examples(problem=outcome.reason or outcome.error.what)
        tensors = read_tensors(file) if file.is_file() else {}
        return Examples(tuple(_example(value, tensors) for value in outcome.value["examples"]))


def _example(value: Mapping[str, Any], tensors: Mapping[str, Array]) -> Example:
    versions = [Version(kind, name, under(tensors, place)) for kind, name, place in value["versions"]]
    return Example(value["case"], tuple(versions))


def gather(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: writes the examples of a bundle into a file.

    Args:
        request: ``bundle`` and ``file`` (paths).
        channel: gets one progress event per case.

    Returns:
        ``{"examples": [{"case", "versions": [[kind, name, prefix of its tensors]]}]}``.
    """
    bundle = Bundle.open(request["bundle"])
    manifest, artifacts = bundle.manifest, _artifacts(bundle)
    written, examples, large = dict[str, Array](), list[dict[str, Any]](), 0
    for case in (case for case in manifest.cases if case.scale == "sample"):
        versions = list(_versions(bundle, case, artifacts))
        # Recordings and pictures of the first few cases, as bundles keep them of artifacts; scores of all.
        wanted = set(KINDS) | {RATE} if large < MOST_CASES else {SCORE}
        large += any(set(version.values) - {SCORE} for version in versions)
        channel.send({"event": "progress", "what": f"case {case.name}"})
        listed = []
        for index, version in enumerate(versions):
            place = f"{len(examples)}/{index}/"
            held = {name: value for name, value in version.values.items() if name in wanted}
            written |= {place + name: value for name, value in held.items()}
            listed += [[version.kind, version.name, place]] if held else []
        examples += [{"case": case.name, "versions": listed}] if listed else []
    if written:
        write_tensors(Path(request["file"]), written)
    return {"examples": examples}


def _versions(bundle: Bundle, case: CaseInfo, artifacts: Mapping[str, Array]) -> Iterator[Version]:
    """What was given, what is right, what eager gave, and what each artifact gave."""
    manifest, tensors = bundle.manifest, read_tensors(bundle.file(case.file))
    context, truth = under(tensors, "context/"), under(tensors, "truth/")
    for name, values in undone(manifest.before, under(tensors, "input/"), context).items():
        yield Version("given", name, values)
    yield from _version("truth", _true(truth, under(tensors, "reference/"), manifest, context))
    for kind in ("reference", "eager"):
        outputs = under(tensors, f"{kind}/")
        if outputs:
            yield from _version(kind, previews(_finished(manifest, context, outputs)))
    for key in manifest.targets:
        place = f"{key}/{case.name}/"
        found = {name.removeprefix(place): value for name, value in artifacts.items() if name.startswith(place)}
        yield from _version("artifact", checked(found), key)


def _version(kind: str, values: Values, name: str = "") -> Iterator[Version]:
    if values:
        yield Version(kind, name, values)


def _finished(manifest: Manifest, context: Mapping[str, Array], outputs: Mapping[str, Array]) -> Values:
    """What the host steps after the graph make of its outputs."""
    return host.apply(manifest.after, {**context, **outputs}, manifest.dims)


def _true(truth: Values, reference: Values, manifest: Manifest, context: Mapping[str, Array]) -> Values:
    """The truth as it is looked at; a recording's rate is that of what the model gives."""
    if AUDIO in truth and RATE not in truth:
        given = _finished(manifest, context, reference)
        truth = truth | {RATE: given[RATE]} if RATE in given else truth
    return previews(truth)


def _artifacts(bundle: Bundle) -> dict[str, Array]:
    """What artifacts gave, as the bundle keeps it: ``TARGET/PRECISION/CASE/NAME``."""
    files = [file for _, file in sorted(bundle.manifest.reports.items()) if file.endswith(".safetensors")]
    found: dict[str, Array] = {}
    for file in files:
        try:
            found |= read_tensors(bundle.file(file))
        except ExporterError as error:
            if error.code != "bad-tensors":
                raise
    return found


def checked(values: Mapping[str, Array]) -> Values:
    """What can be shown of values that anybody may have written: of the types and sizes of previews alone."""
    found: Values = {}
    for name, (dtype, rank) in KINDS.items():
        value = values.get(name)
        if value is None or value.dtype != dtype or value.ndim != rank or not value.size:
            continue
        fits = max(value.shape[:2]) <= 2 * SIDE and value.shape[2:] in ((), (1,), (3,)) if rank > 1 else True
        if fits and (rank > 1 or value.size <= LONGEST):
            found[name] = value
    rate = values.get(RATE)
    if AUDIO in found and rate is not None and rate.ndim == 0 and 1000 <= int(rate) <= 192_000:
        return found | {RATE: rate}
    return {name: value for name, value in found.items() if name != AUDIO}
