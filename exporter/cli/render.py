"""For people: what each command found, the verdict first."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from exporter.cli.console import console, errors, escape, listing, mark, table
from exporter.cli.output import results_of
from exporter.cli.render_layers import layer_lines, peak_lines
from exporter.cli.render_sustained import sustained_lines, sweep_rows
from exporter.errors import ExporterError

SHOWN = 8  # of lists whose rest is in the JSON
Event = Mapping[str, Any]


def failed(error: ExporterError) -> None:
    """An error in its four parts, on stderr."""
    out = errors()
    out.print(f"[bold red]error\\[{escape(error.code)}][/]: {escape(error.what)}")
    for label, text in (("where", error.where), ("why", error.why), ("next", error.next)):
        if text:
            out.print(f"  [bold]{label:<6}[/] {escape(text)}")


def exported(value: Event) -> None:
    """The result of an export."""
    verified(value["verify"])
    if value["auto"]:
        _chosen(value["auto"])
    if value["profile"]:
        profiled(value["profile"])
    out = console()
    spent = [f"{s['stage']} " + ("reused" if s["cached"] else f"{s['seconds']:.1f} s") for s in value["stages"]]
    out.print(f"stages  {escape(', '.join(spent))}")
    out.print(f"bundle  {escape(value['bundle'])}")
    if value["published"]:
        out.print(f"trained weights  {escape(value['published'])}: fetch the file and add --checkpoint FILE")


def _chosen(auto: Event) -> None:
    """What ``--precision auto`` tried, and what it took."""
    out = console()
    budget = f", within {auto['budget']}" if auto["budget"] else ""
    out.print(f"chosen  {mark(auto['chosen'])}{escape(budget)}: {escape(auto['why'])}")
    rows = table("tried", "way", "verdict", "error", "loses", "median", "size", "multiplications")
    for row in auto["tried"]:
        spent = row["spent"] or {"decibels": None, "losses": {}}
        rows.add_row(
            row["precision"],
            row["way"],
            mark(row["verdict"]),
            "" if spent["decibels"] is None else f"{spent['decibels']:.1f} dB below",
            ", ".join(f"{metric} {loss:.3g}" for metric, loss in spent["losses"].items()),
            "" if row["median_ms"] is None else f"{row['median_ms']:.4g} ms",
            size(row["bytes"]),
            ", ".join(f"{part:.0%} {kind}" for kind, part in (row["work"] or {}).items()),
        )
    out.print(rows)
    for row in auto["tried"]:
        if row["reason"]:
            out.print(f"  {row['precision']}: {escape(row['reason'])}")
    for precision, lack in auto["lacking"].items():
        out.print(f"  {precision} was not tried: {escape(lack)}")


def size(count: int | None) -> str:
    """Bytes in kB, MB or GB; nothing where they are not known."""
    if count is None:
        return ""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def verified(value: Event) -> None:
    """Verdict first, then a line per hop with what decided it."""
    out = console()
    out.print(f"{mark(value['verdict'])}  {escape(value['model'])}  {escape(value['weights'])}")
    rows = table("verdict", "hop", "target", "ran", "error / eager's own", "worst case", "compared")
    for hop in value["hops"]:
        rows.add_row(*_hop_row(hop, value))
    out.print(rows)
    for hop in value["hops"]:
        if hop["reason"]:
            out.print(f"  {hop['verdict']} {hop['hop']} {hop['target'] or ''}: {escape(hop['reason'])}")
        if hop["facts"].get("log"):
            out.print(f"  log: {escape(hop['facts']['log'])}")
        for line in (*_kept_lines(hop), *_metric_lines(hop)):
            out.print(line)
        if hop["facts"].get("budget"):
            out.print(f"  budget, {_label(hop)}: {escape(hop['facts']['budget'])}; {_cost(hop['facts']['spent'])}")
        work, asked = hop["facts"].get("work", {}), (hop["precision"] or {}).get("asked", "fp32")
        if work and (asked != "fp32" or set(work) - {"fp32"}):
            parts = ", ".join(f"{part:.1%} {kind}" for kind, part in work.items())
            out.print(f"  work, {_label(hop)}: of the multiplications ran {parts}")
        if hop["facts"].get("undecided"):
            left = hop["facts"]["undecided"]
            out.print(f"  ties, {_label(hop)}: {left['left']} of {left['of']} whole numbers hang on rounding, left out")
        for line in hop["facts"].get("advice", []):
            out.print(f"  note, {_label(hop)}: {escape(line)}")


def _cost(spent: Event) -> str:
    """What an artifact costs, of all that was measured."""
    parts = [] if spent["decibels"] is None else [f"{spent['decibels']:.1f} dB"]
    parts += [] if spent["amplification"] is None else [f"{spent['amplification']:.2g} times eager's own error"]
    parts += [f"{metric} loses {loss:.3g}" for metric, loss in spent["losses"].items()]
    return f"it costs {', '.join(parts) or 'what nothing measured'}"


def _label(hop: Event) -> str:
    """What a note is about: the target, with its precision where that is not the usual one."""
    asked = (hop["precision"] or {}).get("asked", "fp32")
    return f"{hop['target']}/{asked}" if hop["target"] and asked != "fp32" else hop["target"] or hop["hop"]


def _decibels(result: Event) -> float:
    """How far the error is below the output."""
    error = result["relative_l2"]
    return -20 * math.log10(error) if error else math.inf


def _kept_lines(hop: Event) -> Iterator[str]:
    """Which nodes stay out of a lower precision, and why, by module; the JSON has all of them."""
    kept, modules = hop["facts"].get("kept", {}), hop["facts"].get("modules", {})
    if not kept:
        return
    asked, search = hop["precision"]["asked"], hop["facts"].get("search")
    yield f"  {len(kept)} of {hop['facts']['nodes']} nodes stay out of {asked}, which would not do for them:"
    by_module: dict[str, list[str]] = {}
    for node in kept:
        by_module.setdefault(modules.get(node) or node, []).append(node)
    for module, nodes in list(by_module.items())[:SHOWN]:
        more = f" and {len(nodes) - 1} more nodes there" if len(nodes) > 1 else ""
        where = nodes[0] if module == nodes[0] else f"{module} ({nodes[0]})"
        yield f"    {escape(where)}: {escape(kept[nodes[0]])}{more}"
    if len(by_module) > SHOWN:
        yield f"    and {len(by_module) - SHOWN} modules more: --json"
    if search:
        left = f"{search['excess']:.2g} of the error allowed is left"
        yield f"  found in {search['runs']} runs, {search['seconds']:.0f} s; {left}"


def _metric_lines(hop: Event) -> Iterator[str]:
    """Task metrics of real inputs: the artifact's, and how far it is from eager's."""
    for metric in hop["facts"].get("metrics", []):
        for case, row in metric["cases"].items():
            artifact, eager, difference = (
                _figure(row[name], metric["unit"]) for name in ("artifact", "eager", "difference")
            )
            note = f": {escape(row['note'])}" if "note" in row else ""
            yield (
                f"  {escape(metric['name'])}, {_label(hop)}, {escape(case)}: {artifact} against the "
                f"{row['against']} (eager {eager}, difference {difference}){note}"
            )


def _figure(value: float | None, unit: str) -> str:
    return "undefined" if value is None else f"{value:.4g} {unit}".strip()


def _hop_row(hop: Event, value: Event) -> list[str]:
    worst, precision = hop["worst"] or {}, hop["precision"] or {}
    mine = results_of(value, hop)
    amplification, asked = worst.get("amplification"), hop["facts"].get("decibels")
    cases = len({(r["case"], r["form"]) for r in mine})
    return [
        mark(hop["verdict"]),
        hop["hop"],
        hop["target"] or "",
        precision.get("ran") or f"{precision.get('asked', '')} asked",
        "" if amplification is None else f"{amplification:.2f}" if not asked else f"{_decibels(worst):.1f} dB",
        worst.get("case", ""),
        f"{cases} cases, {sum(r['elements'] for r in mine):,} values" if mine else _not_compared(hop),
    ]


def _not_compared(hop: Event) -> str:
    """Why a hop lists no values: its graph was judged by an earlier export, or nothing was."""
    return "when this graph was exported" if hop["target"] is None and hop["verdict"] != "SKIPPED" else "nothing"


def profiled(value: Event) -> None:
    """Stability before any number, then medians with intervals, then what may be concluded."""
    out = console()
    floor = value["noise_floor"]
    noise = f"two runs of the same thing differ by {(floor - 1) * 100:.1f} % here" if floor else "no noise floor"
    out.print(f"{mark(value['stability'])}  latency, {noise}")
    if "sweep" in value:
        listing(out, sweep_rows(value), ("subject", "median", "95 % interval", "inputs a second"))
        _warnings(value)
        return
    rows = table(
        "subject", "median", "95 % interval", "p95", "n", "load", "first run", "memory", "size", "threads", "ran"
    )
    for subject in value["subjects"]:
        rows.add_row(*_subject_row(subject))
    out.print(rows)
    for subject in value["subjects"]:
        for line in (*_device_lines(subject), *layer_lines(subject)):
            out.print(line)
    for line in peak_lines(value.get("peaks")):
        out.print(line)
    for line in sustained_lines(value.get("sustained", ())):
        out.print(line)
    for ratio in value["ratios"]:
        low, high = ratio["interval"]
        out.print(
            f"  {escape(ratio['of'])} takes {_times(ratio['median'])}x ({_times(low)} to {_times(high)}) the time of "
            f"{escape(ratio['to'])}: {ratio['conclusion']}"
            + ("" if value["stability"] == "STABLE" else f" ({value['stability']}: its size is uncertain)")
        )
    _warnings(value)


def _times(ratio: float) -> str:
    """Two decimals, or two digits where those would say nothing: a hundredth is not 0.00."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def _warnings(value: Event) -> None:
    out = console()
    for warning in value["warnings"]:
        out.print(f"  warning: {escape(str(warning.get('what', '')))}; {escape(str(warning.get('advice', '')))}")


def _device_lines(subject: Event) -> Iterator[str]:
    """What a device's own clock leaves out, and what was decided before the artifact was opened."""
    if subject["options"]:
        chosen = ", ".join(f"{name}={_option(value)}" for name, value in subject["options"].items())
        yield f"  {escape(subject['name'])}: with {escape(chosen)}"
    if subject["copies_ms"] and subject["host_ms"] is not None:
        there, back = subject["copies_ms"]["in"], subject["copies_ms"]["out"]
        yield (
            f"  {escape(subject['name'])}: by the device's clock; copies apart, {there:.4g} ms in and {back:.4g} ms "
            f"out; {subject['host_ms']:.4g} ms a call by the host's"
        )
    for line in subject["advice"]:
        yield f"  note, {escape(subject['name'])}: {escape(line)}"


def _subject_row(subject: Event) -> list[str]:
    if subject["median_ms"] is None:
        return [subject["name"], f"{subject['verdict']}: {subject['reason']}", *[""] * 9]
    interval, p95 = subject["interval_ms"], subject["p95_ms"]
    return [
        subject["name"],
        f"{subject['median_ms']:.4g} ms",
        "n too small" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}",
        "n too small" if p95 is None else f"{p95:.4g}",
        str(subject["n"]),
        _told(subject["load_ms"], ".0f", "ms"),
        _told(subject["first_run_ms"], ".3g", "ms"),
        _told(subject["peak_rss_mb"], ".0f", "MB"),
        size(subject["bytes"]),
        _told(subject["threads"], "d"),
        subject["precision"]["ran"] or "?",
    ]


def _told(value: float | None, form: str, unit: str = "") -> str:
    """A figure, or a question mark where another device's runner did not tell it."""
    return "?" if value is None else f"{value:{form}} {unit}".strip()


def ran(value: Event) -> None:
    """Where the output of a run lies."""
    console().print(f"wrote {escape(value['output'])} after {value['calls']} calls of the graph")
    for line in value.get("advice", []):
        console().print(f"  note: {escape(line)}")


def reported(value: Event) -> None:
    """Where the page of a bundle lies."""
    console().print(f"page  {escape(value['page'])}, {size(value['bytes'])}")


def inspected(value: Event) -> None:
    """What a bundle holds."""
    out = console()
    out.print(f"{escape(value['model'])}  {value['parameters']:,} parameters  {escape(value['weights'])}")
    listing(out, value["rows"], ("what", "name", "detail"))


def written(value: Event) -> None:
    """What ``exporter init`` wrote, and what to do with it."""
    console().print(f"definition  {value['file']}")
    console().print(f"next        exporter TARGET {value['model']}, after you have looked at it")


def models(value: Event) -> None:
    """One row per model; everything of it when there is but one."""
    out = console()
    rows = [
        (m["family"], m["name"], f"{m['parameters']:,}", " ".join(m["dims"]) or "fixed", m["summary"])
        for m in sorted(value["models"], key=lambda m: (m["family"], m["name"]))
    ]
    listing(out, rows, ("family", "name", "parameters", "dims", "what it is"))
    for broken in value["broken"]:
        out.print(f"[bold yellow]broken[/]  {escape(broken['reason'])}")
    if len(value["models"]) == 1:
        (only,) = value["models"]
        tensors = [
            (kind, t["name"], f"{t['shape']} {t['dtype']}: {t['meaning']}")
            for kind in ("inputs", "outputs")
            for t in only[kind]
        ]
        listing(out, tensors, ("", "tensor", "meaning"))
        options = [(key, escape(str(default))) for key, default in only["options"].items()]
        if options:
            listing(out, options, ("--set", "default"))
        out.print(f"metric  {escape(only['metric'] or 'none')}")
        out.print(f"budget of int8  {escape(only['budget'])}")
        out.print(f"source  {escape(only['source'])}")
        out.print(f"checkpoint  {escape(only['checkpoint'] or 'none published')}")
        out.print(f"licence  {escape(only['licence'])}")


def targets(value: Event) -> None:
    """One row per target."""
    rows = [
        (
            t["name"],
            "yes" if t["available"] else "no",
            t["version"] or "",
            " ".join(t["precisions"]),
            t["reason"] + (f"; {t['next']}" if t["next"] else ""),
        )
        for t in value["targets"]
    ]
    listing(console(), rows, ("target", "runs here", "version", "precisions", "what is missing"))
    options = [
        (t["name"], f"{name}={_option(option['default'])}", option["meaning"])
        for t in value["targets"]
        for name, option in t["options"].items()
    ]
    if options:
        listing(console(), options, ("target", "--option, with its default", "meaning"))


def _option(value: bool | int | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def doctor(value: Event) -> None:
    """What stands in the way, then versions."""
    out = console()
    for problem in value["problems"]:
        out.print(f"[bold yellow]missing[/]  {escape(problem)}")
    if not value["problems"]:
        out.print("[bold green]nothing is missing[/]")
    for target in value["elsewhere"]:
        out.print(f"[bold]prepared here, compiled elsewhere[/]  {escape(target)}")
    listing(out, [(k, str(v)) for k, v in {**value["machine"], **value["versions"]}.items()], ("", ""))


def cached(value: Event) -> None:
    """What the cache holds, where, and what went."""
    out = console()
    if value["pruned"]:
        out.print(f"removed  {value['pruned']['entries']} entries, {size(value['pruned']['bytes'])}")
    rows = [
        (e["model"] or "?", e["stage"] or e["key"][:12], size(e["bytes"]), _ago(e["made"]), _ago(e["used"]),
         e["problem"] or "")
        for e in value["entries"]
    ]  # fmt: skip
    if rows:
        listing(out, rows, ("model", "stage", "size", "made", "last used", "will not be used"))
    limit = size(value["limit_bytes"])
    out.print(f"cache  {escape(value['folder'])}, {len(rows)} entries, {size(value['bytes'])} of at most {limit}")
    if value["problem"]:
        out.print(f"[bold yellow]not used[/]  {escape(value['problem'])}")


def _ago(moment: str) -> str:
    """How long ago a moment was, in its largest whole unit."""
    seconds = max(time.time() - datetime.fromisoformat(moment).timestamp(), 0.0)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
