"""Reports that a bundle keeps: in which order, and of which artifacts each tells.

A report goes on being true of the artifacts that were judged or timed. Of one that was replaced since it says nothing:
it is refused where that happened meanwhile (:func:`save_report`), and passed over afterwards
(:func:`exporter.report.judgements.current`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.bundle import Bundle, Draft, editing
from exporter.errors import Refused
from exporter.manifest import Manifest, TargetInfo
from exporter.manifest.identity import artifacts_of, order_of, others_than
from exporter.manifest.limits import MAX_COUNT, MAX_REPORT_BYTES
from exporter.samples import named
from exporter.use import use_page

# What --save calls its reports, or begins with; each speaks of the artifacts that the bundle held then.
SAVED = ("verify", "profile", "sweep")
# Between the name of a report and the artifacts it tells of, where those are not all of the bundle's.
OF_SOME = "+"


def still_true(manifest: Manifest, before: Mapping[str, TargetInfo]) -> Manifest:
    """The manifest without the reports of ``--save`` that speak of an artifact which is another one now.

    Args:
        manifest: what is about to be committed.
        before: the targets that there were when those reports were saved.
    """
    replaced = any(manifest.targets.get(key, info) != info for key, info in before.items())
    reports = {name: file for name, file in manifest.reports.items() if not (replaced and name.startswith(SAVED))}
    return replace(manifest, reports=reports)


def report_name(kind: str, keys: Collection[str], manifest: Manifest, device: str = "") -> str:
    """What ``--save`` calls a report: one that tells something else, or of other artifacts, is kept beside it.

    Args:
        kind: one of :data:`SAVED`, and what it tells beside.
        keys: the artifacts that it tells of.
        manifest: of all that could be meant.
        device: where it was made, if not here.
    """
    name = f"{kind}-{named(device)}" if device else kind
    some = [] if set(keys) == set(manifest.targets) else sorted(key.replace("/", "-") for key in keys)
    return OF_SOME.join([name, *some])


def save_report(
    path: Path,
    kind: str,
    keys: Sequence[str],
    judged: Manifest,
    report: Mapping[str, Any],
    device: str = "",
    beside: Mapping[str, Path] | None = None,
) -> None:
    """Keeps a report in a bundle, and files beside it, by name; older ones of no other artifacts go.

    Args:
        path: the bundle's folder.
        kind: one of :data:`SAVED`, and what it tells beside.
        keys: the artifacts that it tells of.
        judged: the manifest by which they were opened.
        report: what to keep.
        device: where it was made, if not here.
        beside: other files, by the names that they are to have.

    Raises:
        Refused: ``other-artifact`` where one of them was replaced meanwhile.
    """
    with editing(path, f"exporter {kind} --save") as draft:
        assert draft.old is not None
        _refuse_others(artifacts_of(judged, keys), draft.old.manifest, path)
        manifest = with_report(draft, draft.old.manifest, kind, keys, report, device)
        stored = {each: draft.add(file, f"reports/{file.name}") for each, file in (beside or {}).items()}
        manifest = replace(manifest, reports=manifest.reports | stored)
        draft.derived("USE.md", use_page(manifest))
        draft.commit(manifest)


def with_report(
    draft: Draft, manifest: Manifest, kind: str, keys: Collection[str], report: Mapping[str, Any], device: str = ""
) -> Manifest:
    """The manifest with a report more, numbered as the last; the arguments are those of :func:`save_report`."""
    name = report_name(kind, keys, manifest, device)
    number = _last(draft.old) + 1
    forged = number >= MAX_COUNT  # nobody saves so often: those before it would stay the newest for ever
    number = 1 if forged else number
    value = {**report, "artifacts": artifacts_of(manifest, keys), "saved": number}
    file = draft.write(f"reports/{name}.json", json.dumps(value, indent=1, sort_keys=True).encode())
    kept = {each: held for each, held in manifest.reports.items() if not _covered(each, name)}
    if forged and draft.old:
        kept = {each: held for each, held in kept.items() if not _number(draft.old, held)}
    return replace(manifest, reports=kept | {name: file})


def _refuse_others(judged: Mapping[str, str], manifest: Manifest, path: Path) -> None:
    others = others_than(dict(judged), manifest)
    if others:
        raise Refused(
            "other-artifact", f"{', '.join(sorted(others))} was replaced in the bundle meanwhile: nothing was saved",
            where=f"bundle {path}", why="a verdict and a latency are those of the artifact that was run",
            next=f"exporter verify {path} --save, and the like",
        )  # fmt: skip


def _covered(older: str, newer: str) -> bool:
    """Whether a report tells of no other artifacts than a newer one of the same kind and device."""
    (base, *some), (kind, *all_) = older.split(OF_SOME), newer.split(OF_SOME)
    return base == kind and (not all_ or (bool(some) and set(some) <= set(all_)))


def _last(bundle: Bundle | None) -> int:
    """The number of the report that was saved last, whatever it is called: what is saved next is newer than any."""
    reports = bundle.manifest.reports if bundle else {}
    return max((_number(bundle, file) for file in reports.values() if bundle), default=0)


def _number(bundle: Bundle, file: str) -> int:
    if not file.endswith(".json"):
        return 0
    try:
        return order_of(json.loads(bundle.read(file, MAX_REPORT_BYTES)))
    except (Refused, ValueError, RecursionError):  # damaged, which whoever reads it is told
        return 0
