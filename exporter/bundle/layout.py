"""What the files in a bundle's folder are called: the manifest, the lock, folders of stages, names by content."""

from __future__ import annotations

import re

from exporter.errors import Defect
from exporter.manifest import file_name_problem

MANIFEST = "manifest.json"
LOCK = ".lock"
LOCK_START = b'{"schema": "exporter.lock/1"'
WORK = re.compile(r"\.work-[0-9]+")
CONTENT_NAMED = re.compile(r"-[0-9a-f]{12}(\.[^/]*)?$")


def content_name(name: str, sha256: str) -> str:
    """``graphs/model.onnx`` -> ``graphs/model-0123456789ab.onnx``: another content is another file."""
    folder, slash, leaf = name.rpartition("/")
    stem, dot, suffix = leaf.partition(".")
    full = f"{folder}{slash}{stem}-{sha256[:12]}{dot}{suffix}"
    problem = file_name_problem(full)
    if problem is not None:
        raise Defect("internal", f"{full!r} cannot name a file of a bundle: {problem}")
    return full
