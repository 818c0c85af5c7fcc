"""What is timed of a bundle: its artifacts, and eager PyTorch with the same weights where it can be rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any

from exporter import registry
from exporter.bundle import Bundle, read_tensors
from exporter.isolate import Limits
from exporter.latency import profile as timing
from exporter.latency.result import ARTIFACT, EAGER, Profile, Subject
from exporter.latency.sustained import Sustained, sustained
from exporter.latency.sweep import Sweep, check, explained, point_json, varied
from exporter.manifest import CaseInfo, Manifest, TargetInfo
from exporter.models.rebuild import Code, build_of, missing
from exporter.parity.ladder import FEW, QUANTISED_RUNG, RUNGS, UNIT_ROUNDOFF
from exporter.parity.measure import l2
from exporter.parity.usual import usual_sizes
from exporter.preflight import Opening, PathOf, ready
from exporter.program import program_of
from exporter.saved import save_report
from exporter.stages import STAGE_SECONDS, TOOLS, Progress, Stages, scratch, silent
from exporter.target import INTEGER
from exporter.verification import chosen
from exporter.work import stored
from exporter.work.roofline import Peaks

# Of a stream there is no single real step to time: noise is, which scales of real inputs do not fit, and its output is
# asked to be no garbage.
GROSS = 10.0


@dataclass(frozen=True)
class Extras:
    """What a profile measures beside the latencies it compares.

    Attributes:
        layers: what each layer takes, against what this machine reaches.
        sustain_seconds: how long each artifact then runs without a pause; 0 for not at all.
        sweep: sizes and numbers of threads to go through, in place of comparing with eager.
    """

    layers: bool = False
    sustain_seconds: float = 0.0
    sweep: Sweep = field(default_factory=Sweep)

    @property
    def kind(self) -> str:
        """What ``--save`` calls a profile with these extras, to begin with."""
        if self.sweep.values:
            return ".".join(["sweep", *self.sweep.values])
        told = {"layers": self.layers, "sustained": self.sustain_seconds}
        return ".".join(["profile", *(name for name, asked in told.items() if asked)])

    def as_json(self) -> dict[str, Any]:
        """The extras, for a process elsewhere."""
        sweep = {name: list(values) for name, values in self.sweep.values.items()}
        return {"layers": self.layers, "sustain_seconds": self.sustain_seconds, "sweep": sweep}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Extras:
        """The extras that :meth:`as_json` gave."""
        return Extras(value["layers"], value["sustain_seconds"], Sweep(value["sweep"]))


def profile(
    path: Path,
    targets: Sequence[str] = (),
    code: Code | None = None,
    seed: int = 0,
    threads: int = 0,
    budget_seconds: float = timing.BUDGET_SECONDS,
    progress: Progress = silent,
    save: bool = False,
    opening: Opening | None = None,
    extras: Extras | None = None,
) -> Profile:
    """Times a bundle's artifacts, and eager PyTorch where it can be rebuilt here, against one another.

    Args:
        path: the bundle's folder.
        targets: only these; all of them when empty.
        code: what the bundle does not hold, so that eager can be built again.
        seed: seeds the order of blocks.
        threads: CPU threads of every subject; 0 is all cores.
        budget_seconds: how long blocks should take in all.
        progress: told what happens.
        save: whether to keep the report, with every timing, in the bundle.
        opening: how artifacts are opened: on which device, whether those of strangers are trusted, with which options.
        extras: what to measure beside.
    """
    bundle = Bundle.open(path)
    keys = chosen(bundle, targets)
    with scratch() as folder:
        stages = Stages(folder, Limits(seconds=STAGE_SECONDS), progress)
        found = timed(
            bundle.file, bundle.manifest, keys, stages,
            code=code or Code(), seed=seed, threads=threads, budget_seconds=budget_seconds, opening=opening,
            extras=extras,
        )  # fmt: skip
    if save:
        save_report(path, (extras or Extras()).kind, keys, bundle.manifest, found.as_json(raw=True))
    return found


def timed(
    path_of: PathOf,
    manifest: Manifest,
    keys: Sequence[str],
    stages: Stages,
    *,
    code: Code,
    seed: int,
    threads: int,
    budget_seconds: float = timing.BUDGET_SECONDS,
    opening: Opening | None = None,
    extras: Extras | None = None,
) -> Profile:
    """Times the targets of these keys beside eager, on the normal case at the opt sizes.

    Raises:
        Refused: ``bad-sweep``.
    """
    opening, extras = opening or Opening(), extras or Extras()
    check(extras.sweep, manifest, len(keys))
    case = timed_case(manifest, [manifest.targets[key] for key in keys])
    artifacts = [artifact_subject(path_of, manifest, key, case, stages, opening, extras.layers) for key in keys]
    measure = partial(
        timing.profile, seed=seed, threads=threads, log_folder=stages.folder, budget_seconds=budget_seconds,
        progress=lambda line: stages.progress("profile", {"what": line}),
        packages=("exporter", "numpy", "polygraphy", *TOOLS),
        conditions=partial(_conditions, manifest, keys, opening.device),
    )  # fmt: skip
    if extras.sweep.values:
        return _swept(artifacts, extras.sweep, measure, path_of, manifest, case, stages.folder)
    devices = dict.fromkeys(subject.device for subject in artifacts)
    eager = [
        _eager_subject(path_of, manifest, code, case, device, opening.device, _multiplied(artifacts, device))
        for device in devices
    ]
    on_cpu = any(subject.device == "cpu" for subject in artifacts)
    infos = [manifest.targets[key] for key in keys]
    found = measure([*eager, *artifacts], peaks=partial(_peaks, stages, infos) if extras.layers and on_cpu else None)
    return replace(found, sustained=_sustained(artifacts, extras.sustain_seconds, seed, threads, stages))


def _swept(
    artifacts: Sequence[Subject], sweep: Sweep, measure: Callable[..., Profile], path_of: PathOf, manifest: Manifest,
    case: CaseInfo, folder: Path,
) -> Profile:  # fmt: skip
    """The points of a sweep against one another; eager has no part in it."""
    opt = {dim.name: dim.opt for dim in manifest.dims}
    subjects = [point for artifact in artifacts for point in varied(artifact, sweep, path_of, manifest, case, folder)]
    found = measure(subjects)
    points = [point_json(measured, opt) for measured in found.subjects]
    told = tuple(map(explained, found.subjects))
    by = {name: list(values) for name, values in sweep.values.items()}
    return replace(found, subjects=told, sweep={"by": by, "points": points})


def _sustained(
    artifacts: Sequence[Subject], seconds: float, seed: int, threads: int, stages: Stages
) -> tuple[Sustained, ...]:
    """Every artifact without a pause for so long, one after the other; none where nothing was asked."""
    if not seconds:
        return ()
    return tuple(
        sustained(
            subject, seconds=seconds, threads=threads, seed=seed, log_folder=stages.folder,
            progress=lambda line: stages.progress("sustain", {"what": line}),
        )
        for subject in artifacts
    )  # fmt: skip


def _peaks(stages: Stages, infos: Sequence[TargetInfo], threads: int) -> Peaks:
    from exporter.latency.peaks import peaks
    from exporter.latency.products import products_of

    stages.progress("profile", {"what": "what this machine reaches at best"})
    return peaks(threads, stages.folder, products_of([info for info in infos if _on_cpu(info)]))


def _on_cpu(info: TargetInfo) -> bool:
    """Whether an artifact can be timed here, on the processor whose peaks are measured."""
    target = registry.target(info.target)
    return info.status == "compiled" and target.device == "cpu" and target.available().present


def _multiplied(artifacts: Sequence[Subject], device: str) -> str:
    """How eager multiplies float32 on a device: as its artifacts do, where they are of one mind."""
    asked = {subject.asked for subject in artifacts if subject.device == device}
    return "tf32" if asked == {"tf32"} else "fp32"


def _conditions(manifest: Manifest, keys: Sequence[str], device: int) -> dict[str, Mapping[str, Any]]:
    """Clocks and throttling of the devices that these targets compute on, by target."""
    names = dict.fromkeys(manifest.targets[key].target for key in keys)
    found = {name: registry.target(name).conditions(device) for name in names}
    return {name: conditions for name, conditions in found.items() if conditions}


def timed_case(manifest: Manifest, timed_targets: Sequence[TargetInfo] = ()) -> CaseInfo:
    """The normal case at the opt sizes: what the model is optimised for is what is timed.

    Where scales were taken from real inputs, a real input is timed, for every subject: on others that target's answers
    are not looked at, and a timed call whose answer is not looked at shows nothing.
    """
    opt, single = {dim.name: dim.opt for dim in manifest.dims}, [case for case in manifest.cases if case.steps == 1]
    real = [case for case in single if case.scale == "sample"]
    if real and any(info.calibration is not None and info.calibration.real for info in timed_targets):
        return next((case for case in real if case.sizes == opt), real[0])
    normal = [case for case in single if case.scale == "normal"]
    return next((case for case in normal if case.sizes == opt), normal[0])


def looked_at(path_of: PathOf, manifest: Manifest, keys: Sequence[str]) -> tuple[CaseInfo, ...]:
    """The cases that a profile of these targets opens: the one it times, and where an output is a score all of its
    scale, whose usual size its error is counted in."""
    case = timed_case(manifest, [manifest.targets[key] for key in keys])
    content = read_tensors(path_of(case.file))
    scores = any(0 < content[f"reference/{tensor.name}"].size < FEW for tensor in manifest.outputs)
    return tuple(c for c in manifest.cases if c == case or (scores and c.scale == case.scale))


def artifact_subject(
    path_of: PathOf,
    manifest: Manifest,
    key: str,
    case: CaseInfo,
    stages: Stages,
    opening: Opening,
    layers: bool = False,
) -> Subject:
    """One artifact of a bundle, to be timed on a case; compiled again first where it was not made for here."""
    info = manifest.targets[key]
    target = registry.target(info.target)
    available = target.available()
    absent = "" if available.present else f"runtime absent: {available.reason}"
    skipped = absent or ("" if info.status == "compiled" else "not compiled yet")
    request: dict[str, Any] = {
        "target": info.target,
        "form": info.forms[0] if info.forms else None,
        "program": program_of(manifest).as_json(),
        "tensors": str(path_of(case.file)),
        "layers": layers,
        "allowed": _allowed(path_of, manifest, info.precision, target.rung, case, info),
    }
    if info.precision in manifest.yardsticks:
        request["undecided"] = (str(path_of(manifest.yardsticks[info.precision])), f"undecided/{case.name}/")
    advice: tuple[str, ...] = ()
    if not skipped:
        made = ready(path_of, manifest, key, stages, opening)
        request |= made.as_request()
        advice = made.advice
    deployed = {*info.forms[:1], *target.beside}
    work = stored.single(path_of, manifest) if layers and _at_opt(manifest, case) else {}
    sizes = [path_of(file).stat().st_size for role, file in info.files.items() if role.rpartition(".")[2] in deployed]
    return Subject(
        subject_name(info.target, info.precision), ARTIFACT, request, info.precision, info.stored, skipped=skipped,
        device=target.device, advice=advice, options=dict(opening.extra or {}), bytes=sum(sizes) or None,
        work=work, often=stored.runs(manifest),
    )  # fmt: skip


def _at_opt(manifest: Manifest, case: CaseInfo) -> bool:
    """Whether a case has the sizes at which work was counted."""
    return all(case.sizes.get(dim.name, dim.opt) == dim.opt for dim in manifest.dims)


def subject_name(target: str, precision: str) -> str:
    """What a profile calls an artifact."""
    return target if precision == "fp32" else f"{target}/{precision}"


def _allowed(
    path_of: PathOf, manifest: Manifest, precision: str, rung: str, case: CaseInfo, info: TargetInfo | None = None
) -> dict[str, float]:
    """The largest relative error a timed call may have: the rung times eager's own noise on this case."""
    if info is not None and info.way in INTEGER:
        real = info.calibration is not None and info.calibration.real
        bound = GROSS if real and case.scale != "sample" else _error(info)
        return {tensor.name: bound * _unit(path_of, manifest, case, tensor.name) for tensor in manifest.outputs}
    content, lowered = read_tensors(path_of(case.file)), precision in manifest.yardsticks
    rows = {t.name: content[f"noise/{t.name}"] for t in manifest.outputs}
    if lowered:
        yardsticks = read_tensors(path_of(manifest.yardsticks[precision]))
        rows = {t.name: yardsticks[f"noise/{case.name}/{t.name}"] for t in manifest.outputs}
    roundoff = UNIT_ROUNDOFF[precision if lowered else "fp32"]
    bound = RUNGS["low" if lowered else rung].bound
    return {name: bound * max(float(row[0]), roundoff) for name, row in rows.items()}


def _unit(path_of: PathOf, manifest: Manifest, case: CaseInfo, output: str) -> float:
    """What an error counts in, as a multiple of the output of this case: more than 1 for a score near zero."""
    own = read_tensors(path_of(case.file))[f"reference/{output}"]
    if not 0 < own.size < FEW:
        return 1.0
    cases = [{"scale": c.scale, "file": path_of(c.file)} for c in manifest.cases if c.scale == case.scale]
    usual, size = usual_sizes(cases, [output])[output, case.scale], l2(own) / sqrt(own.size)
    return max(usual / size, 1.0) if size else 1.0


def _error(info: TargetInfo) -> float:
    """The largest relative error of a target that is judged by its error alone."""
    asked = info.budget.decibels
    return QUANTISED_RUNG.error if asked is None else float(10 ** (-asked / 20))


def _eager_subject(
    path_of: PathOf,
    manifest: Manifest,
    code: Code,
    case: CaseInfo,
    device: str,
    index: int,
    precision: str = "fp32",
) -> Subject:
    """Eager PyTorch with the weights the artifacts were made from, on the device that they compute on."""
    skipped = missing(manifest, code)
    request = {
        "build": {} if skipped else build_of(manifest, code),
        "inputs": [t.name for t in manifest.inputs],
        "repeats": list(manifest.repeats),
        "outputs": [t.name for t in manifest.outputs],
        "tensors": str(path_of(case.file)), "allowed": _allowed(path_of, manifest, precision, "portable", case),
        "tf32": precision == "tf32",
        "device": device if device == "cpu" else f"{device}:{index}",
    }  # fmt: skip
    name = "eager" if device == "cpu" else f"eager on {device}"
    return Subject(name, EAGER, request, precision, "fp32", baseline=True, skipped=skipped, device=device)
