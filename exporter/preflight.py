"""Before an artifact is opened: does it fit this machine, and who built it? Load it, build it again, or refuse.

A compiled artifact belongs to a machine and a runtime. One that does not fit is compiled again from the graph beside
it, for this run alone; so is one that brings code of its own and was built by a stranger, unless its user trusts it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporter import registry, trust
from exporter.compile import compiled
from exporter.errors import Refused
from exporter.manifest import Manifest, TargetInfo
from exporter.parity.worker import packed
from exporter.stages import Stages
from exporter.target import LOAD, REBUILD, REFUSE, Artifact, Options, Preflight, Target

PathOf = Callable[[str], Path]


@dataclass(frozen=True)
class Opening:
    """How the user wants artifacts opened.

    Args:
        device: which accelerator of the machine.
        trusted: whether artifacts of strangers may be opened as they are.
        extra: options of the target that are chosen anew at this run.
    """

    device: int = 0
    trusted: bool = False
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Ready:
    """An artifact that may be opened here.

    Attributes:
        artifact: the bundle's, or one made just now from its graph.
        options: how to open it.
        advice: what was decided and why, for the report.
    """

    artifact: Artifact
    options: Options
    advice: tuple[str, ...] = ()

    def as_request(self) -> dict[str, Any]:
        """The artifact and the options, for the way to a child."""
        return {"artifact": packed(self.artifact), "options": self.options.__dict__}


def artifact_of(path_of: PathOf, info: TargetInfo) -> Artifact:
    """The artifact that a bundle holds."""
    files = {role: path_of(name) for role, name in info.files.items()}
    return Artifact(info.precision, files, info.forms, info.fingerprint, info.stored, info.advice)


def options_of(interface: Any, precision: str, threads: int, extra: Mapping[str, Any] | None = None) -> Options:
    """How to compile and open a model with this interface (a definition's or a manifest's)."""
    dims = {d.name: (d.min, d.opt, d.max, d.step) for d in interface.dims}
    return Options(precision, threads, dims, extra=dict(extra or {}))


def ready(path_of: PathOf, manifest: Manifest, key: str, stages: Stages | None, opening: Opening) -> Ready:
    """The artifact of one target as it may be opened here: as it is, or compiled again from its graph.

    Args:
        path_of: where a file of the bundle lies.
        manifest: the bundle's.
        key: ``target/precision``.
        stages: run the compile; without them, what would have to be compiled again is refused.
        opening: how the user wants it opened.

    Raises:
        Refused: ``foreign-artifact`` where it fits neither this machine nor a way to make it again.
        NotProven, StageFailed: what compiling again raises.
    """
    info = manifest.targets[key]
    target = registry.target(info.target)
    artifact = artifact_of(path_of, info)
    extra = {**info.options, **(opening.extra or {})}
    options = options_of(manifest, info.precision, info.threads, extra)
    options = replace(options, device=opening.device, way=info.way)
    strange = trust.strangers(_opened(artifact, target)) if target.guarded else []
    found, advice = _decided(target, artifact, options, strange, opening.trusted)
    if found.action == LOAD:
        return Ready(artifact, replace(options, host_code=bool(target.guarded) and not strange), advice)
    if found.action == REFUSE or stages is None:
        raise Refused(
            "foreign-artifact",
            f"{info.target} does not open this artifact here: {found.reason}",
            where=f"target {key}",
            why="an artifact belongs to the runtime and the machine it was compiled for, and to who built it",
            next=f"exporter compile BUNDLE --target {info.target} --precision {info.precision}, from its graph",
        )
    graphs = {name: path_of(info.graphs.get(name, graph.simplified)) for name, graph in manifest.graphs.items()}
    options = replace(options, prepared={role: str(path) for role, path in artifact.files.items()})
    folder = stages.folder / f"rebuilt-{info.target}-{info.precision}"
    made = compiled(stages, f"compile {key}", target, manifest, graphs, options, folder)
    return Ready(made, replace(options, host_code=bool(target.guarded)), (*advice, *made.advice))


def _opened(artifact: Artifact, target: Target) -> dict[str, Path]:
    """The files that a runtime opens, of every graph: those that the target says it does, and those the bundle says."""
    opened = target.guarded | set(artifact.forms)
    return {role: path for role, path in artifact.files.items() if role.rpartition(".")[2] in opened}


def _decided(
    target: Target, artifact: Artifact, options: Options, strange: list[str], trusted: bool
) -> tuple[Preflight, tuple[str, ...]]:
    """What to do, and how the report puts it."""
    fits = target.preflight(artifact, options)
    whose = "this user's machine did not build it"
    if strange and trusted:
        if fits.action == REBUILD:  # asked to take it as it is, and it is not for here
            return Preflight(REFUSE, f"{fits.reason}, and {whose}"), ()
        return fits, (f"opened by --trust-engine: {whose}, and what is in it was not looked at",)
    if fits.action == LOAD and strange:
        fits = Preflight(REBUILD, f"{whose} (--trust-engine opens it as it is)")
    if fits.action == REBUILD:
        return fits, (f"compiled again from its graph for this run: {fits.reason}",)
    return fits, (fits.reason,) if fits.reason else ()
