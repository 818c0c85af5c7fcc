"""What a report is made of: plain values, gathered from a bundle once and only laid out from there on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.manifest import Manifest
from exporter.report.examples import Examples
from exporter.report.judgements import subject_key
from exporter.report.reading import Fields
from exporter.verdict import Hop, Verdict, worst


@dataclass(frozen=True)
class Judged:
    """A hop as some report has it.

    Attributes:
        hop: the hop with its results, as far as that report holds them.
        facts: what else it measured.
        report: the report's name.
        device: the device that it was found on, where that is another than the one that keeps the bundle.
    """

    hop: Hop
    facts: Fields
    report: str
    device: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Which edge it is: hop, target, precision."""
        return self.hop.hop, self.hop.target or "", self.hop.precision.asked if self.hop.precision else ""

    @property
    def artifact(self) -> str:
        """The key of the target, ``target/precision``."""
        return "/".join(self.key[1:])

    @property
    def named(self) -> str:
        """The same, with the device where it was not found here."""
        return f"{self.artifact}, on {self.device}" if self.device else self.artifact

    @property
    def title(self) -> str:
        """What to call it."""
        kind, target, precision = self.key
        if target:
            return f"{kind} for {self.named}"
        return f"lowered to {precision}" if kind == "lowered" else kind


@dataclass(frozen=True)
class Timing:
    """One subject of a profile; times in milliseconds, what was not measured is None."""

    name: str
    asked: str
    ran: str
    verdict: str
    reason: str
    stability: str
    against: tuple[str, ...]
    median: float | None
    interval: tuple[float, float] | None
    p95: float | None
    n: int
    load: float | None
    first: float | None
    memory: float | None
    bytes: float | None
    threads: int | None
    quantiles: tuple[float, ...]
    blocks: tuple[float, ...]
    layers: tuple[Fields, ...]
    kinds: Mapping[str, float]
    providers: Mapping[str, float]
    notes: tuple[str, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    whole: Fields = field(default_factory=Fields)

    @property
    def label(self) -> str:
        """Its name, with its precision where the name does not say it."""
        return self.name if self.asked in ("", "fp32") or "/" in self.name else f"{self.name}/{self.asked}"


@dataclass(frozen=True)
class Profiled:
    """One profile, on one machine."""

    report: str
    machine: str
    facts: Fields
    timings: tuple[Timing, ...]

    @property
    def subjects(self) -> frozenset[tuple[str, str]]:
        """What was timed in it."""
        return frozenset((timing.name, timing.asked) for timing in self.timings if timing.median is not None)

    @property
    def beside(self) -> frozenset[str]:
        """What it tells beside latencies."""
        layered = any(timing.layers for timing in self.timings)
        told = {"layers": layered, "sustained": bool(self.facts.each("sustained")), "sweep": "sweep" in self.facts}
        return frozenset(name for name, held in told.items() if held)

    def covered_by(self, other: Profiled) -> bool:
        """Whether another one tells all that this one does."""
        return self.machine == other.machine and self.subjects <= other.subjects and self.beside <= other.beside


@dataclass(frozen=True)
class Page:
    """Everything a report shows.

    Attributes:
        manifest: the bundle's.
        bytes: the size of all of its files.
        hops: every edge, in the order of an export, once: as it was found last.
        missing: the targets, ``target/precision``, that no report judges.
        profiles: saved ones first; one for each machine and set of subjects.
        stages: what an export spent on each stage, by report.
        examples: what people look at of real inputs.
    """

    manifest: Manifest
    bytes: int
    hops: tuple[Judged, ...]
    missing: tuple[str, ...]
    profiles: tuple[Profiled, ...]
    stages: Mapping[str, tuple[Fields, ...]] = field(default_factory=dict)
    examples: Examples = field(default_factory=Examples)

    @property
    def artifacts_first(self) -> list[Judged]:
        """The hops, those to artifacts before those of the graphs they are made from."""
        return sorted(self.hops, key=lambda judged: judged.hop.hop != "compiled")

    @property
    def wrong(self) -> list[tuple[str, Timing]]:
        """The artifacts that answered wrongly, crashed or hung when they were timed, each with the machine."""
        bad = Verdict.__members__.keys() - {"PASS", "SKIPPED"}
        return [
            (profile.machine, timing)
            for profile in self.profiles
            for timing in profile.timings
            if subject_key(timing.name) in self.manifest.targets and timing.verdict in bad
        ]

    @property
    def verdict(self) -> Verdict:
        """The worst of all; what was never judged is ``SKIPPED``."""
        timed = [Verdict(timing.verdict) for _, timing in self.wrong]
        hops = [judged.hop.verdict for judged in self.hops]
        return worst([*hops, *timed, *(Verdict.SKIPPED for _ in self.missing)])
