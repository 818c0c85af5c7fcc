"""What makes an artifact the one that was judged, in a digest: a report of one that was replaced is known by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

from exporter.manifest.codec import plain
from exporter.manifest.limits import MAX_COUNT
from exporter.manifest.schema import Manifest, TargetInfo


def artifacts_of(manifest: Manifest, keys: Collection[str]) -> dict[str, str]:
    """A digest of each of these artifacts, by key: of all that the manifest says of it, its files' names among that.

    A bundle names files by their content, so other bytes are another name.
    """
    return {key: _digest(manifest.targets[key]) for key in keys}


def others_than(told: dict[str, str], manifest: Manifest) -> frozenset[str]:
    """Which of the artifacts that were told of are others now, or gone."""
    now = artifacts_of(manifest, told.keys() & manifest.targets.keys())
    return frozenset(key for key, digest in told.items() if now.get(key) != digest)


def order_of(report: Any) -> int:
    """Which report it was of those that were kept, from 1; 0 for one that does not say, or says what cannot be."""
    number = report.get("saved") if isinstance(report, dict) else None
    return number if type(number) is int and 0 < number < MAX_COUNT else 0


def _digest(info: TargetInfo) -> str:
    return hashlib.sha256(json.dumps(plain(info, "targets"), sort_keys=True).encode()).hexdigest()
