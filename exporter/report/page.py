"""The page: values in, one HTML document out. It loads nothing and runs no script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from exporter.report.layout import Section
from exporter.report.markup import Markup, raw, tag
from exporter.report.sections import SECTIONS
from exporter.report.values import Page

# By its first lines a later report knows a file that it may replace.
MARK = "<!DOCTYPE html>\n<!-- exporter.report/1 -->\n"
STYLE = Path(__file__).with_name("style.css")


def document(page: Page) -> str:
    """The whole page."""
    sections = [made for section in SECTIONS if (made := section(page)) is not None]
    style = STYLE.read_text(encoding="utf-8")
    title = f"{page.manifest.model.name}: {page.verdict}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        # Without an icon of its own a browser asks the server of the page for one.
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", raw(style)),
    )
    return MARK + tag("html", head, tag("body", *_body(page, sections)), lang="en") + "\n"


def _policy(style: str) -> str:
    """Nothing is loaded, sent, or run: our own style sheet by its digest, pictures and sound that lie in the page."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; media-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _body(page: Page, sections: Sequence[Section]) -> list[Markup]:
    model = page.manifest.model
    links = [tag("li", tag("a", section.heading, href=f"#{section.anchor}")) for section in sections]
    header = tag(
        "header",
        tag("h1", model.name),
        tag("p", f"{model.family}, {model.parameters:,} parameters, licence {model.licence or 'not said'}"),
        tag("nav", tag("ul", *links), aria_label="Sections"),
    )
    return [
        tag("a", "Skip to the verdict", href="#verdict", class_="skip"),
        header,
        tag("main", *map(_section, sections)),
        tag("footer", tag("p", f"Made by exporter from the bundle with key {page.manifest.key[:16]}.")),
    ]


def _section(section: Section) -> Markup:
    heading = f"{section.anchor}-heading"
    return tag(
        "section",
        tag("h2", section.heading, id=heading),
        section.body,
        id=section.anchor,
        aria_labelledby=heading,
    )
