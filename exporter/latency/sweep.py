"""One artifact at several sizes or numbers of threads, side by side in one run: what a batch or a core more brings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.bundle import read_tensors, write_tensors
from exporter.errors import Refused
from exporter.latency.result import Measured, Subject, rounded
from exporter.manifest import CaseInfo, Manifest
from exporter.preflight import PathOf
from exporter.spec import Tensor
from exporter.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np

THREADS = "threads"
# Each point is a child that stays open until the end.
MOST_POINTS = 12


@dataclass(frozen=True)
class Sweep:
    """The values to go through, by what is varied: ``threads``, or a dim of the model. Several make a grid."""

    values: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @staticmethod
    def parse(texts: Sequence[str]) -> Sweep:
        """The sweep that ``NAME=VALUE,VALUE`` texts say.

        Raises:
            Refused: ``bad-sweep`` for a text that says none.
        """
        found: dict[str, tuple[int, ...]] = {}
        for text in texts:
            name, _, listed = text.partition("=")
            parts = [part.strip() for part in listed.split(",")]
            if not name or name in found or not all(part.isdecimal() and 0 < int(part) < 2**31 for part in parts):
                raise _refused(f"--sweep {text} names no values", "it reads NAME=VALUE,VALUE,.. with whole numbers")
            found[name] = tuple(dict.fromkeys(map(int, parts)))
        return Sweep(found)

    def points(self) -> Iterator[dict[str, int]]:
        """Every combination, the last name fastest."""
        for values in product(*self.values.values()):
            yield dict(zip(self.values, values, strict=True))


def check(sweep: Sweep, manifest: Manifest, subjects: int) -> None:
    """Refuses a sweep that this bundle or this machine cannot go through.

    Raises:
        Refused: ``bad-sweep``.
    """
    dims = {dim.name: dim for dim in manifest.dims}
    for name, values in sweep.values.items():
        if name == THREADS:
            continue
        if name not in dims:
            known = ", ".join([THREADS, *dims])
            raise _refused(f"there is nothing named {name} to vary", f"what can be varied is {known}")
        if name in manifest.repeats:
            raise _refused(f"{name} is how often a part runs", "the bundle holds the answer of one count alone")
        wrong = [value for value in values if not dims[name].allows(value)]
        if wrong:
            raise _refused(f"{name}={wrong[0]} lies beyond {name} {dims[name]}", "nothing beyond a range was verified")
    points = subjects * prod(len(values) for values in sweep.values.values())
    if points > MOST_POINTS:
        raise _refused(f"{points} points", f"each is a process that stays open; at most {MOST_POINTS}")


def varied(
    subject: Subject, sweep: Sweep, path_of: PathOf, manifest: Manifest, case: CaseInfo, folder: Path
) -> list[Subject]:
    """The subject once per point of a sweep.

    Inputs of another size are those of the case, repeated along the dim; the answer has to be the repeated answer. That
    holds for a batch, and wherever it does not the subject is voided for its wrong outputs.
    """
    found = []
    for point in sweep.points():
        sizes = {name: size for name, size in point.items() if name != THREADS}
        named = " ".join(f"{name}={value}" for name, value in point.items())
        request = dict(subject.request)
        if sizes and not subject.skipped:
            request["tensors"] = str(_resized(path_of, manifest, case, sizes, folder))
            # What hangs on rounding there is told for the case's own size.
            request.pop("undecided", None)
        found.append(
            replace(
                subject, name=f"{subject.name} {named}", request=request, threads=point.get(THREADS, 0), sizes=sizes
            )
        )
    return found


def _resized(path_of: PathOf, manifest: Manifest, case: CaseInfo, sizes: Mapping[str, int], folder: Path) -> Path:
    """The tensors of a case at other sizes, in a file."""
    path = folder / ("sweep-" + "-".join(f"{name}-{size}" for name, size in sizes.items()) + ".safetensors")
    if not path.is_file():
        content = read_tensors(path_of(case.file))
        tensors = {f"input/{t.name}": t for t in manifest.inputs} | {f"reference/{t.name}": t for t in manifest.outputs}
        write_tensors(path, {name: _repeated(content[name], tensor, sizes) for name, tensor in tensors.items()})
    return path


def _repeated(values: np.ndarray, tensor: Tensor, sizes: Mapping[str, int]) -> np.ndarray:
    import numpy as np

    for axis, entry in enumerate(tensor.shape):
        if entry in sizes:
            values = np.take(values, np.arange(sizes[str(entry)]) % values.shape[axis], axis)
    return np.ascontiguousarray(values)


def explained(measured: Measured) -> Measured:
    """A point whose answers were wrong, with what it was given."""
    if measured.verdict is not Verdict.INVALID or not measured.subject.sizes:
        return measured
    along = " and ".join(measured.subject.sizes)
    note = f"its inputs are the case's, repeated along {along}: only of a batch is the answer the repeated answer"
    return replace(measured, reason=f"{measured.reason}; {note}")


def point_json(measured: Measured, opt: Mapping[str, int]) -> dict[str, Any]:
    """One point of a sweep: what it takes, and how many inputs of the opt size that is in a second."""
    median = measured.median
    items = prod(size / opt[name] for name, size in measured.subject.sizes.items())
    return {
        "subject": measured.subject.name,
        "threads": measured.threads,
        "sizes": dict(measured.subject.sizes),
        "per_second": rounded(items * 1e9 / median.value) if median else None,
    }


def _refused(what: str, why: str) -> Refused:
    return Refused("bad-sweep", what, where="--sweep", why=why, next="exporter inspect BUNDLE, for its dims and ranges")
