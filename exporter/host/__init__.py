"""Host-side steps: what happens on the CPU before and after the graph. numpy only, addressed by name from a manifest.

A step is a function ``(values, **options) -> values`` on a dict of named arrays; :data:`STEPS` lists them all, so a
bundle runs on a device without the model's code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.errors import Refused, nearest
from exporter.host import spectrum
from exporter.spec import HostStep

Values = dict[str, NDArray[np.generic]]

STEPS: Mapping[str, Callable[..., Values]] = {"stft": spectrum.stft, "istft": spectrum.istft}


def apply(steps: Sequence[HostStep], values: Values) -> Values:
    """Runs steps in order.

    Raises:
        Refused: ``unknown-step`` for a name that is not in :data:`STEPS`, or whatever a step refuses.
    """
    for step in steps:
        values = values | _step(step.step)(values, **_keywords(step.options))
    return values


def _step(name: str) -> Callable[..., Values]:
    if name not in STEPS:
        raise Refused(
            "unknown-step",
            f"no host step is called {name!r}{nearest(name, list(STEPS))}",
            why="host steps are the functions of exporter/host, named in the manifest; nothing else is ever run",
            next="open the bundle with the version of exporter that wrote it, or a newer one",
        )
    return STEPS[name]


def _keywords(options: Mapping[str, Any]) -> dict[str, Any]:
    """``from`` and ``to`` are the natural names in a manifest; one of them is a Python keyword."""
    return {{"from": "source", "to": "result"}.get(key, key): value for key, value in options.items()}
