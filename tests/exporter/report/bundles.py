"""Bundles with reports in them, made without exporting anything; and a page's elements, to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from exporter.bundle import Bundle, editing
from exporter.manifest import Manifest
from exporter.parity.ladder import RUNGS
from exporter.verdict import Hop, Precision, Result, Verdict
from exporter.verification import verification_of
from tests.attacks.bundles import manifest

FP32 = Precision("fp32", "fp32", "fp32")


def result(hop: str, target: str | None, case: str, error: float = 3e-7, **more: Any) -> Result:
    """One output of one case."""
    known: dict[str, Any] = {
        "verdict": Verdict.PASS, "relative_l2": error, "noise": 1e-7, "amplification": error / 1e-7, "max_abs": 1e-5,
        "elements": 1000, "form": "bin" if target else None, "output": "y",
    }  # fmt: skip
    return Result(hop=hop, target=target, case=case, **(known | more))


def hops(**facts: Any) -> list[Hop]:
    """The hops of an export that went well."""
    known = {"rung": RUNGS["portable"].as_json(), **facts}
    return [
        Hop("traced", None, Verdict.PASS, None, FP32, (result("traced", None, "opt"),), known),
        Hop("compiled", "some", Verdict.PASS, None, FP32, (result("compiled", "some", "opt"),), known),
    ]


def verification(found: list[Hop] | None = None, of: Manifest | None = None) -> dict[str, Any]:
    """What ``verify --save`` keeps."""
    return verification_of(of or manifest(), found if found is not None else hops()).as_json()


def subject(name: str, median: float | None, **more: Any) -> dict[str, Any]:
    """A subject of a profile; None was not timed."""
    timed = median is not None
    value = {
        "name": name, "verdict": "PASS" if timed else "SKIPPED", "reason": None if timed else "torch absent",
        "precision": {"asked": "fp32", "stored": "fp32", "ran": "fp32"}, "stability": "STABLE", "reasons": [],
        "median_ms": median, "interval_ms": [median * 0.98, median * 1.02] if timed else None,
        "p95_ms": median * 1.1 if timed else None, "n": 100, "load_ms": 80.0, "first_run_ms": 9.0,
        "peak_rss_mb": 120.0, "threads": 2, "layers": {}, "providers": {}, "advice": [], "bytes": 4000,
    }  # fmt: skip
    if timed:
        value["distribution"] = {
            "quantiles_ms": [median * (0.95 + 0.002 * i) for i in range(101)],
            "blocks_ms": [median * (0.99 + 0.002 * i) for i in range(9)],
        }
    return value | more


def profile(*subjects: dict[str, Any], cpu: str = "A Processor", **more: Any) -> dict[str, Any]:
    """What ``profile --save`` keeps."""
    ratio = {"of": "some", "to": "eager", "median": 0.25, "interval": [0.24, 0.26], "conclusion": "faster"}
    return {
        "schema": "exporter.profile/1", "stability": "STABLE", "reasons": [], "noise_floor": 1.01, "seed": 0,
        "blocks": 9, "subjects": list(subjects) or [subject("eager", 4.0), subject("some", 1.0)], "ratios": [ratio],
        "environment": {"cpu": cpu, "cores": 2, "usable_cores": 2, "kernel": "Linux 6", "python": "3.11.7"},
        "warnings": [], **more,
    }  # fmt: skip


def export(**more: Any) -> dict[str, Any]:
    """What an export keeps."""
    stages = [{"stage": "trace", "seconds": 1.5, "peak_rss_mb": 400.0, "cached": False}]
    parts = {"verify": verification(), "profile": profile()}
    return {"schema": "exporter.export/1", "bundle": "/somewhere/tiny.bundle", "stages": stages, **parts, **more}


def published(
    path: Path,
    reports: Mapping[str, Any] | None = None,
    case: bytes | None = None,
    previews: bytes | None = None,
    **changes: Any,
) -> Bundle:
    """A bundle with these reports, and with these fields of its manifest changed; texts are written as they are.

    With ``case``, the file of a case, that case is a real input; ``previews`` are what artifacts gave for it.
    """
    held = {"export-some-fp32": export()} if reports is None else reports
    with editing(path, "a test") as draft:
        names = {
            name: draft.write(name, b"the file " + name.encode())
            for name in ("graphs/traced.onnx", "graphs/simplified.onnx", "cases/opt.safetensors", "targets/some/m.bin")
        }
        if case is not None:
            names["cases/opt.safetensors"] = draft.write("cases/opt.safetensors", case)
        written = {
            name: draft.write(f"reports/{index}.json", (v if isinstance(v, str) else json.dumps(v)).encode())
            for index, (name, v) in enumerate(held.items())
        }
        if previews is not None:
            written["previews-some-fp32"] = draft.write("reports/previews.safetensors", previews)
        traced, simplified, held_case, artifact = names.values()
        whole = manifest(files={}, traced=traced, simplified=simplified, case=held_case, artifact=artifact)
        if case is not None:
            whole = replace(whole, cases=(replace(whole.cases[0], name="sample-a", scale="sample"),))
        return draft.commit(replace(whole, reports=written, **changes))


class Elements(HTMLParser):
    """The elements of a page: tag, attributes, and the text that stands directly in each."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All text of the page, spaces joined."""
        return " ".join(" ".join(self.texts).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a name."""
        return [attributes for name, attributes in self.found if name == tag]


def text_of(page: str) -> str:
    return Elements(page).text
