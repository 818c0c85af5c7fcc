"""A profile from what a runtime's own runner printed on a device without Python: a phone, mostly.

Nothing of it was done by us: one process, not in turn with anything, its answers compared by the runner's own rule or
not at all. So it is shown under the device's name with that said, no ratio is taken, and it is never STABLE.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter import registry
from exporter.bundle import Bundle
from exporter.errors import Refused
from exporter.latency import stats
from exporter.latency.result import SCHEMA, ms, rounded, spread_of
from exporter.latency.stats import Stability
from exporter.latency.subjects import subject_name
from exporter.manifest.text import printable
from exporter.saved import save_report
from exporter.target import Imported
from exporter.verdict import Precision, Verdict
from exporter.verification import chosen

# A record of every call of a long run; nothing that one of these programs writes is larger.
MOST_BYTES = 64 << 20
# Calls in a row make a block, as many blocks as give a median its interval.
BLOCKS = 20
ALONE = ("one process, not in turn with anything: no difference to another figure can be claimed",
         "profile there by --on ssh://..., where the device runs Python")  # fmt: skip


def imported(
    path: Path, targets: Sequence[str], files: Sequence[Path], label: str, save: bool = False
) -> dict[str, Any]:
    """The profile, as ``--json`` prints it, with the device it is of.

    Args:
        path: the bundle's folder.
        targets: the one target that ran there.
        files: what was printed, in any order: the record of every call, what else was said, what was compared.
        label: what the device is to be called.
        save: whether to keep it in the bundle, under the device's name.

    Raises:
        Refused: ``bad-import`` for files that no runner of this target prints, or none with timings; an unknown target;
            ``missing-file``.
    """
    bundle = Bundle.open(path)
    keys = chosen(bundle, targets)
    if len(keys) != 1:
        raise _refused(f"{len(keys)} artifacts could be meant", "a file does not say which it is of", "--target NAME")
    info = bundle.manifest.targets[keys[0]]
    target = registry.target(info.target)
    texts = [_text(file) for file in files]
    found = [target.imported(text) for text in texts]
    unread = [file.name for file, one in zip(files, found, strict=True) if one is None]
    if unread:
        what = f"{printable(unread[0])[:80]!r} is nothing that a runner of {info.target} prints"
        raise _refused(what, "a figure from a file that is not understood would be a guess", "USE.md of the bundle")
    whole = _joined([one for one in found if one is not None])
    if not whole.calls_ns:
        remedy = "the runner's record of every call: USE.md of the bundle has the lines"
        raise _refused("no file holds timings of calls", "the median of nothing is no figure", remedy)
    if whole.requests not in (None, len(whole.calls_ns)):
        what = f"the record holds {len(whole.calls_ns)} calls, and {whole.requests} were made"
        raise _refused(what, "half a record, or two files of two runs", "the whole record, and what that run printed")
    name = printable(label)[:120] or "unnamed"
    digest = hashlib.sha256("\0".join(sorted(texts)).encode()).hexdigest()
    value = _profile(subject_name(info.target, info.precision), Precision(info.precision, info.stored), whole)
    value["device"] = {"label": name, "imported": [printable(file.name) for file in files], "digest": digest}
    if save:
        save_report(path, "profile", keys, bundle.manifest, value, name)
    return value


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise OSError("it is no file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise Refused("missing-file", f"there is no record at {path}", where=f"--import {path}",
                      why=f"{error.strerror or error}", next=f"ls {path}") from error  # fmt: skip
    if len(data) > MOST_BYTES:
        raise _refused(f"{path.name} is larger than {MOST_BYTES >> 20} MiB", "no record of one run is", "a shorter run")
    return data.decode("utf-8", "replace")


def _joined(found: Sequence[Imported]) -> Imported:
    """What several files of one run say together.

    Raises:
        Refused: ``bad-import`` where two of them say the same thing.
    """
    parts: dict[str, Any] = {}
    for one in found:
        told = {k: v for k, v in one.__dict__.items() if v not in ((), 0, None)}
        twice = sorted(told.keys() & parts.keys() - {"peak_rss_bytes"})
        if twice:
            raise _refused(f"two files tell of {twice[0]}", "they are of two runs", "the files of one run at a time")
        parts |= told
    return Imported(**parts)


def _profile(name: str, precision: Precision, said: Imported) -> dict[str, Any]:
    size = max(1, len(said.calls_ns) // BLOCKS)
    blocks = [said.calls_ns[at : at + size] for at in range(0, len(said.calls_ns), size)]
    figures = [float(sorted(block)[len(block) // 2]) for block in blocks]
    verdict, reason = _verdict(said)
    timed = verdict is Verdict.PASS
    median = stats.median_interval([figures], 0) if timed else None
    sure = median is not None and len(figures) >= stats.ENOUGH_BLOCKS
    p95 = stats.percentile(said.calls_ns, 0.95) if timed else None
    reasons = [one.as_json() for one in stats.reasons_against(figures, said.calls_ns)]
    warnings = [{"code": "alone", "what": ALONE[0], "advice": ALONE[1]}]
    if not said.right + said.wrong + said.unanswered:
        warnings.append({"code": "unchecked", "what": "nothing says whether its answers were right",
                         "advice": "import what its test runner printed as well"})  # fmt: skip
    stability = Stability.NOISY if timed else Stability.INVALID
    subject: Mapping[str, Any] = {
        "name": name, "verdict": verdict.value, "reason": reason, "precision": precision.as_json(), "baseline": False,
        "stability": stability.value, "reasons": reasons, "median_ms": ms(median.value) if median else None,
        "interval_ms": [ms(end) for end in median.interval] if median and sure else None,
        "p95_ms": ms(p95.value) if p95 else None,
        "p95_upper_ms": ms(p95.upper) if p95 else None, "n": len(said.calls_ns), "load_ms": ms(said.load_ns),
        "first_run_ms": ms(said.first_ns), "peak_rss_mb": rounded(said.peak_rss_bytes, 2**20), "threads": None,
        "sizes": {}, "layers": {}, "providers": {}, "errors": {}, "device": "cpu", "clock": "host", "copies_ms": {},
        "host_ms": None, "advice": [], "options": {}, "bytes": None,
        "distribution": spread_of(said.calls_ns, figures) if timed else {},
        "answers": {"right": said.right, "wrong": said.wrong, "unanswered": said.unanswered},
    }  # fmt: skip
    return {
        "schema": SCHEMA, "stability": stability.value, "reasons": [], "noise_floor": None, "twins": None, "seed": None,
        "blocks": len(blocks), "budget_seconds": None, "seconds": rounded(sum(said.calls_ns), 1e9),
        "subjects": [subject], "ratios": [], "environment": {}, "warnings": warnings,
    }  # fmt: skip


def _verdict(said: Imported) -> tuple[Verdict, str | None]:
    """Wrong answers make timings worthless; answers that nobody compared are warned of."""
    sets = said.right + said.wrong + said.unanswered
    if said.wrong:
        return Verdict.INVALID, f"{said.wrong} of {sets} data sets were answered wrongly there"
    if said.unanswered:
        return Verdict.UNSUPPORTED, f"{said.unanswered} of {sets} data sets were not answered there"
    return Verdict.PASS, None


def _refused(what: str, why: str, next: str) -> Refused:
    return Refused("bad-import", what, where="--import", why=why, next=next)
