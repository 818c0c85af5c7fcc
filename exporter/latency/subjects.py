"""What is timed of a bundle: its artifacts, and eager PyTorch with the same weights where it can be rebuilt."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from exporter import registry
from exporter.bundle import Bundle, read_tensors
from exporter.hops import PathOf, artifact_of, options_of
from exporter.isolate import Limits
from exporter.latency import profile as timing
from exporter.manifest import CaseInfo, Manifest
from exporter.parity.ladder import RUNGS, UNIT_ROUNDOFF, Rung
from exporter.parity.worker import packed
from exporter.program import program_of
from exporter.stages import STAGE_SECONDS, TOOLS, Progress, Stages, scratch, silent
from exporter.verification import chosen, save_report


def profile(
    path: Path,
    targets: Sequence[str] = (),
    checkpoint: Path | None = None,
    seed: int = 0,
    threads: int = 0,
    budget_seconds: float = timing.BUDGET_SECONDS,
    progress: Progress = silent,
    save: bool = False,
) -> timing.Profile:
    """Times a bundle's artifacts, and eager PyTorch where it can be rebuilt here, against one another.

    Args:
        path: the bundle's folder.
        targets: only these; all of them when empty.
        checkpoint: the weights, so that eager can be rebuilt where they are not seeded.
        seed: seeds the order of blocks.
        threads: CPU threads of every subject; 0 is all cores.
        budget_seconds: how long blocks should take in all.
        progress: told what happens.
        save: whether to keep the report, with every timing, in the bundle.
    """
    bundle = Bundle.open(path)
    keys = chosen(bundle, targets)
    with scratch() as folder:
        stages = Stages(folder, Limits(seconds=STAGE_SECONDS), progress)
        found = timed(
            bundle.file, bundle.manifest, keys, stages,
            checkpoint=checkpoint, seed=seed, threads=threads, budget_seconds=budget_seconds,
        )  # fmt: skip
    if save:
        save_report(path, "profile", found.as_json(raw=True))
    return found


def timed(
    path_of: PathOf,
    manifest: Manifest,
    keys: Sequence[str],
    stages: Stages,
    *,
    checkpoint: Path | None,
    seed: int,
    threads: int,
    budget_seconds: float = timing.BUDGET_SECONDS,
) -> timing.Profile:
    """Times the targets of these keys beside eager, on the normal case at the opt sizes."""
    tensors = str(path_of(_timed_case(manifest).file))
    subjects = [_eager_subject(manifest, checkpoint, tensors)]
    subjects += [_artifact_subject(path_of, manifest, key, tensors) for key in keys]
    return timing.profile(
        subjects,
        seed=seed,
        threads=threads,
        log_folder=stages.folder,
        budget_seconds=budget_seconds,
        progress=lambda line: stages.progress("profile", {"what": line}),
        packages=("exporter", "numpy", "polygraphy", *TOOLS),
    )


def _timed_case(manifest: Manifest) -> CaseInfo:
    """The normal case at the opt sizes: what the model is optimised for is what is timed."""
    opt = {dim.name: dim.opt for dim in manifest.dims}
    single = [case for case in manifest.cases if case.steps == 1 and case.scale == "normal"]
    return next((case for case in single if case.sizes == opt), single[0])


def _artifact_subject(path_of: PathOf, manifest: Manifest, key: str, tensors: str) -> timing.Subject:
    info = manifest.targets[key]
    target = registry.target(info.target)
    available = target.available()
    absent = "" if available.present else f"runtime absent: {available.reason}"
    skipped = absent or ("" if info.status == "compiled" else "not compiled yet")
    options = options_of(manifest, info.precision, 0)
    request = {
        "target": info.target,
        "artifact": packed(artifact_of(path_of, info)) if not skipped else {},
        "form": info.forms[0] if info.forms else None,
        "dims": {name: list(sizes) for name, sizes in options.dims.items()},
        "program": program_of(manifest).as_json(),
        "tensors": tensors,
        "allowed": _allowed(manifest, RUNGS[target.rung], tensors),
    }
    name = info.target if info.precision == "fp32" else key
    return timing.Subject(name, timing.ARTIFACT, request, info.precision, info.stored, skipped=skipped)


def _allowed(manifest: Manifest, rung: Rung, tensors: str) -> dict[str, float]:
    """The largest relative error a timed call may have: the rung times eager's own noise on this case."""
    content = read_tensors(Path(tensors))
    noises = {t.name: max(float(content[f"noise/{t.name}"][0]), UNIT_ROUNDOFF["fp32"]) for t in manifest.outputs}
    return {name: rung.bound * noise for name, noise in noises.items()}


def _eager_subject(manifest: Manifest, checkpoint: Path | None, tensors: str) -> timing.Subject:
    """Eager PyTorch with the weights the artifacts were made from."""
    weights = manifest.weights
    request = {
        "build": {
            "model": manifest.model.name, "options": dict(manifest.model.options),
            "checkpoint": str(checkpoint.resolve()) if checkpoint else None, "seed": weights.seed or 0,
        },
        "inputs": [t.name for t in manifest.inputs],
        "repeats": list(manifest.repeats),
        "outputs": [t.name for t in manifest.outputs],
        "tensors": tensors, "allowed": _allowed(manifest, RUNGS["portable"], tensors),
    }  # fmt: skip
    skipped = _why_no_eager(manifest, checkpoint)
    return timing.Subject("eager", timing.EAGER, request, "fp32", "fp32", baseline=True, skipped=skipped)


def _why_no_eager(manifest: Manifest, checkpoint: Path | None) -> str:
    if find_spec("torch") is None:
        return "torch absent"
    if manifest.model.name not in registry.model_names():
        return f"no definition of {manifest.model.name} here"
    if manifest.weights.kind == "checkpoint" and checkpoint is None:
        return "its weights are not in the bundle: give --checkpoint FILE"
    return ""
