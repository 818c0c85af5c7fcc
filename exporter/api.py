"""The same as the command line, from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from exporter import comparison, pipeline, registry
from exporter.bundle import Bundle
from exporter.comparison.difference import Comparison
from exporter.comparison.live import SECONDS, Measuring
from exporter.comparison.values import Bounds
from exporter.errors import Incomplete
from exporter.latency import subjects
from exporter.models.rebuild import Code
from exporter.preflight import Opening, ready
from exporter.program import open_artifact, program_of
from exporter.request import Request
from exporter.run import run_file
from exporter.target_options import target_options
from exporter.verification import Verification, chosen, refuse_missing_checkpoint, verify

if TYPE_CHECKING:
    from polygraphy.backend.base import BaseRunner

    from exporter.diagnose import Diagnosis
    from exporter.latency.result import Profile
    from exporter.manifest import Manifest

AnyPath: TypeAlias = "str | os.PathLike[str]"


def export(
    model: str,
    target: str,
    output: AnyPath | None = None,
    *,
    checkpoint: AnyPath | None = None,
    precision: str = "fp32",
    dims: Mapping[str, str | int] | None = None,
    settings: Mapping[str, Any] | None = None,
    inputs: Sequence[str] = (),
    samples: AnyPath | None = None,
    calibration: AnyPath | None = None,
    budget: Sequence[str] | str = (),
    seed: int = 0,
    threads: int = 0,
    replace: bool = False,
    profile: bool = True,
    options: Mapping[str, Any] | None = None,
    device: int = 0,
    cache: bool = True,
) -> pipeline.Exported:
    """Exports a model for one target into a bundle.

    Args:
        model: a model's name, see ``exporter models``; or your own: ``FILE.py:FUNCTION``, ``PACKAGE.MODULE:FUNCTION``,
            ``LIBRARY:NAME``, a ``.pt2`` file.
        target: a target's name, see ``exporter targets``.
        output: the bundle's folder; ``./MODEL.bundle`` when None.
        checkpoint: a file of weights; without one they are seeded noise.
        precision: the precision to compile for; ``auto`` chooses the fastest that meets the budget.
        dims: ``{"T": "2:63:1500"}`` or ``{"T": 63}``: sizes of dynamic dims, within what the definition allows.
        settings: options of the definition.
        inputs: ``NAME=SHAPE:TYPE[:LOW:HIGH]`` each, of a model of your own: ``x=1x3xHxW:f32``, ``ids=1xT:i64:0:99``.
        samples: a file or folder of real inputs to judge on as well.
        calibration: a file or folder of real inputs that int8 takes its scales from, apart from ``samples``.
        budget: what a precision may cost: ``amplification:2``, ``snr:30`` (dB), ``METRIC:LOSS`` such as ``si-sdr:0.1``.
        seed: seeds weights and the order of timings.
        threads: CPU threads; 0 leaves it to the runtime.
        replace: whether to give up a bundle of another graph at ``output``.
        profile: whether to measure latency.
        options: options of the target alone, by name (``exporter targets``).
        device: which accelerator of the machine, where the target has several.
        cache: whether what earlier exports made may be used, and what this one makes kept (``docs/cache.md``).

    Returns:
        Verification, stages with seconds and peak memory in MB, and the latency profile in milliseconds.

    Raises:
        Refused: bad input, found before any work.
        NotProven: the model cannot be judged, such as a random one, or one whose declared dim froze.
        StageFailed: a stage crashed, timed out or ran out of memory. After any of these nothing was written.

    Source:
        The stages are described in ``docs/parity.md`` and ``docs/measuring.md``.
    """
    asked = options or {}
    return pipeline.export(
        Request(
            model=model,
            target=target,
            output=None if output is None else Path(output),
            checkpoint=None if checkpoint is None else Path(checkpoint),
            precision=precision,
            dims=tuple(f"{name}={value}" for name, value in (dims or {}).items()),
            settings=dict(settings or {}),
            inputs=tuple(inputs),
            samples=None if samples is None else Path(samples),
            calibration=None if calibration is None else Path(calibration),
            budget=(budget,) if isinstance(budget, str) else tuple(budget),
            seed=seed,
            threads=threads,
            replace=replace,
            profile=profile,
            extra=target_options(registry.target(target), [f"{name}={value}" for name, value in asked.items()]),
            device=device,
            cache=cache,
        )
    )


def compare(
    a: AnyPath,
    b: AnyPath,
    *targets: str,
    max_slowdown: float = Bounds.slowdown,
    max_error: float = Bounds.error,
    stored: bool = False,
    across_devices: bool = False,
    seconds: float = SECONDS,
    threads: int = 1,
    seed: int = 0,
    device: int = 0,
    trust_engine: bool = False,
) -> Comparison:
    """Compares two bundles, or two reports: ``b`` against ``a``. Artifacts that both hold are timed here, side by side.

    Args:
        a: what was: a bundle's folder, ``BUNDLE@REPORT``, or a JSON file of verify, profile or an export.
        b: what is.
        targets: only these; all of them when none is named.
        max_slowdown: a shown slow-down beyond this part is a regression: 0.05 allows 1.05 times the time.
        max_error: an error of more than so many times the larger of ``a``'s and eager's own is a regression.
        stored: whether to time nothing, and to compare what reports hold.
        across_devices: whether stored latencies of different devices may be compared.
        seconds: how long to measure each artifact for, at most.
        threads: CPU threads; 1 is timed by the processor's clock, several by the clock on the wall; 0 is all cores.
        seed: seeds the order of processes and blocks.
        device: which accelerator of the machine, where a target has several.
        trust_engine: whether to open artifacts that bring code of their own and were built by someone else.

    Returns:
        What differs: parity hop by hop, latency in milliseconds with ratios and intervals, sizes in bytes, layers,
        operators, versions; ``regressions`` in words, none where nothing got worse; what is ``missing``.

    Raises:
        Refused: no such bundle or report, a damaged one, two models, two devices.

    Source:
        What counts as a regression, and how artifacts are timed, is described in ``docs/compare.md``.
    """
    bounds = Bounds(max_slowdown, max_error)
    measuring = None if stored else Measuring(seconds, threads, seed, Opening(device, trust_engine))
    return comparison.compare(os.fspath(a), os.fspath(b), targets, bounds, across_devices, measuring)


def open(path: AnyPath) -> OpenBundle:  # noqa: A001  # the name users say: exporter.open
    """Opens a bundle. Reads its manifest only; nothing of it is run.

    Args:
        path: its folder.

    Raises:
        Refused: there is none, it is no bundle, its manifest breaks a rule of ``docs/bundle-format.md``, or a newer
            version made it.
    """
    return OpenBundle(Path(path))


class OpenBundle:
    """A bundle to verify, profile and run.

    Attributes:
        path: its folder.
        manifest: what it says of itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bundle = Bundle.open(path)

    @property
    def manifest(self) -> Manifest:
        """Names, shapes, dims, state, weights, cases and targets of the bundle."""
        return self._bundle.manifest

    def verify(self, *targets: str, save: bool = False, device: int = 0, trust_engine: bool = False) -> Verification:
        """Compares every artifact with the float64 references; needs no PyTorch.

        Args:
            targets: only these; all of them when none is named.
            save: whether to keep the report in the bundle.
            device: which accelerator of the machine, where a target has several.
            trust_engine: whether to open artifacts that bring code of their own and were built by someone else.

        Returns:
            The verdict, a hop per target and what was compared; an artifact that crashes is ``CRASHED`` there.

        Raises:
            Refused: an unknown target, or a file that is not what the manifest says.
        """
        return verify(self.path, targets, save=save, opening=Opening(device, trust_engine))

    def diagnose(
        self,
        target: str = "",
        *,
        case: str = "",
        output: AnyPath | None = None,
        checkpoint: AnyPath | None = None,
        device: int = 0,
        trust_engine: bool = False,
    ) -> Diagnosis:
        """Finds the first node whose answer is wrong, in the first hop that fails; needs ONNX.

        Args:
            target: only this one; all of them, in order, where empty.
            case: only this case; the smallest that fail where empty.
            output: where the bundle of what fails by itself is written; ``NAME.failing.bundle`` here when None.
            checkpoint: the weights, where they are not seeded and tracing is to blame.
            device: which accelerator of the machine, where a target has several.
            trust_engine: whether to open artifacts that bring code of their own and were built by someone else.

        Returns:
            The hop, the node with its module and source line, case by case, and the error along the graph in units of
            rounding's own; *nothing to diagnose* where every verdict is a PASS.

        Raises:
            Refused: an unknown target or case, or a file that is not what the manifest says.
            NotProven: a node that cannot be run apart.
            StageFailed: looking crashed.
        """
        from exporter.diagnose import diagnose

        return diagnose(
            self.path, target, case, output=None if output is None else Path(output),
            code=Code(None if checkpoint is None else Path(checkpoint)), opening=Opening(device, trust_engine),
        )  # fmt: skip

    def profile(
        self,
        *targets: str,
        threads: int = 0,
        seconds: float = 6.0,
        checkpoint: AnyPath | None = None,
        model: str = "",
        device: int = 0,
        trust_engine: bool = False,
    ) -> Profile:
        """Times artifacts, and eager PyTorch where it can be rebuilt, interleaved; figures in milliseconds.

        Args:
            targets: only these; all of them when none is named.
            threads: CPU threads of every subject; 0 is all cores.
            seconds: how long to measure in all.
            checkpoint: the weights, so that eager can be rebuilt where they are not seeded.
            model: where a model of your own is, so that eager can be rebuilt; a bundle never says which code to run.
            device: which accelerator of the machine, where a target has several.
            trust_engine: whether to open artifacts that bring code of their own and were built by someone else.

        Returns:
            Medians with intervals per subject, ratios between them, and whether to believe them.

        Raises:
            Refused: an unknown target, a checkpoint that is no file, or a file that is not what the manifest says.
        """
        weights = None if checkpoint is None else Path(checkpoint)
        refuse_missing_checkpoint(weights)
        opening = Opening(device, trust_engine)
        code = Code(weights, model)
        return subjects.profile(self.path, targets, code, threads=threads, budget_seconds=seconds, opening=opening)

    def report(self, file: AnyPath | None = None, *, replace: bool = False) -> Path:
        """Writes one HTML page of all that the bundle holds; nothing is run for it.

        Args:
            file: where; ``MODEL.report.html`` beside the bundle when None.
            replace: whether to give up a file there that is no such page.

        Returns:
            The file.

        Raises:
            Refused: a place where no page can be written, or a file of the bundle that is not what its manifest says.
        """
        from exporter.report import written

        return written(self.path, None if file is None else Path(file), replace)

    def runner(self, target: str, device: int = 0, trust_engine: bool = False) -> BaseRunner:
        """A Polygraphy runner of the target's artifact, in this process; use it in a ``with`` block.

        ``runner.infer({"spec": array})`` takes and returns numpy arrays by name, in the shapes and units that
        :attr:`manifest` lists.

        Args:
            target: the target to open.
            device: which accelerator of the machine, where the target has several.
            trust_engine: whether to open an artifact that brings code of its own and was built by someone else.

        Raises:
            Refused: an unknown target, or an artifact that does not belong here.
            Incomplete: its runtime is absent, or it is not compiled yet.
        """
        key = chosen(self._bundle, [target])[0]
        info = self.manifest.targets[key]
        available = registry.target(info.target).available()
        if info.status != "compiled" or not available.present:
            why = "an artifact runs in its own runtime"
            what = f"{target} cannot run here: {available.reason or 'not compiled yet'}"
            raise Incomplete(
                "runtime-absent", what, where=str(self.path), why=why, next=available.next or info.finish(self.path)
            )
        made = ready(self._bundle.file, self.manifest, key, None, Opening(device, trust_engine))
        return open_artifact(registry.target(info.target), program_of(self.manifest), made.artifact, made.options)

    def run(self, target: str, input: AnyPath, output: AnyPath) -> dict[str, Any]:
        """One real input file through an artifact, with the model's steps before and after.

        Args:
            target: the target to run.
            input: a ``.wav`` (16-bit mono), ``.npz`` or ``.safetensors`` file.
            output: a ``.wav`` or ``.npz`` file to write.

        Returns:
            ``{"calls": graph calls, "outputs": {name: shape}}``.

        Raises:
            Refused: an unknown target, an input that does not fit the model, or an output that cannot be written.
            Incomplete: the target's runtime is absent, or it is not compiled yet.
            StageFailed: the artifact crashed.
        """
        return run_file(self.path, target, Path(input), Path(output))
