"""One side of a comparison: what a bundle, one report of it, or a file of ``--json`` says, as values.

A side is read without trust and runs nothing. What it does not say is absent, and shown as missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.bundle import Bundle
from exporter.errors import Refused, nearest
from exporter.latency.stats import MIN_FLOOR, Estimate
from exporter.manifest import Manifest
from exporter.manifest.limits import MAX_REPORT_BYTES
from exporter.manifest.parse import parse
from exporter.manifest.refusal import Wrong
from exporter.registry import target
from exporter.report.judgements import (
    EXPORT,
    PROFILE,
    VERIFY,
    current,
    hop_of,
    hops_of,
    joined,
    subject_key,
    verdict_of,
)
from exporter.report.reading import Fields, reports
from exporter.verdict import Hop, Verdict, worst
from exporter.verification import weights_line

MOST_VALUES = 8_000_000  # a report with every timing of a long profile
# Separates a bundle from the name of one of its reports: ``gtcrn.bundle@profile``.
OF = "@"

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Machine:
    """What timings belong to: another one of these makes them another thing."""

    cpu: str
    cores: int | None
    devices: tuple[str, ...] = ()

    def is_surely(self, other: Machine) -> bool:
        """Whether two timings were taken on one kind of machine; what has no name may be anything."""
        return self == other and bool(self.cpu or self.devices)

    def __str__(self) -> str:
        cores = f", {self.cores} cores" if self.cores else ""
        return (self.cpu or "an unnamed processor") + cores + "".join(f", {name}" for name in self.devices)


@dataclass(frozen=True)
class Timing:
    """One subject of a stored profile.

    Attributes:
        verdict: whether it was timed.
        reason: why not.
        median: milliseconds per call, with its interval.
        threads: CPU threads it had.
        floor: the factor below which that profile calls a ratio noise; None where it had no A/A pair.
        stability: the profile's word for it.
        machine: where it was timed.
        report: the report that says so.
    """

    verdict: Verdict
    reason: str
    median: Estimate | None
    threads: int | None
    floor: float | None
    stability: str
    machine: Machine
    report: str


@dataclass(frozen=True)
class Side:
    """What one side says.

    Attributes:
        name: as the user named it.
        model: the model's name.
        weights: where its weights come from, in a line.
        hops: every edge that was judged, with its results, by hop, target and precision.
        timings: what was timed, by subject.
        artifacts: what there is to time, by subject, whether it was or not.
        sizes: bytes of what is deployed, by subject.
        layers: how many layers ran in each type, by subject.
        operators: how many nodes of each operator the graphs have, by graph; filled in where a bundle is there.
        versions: tools it was made and run with.
        facts: what else must be the same for both sides to be one model, such as options and tensors.
        device: where its artifacts were verified, if not on the machine at hand.
        bundle: the bundle itself, where its artifacts can be run.
    """

    name: str
    model: str
    weights: str
    hops: Mapping[Key, Hop] = field(default_factory=dict)
    timings: Mapping[str, Timing] = field(default_factory=dict)
    artifacts: frozenset[str] = frozenset()
    sizes: Mapping[str, int] = field(default_factory=dict)
    layers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    operators: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    bundle: Bundle | None = None


def sided(place: str) -> Side:
    """The side at a place: a bundle, ``BUNDLE@REPORT``, or a JSON file of verify, profile or an export.

    Raises:
        Refused: there is nothing, or no such thing; a damaged bundle; ``bad-report``; ``unknown-report``.
    """
    path = Path(place)
    if path.is_file():
        return _of_reports(place, {path.stem: _file(path)})
    folder, of, report = place.rpartition(OF)
    if of and not path.exists():
        return _of_report(place, Bundle.open(folder), report)
    return _of_bundle(place, Bundle.open(path))


def _file(path: Path) -> Fields:
    if path.stat().st_size > MAX_REPORT_BYTES:
        raise _bad_report(path, f"has {path.stat().st_size} bytes; at most {MAX_REPORT_BYTES} are read")
    try:
        found = Fields(parse(path.read_bytes(), MAX_REPORT_BYTES, MOST_VALUES))
    except Wrong as error:
        raise _bad_report(path, error.what) from None
    if not found.text("schema").startswith((EXPORT, VERIFY, PROFILE)):
        raise _bad_report(path, f"says of itself {found.text('schema') or 'nothing'!r}")
    return found


def _bad_report(path: Path, how: str) -> Refused:
    return Refused(
        "bad-report",
        f"{path.name} is no report that can be compared: {how}",
        where=str(path),
        why="what is compared is what verify, profile or an export printed with --json",
        next="exporter verify BUNDLE --json > FILE, or name the bundle itself",
    )


def _of_report(place: str, bundle: Bundle, name: str) -> Side:
    held = reports(bundle)
    if name not in held:
        raise Refused(
            "unknown-report",
            f"{bundle.path} holds no report {name!r}{nearest(name, list(held))}",
            where=place,
            why=f"it holds {', '.join(sorted(held)) or 'none'}",
            next=f"exporter inspect {bundle.path}",
        )
    side = _of_bundle(place, bundle)
    told = _of_reports(place, {name: held[name]})
    return Side(
        place, side.model, side.weights, told.hops, told.timings, told.artifacts, told.sizes, told.layers,
        versions=told.versions, facts=side.facts, device=told.device,
    )  # fmt: skip


def _of_bundle(place: str, bundle: Bundle) -> Side:
    manifest = bundle.manifest
    # What another device said is that device's: it is compared by name, BUNDLE@REPORT.
    told = _of_reports(place, {name: value for name, value in current(bundle).items() if not value.fields("device")})
    held = {*manifest.targets, ""}
    return Side(
        place,
        manifest.model.name,
        weights_line(manifest.weights),
        hops={key: hop for key, hop in told.hops.items() if _target_key(key) in held},
        timings={name: timing for name, timing in told.timings.items() if subject_key(name) in held},
        artifacts=frozenset(subject_of(key) for key, info in manifest.targets.items() if info.status == "compiled"),
        sizes={key: size for key in manifest.targets if (size := deployed(manifest, key))},
        layers={name: layers for name, layers in told.layers.items() if subject_key(name) in held},
        versions={**told.versions, **manifest.tools, **_fingerprints(manifest)},
        facts=_facts(manifest),
        bundle=bundle,
    )


def _target_key(key: Key) -> str:
    """The artifact that a hop leads to; nothing for a graph's, which all targets share."""
    return f"{key[1]}/{key[2]}" if key[1] else ""


def subject_of(key: str) -> str:
    """What a profile calls an artifact."""
    return key.removesuffix("/fp32")


def deployed(manifest: Manifest, key: str) -> int:
    """Bytes of the files that an application of this artifact needs: its first form and what must lie beside it."""
    info = manifest.targets[key]
    try:
        beside = target(info.target).beside
    except Refused:  # a target of a package that is not here
        beside = ()
    roles = {*info.forms[:1], *beside}
    return sum(manifest.files[file].bytes for role, file in info.files.items() if role.rpartition(".")[2] in roles)


def _fingerprints(manifest: Manifest) -> dict[str, str]:
    return {
        f"{key} {name}": value for key, info in manifest.targets.items() for name, value in info.fingerprint.items()
    }


def _facts(manifest: Manifest) -> dict[str, str]:
    """What both sides should have in common, each in a line."""
    tensors = {f"{kind} {t.name}": f"{list(t.shape)} {t.dtype}" for kind, of in
               (("input", manifest.inputs), ("output", manifest.outputs)) for t in of}  # fmt: skip
    dims = {f"dim {dim.name}": str(dim) for dim in manifest.dims}
    options = {f"option {name}": str(value) for name, value in manifest.model.options.items()}
    parameters = {"parameters": f"{manifest.model.parameters:,}"}
    return {**tensors, **dims, **options, **parameters, "weights": manifest.weights.digest}


def _of_reports(place: str, found: Mapping[str, Fields]) -> Side:
    """What reports say together. What was verified or profiled by itself stands before what an export took in passing;
    within one kind what comes last stands."""
    exports = {name: value for name, value in sorted(found.items()) if value.text("schema").startswith(EXPORT)}
    verified = [value.fields("verify") for value in exports.values()]
    verified += [value for value in found.values() if value.text("schema").startswith(VERIFY)]
    profiled = [(name, value.fields("profile")) for name, value in exports.items()]
    profiled += [(name, value) for name, value in found.items() if value.text("schema").startswith(PROFILE)]
    subjects = [(name, value, each) for name, value in profiled for each in value.each("subjects")]
    subjects = [(name, value, each) for name, value, each in subjects if _is_artifact(each)]
    hops = joined((hop for value in verified for hop, _ in hops_of(value)), _key, lambda hop: hop)
    devices = {device for value in verified if value.each("hops") and (device := value.fields("device").text("label"))}
    layers = {subject_of(f"{key[1]}/{key[2]}"): counts for value in verified for key, counts in _layers(value)}
    layers |= {each.text("name"): _counts(each, "layers") for _, _, each in subjects if each.counted("layers")}
    packages = [value.fields("environment").worded("packages") for _, value in profiled]
    return Side(
        place,
        next((value.text("model") for value in verified if value.text("model")), ""),
        next((value.text("weights") for value in verified if value.text("weights")), ""),
        hops={_key(hop): hop for hop in hops},
        timings={each.text("name"): _timing(name, value, each) for name, value, each in subjects},
        artifacts=frozenset(each.text("name") for _, _, each in subjects),
        sizes={each.text("name"): size for _, _, each in subjects if (size := each.count("bytes"))},
        layers=layers,
        versions={name: version for part in packages for name, version in part.items()},
        device=", ".join(sorted(devices)),
    )


def _is_artifact(subject: Fields) -> bool:
    """Whether it is an artifact: eager is what artifacts are compared with, and no side's own."""
    return subject.text("name") not in ("", "eager") and not subject.text("name").startswith("eager on ")


def _timing(report: str, profile: Fields, subject: Fields) -> Timing:
    environment = profile.fields("environment")
    devices = tuple(sorted(
        name for moment in ("before", "after") for _, said in environment.fields("devices").named(moment)
        if (name := said.text("name"))
    ))  # fmt: skip
    elsewhere = profile.fields("device").text("label")
    names = dict.fromkeys([*devices, *([elsewhere] if elsewhere else [])])
    machine = Machine(environment.text("cpu"), environment.count("usable_cores"), tuple(names))
    median, interval = subject.number("median_ms"), subject.interval("interval_ms")
    usable = median is not None and interval is not None and 0 < interval[0] <= median <= interval[1]
    return Timing(
        verdict_of(subject),
        subject.text("reason"),
        Estimate(median, *interval) if usable and median is not None and interval is not None else None,
        subject.count("threads"),
        profile.number("noise_floor"),
        subject.text("stability"),
        machine,
        report,
    )


def floor_of(*timings: Timing) -> float | None:
    """The largest noise floor of stored profiles; None where one of them has none."""
    floors = [timing.floor for timing in timings]
    return None if any(floor is None for floor in floors) else max(MIN_FLOOR, *(floor for floor in floors if floor))


def _key(hop: Hop) -> Key:
    asked = hop.precision.asked if hop.precision and (hop.target or hop.hop == "lowered") else ""
    return hop.hop, hop.target or "", asked


def _layers(value: Fields) -> list[tuple[Key, dict[str, int]]]:
    """How many layers of each hop ran in each type, over the forms of its artifact."""
    found = []
    for each in value.each("hops"):
        forms = [said for _, said in each.named("facts") if said.counted("layers")]
        if forms and each.text("target"):
            found.append((_key(hop_of(each)), _counts(forms[0], "layers")))
    return found


def _counts(value: Fields, name: str) -> dict[str, int]:
    return {kind: int(count) for kind, count in value.counted(name).items() if not math.isnan(count)}


def whole_verdict(side: Side) -> Verdict | None:
    """The worst hop of a side; None where it was never verified."""
    return worst(hop.verdict for hop in side.hops.values()) if side.hops else None


def named(facts: Mapping[str, Any]) -> str:
    """Facts in one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())
