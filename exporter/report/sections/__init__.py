"""The parts of a report, in the order in which they are read: functions from its values to a section."""

from __future__ import annotations

from collections.abc import Callable

from exporter.report.layout import Section
from exporter.report.sections.devices import devices
from exporter.report.sections.drift import drift
from exporter.report.sections.environment import environment
from exporter.report.sections.errors import errors
from exporter.report.sections.hops import hops
from exporter.report.sections.latency import latency
from exporter.report.sections.layers import layers
from exporter.report.sections.outputs import outputs
from exporter.report.sections.ran import ran
from exporter.report.sections.reproduce import reproduce
from exporter.report.sections.spread import spread
from exporter.report.sections.sustained import sustained
from exporter.report.sections.verdict import verdict
from exporter.report.values import Page

# A section that does not apply to a model is None; one that was not measured says so itself.
SECTIONS: tuple[Callable[[Page], Section | None], ...] = (
    verdict, hops, errors, spread, drift, outputs, latency, sustained, layers, ran, devices, environment, reproduce,
)  # fmt: skip
