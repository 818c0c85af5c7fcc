"""Latency that survives a second look: children in turn, interleaved blocks, checked outputs, honest statistics.

:mod:`~exporter.latency.profile` is the entrance. The statistics (:mod:`~exporter.latency.stats`), the order of blocks
(:mod:`~exporter.latency.schedule`) and the clock (:mod:`~exporter.latency.clock`) know nothing of processes; the child
that times is :mod:`~exporter.latency.worker`. ``docs/measuring.md`` says what the numbers mean.
"""
