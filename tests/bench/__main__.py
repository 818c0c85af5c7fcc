"""Measures the figures and writes their sections of docs/performance.md; ends with 1 where a bar is missed.

Without a name all parts are measured; ``python -m tests.bench precision`` measures one.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from exporter.latency import environment
from tests.bench import (
    comparing,
    diagnosing,
    iterations,
    large,
    precision,
    preparing,
    quality,
    quantising,
    remote,
    reporting,
    restoring,
    reuse,
    roofline,
    startup,
    stream,
    tracing,
    training,
    verifying,
)
from tests.bench.figure import CHECKPOINT, ROOT, Figure

PAGE = ROOT / "docs" / "performance.md"
PARTS = {
    part.__name__.rpartition(".")[2]: part
    for part in (
        startup,
        quality,
        stream,
        verifying,
        tracing,
        preparing,
        reuse,
        restoring,
        iterations,
        training,
        precision,
        quantising,
        roofline,
        large,
        diagnosing,
        remote,
        comparing,
        reporting,
    )
}
# Parts that leave bundles for the next.
LEAVING = {"stream": ("quality",), "quantising": ("precision",)}
PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "onnxsim", "onnxscript", "polygraphy", "numpy")
HEAD = """# Performance

Measured by `make bench`, which writes this page; ratios are of subjects interleaved in one run, with the
median and its 95 % interval. Absolute times belong to the machine that ran it. `python -m tests.bench PART` measures
one section again.
"""


def main(asked: list[str]) -> int:
    """Runs the parts in order."""
    unknown = set(asked) - PARTS.keys()
    if unknown:
        print(f"there is no part {', '.join(sorted(unknown))}: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    if not CHECKPOINT.is_file():
        print("SKIPPED: the published checkpoint and recording are not at hand; set EXPORTER_DATA", file=sys.stderr)
        return 3
    chosen = [name for name in PARTS if not asked or name in asked]
    needed = {before for name in chosen for before in LEAVING.get(name, ())}
    met = True
    os.environ["EXPORTER_CACHE_MB"] = "0"  # what is timed is made; the part that times the cache has its own
    with tempfile.TemporaryDirectory(prefix="exporter-bench-") as folder:
        for name in [name for name in PARTS if name in {*chosen, *needed}]:
            started = time.monotonic()
            figures = PARTS[name].figures(Path(folder))
            for figure in figures:
                print(figure.row(), flush=True)
            print(f"-- {name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            met = met and all(figure.met for figure in figures)
            _write(name, PARTS[name], figures)
    return 0 if met else 1


def _write(name: str, part: ModuleType, figures: list[Figure]) -> None:
    """Puts a part's section into the page, in the place of the one before."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else HEAD
    sections = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    sections[name] = _section(part, figures)
    ordered = [f"## {each}\n\n{sections[each].strip()}\n" for each in PARTS if each in sections]
    PAGE.write_text("\n".join([HEAD, *ordered]), encoding="utf-8")


def _section(part: ModuleType, figures: list[Figure]) -> str:
    facts = environment.read(())
    warned = environment.warnings(facts, environment.usable_cores())
    lines = [
        (part.__doc__ or "").partition("\n")[0],
        "",
        "| what | bar | measured | met | note |",
        "|---|---|---|---|---|",
        *(figure.row() for figure in figures),
        "",
        f"On {facts.cpu or 'an unnamed processor'}, {environment.usable_cores()} cores, with "
        + ", ".join(f"{name} {version(name)}" for name in PACKAGES)
        + ".",
        *(f"\n- {w.as_json().get('what')}" for w in warned),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
