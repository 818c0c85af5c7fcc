"""Verify: a bundle's artifacts against its references, without PyTorch and without the model's code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter import calibration, registry, samples
from exporter.bundle import Bundle
from exporter.errors import Refused, nearest
from exporter.hops import artifact_hop, previews_of
from exporter.isolate import Limits
from exporter.manifest import Manifest, Weights
from exporter.models.rebuild import Code, build_of, missing
from exporter.preflight import Opening
from exporter.saved import save_report
from exporter.stages import STAGE_SECONDS, Progress, Stages, scratch, silent
from exporter.verdict import Hop, Result, Verdict, worst


@dataclass(frozen=True)
class Verification:
    """The hops that were verified, and what they say together."""

    model: str
    weights: str
    hops: tuple[Hop, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst hop; without hops nothing was verified."""
        return worst(hop.verdict for hop in self.hops)

    def as_json(self) -> dict[str, Any]:
        """The object of ``verify --json``."""
        return {
            "schema": "exporter.verify/1",
            "model": self.model,
            "weights": self.weights,
            "verdict": self.verdict.value,
            "hops": [hop.as_json() for hop in self.hops],
            "results": [_with_precision(result, hop) for hop in self.hops for result in hop.results],
        }


def _with_precision(result: Result, hop: Hop) -> dict[str, Any]:
    """A result with the precision that was asked for: a target may be there in several."""
    return result.as_json() | {"precision": hop.precision.asked if hop.precision else None}


def refuse_missing_checkpoint(path: Path | None) -> None:
    """Refuses a ``--checkpoint`` that is no file."""
    if path is not None and not path.is_file():
        where, why = f"--checkpoint {path}", "--checkpoint takes a file that exists"
        raise Refused("missing-file", f"there is no checkpoint {path}", where=where, why=why, next=f"ls {path.parent}")


def verification_of(manifest: Manifest, hops: Sequence[Hop]) -> Verification:
    return Verification(manifest.model.name, weights_line(manifest.weights), tuple(hops))


def weights_line(weights: Weights) -> str:
    """How a verdict names its weights, so that nobody ships noise because it said PASS."""
    if weights.kind == "seeded":
        return f"seeded weights ({weights.source}): noise, not a trained model"
    if weights.kind == "own":
        return f"weights {weights.source} (seed {weights.seed}), digest {weights.digest[:12]}"
    return f"checkpoint {weights.source}, digest {weights.digest[:12]}"


def verify(
    path: Path,
    targets: Sequence[str] = (),
    samples_path: Path | None = None,
    code: Code | None = None,
    limits: Limits | None = None,
    progress: Progress = silent,
    save: bool = False,
    opening: Opening | None = None,
) -> Verification:
    """Verifies a bundle's artifacts against its references; needs neither PyTorch nor the model's code.

    Args:
        path: the bundle's folder.
        targets: only these; all of them when empty.
        samples_path: real inputs to judge on as well. Their reference is computed first, which needs PyTorch, the
            model's definition and the weights.
        code: what the bundle does not hold, where samples are given.
        limits: time and memory of each stage.
        progress: told what happens.
        save: whether to keep the report in the bundle.
        opening: how artifacts are opened: on which device, and whether those of strangers are trusted.

    Raises:
        Refused: no such bundle or target, or a file of it is not what its manifest says.
    """
    bundle = Bundle.open(path)
    refuse_missing_checkpoint(code.checkpoint if code else None)
    manifest = bundle.manifest
    keys = chosen(bundle, targets)
    with scratch() as folder:
        stages = Stages(folder, limits or Limits(seconds=STAGE_SECONDS), progress)
        more, yardsticks = (
            _referenced(bundle, keys, samples_path, code or Code(), folder, stages) if samples_path else ([], {})
        )
        shown = {key: folder / f"{previews_of(key)}.safetensors" for key in keys}
        hops = [
            artifact_hop(bundle.file, manifest, key, stages, more, yardsticks, opening, path, shown[key])
            for key in keys
        ]
        verification = verification_of(manifest, hops)
        if save:
            made = {previews_of(key): file for key, file in shown.items() if file.is_file()}
            save_report(path, "verify", keys, manifest, verification.as_json(), beside=made)
    return verification


def _referenced(
    bundle: Bundle, keys: Sequence[str], samples_path: Path, code: Code, folder: Path, stages: Stages
) -> tuple[list[dict[str, Any]], dict[str, Path]]:
    """References of new samples, and their yardsticks in the precisions of these targets, by PyTorch in children.

    Raises:
        Refused: ``samples-need-reference`` where PyTorch or the weights are not at hand.
    """
    manifest = bundle.manifest
    lacking = missing(manifest, code)
    if lacking:
        raise Refused(
            "samples-need-reference",
            f"these samples have no float64 reference yet, and it cannot be computed here: {lacking}",
            where=f"bundle {bundle.path}",
            why="a verdict compares with what PyTorch computes in float64 with the same weights",
            next=f"exporter verify {bundle.path} --samples {samples_path} --checkpoint FILE, where torch is installed",
        )
    prepared = samples.prepared_files(manifest, samples.find(samples_path, manifest), folder)
    build = build_of(manifest, code)
    made = stages.run(
        "reference",
        "exporter.reference:write_cases",
        {"build": build, "samples": prepared, "folder": str(folder), "planned": False},
    )
    if made["weights"]["digest"] != manifest.weights.digest:
        raise Refused(
            "other-weights",
            f"these weights ({made['weights']['digest'][:12]}) are not the bundle's ({manifest.weights.digest[:12]})",
            where=f"bundle {bundle.path}",
            why="the artifact would be compared with another model",
            next="give the checkpoint that the bundle was exported with",
        )
    # A sample moves every output or none; vacuity is judged by the bundle's own cases, which run beside it.
    cases = [{key: case[key] for key in ("name", "scale", "steps", "file")} for case in made["cases"]]
    calibration.refuse_held(manifest, bundle.file, [(case["name"], Path(case["file"])) for case in cases])
    yardsticks = dict[str, Path]()
    for precision in sorted({manifest.targets[key].precision for key in keys} & manifest.yardsticks.keys()):
        yardsticks[precision] = folder / f"{precision}.safetensors"
        asked = {"build": build, "precision": precision, "cases": made["cases"], "file": str(yardsticks[precision])}
        stages.run(f"eager {precision}", "exporter.reference:write_yardstick", asked)
    return cases, yardsticks


def chosen(bundle: Bundle, targets: Sequence[str]) -> list[str]:
    """The keys of the targets asked for, or of all.

    Raises:
        Refused: ``unknown-target`` or ``nothing-to-verify``.
    """
    held = bundle.manifest.targets
    if not held:
        raise Refused(
            "nothing-to-verify",
            f"{bundle.path} holds no artifact",
            why="an empty check would pass",
            next=f"exporter compile {bundle.path} --target TARGET",
        )
    names = sorted({info.target for info in held.values()} | set(held))
    for name in targets:
        if name not in names:
            raise Refused(
                "unknown-target",
                f"{bundle.path} holds no target {name!r}{nearest(name, names)}",
                where=f"bundle {bundle.path}",
                why=f"it holds {', '.join(sorted(held))}",
                next=_way_to(name, bundle.path),
            )
    return [key for key, info in held.items() if not targets or key in targets or info.target in targets]


def _way_to(name: str, path: Path) -> str:
    """How a bundle comes to hold a target; a name that is none anywhere has no way."""
    real = name in registry.target_names()
    return f"exporter compile {path} --target {name}" if real else f"exporter inspect {path}"
