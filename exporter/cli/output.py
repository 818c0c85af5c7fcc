"""Exit codes and machine-readable output: one JSON object, errors included, and nothing beside it on stdout."""

from __future__ import annotations

import json as encoder
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import Defect, ExporterError, Refused
from exporter.whole import whole

if TYPE_CHECKING:
    import typer

INTERRUPTED = 130
LONGEST_COMMAND = 300


def show(value: Mapping[str, Any], json: bool, render: Callable[[Mapping[str, Any]], None]) -> None:
    """Prints a result for a machine or for a person; of another device every line with its name."""
    if json:
        print(encoder.dumps(value, indent=2))
    elif "device" in value:
        from exporter.cli.console import labelled
        from exporter.cli.render_device import described

        with labelled(value["device"]["label"]):
            render(value)
            described(value["device"])
    else:
        render(value)


def guarded(app: typer.Typer, as_json: bool) -> int:
    """Runs the command line; turns every error into its four parts and its exit code."""
    # Typer brings its own copy of click along, or depends on it: its exceptions are found through it.
    import typer as library

    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        # Typer makes an exit code of Ctrl-C.
        return _interrupted() if code == INTERRUPTED else int(code or 0)
    except ExporterError as error:
        return _failed(error, as_json)
    except library.Exit as error:
        return _interrupted() if error.exit_code == INTERRUPTED else int(error.exit_code)
    except (KeyboardInterrupt, library.Abort):
        return _interrupted()
    except (BrokenPipeError, SystemExit):  # the reader went away (the parser exits on it by itself): nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
        return 0
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of the command line parser
            return _failed(_usage(error), as_json)
        return _failed(_defect(error), as_json)


def _interrupted() -> int:
    from exporter.isolate import kill_all

    kill_all()
    print("interrupted: children ended, nothing half written", file=sys.stderr)
    return INTERRUPTED


def _usage(error: Any) -> Refused:
    command = getattr(getattr(error, "ctx", None), "command_path", "exporter")
    why = "the command line has a fixed form"
    return Refused("bad-usage", error.format_message(), where=command, why=why, next=f"{command} --help")


def _defect(error: Exception) -> Defect:
    import tempfile
    import traceback

    lines = traceback.format_exception(error)
    try:
        with tempfile.NamedTemporaryFile("w", prefix="exporter-defect-", suffix=".log", delete=False) as log:
            log.write("".join(lines))
        where = f"the whole trace is in {log.name}"
    except OSError as unwritten:  # whatever filled the disk may have filled this one too
        where = f"no log can be written ({unwritten.strerror}); it was {' '.join(lines[-2].split())}"
    return Defect(
        "internal",
        f"{type(error).__name__}: {error}",
        where=where,
        why="this is a mistake of exporter, not yours; nothing was published",
        next="report it with that file",
    )


def _failed(error: ExporterError, as_json: bool) -> int:
    # What is refused before there is a model or a file to point at points at what was typed.
    error.where = error.where or f"command {_typed()}"
    error.why = error.why or f"exporter explain {error.code} says why"
    error.next = error.next or f"exporter explain {error.code}"
    if as_json:
        print(encoder.dumps(error.as_json(), indent=2))
    else:
        from exporter.cli.render import failed

        failed(error)
    return error.exit_code


def _typed() -> str:
    """The command as it was typed; one of pages of text is cut."""
    typed = shlex.join(["exporter", *sys.argv[1:]])
    return ascii(typed)[1:-1] if len(typed) <= LONGEST_COMMAND else f"{typed[:LONGEST_COMMAND]!a}..."


def strict_code(strict: bool, profile: Mapping[str, Any] | None) -> int:
    """1 where ``--strict`` asks for a stable profile and there is none."""
    return 1 if strict and profile is not None and profile["stability"] != "STABLE" else 0


def profile_code(profile: Mapping[str, Any]) -> int:
    """The exit code of a profile: a subject that is only absent here does not fail it, unless nothing was timed."""
    from exporter.verdict import Verdict, worst

    found = [(subject["baseline"], Verdict(subject["verdict"])) for subject in profile["subjects"]]
    found += [(False, Verdict(run["verdict"])) for run in profile.get("sustained", ())]
    return worst(verdict for baseline, verdict in found if not (baseline and verdict is Verdict.SKIPPED)).exit_code


def verify_code(verification: Mapping[str, Any]) -> int:
    """The exit code of a verification: that of its verdict."""
    from exporter.verdict import Verdict

    return Verdict(verification["verdict"]).exit_code


def results_of(value: Mapping[str, Any], hop: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The results of one hop: of one target in one precision, where there are several."""
    mine = hop["hop"], hop["target"], (hop["precision"] or {}).get("asked")
    return [r for r in value["results"] if (r["hop"], r["target"], r["precision"]) == mine]


def refuse_unwritable(option: str, path: Path, example: str) -> None:
    """Refuses a place where no file can be written; asked before the work, not after it."""
    if not path.parent.is_dir() or path.is_dir():
        why = "it is a folder" if path.is_dir() else "its folder does not exist"
        remedy = f"{option} {example}" if path.is_dir() else f"mkdir -p {path.parent}"
        raise Refused("bad-output", f"cannot write {path}", where=f"{option} {path}", why=why, next=remedy)


def write_junit(path: Path, value: Mapping[str, Any]) -> None:
    """The verdicts as JUnit XML: one test case per case and output of every hop."""
    from xml.etree import ElementTree as Xml

    label = f" on {value['device']['label']}" if "device" in value else ""
    suites = Xml.Element("testsuites", name=f"exporter verify {value['model']}{label}")
    for hop in value["hops"]:
        name, results = f"{hop['hop']} {hop['target'] or ''}".strip() + label, results_of(value, hop)
        bad = sum(result["verdict"] != "PASS" for result in results)
        counts = {"tests": str(len(results) + 1), "failures": str(bad + (hop["verdict"] != "PASS"))}
        suite = Xml.SubElement(suites, "testsuite", {"name": name, **counts})
        junit_case(suite, name, "verdict", hop["verdict"], hop["reason"])
        for result in results:
            label_of = f"{result['case']} {result['output']}" + (f" {result['form']}" if result["form"] else "")
            junit_case(suite, name, label_of, result["verdict"], result["reason"])
    write_page(path, Xml.tostring(suites, encoding="utf-8", xml_declaration=True))


def write_page(path: Path, content: bytes) -> None:
    """Writes a file beside its place, and puts it there whole."""
    with whole(path) as staging:
        staging.write_bytes(content)


def junit_case(suite: Any, group: str, name: str, verdict: str, reason: str | None) -> None:
    """One test case: skipped, failed with its verdict, or passed."""
    from xml.etree import ElementTree as Xml

    case = Xml.SubElement(suite, "testcase", classname=group, name=name)
    if verdict == "SKIPPED":
        Xml.SubElement(case, "skipped", message=reason or "")
    elif verdict != "PASS":
        Xml.SubElement(case, "failure", message=f"{verdict}: {reason}")
