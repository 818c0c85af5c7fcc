"""A bundle on disk: opened without trust, written without a moment in which it is broken.

Reading: only files that the manifest declares, reached without following a link, with the declared digest.

Writing: one editor at a time makes new, content-named files, and one atomic replace of ``manifest.json`` makes them
the bundle. ``kill -9`` at any point leaves the old bundle or the new one; what it leaves behind besides is removed by
the next editor. Every effect on the disk goes through :data:`exporter.bundle.disk.disk`, so that tests can end or fail
each of them.
"""

from __future__ import annotations

from exporter.bundle.draft import Draft, editing
from exporter.bundle.layout import content_name
from exporter.bundle.reader import Bundle
from exporter.bundle.tensors import read_tensors, under, write_tensors

__all__ = ["Bundle", "Draft", "content_name", "editing", "read_tensors", "under", "write_tensors"]
