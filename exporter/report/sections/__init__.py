"""The parts of a report, in the order in which they are read: functions from its values to a section."""

from __future__ import annotations

from collections.abc import Callable

from exporter.report.layout import Section
from exporter.report.sections.errors import errors
from exporter.report.sections.hops import hops
from exporter.report.sections.latency import latency
from exporter.report.sections.verdict import verdict
from exporter.report.values import Page

SECTIONS: tuple[Callable[[Page], Section], ...] = (verdict, hops, errors, latency)
