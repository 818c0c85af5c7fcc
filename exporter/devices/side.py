"""Our own package as a device gets it: this very version, from where it is installed here, named by its digest."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from functools import cache

from exporter import __version__
from exporter.registry import ROOT

FOLDERS = ("exporter", "targets", "model_defs")
KINDS = (".py", ".md", ".onnx")
DATE = (1980, 1, 1, 0, 0, 0)  # the same bytes from the same files


def _files() -> Iterator[tuple[str, bytes]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in KINDS and path.is_file():
                yield path.relative_to(ROOT).as_posix(), path.read_bytes()
    # By this Python's own means tell its version there.
    about = f"Metadata-Version: 2.1\nName: exporter\nVersion: {__version__}\n"
    yield f"exporter-{__version__}.dist-info/METADATA", about.encode()


@cache
def digest() -> str:
    """The digest of what :func:`packed` holds, as the device computes it of what it unpacked."""
    lines = sorted(f"{name} {hashlib.sha256(data).hexdigest()}\n" for name, data in _files())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def packed() -> bytes:
    """A zip of our package, to be unpacked where the device keeps it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _files():
            archive.writestr(zipfile.ZipInfo(name, DATE), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()
