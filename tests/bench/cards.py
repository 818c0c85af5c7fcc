"""Exports every definition for every fast target, and writes docs/models.md: one card per definition, from what ran.

``make cards`` starts anew only for definitions whose graph would differ: what an export said is kept under
``build/cards`` and used again while the definition's own files are the same.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
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
- **Latency** is the median at the opt sizes over eager PyTorch's, interleaved in one run, with its 95 % interval.
  `--` means no difference was shown. A profile that was not stable is marked `~`.
- Weights are seeded noise, except where a checkpoint is named: the metrics of real inputs then show that artifact and
  eager agree, not that the model is good.

Training of Restormer (progressive) and of the stereo networks is out of scope; the quality model is trained by
`python -m model_defs.vqa.train`.
"""


def main() -> int:
    """Exports what is not known yet, and writes the page; ends with 1 where a verdict is not PASS."""
    asked = sys.argv[1:] or registry.model_names()
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in asked:
        _known(name)
    found = {name: json.loads(_file(name).read_text()) for name in registry.model_names() if _file(name).is_file()}
    PAGE.write_text(_page(found), encoding="utf-8")
    bad = [name for name, card in found.items() if set(card["verdicts"].values()) != {"PASS"}]
    print(f"{len(found)} cards, not PASS: {', '.join(bad) or 'none'}", file=sys.stderr)
    return 1 if bad or len(found) < len(registry.model_names()) else 0


def _file(name: str) -> Path:
    return KEPT / f"{name}.json"


def _known(name: str) -> None:
    """Makes a definition's card unless the one kept is of the same files."""
    sources = hashlib.sha256("".join(sha256(p) for p in registry.model_sources(name)).encode()).hexdigest()
    if _file(name).is_file() and json.loads(_file(name).read_text())["sources"] == sources:
        return
    started = time.monotonic()
    card = _card(name) | {"sources": sources}
    _file(name).write_text(json.dumps(card, indent=1))
    print(f"{name}: {card['verdicts']}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _card(name: str) -> dict[str, Any]:
    """What two exports and one profile of a definition said."""
    published = registry.model(name).checkpoint
    ours = published is not None and CHECKPOINT.is_file() and sha256(CHECKPOINT) == published.sha256
    weights = ["--checkpoint", str(CHECKPOINT)] if ours else []
    verdicts, hops, stages = dict[str, str](), dict[str, Any](), list[Any]()
    with tempfile.TemporaryDirectory(prefix="exporter-cards-") as folder:
        bundle = str(Path(folder) / "it.bundle")
        for target in TARGETS:
            said = _run(target, name, "-o", bundle, "--no-profile", *weights)
            verdicts[target] = said["verdict"] if "verdict" in said else f"error[{said['code']}]: {said['what']}"
            stages += said.get("stages", [])
            for hop in said.get("verify", {}).get("hops", []):
                hops[hop["target"] or hop["hop"]] = {key: hop[key] for key in ("verdict", "reason", "worst", "facts")}
        timed = _run("profile", bundle, "--seconds", "4", *weights) if hops else {}
    return {
        "verdicts": verdicts, "hops": hops, "profile": _timing(timed), "macs": macs(name),
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
    return {"stability": said.get("stability"), "median_ms": subjects, "ratios": ratios}


def macs(name: str) -> int:
    """Multiply-accumulates of one run at the opt sizes, by PyTorch's own counter."""
    import numpy as np
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    definition = registry.model(name)
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
        lines += [f"## {family}", "", *_table(names, found), ""]
        lines += [line for name in names for line in _details(registry.model(name), found[name])]
    lines += [
        "## Where it ran",
        "",
        f"{facts.cpu or platform.processor()}, {environment.usable_cores()} cores. Python {platform.python_version()}; "
        + ", ".join(f"{package} {version(package)}" for package in PACKAGES) + ".",
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _table(names: Iterable[str], found: Mapping[str, Any]) -> list[str]:
    targets = " | ".join(f"{t}: verdict | {t}: latency" for t in TARGETS)
    lines = [f"| definition | parameters | MACs | {targets} |", "|---|---:|---:|" + "---|" * 2 * len(TARGETS)]
    for name in names:
        card = found[name]
        cells = [f"`{name}`", f"{define.parameters(registry.model(name)):,}", _short(card["macs"])]
        for target in TARGETS:
            cells += [_verdict(card, target), _latency(card, target)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


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
    ratio = card["profile"]["ratios"].get(target)
    if ratio is None:
        return "not timed"
    mark = "" if card["profile"]["stability"] == "STABLE" else " ~"
    if ratio["conclusion"] not in ("faster", "slower"):
        return f"--{mark}"
    low, high = ratio["interval"]
    return f"{ratio['median']:.2g}x ({low:.2g} to {high:.2g}){mark}"


def _details(definition: ModelDef, card: Mapping[str, Any]) -> list[str]:
    function = registry.factory(definition.name)
    options = {p.name: p.default for p in inspect.signature(function).parameters.values()}
    lines = [f"### {definition.name}", "", inspect.getdoc(function) or "", ""]
    lines += [f"- Source: {definition.source}", f"- Licence: {definition.licence}"]
    if definition.checkpoint:
        lines.append(f"- Weights: {definition.checkpoint.address} ({definition.checkpoint.licence})")
    lines.append(f"- Inputs: {'; '.join(map(_input, definition.inputs))}")
    lines.append(f"- Outputs: {'; '.join(f'`{t.name}` {_shape(t)}' for t in definition.outputs)}")
    if definition.dims:
        lines.append(f"- Dynamic dims: {', '.join(f'`{dim.name}` {dim}' for dim in definition.dims)}")
    if options:
        lines.append(f"- Options: {', '.join(f'`--set {key}={value}`' for key, value in options.items())}")
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
    lines += [f"- Both exports: {seconds:.0f} s, at most {memory:.0f} MB in one process", ""]
    return lines


def _input(tensor: Tensor) -> str:
    return f"`{tensor.name}` {_shape(tensor)}, {tensor.low:g} to {tensor.high:g}: {tensor.meaning}"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


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
