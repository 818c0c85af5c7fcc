"""What came of the node tests, as a page."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.backend.batches import CRASHED, TIMED_OUT, Said
from tests.backend.child import FAIL, PASS, UNSUPPORTED

VERDICTS = (PASS, UNSUPPORTED, FAIL, CRASHED, TIMED_OUT)
# What tells two reasons of one kind apart: names, places, sizes.
PARTICULARS = (
    (r"^an (in|out)put is of \w+, a type", "an input or output is of a type"),
    (r"^an (in|out)put is no tensor but of \w+ type", "an input or output is a sequence or an optional"),
    (r" ?[Nn]ode with name:?'[^']*'|( node\.)? Name:'[^']*'", ""),
    (r",? ?(Operation )?name: \S+", ""),
    (r"'[^']*'", "'...'"),
    (r"\([^()]*Node[^()]*\)", "(...)"),
    (r"/\S+", "..."),
    (r"\[[^\]]*\d[^\]]*\]", "[...]"),
    (r"\S+_function_\S+ ", ""),
    (r"\(\d+\)", "(N)"),
    (r"(than required|than num_initial_values) \(N\)", r"\1"),
)
INTRODUCTION = """\
# ONNX's own tests

The node tests of the `onnx` package through the target protocol, as an export compiles, opens and runs a graph in fp32,
every form of the artifact; judged by ONNX's own runner with each test's own tolerances. Written by `make backend`.

A test whose interface is none of ours (sequences, optionals, strings, types that no bundle has, operators of another
domain, outputs drawn at random) is UNSUPPORTED before any target is asked. So is one that a target or its runtime
refuses, in its own words. A FAIL says how far off it is; 1e-7 of the largest value is rounding of float32, which tests
whose large values sum to zero do not allow.

What is no PASS was run again by the bare runtime through its own Python API, with nothing of ours: where that does
better the defect is ours, and where it does the same it is the runtime's.
"""


@dataclass(frozen=True)
class Row:
    """What is said of one test by us, and by the bare runtime where it was asked."""

    name: str
    ours: Said
    bare: Said | None = None

    @property
    def verdict(self) -> str:
        return self.ours["verdict"]

    @property
    def our_defect(self) -> bool:
        """The bare runtime does what we do not."""
        return self.verdict != PASS and self.bare is not None and self.bare["verdict"] == PASS

    def __str__(self) -> str:
        bare = f"; bare: {self.bare['verdict']} {self.bare['reason']}" if self.bare else ""
        return f"{self.name}: {self.verdict} {self.ours['stage']} {self.ours['reason']}{bare}"


def page(rows: Mapping[str, Sequence[Row]], versions: str) -> str:
    """The whole page, of every target's rows."""
    evaluator = {row.name: row.verdict for row in rows.get("onnx-reference", ())}
    lines = [INTRODUCTION, *_counts(rows)]
    for target, found in rows.items():
        lines += ["", f"## {target}", "", *_refused(found), *_wrong(target, found, evaluator), *_ours(found)]
    return "\n".join([*lines, "", f"With {versions}.", ""])


def _counts(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    lines = [f"| target | tests | {' | '.join(VERDICTS)} | ours to mend |", "|---" * (len(VERDICTS) + 3) + "|"]
    for target, found in rows.items():
        counts = Counter(row.verdict for row in found)
        told = " | ".join(str(counts[verdict]) for verdict in VERDICTS)
        lines.append(f"| {target} | {len(found)} | {told} | {sum(row.our_defect for row in found)} |")
    return lines


def _refused(found: Sequence[Row]) -> list[str]:
    """The reasons of UNSUPPORTED, the most frequent first."""
    groups = defaultdict[tuple[str, str], list[str]](list)
    for row in found:
        if row.verdict == UNSUPPORTED:
            groups[row.ours["stage"], _general(row.ours["reason"])].append(row.name)
    lines = ["| UNSUPPORTED | at | because | such as |", "|---|---|---|---|"]
    for (stage, reason), names in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        lines.append(f"| {len(names)} | {stage} | {_flat(reason)} | `{names[0]}` |")
    return lines if groups else ["Nothing is UNSUPPORTED."]


def _wrong(target: str, found: Sequence[Row], evaluator: Mapping[str, str]) -> list[str]:
    rows = [row for row in found if row.verdict not in (PASS, UNSUPPORTED)]
    if not rows:
        return ["", "No test FAILs or ends its child."]
    lines = ["", "| test | verdict | how far off | the bare runtime | ONNX's evaluator |", "|---|---|---|---|---|"]
    for row in rows:
        second = "is this one" if target == "onnx-reference" else evaluator.get(row.name, "")
        lines.append(f"| `{row.name}` | {row.verdict} | {_flat(row.ours['reason'])} | {_finding(row)} | {second} |")
    return lines


def _finding(row: Row) -> str:
    """What the runtime without us says of the same model: the same wrong answer is its own defect."""
    if row.bare is None:
        return "was not asked"
    if row.bare["verdict"] == PASS:
        return "**is right: the defect is ours**"
    same = row.bare["verdict"] == row.verdict and row.ours["reason"].endswith(row.bare["reason"])
    if row.verdict == row.bare["verdict"] == FAIL and not same:
        return f"as wrong, otherwise: {_flat(row.bare['reason'])}"
    return "the same" if same else f"{row.bare['verdict']}: {_flat(row.bare['reason'])}"


def _ours(found: Sequence[Row]) -> list[str]:
    rows = [row for row in found if row.our_defect and row.verdict == UNSUPPORTED]
    if not rows:
        return []
    lines = ["", "Refused by way of us, and done by the bare runtime:", ""]
    return lines + [f"- `{row.name}`: {row.ours['stage']}: {_flat(row.ours['reason'])}" for row in rows]


def _general(reason: str) -> str:
    for particular, put in PARTICULARS:
        reason = re.sub(particular, put, reason)
    return reason


def _flat(text: str) -> str:
    """Text of a runtime's as a cell of a table."""
    flat = " ".join(text.split())
    for sign, put in (("|", "\\|"), ("<", "&lt;"), ("*", "\\*")):
        flat = flat.replace(sign, put)
    return flat
