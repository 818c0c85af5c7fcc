"""What the documents say is so: commands parse, options exist, links resolve, tables are those of the code."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from exporter import registry
from exporter.cli.app import _settings as settings
from exporter.errors import KINDS, ExporterError
from exporter.verdict import Verdict

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
OURS = ("exporter/", "targets/", "model_defs/", "tests/", "docs/")


def blocks(text: str, language: str) -> list[str]:
    """Fenced blocks of a language; those in ``shell`` are tested, transcripts are ``text``."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def shell_lines(text: str) -> list[str]:
    return [line for block in blocks(text, "shell") for line in block.splitlines() if line.strip()]


def rows(text: str, heading: str) -> dict[str, str]:
    """The first table under a heading: first cell without marks, and the rest of its row."""
    (part,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    cells = [line.strip("|").split("|", 1) for line in part.splitlines() if line.startswith("|")]
    return {first.strip(" `"): rest.strip() for first, rest in cells[2:]}


@cache
def commands() -> dict[str, Any]:
    """The commands of the command line, by name."""
    import typer

    from exporter.cli.app import app

    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def problem(line: str) -> str | None:
    """What is wrong with a shell line of a document; None if it would start."""
    words = shlex.split(line)
    if words[0] == "make":
        wanted = [word for word in words[1:] if "=" not in word]
        unknown = [word for word in wanted if not re.search(rf"^{word}:", MAKEFILE, re.MULTILINE)]
        unset = [w for w in words[1:] if "=" in w and not re.search(rf"^{w.split('=')[0]} \?=", MAKEFILE, re.MULTILINE)]
        return f"the Makefile has no {unknown + unset}" if unknown + unset else None
    if words[0] == "pip":
        extras = re.findall(r"\[([\w,-]+)\]", line)
        unknown = [extra for group in extras for extra in group.split(",") if f"\n{extra} = [" not in PROJECT]
        return f"no extra is called {unknown}" if unknown or not extras else None
    if words[0] != "exporter":
        return f"{words[0]} is no command of ours"
    name, arguments = words[1], words[2:]
    if name not in commands():
        return f"there is no command {name}"
    try:
        commands()[name].make_context(name, list(arguments))
    except Exception as error:  # whatever kind the parser's are: typer may bring its own copy of click
        return f"{type(error).__name__}: {error}"
    if name in registry.target_names() and arguments[0] not in registry.model_names():
        return f"there is no model {arguments[0]}"
    if name in registry.target_names():
        given = [word for word, before in zip(words[1:], words, strict=False) if before == "--set"]
        try:
            registry.model(arguments[0], settings(given))
        except ExporterError as error:
            return str(error)
    targets = [word for word, before in zip(words[1:], words, strict=False) if before == "--target"]
    unknown = [target for target in targets if target not in registry.target_names()]
    return f"there is no target {unknown}" if unknown else None


# ------------------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize("line", shell_lines(README))
def test_an_example_of_the_readme_would_start(line: str) -> None:
    assert problem(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "make demos",
        "make demo DATUM=x",
        "pip install '.[tensorrt]'",
        "exporter tensorrt gtcrn",
        "exporter openvino gtcrm",
        "exporter openvino",
        "exporter openvino gtcrn --no-such-option",
        "exporter openvino gtcrn --seed x",
        "exporter mobile restormer --set variant=none",
        "exporter mobile restormer --set varaint=gray",
        "exporter verify gtcrn.bundle --strict",
        "exporter compile gtcrn.bundle",
        "exporter profile gtcrn.bundle --target opnevino",
        "exporter run gtcrn.bundle noisy.wav -o clean.wav",
        "sudo exporter doctor",
    ],
)
def test_an_example_that_would_not_start_is_noticed(line: str) -> None:
    assert problem(line) is not None


def test_the_readme_shows_every_command() -> None:
    shown = {shlex.split(line)[1] for line in shell_lines(README) if line.startswith("exporter ")}
    assert set(commands()) <= shown


def test_the_readme_starts_with_the_two_commands() -> None:
    assert blocks(README, "shell")[0].splitlines() == ["make demo", "make test"]


def test_every_command_but_explain_takes_json() -> None:
    without = {name for name, command in commands().items() if not any("--json" in p.opts for p in command.params)}
    assert without == {"explain"}


def test_the_python_example_compiles_and_names_what_there_is() -> None:
    import exporter

    (code,) = blocks(README, "python")
    compile(code, "README.md", "exec")
    names = re.findall(r"exporter\.(\w+)\(", code)
    assert names and set(names) <= set(exporter.__all__)


@pytest.mark.slow
def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks(README, "python")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.split("\n")[:2] == ["PASS", "PASS"]


def test_the_transcript_has_the_columns_of_today() -> None:
    rendered = (ROOT / "exporter" / "cli" / "render.py").read_text(encoding="utf-8")
    (transcript,) = [block for block in blocks(README, "text") if block.startswith("$ exporter")]
    headers = [line for line in transcript.splitlines() if line.startswith(("verdict ", "subject "))]
    assert len(headers) == 2
    for column in (column for line in headers for column in re.split(r" {2,}", line.strip())):
        assert f'"{column}"' in rendered, f"no table has a column {column!r} any more"


# --------------------------------------------------------------------------------------------------------- tables


def test_the_exit_codes_are_those_of_the_code() -> None:
    table = {int(code): text for code, text in rows(README, "Exit codes").items()}
    assert set(table) == {kind.exit_code for kind in KINDS.values()} | {v.exit_code for v in Verdict} | {130}
    for verdict in (Verdict.FAIL, Verdict.INVALID, Verdict.UNSUPPORTED, Verdict.PASS):
        assert f"`{verdict}`" in table[verdict.exit_code]


def test_the_verdicts_are_those_of_the_code() -> None:
    assert list(rows(README, "Verdicts")) == [verdict.value for verdict in Verdict]


def test_the_extras_are_those_of_the_project() -> None:
    declared = PROJECT.partition("[project.optional-dependencies]")[2].partition("\n[project.scripts]")[0]
    assert set(rows(README, "On a device without PyTorch")) == set(re.findall(r"^(\w+) = \[", declared, re.MULTILINE))


def test_the_published_checkpoint_is_the_definitions() -> None:
    from exporter import registry

    published = registry.model("gtcrn").checkpoint
    assert published is not None and published.sha256 is not None
    assert published.sha256 in README
    assert published.address.rpartition(", ")[2] in README


def test_the_guide_lists_the_targets_of_make() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for line in shell_lines(guide):
        if line.startswith("make "):
            assert problem(line) is None
    named = set(re.findall(r"`make ([a-z-]+)`", guide))
    assert named >= {"setup", "demo", "lint", "fmt", "type", "test", "test-all", "contract", "faults", "bench"}
    assert all(re.search(rf"^{name}:", MAKEFILE, re.MULTILINE) for name in named)


# ---------------------------------------------------------------------------------------------------------- links


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_resolves(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists() and ROOT in (target, *target.parents), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{target.name} has no heading for #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_named_exists(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    examples = set(re.findall(r"Save this as\s+`([^`]+)`", text)) | {"docs/performance.md"}  # made by `make bench`
    for name in re.findall(r"`([\w./-]+)`", text):
        if name.startswith(OURS) and not name.endswith("NAME.py") and name not in examples:
            place = name.partition("::")[0]
            assert (ROOT / place).exists() or "FAMILY" in name, f"{name} is not there"


def test_the_tree_of_the_architecture_is_the_tree() -> None:
    """A stranger finds a file from the tree alone: everything named is there, everything there is named."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    tree = blocks(text, "text")[0].partition("exporter/")[2].partition("\nmodel_defs/")[0]
    named = set(re.findall(r"[\w]+\.py|[a-z]+/(?= |$)", tree, re.MULTILINE)) - {"app.py"}
    core = ROOT / "exporter"
    files = {path.name for path in core.glob("*.py") if not path.name.startswith("__")}
    folders = {f"{path.name}/" for path in core.iterdir() if (path / "__init__.py").exists()}
    assert named == files | folders


def test_decisions_are_short_and_have_their_parts() -> None:
    decisions = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8"))
    assert [path.name for path in decisions] == listed
    for number, path in enumerate(decisions, 1):
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {number:04}. ") and path.name.startswith(f"{number:04}-")
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
        assert len(text.splitlines()) < 40
