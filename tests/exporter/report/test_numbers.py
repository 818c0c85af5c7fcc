"""A report is anyone's: whatever number stands where, the page is written."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.report.collect import collected
from exporter.report.page import document
from tests.exporter.report.bundles import hops, profile, published, subject, verification

NASTY = (0, -1, 400, 1e308, -1e308, 5e-324, 10**400, 1e99, -1e-99)
TRIES = 12  # pages, each with every tenth number or so another

FACTS = {
    "histograms": {"y": {"first_power": -12, "step": 0.5, "exact": 900, "counts": [0, 10, 80, 10]}},
    "drift": {"a sequence": {"output": "y", "error": [1e-7, 3e-7, 2e-7], "eager": [1e-7, 1e-7, 4e-7]}},
}
LAYER = {"ms": 2.0, "kind": "Conv", "precision": "fp32", "nodes": ["n"], "gflops": 50.0, "gbs": 4.0, "runs": 2,
         "of_limit": 0.5, "bound": "compute"}  # fmt: skip
WHOLE = {"gflops": 40.0, "gbs": 3.0, "of_limit": 0.4, "bound": "compute"}
RUN = {
    "subject": "some", "verdict": "PASS", "windows": [[0.5, 1.0], [1.0, 1.5], [1.5, 2.0]], "ratio": 1.5,
    "moments": [[0.0, 2000, 40.0], [1.0, 1500, 50.0]], "interval": [1.4, 1.6], "conclusion": "slower",
    "slows_at_s": 0.5, "throttled_ms": 3.0, "no_energy": None,
    "energy": [{"source": "rapl", "idle_watts": 3.0, "watts": 9.0, "joules": 0.01, "above_idle": 0.004}],
}  # fmt: skip
SWEEP = {"by": {"threads": [1, 2]}, "points": [{"subject": "some", "per_second": 100.0, "threads": 1}]}


def reports() -> dict[str, Any]:
    some = subject("some", 1.0, layer_times=[LAYER, LAYER], roofline=WHOLE, shares={"module": {"net": 0.9}})
    timed = profile(some, subject("eager", 4.0)) | {
        "peaks": {"gflops": {"fp32": 100.0}, "gbs": 12.0}, "sustained": [RUN],
    }  # fmt: skip
    return {"verify": verification(hops(**FACTS)), "profile": timed, "sweep": profile(some) | {"sweep": SWEEP}}


def numbers(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in it a number stands."""
    if isinstance(value, dict):
        for key, held in value.items():
            yield from numbers(held, (*place, key))
    elif isinstance(value, list):
        for index, held in enumerate(value):
            yield from numbers(held, (*place, index))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield place


def put(value: Any, place: tuple[Any, ...], other: Any) -> None:
    for key in place[:-1]:
        value = value[key]
    value[place[-1]] = other


def test_numbers_of_the_sections_are_all_tried() -> None:
    places = {".".join(str(key) for key in place) for place in numbers(reports())}
    assert len(places) > 100 and any("counts" in place for place in places)


@pytest.mark.parametrize("number", NASTY, ids=str)
def test_any_number_anywhere_gives_a_page(number: float, tmp_path: Path) -> None:
    whole = reports()
    places = list(numbers(whole))
    draw = random.Random(0)
    for index in range(TRIES):
        values = copy.deepcopy(whole)
        for place in draw.sample(places, len(places) if index == 0 else len(places) // 10):
            put(values, place, number)
        page = document(collected(published(tmp_path / f"b{index}", values)))
        assert page.rstrip().endswith("</html>")
        assert all(f'id="{name}"' in page for name in ("spread", "layers", "drift"))
