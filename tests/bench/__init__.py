"""The figures of docs/performance.md, as ratios in one run: ``make bench``."""
