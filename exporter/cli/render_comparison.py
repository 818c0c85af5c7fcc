"""For people and their tools: what differs between two sides, the verdict first; as text, as Markdown, as JUnit XML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exporter.cli.console import console, escape, mark, plain, table
from exporter.cli.output import junit_case
from exporter.cli.render import size

Value = Mapping[str, Any]
Row = tuple[str, ...]
MARKUP = re.compile(r"[\\|\[\]!*_~#]")
APART = "\u200b"  # a space of no width
SHOWN = 8  # of lists whose rest is in the JSON
PARITY = ("change", "hop", "A", "B", "error / eager's own in A", "in B", "compared")
LATENCY = ("latency", "A", "95 % interval", "B", "95 % interval", "B / A", "95 % interval", "shown")
REST = ("what", "name", "A", "B", "change")


def compared(value: Value) -> None:
    """The verdict, what speaks against B, then part by part."""
    out = console()
    out.print(f"{mark(_word(value))}  {escape(value['verdict'])}  {escape(_title(value))}")
    for line in value["regressions"]:
        out.print(f"  worse: {escape(line)}")
    for part, reason in value["missing"].items():
        out.print(f"  missing: {part}, {escape(reason)}")
    for line in _lacking(value):
        out.print(f"  {escape(line)}")
    for columns, rows in ((PARITY, _parity(value)), (LATENCY, _latency(value)), (REST, list(_rest(value)))):
        if rows:
            made = table(*columns)
            for row in rows:
                made.add_row(*(escape(cell) for cell in row))
            out.print(made)
    for line in _notes(value):
        out.print(f"  {escape(line)}")


def markdown(value: Value) -> str:
    """The same for a pull request: the verdict and what is worse above the fold, the rest below it."""
    lines = [f"### {_word(value)}: {_cell(value['verdict'])}", "", _cell(_title(value)), ""]
    lines += [f"- **worse**: {_cell(line)}" for line in value["regressions"]]
    lines += [f"- missing: {part}, {_cell(reason)}" for part, reason in value["missing"].items()]
    lines += [f"- {_cell(line)}" for line in _lacking(value)]
    lines += ["", *_grid(LATENCY, _latency(value)), *_grid(PARITY, _parity(value))]
    rest = [*_grid(REST, list(_rest(value))), *(f"- {_cell(line)}" for line in _notes(value))]
    if rest:
        lines += ["<details><summary>sizes, layers, operators, versions</summary>", "", *rest, "", "</details>"]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _lacking(value: Value) -> list[str]:
    return [f"missing in part: {part}, {line}" for part, lines in value["lacking"].items() for line in lines]


def junit(value: Value) -> bytes:
    """The same as JUnit XML: a test case per hop and result, and per artifact that was timed."""
    from xml.etree import ElementTree as Xml

    suites = Xml.Element("testsuites", name=_xml(f"exporter compare {value['model']}"))
    cases = {"parity": list(_parity_cases(value)), "latency": list(_latency_cases(value))}
    for name, found in cases.items():
        failures = sum(verdict not in ("PASS", "SKIPPED") for _, _, verdict, _ in found)
        skipped = sum(verdict == "SKIPPED" for _, _, verdict, _ in found)
        counts = {"tests": str(len(found)), "failures": str(failures), "skipped": str(skipped)}
        suite = Xml.SubElement(suites, "testsuite", {"name": name, **counts})
        for group, label, verdict, reason in found:
            junit_case(suite, _xml(group), _xml(label), verdict, _xml(reason))
    content: bytes = Xml.tostring(suites, encoding="utf-8", xml_declaration=True)
    return content


def _xml(text: str) -> str:
    """Text that XML can hold."""
    return plain(text).replace("\ufffe", "?").replace("\uffff", "?")


Case = tuple[str, str, str, str]


def _parity_cases(value: Value) -> Iterator[Case]:
    if "parity" in value["missing"]:
        yield "parity", "all", "SKIPPED", value["missing"]["parity"]
    for hop in value["parity"]:
        bad = hop["change"] in ("worse", "gone")
        yield f"parity {_label(hop)}", "verdict", hop["change"] if bad else "PASS", _sides(hop)
        for result in hop["results"]:
            label = " ".join(filter(None, [result["case"], result["output"], result["form"]]))
            bad = result["change"] in ("worse", "gone")
            yield f"parity {_label(hop)}", label, result["change"] if bad else "PASS", _sides(result)


def _latency_cases(value: Value) -> Iterator[Case]:
    if "latency" in value["missing"] and not value["latency"]:
        yield "latency", "all", "SKIPPED", value["missing"]["latency"]
    for timed in value["latency"]:
        if timed["ratio"]:
            unsettled = value["strict"] and not timed.get("settled", True)
            verdict = "slower" if timed["regression"] else "not settled" if unsettled else "PASS"
        else:
            verdict = "SKIPPED" if timed["verdict"] == "PASS" else timed["verdict"]
        yield "latency", timed["subject"], verdict, timed["reason"] or _ratio(timed)


def _sides(part: Value) -> str:
    """Verdict and error of something on both sides."""
    return "; ".join(f"{side.upper()}: {_judged(part[side])}" for side in ("a", "b"))


def _judged(side: Value | None) -> str:
    if side is None:
        return "absent"
    error = side.get("relative_l2")
    return f"{side['verdict']}, relative L2 {error:.3g}" if error is not None else str(side["verdict"])


def _word(value: Value) -> str:
    if value["regression"]:
        return "REGRESSION"
    return {0: "PASS", 3: "INCOMPLETE"}.get(value["exit_code"], "NOT SETTLED")


def _title(value: Value) -> str:
    return f"{value['model'] or 'a model'}: {value['b']['name']} (B) against {value['a']['name']} (A)"


def _label(hop: Value) -> str:
    where = f"{hop['target']}/{hop['precision']}" if hop["target"] else hop["precision"]
    return " ".join(filter(None, [hop["hop"], where]))


def _parity(value: Value) -> list[Row]:
    return [
        (
            hop["change"],
            _label(hop),
            _verdict(hop["a"]),
            _verdict(hop["b"]),
            _error(hop["a"]),
            _error(hop["b"]),
            _counted(hop["results"]),
        )
        for hop in value["parity"]
    ]


def _verdict(side: Value | None) -> str:
    return f"{side['verdict']} {side['ran'] or ''}".strip() if side else "absent"


def _error(side: Value | None) -> str:
    worst = side["worst"] if side else None
    if not worst or worst["relative_l2"] is None:
        return ""
    own = "" if worst["amplification"] is None else f"{worst['amplification']:.3g}"
    return f"{own} ({worst['relative_l2']:.2g}, {worst['case']})"


def _counted(results: Sequence[Value]) -> str:
    """How many results there are, and how many of them changed how."""
    changes = [result["change"] for result in results if result["change"] != "same"]
    told = [f"{changes.count(change)} {change}" for change in dict.fromkeys(changes)]
    return ", ".join([f"{len(results)} results", *told]) if results else "verdicts alone"


def _latency(value: Value) -> list[Row]:
    rows: list[Row] = []
    for timed in value["latency"]:
        a, b = (_timed(timed[side]) for side in ("a", "b"))
        if timed["ratio"]:
            low, high = timed["ratio"]["interval"]
            told = [f"{timed['ratio']['value']:.3f}x", f"{low:.3f} to {high:.3f}", _shown(timed)]
        else:
            told = ["", "", str(timed["reason"] or timed["verdict"])]
        rows.append((timed["subject"], *a, *b, *told))
    return rows


def _timed(side: Value | None) -> tuple[str, str]:
    if not side:
        return "", ""
    low, high = side["interval_ms"]
    return f"{side['ms']:.4g} ms", f"{low:.4g} to {high:.4g}"


def _ratio(timed: Value) -> str:
    low, high = timed["ratio"]["interval"]
    return f"{timed['ratio']['value']:.3f}x ({low:.3f} to {high:.3f}): {timed['conclusion']}"


def _shown(timed: Value) -> str:
    return f"{timed['conclusion']}{', beyond what is allowed' if timed['regression'] else ''} ({timed['how']})"


def _rest(value: Value) -> Iterator[Row]:
    """What else there is on both sides; of operators and versions those that differ."""
    for name, (a, b) in value["sizes"].items():
        change = f"{b / a - 1:+.1%}" if a and b and a != b else ""
        yield "size", name, size(a) or "absent", size(b) or "absent", change
    for name, (a, b) in value["layers"].items():
        yield "layers", name, _counts(a), _counts(b), "" if a == b else "differ"
    for graph, (a, b) in value["operators"].items():
        yield "operators", graph, str(sum((a or {}).values())), str(sum((b or {}).values())), _moved(a or {}, b or {})
    for name, (a, b) in value["versions"].items():
        if a != b:
            yield "version", name, a or "absent", b or "absent", "differ"
    for name, (a, b) in value["facts"].items():
        yield "model", name, str(a)[:40], str(b)[:40], "differ"


def _counts(counts: Mapping[str, int] | None) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in (counts or {}).items()) or "untold"


def _moved(a: Mapping[str, int], b: Mapping[str, int]) -> str:
    """Which operators are more or fewer."""
    moved = {name: b.get(name, 0) - a.get(name, 0) for name in dict.fromkeys([*a, *b])}
    told = [f"{name} {count:+d}" for name, count in sorted(moved.items(), key=lambda m: -abs(m[1])) if count]
    return ", ".join([*told[:SHOWN], *(["..."] if len(told) > SHOWN else [])])


def _notes(value: Value) -> Iterator[str]:
    for hop in value["parity"]:
        worse = [result for result in hop["results"] if result["change"] in ("worse", "gone")]
        for result in worse[:SHOWN]:
            yield f"{result['change']}: {_label(hop)}, {result['case']} {result['output']}, {_sides(result)}"
        if len(worse) > SHOWN:
            yield f"and {len(worse) - SHOWN} more of {_label(hop)}: --json"
    for timed in value["latency"]:
        if timed["how"] == "live" and timed["ratio"]:
            yield f"timed here, {timed['subject']}: {_measured(timed)}"
        if timed["ratio"] and not timed["settled"]:
            bound = f"{100 * value['allowed']['slowdown']:.3g}%"
            more = "; more --seconds may tell" if timed["how"] == "live" else ""
            yield f"not settled, {timed['subject']}: whether it is beyond {bound}{more}"
        for side, stability in zip("AB", timed.get("stability", ()), strict=False):
            if stability != "STABLE":
                yield f"{timed['subject']} was {stability or 'not said to be stable'} in {side}"
    for line in value["notes"]:
        yield f"note: {line}"


def _measured(timed: Value) -> str:
    """How an artifact was timed."""
    clocks = {"processor": "the processor's clock", "wall": "the clock on the wall", "device": "the device's clock"}
    threads = "1 thread" if timed["threads"] == 1 else f"{timed['threads']} threads"
    return (
        f"{timed['pairs']} pairs of fresh processes, {threads}, by {clocks[timed['clock']]}, {timed['seconds']:.0f} s"
    )


def _grid(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """A Markdown table; nothing where there are no rows."""
    if not rows:
        return []
    lines = [columns, ["---"] * len(columns), *rows]
    return [*(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines), ""]


def _cell(text: str) -> str:
    """Text that is no more than text in Markdown: names come from models and from files of strangers."""
    text = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace("`", "'").replace("@", f"@{APART}")
    text = text.replace("://", f":{APART}//").replace("www.", f"www{APART}.")  # else they are links by themselves
    return MARKUP.sub(r"\\\g<0>", text)
