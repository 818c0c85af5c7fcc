"""``exporter cache``: what is kept, for people and for scripts, and what of it to give up."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from exporter.cache.store import Cache, Held
from exporter.errors import Refused
from exporter.target_options import UNITS

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def listed(cache: Cache) -> dict[str, Any]:
    """The object of ``exporter cache``."""
    return _told(cache, cache.held(), None)


def pruned(cache: Cache, older_than: str | None, max_size: str | None, everything: bool) -> dict[str, Any]:
    """Gives up entries, and the object of ``exporter cache --prune``: what is left, and what went.

    Args:
        cache: whose.
        older_than: ``7d``: what was not used for so long goes.
        max_size: ``2G``: no more than that stays, what was used last; without it, what the cache may have anyway.
        everything: whether all of it goes.

    Raises:
        Refused: ``bad-option`` for a text that is no time or no size.
    """
    since = time.time() - _seconds(older_than) if older_than is not None else None
    most = 0 if everything else _bytes(max_size) if max_size is not None else cache.limit
    gone = cache.prune(most, since, leftovers_of=0.0 if everything else None)
    return _told(cache, cache.held(), gone)


def _told(cache: Cache, held: Sequence[Held], gone: Sequence[Held] | None) -> dict[str, Any]:
    return {
        "schema": "exporter.cache/1",
        "folder": str(cache.folder),
        "problem": cache.problem() or None,
        "bytes": sum(entry.bytes for entry in held),
        "limit_bytes": cache.limit,
        "entries": [_row(entry) for entry in held],
        "pruned": None if gone is None else {"entries": len(gone), "bytes": sum(entry.bytes for entry in gone)},
    }


def _row(held: Held) -> dict[str, Any]:
    moments = {"made": _moment(held.made), "used": _moment(held.used)}
    return held.__dict__ | moments | {"problem": held.problem or None}


def _moment(seconds: float) -> str:
    """A moment as ISO 8601 has it."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    if match is None:
        raise _unreadable("--older-than", text, "a number of s, m, h, d or w", "7d")
    return int(match[1]) * float(SECONDS[match[2]])


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d{1,12})([KMGT]?)(?:i?B)?", text)
    if match is None:
        raise _unreadable("--max-size", text, "a number of bytes, or of K, M, G or T of them", "2G")
    return int(match[1]) * UNITS[match[2]]


def _unreadable(option: str, text: str, rule: str, example: str) -> Refused:
    return Refused(
        "bad-option",
        f"{option} {text} cannot be read",
        where="command exporter cache",
        why=f"it is {rule}",
        next=f"exporter cache --prune {option} {example}",
    )
