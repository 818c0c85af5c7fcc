"""How to reproduce it: the commands, from what the manifest says of the model, its options, dims and weights."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from exporter.manifest import Manifest, TargetInfo
from exporter.report.layout import Section, bundle_word, code, pairs, paragraph
from exporter.report.markup import Content, joined, tag
from exporter.report.values import Page


def reproduce(page: Page) -> Section:
    """The section."""
    manifest, bundle = page.manifest, bundle_word(page.manifest)
    exports = [_export(manifest, info) for info in manifest.targets.values()]
    after = [
        f"exporter verify {bundle} --save",
        f"exporter profile {bundle} --layers --save",
        f"exporter report {bundle}",
    ]
    script = tag("pre", tag("code", "\n".join([*exports, *after])), tabindex=0)
    known: list[tuple[Content, Content]] = [
        ("source", manifest.model.source or "not said"),
        (
            "weights",
            f"{manifest.weights.kind}, {manifest.weights.source}, licence {manifest.weights.licence or 'not said'}",
        ),
        ("digest of the weights", code(manifest.weights.digest)),
        ("key of the graph", code(manifest.key)),
    ]
    return Section("reproduce", "How to reproduce it", joined(*map(paragraph, _notes(page)), script, pairs(known)))


def _notes(page: Page) -> list[str]:
    """What the commands cannot say themselves."""
    manifest, bundle = page.manifest, bundle_word(page.manifest)
    found = [
        f"{bundle} stands for this bundle's folder; verify, profile and report need neither PyTorch nor the model."
    ]
    if manifest.weights.kind == "checkpoint":
        found.append("FILE is the checkpoint with the digest below.")
    if manifest.weights.kind == "own":
        found.append("The model is the user's own: name it as FILE.py:FUNCTION, or as it was exported.")
    samples = [case.name for case in manifest.cases if case.scale == "sample"]
    if samples:
        found.append(f"Real inputs among the cases: {', '.join(samples)}; add --samples PATH where they were given so.")
    return found


def _export(manifest: Manifest, info: TargetInfo) -> str:
    """The export of one target."""
    words = ["exporter", info.target, manifest.model.name, "-o", f"{manifest.model.name}.bundle"]
    weights = manifest.weights
    words += ["--checkpoint", "FILE"] if weights.kind == "checkpoint" else []
    words += ["--seed", str(weights.seed)] if weights.seed else []
    words += [
        word for dim in manifest.dims for word in ("--dim", f"{dim.name}={dim.min}:{dim.opt}:{dim.max}:{dim.step}")
    ]
    words += _settings("--set", manifest.model.options)
    words += ["--precision", info.precision] if info.precision != "fp32" else []
    words += _settings("--option", info.options)
    words += ["--threads", str(info.threads)] if info.threads else []
    return shlex.join(words)


def _settings(option: str, values: Mapping[str, Any]) -> list[str]:
    return [word for key, value in values.items() for word in (option, f"{key}={_value(value)}")]


def _value(value: Any) -> str:
    """A setting as the command line reads it: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
