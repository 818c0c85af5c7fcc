"""A manifest to and from the bytes of ``manifest.json``; the order in which what is read is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from exporter.errors import Refused
from exporter.manifest.check import check
from exporter.manifest.fields import read
from exporter.manifest.parse import parse
from exporter.manifest.refusal import NEXT, WHY, Wrong, wrong
from exporter.manifest.schema import Manifest
from exporter.manifest.text import printable, scrubbed
from exporter.manifest.upgrade import upgraded

# Text that people write or that tools print; names and addresses are held to stricter rules.
FREE_TEXT = frozenset({"reason", "advice", "next", "meaning"})


def decode(data: bytes, where: str = "manifest.json") -> Manifest:
    """The manifest in ``data``.

    Args:
        data: the whole file.
        where: what to call it in errors.

    Raises:
        Refused: ``newer-schema``; ``bad-manifest`` for everything else that is wrong.
    """
    try:
        return _decode(data)
    except Wrong as error:
        place = f"{where}: {error.place}" if error.place else where
        raise Refused("bad-manifest", printable(error.what), where=printable(place), why=error.why, next=NEXT) from None
    except Refused as error:
        error.where = f"{where}: {error.where}"
        raise


def encode(manifest: Manifest) -> bytes:
    """The bytes of a manifest, the same for equal manifests. What :func:`decode` would refuse is refused here."""
    try:
        text = json.dumps(plain(manifest, ""), indent=1, allow_nan=False)
        data = text.encode("ascii") + b"\n"
    except (ValueError, RecursionError) as error:
        raise Refused("bad-manifest", f"the manifest cannot be written: {error}", why=WHY, next=NEXT) from None
    except Wrong as error:
        raise Refused("bad-manifest", error.what, where=error.place, why=error.why, next=NEXT) from None
    decode(data)
    return data


def _decode(data: bytes) -> Manifest:
    value = upgraded(parse(data))
    manifest: Manifest = read(Manifest, value, "")
    check(manifest)
    return manifest


def plain(value: Any, name: str) -> Any:
    """A value as JSON, dicts in the order of their keys so that equal manifests are equal bytes."""
    if is_dataclass(value) and not isinstance(value, type):
        ordered = sorted(fields(value), key=lambda f: f.name != "schema")
        return {f.name: plain(getattr(value, f.name), f.name) for f in ordered}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            wrong(name, "the keys of an object must be text")
        return {key: plain(value[key], key) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item, name) for item in value]
    if isinstance(value, str):
        return scrubbed(value) if name in FREE_TEXT else value
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise Wrong(name, f"{value!r} is no JSON value")
