"""Text stays text, whatever is in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.report.markup import joined, raw, tag, text
from tests.exporter.report.bundles import Elements

HOSTILE = '<script>alert("1")</script>&\'"><img src=x onerror=alert(1)>'


def test_what_is_text_is_escaped_in_content_and_in_attributes() -> None:
    made = tag("p", HOSTILE, title=HOSTILE)
    assert "<script" not in made and "<img" not in made
    page = Elements(made)
    assert page.found == [("p", {"title": HOSTILE})] and "".join(page.texts) == HOSTILE


def test_what_is_markup_already_is_kept_and_nothing_else_is() -> None:
    assert tag("p", tag("b", "x")) == "<p><b>x</b></p>"
    assert joined("<", raw("<b>"), None, 3) == "&lt;<b>3"
    assert tag("p", str(tag("b", "x"))) == "<p><b>x</b></p>" or "&lt;" in tag("p", f"{tag('b', 'x')}")
    assert "&lt;b&gt;" in tag("p", f"{tag('b', 'x')}"), "a text that was made of markup is text again"


@pytest.mark.parametrize("letter", ["\x00", "\x1b", "\x7f", "\u202e", "\u2066", "\ud800", "\uffff"])
def test_what_cannot_be_seen_is_shown_to_be_there(letter: str) -> None:
    assert text(f"a{letter}b") == "a\ufffdb"
    text(f"a{letter}b").encode()


@given(st.text(), st.text())
def test_any_text_comes_back_as_one_text_in_one_element(content: str, value: str) -> None:
    page = Elements(tag("p", content, title=value))
    assert [name for name, _ in page.found] == ["p"]
    tag("p", content, title=value).encode()


def test_names_of_attributes() -> None:
    made = tag("a", "x", class_="k", aria_label="l", href=None, tabindex=0)
    assert made == '<a class="k" aria-label="l" tabindex="0">x</a>'
    assert tag("br") == "<br>" and tag("rect", x=1) == '<rect x="1"/>' and tag("p") == "<p></p>"
