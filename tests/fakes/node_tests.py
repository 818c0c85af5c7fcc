"""What can befall a child at a node test: each stands in for ``tests.backend.child:run``."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from exporter.isolate import Channel
from tests.backend import child

AT = "test_dropout_default"


def crashing(request: Mapping[str, Any], channel: Channel) -> None:
    """The child is gone at one of the tests."""
    _doing(request, channel, lambda: os.kill(os.getpid(), signal.SIGSEGV))


def hanging(request: Mapping[str, Any], channel: Channel) -> None:
    """The child does not come back from one of the tests."""
    _doing(request, channel, lambda: time.sleep(600))


def tampering(request: Mapping[str, Any], channel: Channel) -> None:
    """What our runners answer is a little off; the bare runtime is right."""

    def ours(self: child.Attempt, inputs: child.Arrays) -> dict[str, child.Infer]:
        return {name: lambda feeds, of=infer: [np.add(y, 0.5, dtype=y.dtype) for y in of(feeds)]
                for name, infer in right(self, inputs).items()}  # fmt: skip

    right = child.Attempt.ours
    with mock.patch.object(child.Attempt, "ours", ours):
        child.run(request, channel)


def _doing(request: Mapping[str, Any], channel: Channel, what: Any) -> None:
    said = child.said

    def doomed(target: str, way: str, place: Path) -> dict[str, str]:
        if place.name == AT:
            what()
        return said(target, way, place)

    with mock.patch.object(child, "said", doomed):
        child.run(request, channel)
