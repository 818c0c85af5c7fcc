"""define -> trace -> simplify -> compile -> verify -> profile: each stage in a child, its product a file.

This module only orders the stages; it imports no runtime and no PyTorch, and names no target and no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from exporter import cache, calibration, choosing, models, registry
from exporter.budget import Budget, parsed
from exporter.bundle import Bundle, editing, read_tensors, under
from exporter.cache import Reusing
from exporter.cache.key import graph_key, own_samples, surroundings
from exporter.candidate import Calibrated, Making, fed, finished, key_of, prepared_graphs
from exporter.choosing import precisions_of, refuse_precision
from exporter.errors import Incomplete, Refused
from exporter.graph_stages import EXPORT_REPORT, graph_of, refuse_other_graph, refuse_other_model
from exporter.host.metrics import METRICS
from exporter.isolate import Limits
from exporter.latency.result import Profile
from exporter.manifest import CalibrationInfo, Manifest, TargetInfo
from exporter.manifest.identity import artifacts_of
from exporter.request import Request
from exporter.saved import still_true, with_report
from exporter.spec import ModelDef
from exporter.stages import Progress, Stage, Stages, silent
from exporter.target import OWN_SCALES, SCALED, Target
from exporter.use import use_page
from exporter.verification import Verification, refuse_missing_checkpoint, verification_of


@dataclass(frozen=True)
class Exported:
    """What an export left behind."""

    bundle: Path
    verification: Verification
    stages: tuple[Stage, ...]
    profile: Profile | None
    published: str | None = None
    auto: Mapping[str, Any] | None = None

    def as_json(self, spread: bool = False) -> dict[str, Any]:
        """The object of ``exporter TARGET MODEL --json``; as the bundle keeps it, with how timings are spread."""
        return {
            "schema": "exporter.export/1",
            "bundle": str(self.bundle),
            "verdict": self.verification.verdict.value,
            "stages": [stage.as_json() for stage in self.stages],
            "verify": self.verification.as_json(),
            "profile": self.profile.as_json(spread=spread) if self.profile else None,
            "published": self.published,
            "auto": self.auto,
        }


def export(request: Request, progress: Progress = silent) -> Exported:
    """Exports a model for one target into a bundle: traced, simplified, compiled, verified, profiled.

    Raises:
        Refused: bad input, before any work; nothing is written.
        NotProven: the model cannot be judged (random, mutating, a frozen dim); nothing is written.
        StageFailed: a stage crashed, timed out or ran out of memory; nothing is written.
        Incomplete: ``auto`` where the runtime that would have to be measured is absent.
    """
    target = registry.target(request.target)
    asked = precisions_of(target, request)
    source = models.found(request, progress)
    definition, request = source.definition, source.request
    _refuse_idle_calibration(target, request, asked)
    budget = parsed(request.budget, definition.metrics, definition.name)
    origin, scales, found = calibration.chosen(definition, request.calibration, request.samples, request.seed)
    _refuse_unmeasured(budget, definition, found)
    refuse_missing_checkpoint(request.checkpoint)
    path = request.output or Path(f"{definition.name}.bundle")
    with editing(path, f"exporter {request.target} {request.model}") as draft:
        refuse_other_model(draft, definition, request, path)
        refuse_other_graph(draft, definition, request, path)
        stages = Stages(draft.work / "logs", request.limits, progress)
        own = own_samples(definition)
        key = graph_key(source, found, own)
        keeping = Reusing(
            stages.folder, stages.limits, stages.progress, stages.done, work=draft.work, model=definition.name,
            cache=cache.of_this_user() if request.cache else None, around=partial(surroundings, source, own),
        )  # fmt: skip
        manifest, hops = graph_of(draft, definition, request, found, key, keeping)
        making = Making(draft, target, request, stages, str(path))
        calibration.refuse_held(manifest, making.path_of, [(c.name, making.path_of(c.file)) for c in manifest.cases])
        calibrated = _calibrated(making, manifest, definition, asked, (origin, scales))
        making = replace(making, calibrated=calibrated)
        chosen = choosing.chosen(making, manifest, asked, budget, _own_budget(definition, making, manifest))
        verification = verification_of(chosen.manifest, [*hops, *chosen.candidate.hops])
        exported = Exported(
            path, verification, tuple(stages.done), chosen.profile, _published(definition, request), chosen.auto
        )
        told = artifacts_of(chosen.manifest, chosen.manifest.targets)
        report = json.dumps(exported.as_json(spread=True) | {"artifacts": told}, indent=1, sort_keys=True).encode()
        name = f"{EXPORT_REPORT}{target.name}-{request.precision}"
        manifest = still_true(chosen.manifest, draft.old.manifest.targets if draft.old else {})
        manifest = replace(manifest, reports=manifest.reports | {name: draft.write(f"reports/{name}.json", report)})
        draft.derived("USE.md", use_page(manifest))
        draft.commit(manifest)
    return exported


def _own_budget(definition: ModelDef, making: Making, manifest: Manifest) -> Budget:
    """The definition's own budget; what a metric may lose only where a real input has a truth to lose against."""
    real = [read_tensors(making.path_of(case.file)) for case in manifest.cases if case.scale == "sample"]
    truths = [set(under(tensors, "truth/")) for tensors in real]
    losses = {
        name: bound
        for name, bound in definition.budget.losses.items()
        if sum(METRICS[name].value in truth for truth in truths) >= (1 if METRICS[name].over == "case" else 2)
    }
    return replace(definition.budget, losses=losses)


def _calibrated(
    making: Making, manifest: Manifest, definition: ModelDef, asked: Sequence[str], given: tuple[str, Sequence[Path]]
) -> Calibrated:
    """Runs the graphs over the calibration inputs, where a way to some precision takes scales from them."""
    if not any(SCALED & set(making.target.lowers.get(precision, ())) for precision in asked):
        return Calibrated()
    folder, path_of = making.draft.work, making.path_of
    found = calibration.prepared(definition, *given, folder / "calibration")
    calibration.refuse_judged(found, [(case.name, path_of(case.file)) for case in manifest.cases])
    feeds = fed(making, manifest, found.files)
    digest = found.digest  # adding to the bundle moves the files
    names = tuple(making.draft.add(path, f"calibration/{path.name}") for path in found.files)
    return Calibrated(CalibrationInfo(found.source, digest, names, found.real), feeds)


def _refuse_unmeasured(budget: Budget, definition: ModelDef, found: Sequence[Path]) -> None:
    """A loss that no real input could show is told before work, not after it."""
    own = definition.samples() if budget.losses and not found and definition.samples is not None else ()
    if budget.losses and not found and next(iter(own), None) is None:
        metric = next(iter(budget.losses))
        raise Refused(
            "bad-budget",
            f"--budget {metric}:{budget.losses[metric]:g} is measured on real inputs, and there are none",
            where=f"model {definition.name}",
            why="a loss that nothing could show would be met by anything",
            next="--samples FILE with a truth/ of it, or --budget snr:30",
        )


def _published(definition: ModelDef, request: Request) -> str | None:
    """Where trained weights are to be had, when these are seeded."""
    checkpoint = definition.checkpoint
    if checkpoint is None or request.checkpoint is not None:
        return None
    return f"{checkpoint.address} ({checkpoint.licence})"


def _refuse_idle_calibration(target: Target, request: Request, asked: Sequence[str]) -> None:
    """Inputs to calibrate on that nothing would read: asked for, and silently not done."""
    if request.calibration is not None and not any(SCALED & set(target.lowers.get(p, ())) for p in asked):
        raise Refused(
            "bad-calibration",
            f"--calibration is given, and {request.precision} on {target.name} takes no scales from it",
            where=f"--calibration {request.calibration}",
            why="inputs that nothing reads are a mistake somewhere",
            next="--precision int8, or leave --calibration out",
        )


def compile_bundle(
    path: Path,
    target_name: str,
    precision: str,
    limits: Limits,
    progress: Progress = silent,
    extra: Mapping[str, Any] | None = None,
    device: int = 0,
) -> Exported:
    """Compiles a bundle's graph for a target on the machine that has its runtime, and verifies it there.

    Options that the export was given hold unless ``extra`` says otherwise.
    """
    target = registry.target(target_name)
    refuse_precision(target, precision, device)
    held = Bundle.open(path).manifest.targets.get(key_of(target_name, precision))
    chosen = {**(held.options if held else {}), **(extra or {})}
    with editing(path, f"exporter compile --target {target_name}") as draft:
        assert draft.old is not None
        manifest = draft.old.manifest
        threads = held.threads if held else 0
        request = Request(
            manifest.model.name, target_name, precision=precision, threads=threads, extra=chosen, device=device,
            limits=limits,
        )  # fmt: skip
        available = target.available()
        if not available.present:
            raise Incomplete(
                "runtime-absent",
                f"{target_name} cannot run here: {available.reason}",
                where=f"target {target_name}",
                why="compiling needs the target's own runtime",
                next=available.next or f"copy {path} to a machine that has it, and run the same command there",
            )
        stages = Stages(draft.work / "logs", limits, progress)
        lowered = prepared_graphs(manifest, target, precision, path)
        before, budget = (held.files, held.budget) if held else ({}, Budget())
        making = Making(draft, target, request, stages, str(path), budget)
        making = replace(making, calibrated=_held_calibration(making, manifest, held))
        made = finished(making, manifest, lowered, before)
        verification = verification_of(made.manifest, made.hops)
        kept = still_true(made.manifest, manifest.targets)
        kept = with_report(draft, kept, "verify", [key_of(target_name, precision)], verification.as_json())
        draft.derived("USE.md", use_page(kept))
        draft.commit(kept)
    return Exported(path, verification, tuple(stages.done), None)


def _held_calibration(making: Making, manifest: Manifest, held: TargetInfo | None) -> Calibrated:
    """The calibration inputs that a bundle keeps, for a target whose scales are taken where it is compiled."""
    if held is None or held.calibration is None or held.way not in OWN_SCALES:
        return Calibrated(held.calibration if held else None)
    files = [making.path_of(name) for name in held.calibration.files]
    return Calibrated(held.calibration, fed(making, manifest, files))
