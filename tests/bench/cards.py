"""Exports every definition for every fast target, and writes docs/models.md: one card per definition, from what ran.

What an export said is kept under ``build/cards`` and used again while nothing that decides it has changed: the
definition's own files, ``exporter/`` and ``targets/``.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from exporter import define, registry
from exporter.graph import sha256
from exporter.latency import environment
from exporter.spec import ModelDef, Tensor
from tests.bench.figure import CHECKPOINT, EXPORTER, ROOT

PAGE, KEPT = ROOT / "docs" / "models.md", ROOT / "build" / "cards"
TARGETS = ("openvino", "mobile")
PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "timm")
# Definitions one of whose options is compared value by value, in a table of its own.
COMPARED = {"fusion-decoder": ("strategy", ("none", "concat", "add", "attention", "gated", "hybrid"))}

INTRODUCTION = """\
# Models

Every definition of `model_defs/`, each exported for every target that runs on the machine named at the end. Written
by `make cards` from what the exports said; nothing here is typed by hand but the definitions themselves.

- **MACs** are multiply-accumulates of convolutions and matrix products in one run at the opt sizes, as
  `torch.utils.flop_counter.FlopCounterMode` counts them (two of its FLOPs are one MAC). Other counters count other
  things: never compare across counters.
- **Verdict** is that of `exporter TARGET MODEL` at min, opt, max and odd sizes, on normal, wide, near-zero and sparse
  values, and on real inputs where there are any. The number is the largest error over eager PyTorch's own; the
  ladder allows 4 in ONNX Runtime and 16 in OpenVINO (`docs/parity.md`).
- **Latency** is the median at the opt sizes, with as many threads as the card says, and its ratio to eager PyTorch's,
  interleaved in one run, with the 95 % interval. `--` means no difference was shown. A profile that was not stable is
  marked `~`.
- Weights are seeded noise, except where a checkpoint is named: the metrics of real inputs then show that artifact and
  eager agree, not that the model is good.

Training of Restormer (progressive) and of the stereo networks is out of scope; the quality model is trained by
`python -m model_defs.vqa.train`.
"""


@dataclass(frozen=True)
class Subject:
    """A definition with some of its options chosen: what one card is about."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    @property
    def definition(self) -> ModelDef:
        return registry.model(self.name, dict(self.options))

    @property
    def words(self) -> list[str]:
        """It as the command line takes it."""
        return [self.name, *(word for key, value in self.options for word in ("--set", f"{key}={value}"))]

    @property
    def file(self) -> Path:
        return KEPT / ("".join([self.name, *(f"--{key}-{value}" for key, value in self.options)]) + ".json")


def main() -> int:
    """Exports what is not known yet, and writes the page; ends with 1 where a verdict is not PASS."""
    asked = sys.argv[1:] or registry.model_names()
    KEPT.mkdir(parents=True, exist_ok=True)
    for subject in [subject for name in asked for subject in (Subject(name), *_compared(name))]:
        _known(subject)
    subjects = [Subject(name) for name in registry.model_names()]
    found = {s.name: json.loads(s.file.read_text()) for s in subjects if s.file.is_file()}
    PAGE.write_text(_page(found), encoding="utf-8")
    bad = [name for name, card in found.items() if set(card["verdicts"].values()) != {"PASS"}]
    print(f"{len(found)} cards, not PASS: {', '.join(bad) or 'none'}", file=sys.stderr)
    return 1 if bad or len(found) < len(subjects) else 0


def _compared(name: str) -> list[Subject]:
    option, values = COMPARED.get(name, ("", ()))
    return [Subject(name, ((option, value),)) for value in values]


def _sources(name: str) -> str:
    """A digest of everything that decides what an export says."""
    files = [path for folder in ("exporter", "targets") for path in sorted((ROOT / folder).rglob("*.py"))]
    return hashlib.sha256("".join(map(sha256, [*registry.model_sources(name), *files])).encode()).hexdigest()


def _known(subject: Subject) -> None:
    """Makes a subject's card unless the one kept is of the same files."""
    sources = _sources(subject.name)
    if subject.file.is_file() and json.loads(subject.file.read_text())["sources"] == sources:
        return
    started = time.monotonic()
    card = _card(subject) | {"sources": sources}
    subject.file.write_text(json.dumps(card, indent=1))
    print(f"{subject.file.stem}: {card['verdicts']}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _card(subject: Subject) -> dict[str, Any]:
    """What two exports and one profile of a definition said."""
    published = subject.definition.checkpoint
    ours = published is not None and CHECKPOINT.is_file() and sha256(CHECKPOINT) == published.sha256
    weights = ["--checkpoint", str(CHECKPOINT)] if ours else []
    verdicts, hops, stages = dict[str, str](), dict[str, Any](), list[Any]()
    with tempfile.TemporaryDirectory(prefix="exporter-cards-") as folder:
        bundle = str(Path(folder) / "it.bundle")
        for target in TARGETS:
            said = _run(target, *subject.words, "-o", bundle, "--no-profile", *weights)
            verdicts[target] = said["verdict"] if "verdict" in said else f"error[{said['code']}]: {said['what']}"
            stages += said.get("stages", [])
            for hop in said.get("verify", {}).get("hops", []):
                hops[hop["target"] or hop["hop"]] = {key: hop[key] for key in ("verdict", "reason", "worst", "facts")}
        timed = _run("profile", bundle, "--seconds", "4", *weights) if hops else {}
    return {
        "verdicts": verdicts, "hops": hops, "profile": _timing(timed), "macs": macs(subject.definition),
        "parameters": define.parameters(subject.definition), "trained": bool(weights),
        "seconds": sum(s["seconds"] for s in stages), "peak_rss_mb": max([s["peak_rss_mb"] for s in stages], default=0),
    }  # fmt: skip


def _run(*words: str) -> dict[str, Any]:
    ended = subprocess.run([EXPORTER, *words, "--json"], cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        said: dict[str, Any] = json.loads(ended.stdout)
    except json.JSONDecodeError:
        said = {"code": "no-answer", "what": f"exit {ended.returncode}: {ended.stderr[-300:]}"}
    return said


def _timing(said: Mapping[str, Any]) -> dict[str, Any]:
    subjects = {s["name"]: s["median_ms"] for s in said.get("subjects", [])}
    ratios = {r["of"]: r for r in said.get("ratios", []) if r["to"] == "eager"}
    threads = next((s["threads"] for s in said.get("subjects", [])), None)
    return {"stability": said.get("stability"), "median_ms": subjects, "ratios": ratios, "threads": threads}


def macs(definition: ModelDef) -> int:
    """Multiply-accumulates of one run at the opt sizes, by PyTorch's own counter."""
    import numpy as np
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # Without gradients altogether: the counter follows modules by hooks on tensors that want one.
    module, sizes = definition.build().eval().requires_grad_(False), definition.opt_sizes()
    inputs = [torch.from_numpy(np.zeros(t.sized(sizes), t.dtype)) for t in definition.inputs]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs, **{name: sizes[name] for name in definition.repeats})
    return int(counter.get_total_flops()) // 2


# ------------------------------------------------------------------------------------------------ the page


def _page(found: Mapping[str, Any]) -> str:
    families: dict[str, list[str]] = {}
    for name in found:
        families.setdefault(registry.model(name).family, []).append(name)
    facts = environment.read(())
    lines = [INTRODUCTION]
    absent = [f"`{name}`" for name in registry.model_names() if name not in found]
    if absent:
        lines += [f"Without a card yet: {', '.join(absent)}.", ""]
    for family, names in families.items():
        lines += [f"## {family}", "", *_table({f"`{name}`": found[name] for name in names}, "definition"), ""]
        lines += [line for name in names for line in _comparison(name)]
        lines += [line for name in names for line in _details(registry.model(name), found[name])]
    lines += [
        "## Where it ran",
        "",
        f"{facts.cpu or platform.processor()}, {environment.usable_cores()} cores. Python {platform.python_version()}; "
        + ", ".join(f"{package} {version(package)}" for package in PACKAGES) + ".",
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _comparison(name: str) -> list[str]:
    """A definition's table of one option: what each of its values costs."""
    cards = {f"`{s.options[0][1]}`": json.loads(s.file.read_text()) for s in _compared(name) if s.file.is_file()}
    if not cards:
        return []
    option = COMPARED[name][0]
    return [f"What each `{option}` of `{name}` costs:", "", *_table(cards, option), ""]


def _table(cards: Mapping[str, Any], what: str) -> list[str]:
    targets = " | ".join(f"{t}: verdict | {t}: latency" for t in TARGETS)
    lines = [f"| {what} | parameters | MACs | eager | {targets} |", "|---|---:|---:|---:|" + "---|" * 2 * len(TARGETS)]
    for label, card in cards.items():
        eager = card["profile"]["median_ms"].get("eager")
        cells = [label, f"{card['parameters']:,}", _short(card["macs"]), _milliseconds(eager)]
        for target in TARGETS:
            cells += [_verdict(card, target), _latency(card, target)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _milliseconds(value: float | None) -> str:
    return "not timed" if value is None else f"{value:.3g} ms"


def _short(count: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def _verdict(card: Mapping[str, Any], target: str) -> str:
    hop = card["hops"].get(target)
    if hop is None:
        return card["verdicts"][target].split(":")[0]
    worst = (hop["worst"] or {}).get("amplification")
    return hop["verdict"] + (f" {worst:.2g}x" if worst is not None else "")


def _latency(card: Mapping[str, Any], target: str) -> str:
    ratio, median = card["profile"]["ratios"].get(target), card["profile"]["median_ms"].get(target)
    if ratio is None or median is None:
        return "not timed"
    mark = "" if card["profile"]["stability"] == "STABLE" else " ~"
    if ratio["conclusion"] not in ("faster", "slower"):
        return f"{_milliseconds(median)}, --{mark}"
    low, high = ratio["interval"]
    return f"{_milliseconds(median)}, {ratio['median']:.2g}x ({low:.2g} to {high:.2g}){mark}"


def _details(definition: ModelDef, card: Mapping[str, Any]) -> list[str]:
    function = registry.factory(definition.name)
    text, explained = _documented(inspect.getdoc(function) or "")
    lines = [f"### {definition.name}", "", text, ""]
    lines += [f"- Source: {definition.source}", f"- Licence: {definition.licence}"]
    if definition.checkpoint:
        used = ", judged with them" if card["trained"] else ""
        lines.append(f"- Weights: {definition.checkpoint.address} ({definition.checkpoint.licence}){used}")
    lines.append(f"- Inputs: {'; '.join(map(_input, definition.inputs))}")
    lines.append(f"- Outputs: {'; '.join(f'`{t.name}` {_shape(t)}' for t in definition.outputs)}")
    if definition.dims:
        lines.append(f"- Dynamic dims: {', '.join(f'`{dim.name}` {dim}' for dim in definition.dims)}")
    if definition.parts:
        lines.append(f"- Graphs: {', '.join(part.name + _times(part.repeat) for part in definition.parts)}")
    if definition.metrics:
        lines.append(f"- Metric: {', '.join(definition.metrics)}{_metrics(card)}")
    if definition.undetectable:
        lines.append(f"- Weights whose change by 1 % no output shows: {len(definition.undetectable)} tensors")
    for target in TARGETS:
        hop = card["hops"].get(target)
        if hop is None or hop["verdict"] != "PASS":
            lines.append(f"- {target}: {card['verdicts'][target]} {(hop or {}).get('reason') or ''}".rstrip())
    seconds, memory = card["seconds"], card["peak_rss_mb"]
    threads = card["profile"].get("threads")
    timed = f"; timed with {threads} thread{'s' if threads != 1 else ''}" if threads else ""
    lines.append(f"- Both exports: {seconds:.0f} s, at most {memory:.0f} MB in one process{timed}")
    options = inspect.signature(function).parameters.values()
    if options:
        lines.append("- Options:")
        lines += [f"  - {_option(p.name, p.default, explained.get(p.name))}" for p in options]
    return [*lines, ""]


def _documented(text: str) -> tuple[str, dict[str, str]]:
    """A docstring without its sections, and what its ``Args`` say of each option."""
    plain, _, rest = text.partition("\nArgs:\n")
    explained: dict[str, str] = {}
    for line in rest.partition("\nRaises:")[0].splitlines():
        start = re.match(r" {4}(\w+): (.*)", line)
        if start:
            explained[start[1]] = start[2]
        elif line.strip() and explained:
            explained[list(explained)[-1]] += f" {line.strip()}"
    return plain.partition("\nRaises:")[0].strip(), explained


def _option(name: str, default: object, explained: str | None) -> str:
    usual = f"`--set {name}=...`" if default is None else f"`--set {name}={default}`"
    return f"{usual}: {explained}" if explained else usual


def _input(tensor: Tensor) -> str:
    return f"`{tensor.name}` {_shape(tensor)}, {tensor.low:g} to {tensor.high:g}: {tensor.meaning}"


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"


def _times(repeat: int | str) -> str:
    return f" (`{repeat}` times)" if isinstance(repeat, str) else "" if repeat == 1 else f" ({repeat} times)"


def _metrics(card: Mapping[str, Any]) -> str:
    """What real inputs showed: eager, and the largest difference of an artifact."""
    parts = []
    for metric in next((hop["facts"]["metrics"] for hop in card["hops"].values() if hop["facts"].get("metrics")), []):
        for against in ("truth", "reference"):
            rows = [r for r in metric["cases"].values() if r["against"] == against and r["difference"] is not None]
            if rows:
                eager = ", ".join(f"{row['eager']:.4g}" for row in rows)
                difference = max(abs(row["difference"]) for row in rows)
                parts.append(f"{metric['name']} against the {against} {eager} {metric['unit']}".rstrip()
                             + f", an artifact at most {difference:.2g} away")  # fmt: skip
    return f" ({'; '.join(parts)})" if parts else ""


if __name__ == "__main__":
    sys.exit(main())
