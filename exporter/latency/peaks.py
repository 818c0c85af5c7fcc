"""What this machine reaches at best: matrix products and copies, measured, with a given number of threads.

float32's is numpy's, which no target has a part in; those of lower types are of the runtimes that have them
(:mod:`exporter.latency.products`).

A peak is the best of many tries: whatever disturbs a try only ever makes it slower.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from exporter.isolate import Channel, Limits, call
from exporter.latency.products import Product, reached
from exporter.work.roofline import Peaks

# Of a matrix product this large what is not arithmetic is nothing: 2 n^3 operations on 12 n^2 bytes.
SIZE = 1024
PRODUCT_SECONDS, COPY_SECONDS, TRY_SECONDS = 1.0, 0.6, 0.02
# Bytes that are read and written together. The largest fits no cache of a machine that models are deployed on.
TOUCHED = (1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28)
FEWEST = 3  # tries
HUGE_PAGE = 2 << 20
TRUSTED_SECONDS = 120.0


def peaks(threads: int, log_folder: Path, lower: Sequence[Product] = ()) -> Peaks:
    """Measures the peaks in children whose products have so many threads.

    Args:
        threads: how many.
        log_folder: for the children's logs.
        lower: the products to measure beside float32's; the best of a type is the machine's.

    Raises:
        StageFailed: the child did not live to tell.
    """
    # Each of the libraries that numpy may be built on listens to one of these.
    env = {name: str(threads) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    outcome = call(
        "exporter.latency.peaks:measured", {"threads": threads}, limits=Limits(seconds=TRUSTED_SECONDS),
        log=log_folder / "peaks.log", stage="peaks", env=env,
    )  # fmt: skip
    found, speeds = outcome.require(), dict[str, float]()
    for product in lower:
        if speed := reached(product, threads, log_folder):
            speeds[product.precision] = max(speed, speeds.get(product.precision, 0.0))
    return Peaks(
        {"fp32": found["gflops"], **speeds}, {int(size): speed for size, speed in found["gbs"].items()}, threads
    )


def measured(request: Mapping[str, Any], channel: Channel) -> dict[str, Any]:  # noqa: ARG001  # the shape of a child
    """Child: ``{"gflops": 1e9 operations a second, "gbs": {bytes touched: 1e9 bytes a second}}``."""
    threads = int(request["threads"])
    return {"gflops": _product(), "gbs": {str(size): copies(size, threads) for size in TOUCHED}}


def _product() -> float:
    """1e9 operations a second of a float32 matrix product, at best."""
    left, right = (np.random.default_rng(seed).standard_normal((SIZE, SIZE), np.float32) for seed in range(2))
    into = np.empty_like(left)
    best = _best(partial(np.matmul, left, right, out=into), PRODUCT_SECONDS)
    return 2 * SIZE**3 / best / 1e9


def copies(touched: int, threads: int) -> float:
    """1e9 bytes a second, read and written, of copies by so many threads at once, at best.

    ``touched`` bytes are read and written by all threads together.
    """
    pairs = [(_buffer(touched // 2 // threads), _buffer(touched // 2 // threads)) for _ in range(threads)]
    first, copy = pairs[0]
    size = sum(source.nbytes + into.nbytes for source, into in pairs)
    # So many in a row that handing them to the threads is no part of the figure.
    times = max(1, int(TRY_SECONDS / _best(lambda: np.copyto(copy, first), TRY_SECONDS)))

    def repeated(pair: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
        """When it began and ended: of threads that have all the cores, one that waits for them would be late."""
        source, into = pair
        begun = time.perf_counter()
        for _ in range(times):
            np.copyto(into, source)
        return begun, time.perf_counter()

    spent, until = list[float](), time.perf_counter() + COPY_SECONDS
    with ThreadPoolExecutor(threads) as pool:
        while len(spent) < FEWEST or time.perf_counter() < until:
            begun, ended = zip(*pool.map(repeated, pairs), strict=True)
            spent.append(max(ended) - min(begun))
    return times * size / min(spent) / 1e9


def _buffer(size: int) -> np.ndarray:
    """So many bytes, written once, in huge pages where the system has them: a tenth faster than small ones."""
    whole = np.empty(size + HUGE_PAGE, np.uint8)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Python's own default is shared memory, which has small pages only.
        memory = mmap.mmap(-1, whole.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(memory, np.uint8)
    begin = -whole.ctypes.data % HUGE_PAGE
    made = whole[begin : begin + size]
    made.fill(1)
    return made


def _best(work: Callable[[], object], seconds: float) -> float:
    """The shortest of as many tries as fit, in seconds."""
    spent: list[float] = []
    until = time.perf_counter() + seconds
    while len(spent) < FEWEST or time.perf_counter() < until:
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return min(spent)
