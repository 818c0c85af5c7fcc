"""Devices side by side: the same subjects, as each machine timed them. No ratio is taken across machines."""

from __future__ import annotations

from exporter.report import figures
from exporter.report.layout import Column, Section, bundle_word, command, paragraph, table, word
from exporter.report.markup import Content, joined, tag
from exporter.report.values import Page, Timing


def devices(page: Page) -> Section:
    """The section."""
    machines = list(dict.fromkeys(profile.machine for profile in page.profiles))
    if len(machines) < 2:
        known = f"Timed on {machines[0]} alone. " if machines else "Timed on no machine. "
        line = command(f"exporter profile {bundle_word(page.manifest)} --on ssh://USER@HOST --save")
        return Section("devices", "Devices", paragraph(known, line, " keeps here what another device takes."))
    held: dict[str, dict[str, Timing]] = {}
    for profile in reversed(page.profiles):
        for timing in profile.timings:
            held.setdefault(timing.label, {})[profile.machine] = timing
    columns = (Column("subject"), *(Column(machine) for machine in machines))
    rows = [
        [label, *(_cell(held[label].get(machine)) for machine in machines)]
        for label in dict.fromkeys(timing.label for profile in page.profiles for timing in profile.timings)
    ]
    why = paragraph("Medians with 95 % intervals, each with the stability that was found there.")
    return Section("devices", "Devices", joined(why, table("The same subjects on each machine", columns, rows)))


def _cell(timing: Timing | None) -> Content:
    if timing is None:
        return "not timed"
    if timing.median is None:
        return joined(word(timing.verdict), f" {timing.reason}")
    within = f" ({figures.times(*timing.interval)})" if timing.interval else ""
    return joined(word(timing.stability), " ", tag("b", figures.time(timing.median)), within)
