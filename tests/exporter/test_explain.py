"""Every error code has a page, every page a code; a page has its parts, and its example is what the code says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from exporter.errors import KINDS, Refused
from exporter.explain import page, pages
from tests.cli_fakes.tool import quick

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("**What it means.** ", "**Why the rule exists.** ", "**Example.**", "**What to do.** ")
ANYTHING = ".*"


@dataclass(frozen=True)
class Use:
    """One place that makes an error: its code and its message as a regular expression."""

    code: str
    message: str
    place: str


class Source:
    """A module, searched for the errors it makes.

    A code is a literal, or comes from literals in sight: a branch of a conditional, a parameter that callers in the
    same module give as a literal, a field of a record that the module makes with literals, or a text of these.
    """

    def __init__(self, text: str, name: str) -> None:
        self.tree, self.name = ast.parse(text), name
        self.functions = {
            node: function
            for function in ast.walk(self.tree)
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
            for node in ast.walk(function)
        }

    def uses(self) -> Iterator[Use]:
        for call in self._calls(*KINDS):
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            code = call.args[0] if call.args else given["code"]
            what = call.args[1] if len(call.args) > 1 else given.get("what")
            place = f"{self.name}:{call.lineno}"
            for found in self.texts(code, place):
                for message in self.patterns(what) if what is not None else [ANYTHING]:
                    yield Use(found, message, place)

    def texts(self, value: ast.expr, place: str) -> Iterator[str]:
        """Every literal that an expression may be."""
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value
        elif isinstance(value, ast.IfExp):
            yield from self.texts(value.body, place)
            yield from self.texts(value.orelse, place)
        elif isinstance(value, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.FormattedValue) else p for p in value.values)
            yield from map("".join, product(*(list(self.texts(part, place)) for part in parts)))
        else:
            sources = list(self._given(value))
            assert sources, f"{place}: cannot see which code {ast.unparse(value)} is"
            for source in sources:
                yield from self.texts(source, place)

    def _given(self, value: ast.expr) -> Iterator[ast.expr]:
        """What a parameter or a record's field is given in this module."""
        if isinstance(value, ast.Name) and value in self.functions:
            function = self.functions[value]
            names = [argument.arg for argument in function.args.args if argument.arg not in ("self", "cls")]
            if value.id in names:
                yield from self._arguments(function.name, names.index(value.id), value.id)
        elif isinstance(value, ast.Attribute):
            for record in ast.walk(self.tree):
                if isinstance(record, ast.ClassDef):
                    fields = [
                        n.target.id
                        for n in record.body
                        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
                    ]
                    if value.attr in fields:
                        yield from self._arguments(record.name, fields.index(value.attr), value.attr)

    def _arguments(self, callee: str, index: int, name: str) -> Iterator[ast.expr]:
        for call in self._calls(callee):
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            if name in given or index < len(call.args):
                yield given.get(name) or call.args[index]

    def _calls(self, *names: str) -> Iterator[ast.Call]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                if called in names:
                    yield node

    def patterns(self, value: ast.expr) -> list[str]:
        """The message as regular expressions: literal where it is literal, or assigned or given as a literal."""
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return [re.escape(value.value)]
        if isinstance(value, ast.JoinedStr):
            parts = (re.escape(p.value) if isinstance(p, ast.Constant) else ANYTHING for p in value.values)
            return ["".join(parts)]
        if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
            return [a + b for a in self.patterns(value.left) for b in self.patterns(value.right)]
        if isinstance(value, ast.IfExp):
            return [*self.patterns(value.body), *self.patterns(value.orelse)]
        sources = [*self._assigned(value), *self._given(value)]
        return [pattern for source in sources for pattern in self.patterns(source)] or [ANYTHING]

    def _assigned(self, value: ast.expr) -> Iterator[ast.expr]:
        """What a name is assigned in its function, where that is not made of the name itself."""
        if not isinstance(value, ast.Name) or value not in self.functions:
            return
        for node in ast.walk(self.functions[value]):
            if isinstance(node, ast.Assign) and value.id in _names(*node.targets) - _names(node.value):
                yield node.value


def _names(*nodes: ast.expr) -> set[str]:
    return {name.id for node in nodes for name in ast.walk(node) if isinstance(name, ast.Name)}


@cache
def used() -> dict[str, list[Use]]:
    """Every code of the core, the targets and the model definitions, with the places that use it."""
    found: dict[str, list[Use]] = {}
    for folder in ("exporter", "targets", "model_defs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for use in Source(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))).uses():
                found.setdefault(use.code, []).append(use)
    return found


def test_every_code_has_a_page() -> None:
    missing = {code: [use.place for use in uses] for code, uses in used().items() if code not in pages()}
    assert not missing, f"write a section of exporter/explain/pages.md for {missing}"


def test_every_page_has_a_code() -> None:
    assert not set(pages()) - set(used()), "nothing uses these any more: remove their sections"


def test_the_pages_are_in_order_and_their_codes_are_words() -> None:
    codes = list(pages())
    assert codes == sorted(codes) and len(codes) > 40
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)
    text = (ROOT / "exporter" / "explain" / "pages.md").read_text(encoding="utf-8")
    assert len(codes) == len(re.findall(r"^## ", text, re.MULTILINE)), "a code has two sections"


@pytest.mark.parametrize("code", list(pages()))
def test_a_page_has_its_parts_in_order(code: str) -> None:
    text = page(code)
    places = [text.find(part) for part in PARTS]
    assert all(place > 0 for place in places) and places == sorted(places), (code, places)
    for part, following in zip(PARTS, [*PARTS[1:], None], strict=True):
        body = text.partition(part)[2].partition(following)[0] if following else text.partition(part)[2]
        assert len(body.split()) >= 3, f"{code}: {part} says next to nothing"


@pytest.mark.parametrize("code", list(pages()))
def test_the_example_is_what_the_code_says(code: str) -> None:
    (example,) = re.findall(r"^    (error\[.*)$", page(code), re.MULTILINE)
    assert example.startswith(f"error[{code}]: ")
    said = example.removeprefix(f"error[{code}]: ")
    uses = used()[code]
    assert any(re.fullmatch(use.message, said) for use in uses), f"{said!r} is none of {uses}"


def test_the_collector_sees_forwarded_codes() -> None:
    """The pages are only as good as the search: each way in which a code travels is found, and what is not, is said."""
    text = """
class Ending:
    verdict: int
    code: str

def helper(what, code):
    raise Refused(code, f"{what} is odd")

def stop(ending):
    return StageFailed(ending.code, "it stopped")

def built(kind):
    return Incomplete(f"built-{kind}", "b")

built("one")
built("two")
helper("a", "by-position")
helper("a", code="by-name")
stop(Ending(1, "by-field"))
errors.Defect("by-attribute", "x")
raise NotProven("yes" if x else "no", "x" + f"{y}!")
"""
    uses = list(Source(text, "sample").uses())
    expected = {"by-position", "by-name", "by-field", "by-attribute", "yes", "no", "built-one", "built-two"}
    assert {use.code for use in uses} == expected
    assert {use.message for use in uses if use.code == "by-name"} == {r".*\ is\ odd"}
    assert {use.message for use in uses if use.code == "no"} == {"x.*!"}
    with pytest.raises(AssertionError, match="cannot see which code"):
        list(Source("Refused(table[x], 'y')", "sample").uses())


def test_the_command_prints_the_page(tmp_path: Path) -> None:
    for code in ("bad-dim", "wrong-sample-rate"):
        said = quick("explain", code, cwd=tmp_path)
        assert (said.code, said.err) == (0, "")
        assert said.out.strip() == page(code).strip()


def test_an_unknown_code_gives_the_nearest(tmp_path: Path) -> None:
    said = quick("explain", "bad-dims", cwd=tmp_path).refused("unknown-code")
    assert "'bad-dims'; nearest: bad-dim" in said
    with pytest.raises(Refused, match=r"no error has the code 'zzz'$"):
        page("zzz")
