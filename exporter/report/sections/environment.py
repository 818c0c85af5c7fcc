"""Environment: what it was made with, and the machines it was timed on."""

from __future__ import annotations

from exporter.report import figures
from exporter.report.layout import Column, Section, bundle_word, details, missing, pairs, table
from exporter.report.markup import Content, Markup, joined, tag
from exporter.report.reading import Fields
from exporter.report.values import Page, Profiled

FACTS = {
    "cpu": "processor", "cores": "cores", "usable_cores": "usable cores", "governor": "governor",
    "turbo": "boost clocks",
    "quota_cores": "CPU quota, cores", "load": "load before", "memory_mb": "memory, MB", "free_mb": "free, MB",
    "on_battery": "on battery", "celsius": "hottest sensor, °C", "kernel": "kernel", "python": "Python",
}  # fmt: skip
STAGES = (Column("stage"), Column("seconds", "number"), Column("peak memory", "number"), Column("from the cache"))


def environment(page: Page) -> Section:
    """The section."""
    manifest = page.manifest
    made = pairs([
        ("bundle", f"{figures.counted(len(manifest.files), 'file')}, {figures.size(page.bytes)}"),
        ("made with", ", ".join(f"{tool} {version}" for tool, version in sorted(manifest.tools.items()))),
        *((key, _fingerprint(info.fingerprint)) for key, info in manifest.targets.items()),
    ])  # fmt: skip
    machines = [_machine(profile) for profile in page.profiles]
    if not machines:
        machines = [missing("No machine was measured.", f"exporter profile {bundle_word(manifest)} --save")]
    stages = [_stages(name, found) for name, found in page.stages.items() if found]
    return Section("environment", "Environment", joined(made, *machines, *stages))


def _fingerprint(fingerprint: dict[str, str]) -> str:
    """Under what an artifact is valid."""
    return "valid under " + ", ".join(f"{k} {v}" for k, v in fingerprint.items()) if fingerprint else "not compiled"


def _machine(profile: Profiled) -> Markup:
    facts = profile.facts.fields("environment")
    said = facts.worded()
    rows: list[tuple[Content, Content]] = [(label, said.get(key, "not told")) for key, label in FACTS.items()]
    packages = facts.worded("packages")
    rows.append(("packages", ", ".join(f"{name} {version}" for name, version in packages.items()) or "not told"))
    rows += [(f"device, {moment}", _conditions(value)) for moment, value in facts.named("devices")]
    return joined(tag("h3", profile.machine), pairs(rows))


def _conditions(value: Fields) -> str:
    """Clocks and temperatures of an accelerator."""
    each = [f"{target}: " + ", ".join(f"{k} {v}" for k, v in said.worded().items()) for target, said in value.named("")]
    return "; ".join(each) or "not told"


def _stages(name: str, found: tuple[Fields, ...]) -> Markup:
    rows = [
        [stage.text("stage"), figures.plain(stage.number("seconds")), figures.megabytes(stage.number("peak_rss_mb")),
         stage.worded().get("cached", figures.NONE)]
        for stage in found
    ]  # fmt: skip
    total = sum(stage.number("seconds") or 0.0 for stage in found)
    return details(
        f"What {name} took: {figures.counted(len(found), 'stage')}, {total:.0f} s", table(name, STAGES, rows)
    )
