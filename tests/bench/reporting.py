"""The report of a bundle: how long it takes to write, how large it is, how long a browser takes to open it."""

from __future__ import annotations

from pathlib import Path

from exporter.report import MOST_BYTES
from tests.bench.figure import CHECKPOINT, EXPORTER, NOISY, Figure, at_most, repeated, whole
from tests.exporter.report.browser import browser, chromium

# The definition with the most parameters, and the one whose page has the most to show: many outputs, sequences, sound.
MODELS = {
    "extractor-convnext": ("the largest built-in model", ()),
    "gtcrn-stream": ("the fullest page", ("--checkpoint", str(CHECKPOINT), "--samples", str(NOISY))),
}


def figures(folder: Path) -> list[Figure]:
    """Seconds to write, megabytes, and seconds to load in Chromium, of each of the models."""
    return [figure for name in MODELS for figure in _report(folder, name)]


def _report(folder: Path, name: str) -> list[Figure]:
    said, words = MODELS[name]
    for target in ("openvino", "mobile"):
        whole([EXPORTER, target, name, "-o", f"{name}.bundle", *words], folder)
    command = [EXPORTER, "report", f"{name}.bundle"]
    seconds, interval = repeated(lambda: whole(command, folder)[0], runs=7)
    page = folder / f"{name}.report.html"
    size = page.stat().st_size
    label = f"`exporter report {name}.bundle`, {said}"
    found = [
        at_most(label, 5.0, seconds, " s", interval=interval),
        at_most(f"{label}: size of the page", MOST_BYTES / 1e6, size / 1e6, " MB"),
    ]
    return [*found, _opened(page, label)]


def _opened(page: Path, label: str) -> Figure:
    """From asking for the page until all of it had loaded, in a browser that runs."""
    what = f"{label}: opened in Chromium"
    if chromium() is None:
        return Figure(what, "<= 2 s", float("nan"), False, " s", note="no Chromium here: apt-get install chromium")
    with browser() as it:
        it.size(1200)
        seconds, interval = repeated(lambda: it.open(page), runs=7)
    return at_most(what, 2.0, seconds, " s", interval=interval)
