"""Weights of an artifact in memory once: the plugin computes on packed copies, and does not need the file's as well."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

# How often what was read of the file is given back: in so long the plugin packs some tens of megabytes.
SECONDS = 0.01


class Weights:
    """A ``.bin`` file, mapped here and not by the plugin, so that its pages can be given back.

    Attributes:
        tensor: all of it, as ``read_model`` takes it.
    """

    def __init__(self, path: Path) -> None:
        import openvino as ov

        with path.open("rb") as file:
            # Writable for the runtime's sake, which takes no other memory; it is a private copy that nothing writes to.
            self._mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self.tensor: Any = ov.Tensor(np.frombuffer(self._mapped, np.uint8), shared_memory=True)

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Within it, pages that were read are given back again and again; what is read once more comes from the disk's
        cache. For what reads through all of the file once: compiling, and the first runs, which pack.
        """
        done = Event()

        def give_back() -> None:
            while not done.wait(SECONDS):
                self._mapped.madvise(mmap.MADV_DONTNEED)

        thread = Thread(target=give_back, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self._mapped.madvise(mmap.MADV_DONTNEED)
