"""One attack for every MUST of docs/bundle-format.md that the manifest alone can break."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from exporter.errors import Refused
from exporter.manifest import FileInfo, decode, encode, file_name_problem, limits
from tests.attacks.bundles import DIGEST, manifest, spoiled


def refusal(data: bytes, code: str = "bad-manifest") -> Refused:
    with pytest.raises(Refused) as caught:
        decode(data)
    error = caught.value
    assert error.code == code
    assert error.what and error.where and error.why and error.next
    return error


def test_more_bytes_than_are_read() -> None:
    good = encode(manifest())
    decode(good + b" " * (limits.MAX_BYTES - len(good)))
    assert "bytes" in refusal(good + b" " * (limits.MAX_BYTES - len(good) + 1)).what


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_deep_nesting(opening: bytes) -> None:
    assert "nested" in refusal(opening * 100_000).what


def test_depth_counts_only_outside_of_text() -> None:
    text = '[[[[{{{{"\\' * 50
    assert decode(spoiled(lambda m: m["model"].update(source=text))).model.source == text


def test_depth_within_the_limit_passes_and_one_more_does_not() -> None:
    def nested(levels: int) -> bytes:
        inner: Any = 1
        for _ in range(levels):
            inner = [inner]
        return spoiled(lambda m: m["model"]["options"].update(deep=inner))

    above = 3  # the manifest, the model, the options
    decode(nested(limits.MAX_DEPTH - above))
    assert "nested" in refusal(nested(limits.MAX_DEPTH - above + 1)).what


def test_more_values_than_are_read() -> None:
    began = time.monotonic()
    assert "values" in refusal(b"[" + b"0," * 1_500_000 + b"0]").what
    assert time.monotonic() - began < 2


def test_more_entries_than_are_read() -> None:
    many = {str(number): "1" for number in range(limits.MAX_ENTRIES + 1)}
    assert "entries" in refusal(spoiled(lambda m: m["tools"].update(many))).what


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"family":', b'"name": "other", "family":'),
        (b'"sha256":', b'"sha256": "' + b"0" * 64 + b'", "sha256":'),
        (b'"schema":', b'"schema": "exporter.bundle/2", "schema":'),
        (b'"schema":', b'"sch\\u0065ma": "exporter.bundle/2", "schema":'),
    ],
)
def test_duplicate_keys(old: bytes, new: bytes) -> None:
    good = encode(manifest())
    assert old in good
    assert "twice" in refusal(good.replace(old, new, 1)).what


@pytest.mark.parametrize(
    "number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1" * 5000, b"0x10", b"01"]
)
def test_numbers_that_are_none(number: bytes) -> None:
    good = encode(manifest())
    assert b'"low": -1.0' in good
    refusal(good.replace(b'"low": -1.0', b'"low": ' + number, 1))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"\xef\xbb\xbf{}", b"{}", b"[]", b"null", b'"text"', b"{", b"{'a': 1}", b"\x00" * 100]
)
def test_what_is_no_manifest_at_all(data: bytes) -> None:
    refusal(data)


def test_text_after_the_end() -> None:
    refusal(encode(manifest()) + b"{}")


def test_a_newer_schema_asks_for_an_upgrade() -> None:
    error = refusal(spoiled(lambda m: m.update(schema="exporter.bundle/3", unheard_of={})), "newer-schema")
    assert "upgrade exporter" in error.next


@pytest.mark.parametrize(
    "schema", ["exporter.bundle/0", "exporter.bundle/-1", "exporter.bundle/1.0", "other/1", "", 1, None]
)
def test_a_schema_that_is_not_ours(schema: Any) -> None:
    refusal(spoiled(lambda m: m.update(schema=schema)))


Change = Callable[[Any], object]
SPOILED: dict[str, tuple[Change, str]] = {
    "unknown key at the top": (lambda m: m.update(extra=1), "extra"),
    "unknown key inside": (lambda m: m["files"]["graphs/traced.onnx"].update(path="/etc"), "path"),
    "unknown key that names a method": (lambda m: m["model"].update(__class__="x"), "__class__"),
    "absent key": (lambda m: m.pop("dims"), "dims"),
    "bool for a number": (lambda m: m["model"].update(parameters=True), "model.parameters"),
    "number for a bool-like text": (lambda m: m["weights"].update(kind=1), "weights.kind"),
    "float for a whole number": (lambda m: m["model"].update(parameters=1.0), "model.parameters"),
    "text for a number": (lambda m: m["model"].update(parameters="1"), "model.parameters"),
    "object for a list": (lambda m: m.update(inputs={}), "inputs"),
    "list for an object": (lambda m: m.update(files=[]), "files"),
    "null for a text": (lambda m: m["model"].update(name=None), "model.name"),
    "bool in a shape": (lambda m: m["inputs"][0].update(shape=[True]), "inputs[0].shape[0]"),
    "no sha256": (lambda m: m["files"]["graphs/traced.onnx"].update(sha256="ABC"), "sha256"),
    "sha256 in capitals": (lambda m: m["files"]["graphs/traced.onnx"].update(sha256="A" * 64), "sha256"),
    "sha256 with a line end": (lambda m: m.update(key=DIGEST + "\n"), "key"),
    "weights without digest": (lambda m: m["weights"].update(digest=""), "weights.digest"),
    "negative file size": (lambda m: m["files"]["graphs/traced.onnx"].update(bytes=-1), "bytes"),
    "absurd file size": (lambda m: m["files"]["graphs/traced.onnx"].update(bytes=1 << 60), "bytes"),
    "absurd dim": (lambda m: m["dims"][0].update(max=10**12 + 1, step=1), "dims[0].max"),
    "contradictory dim": (lambda m: m["dims"][0].update(min=7), "dims[0]"),
    "zero step": (lambda m: m["dims"][0].update(step=0), "dims[0]"),
    "two dims of one name": (lambda m: m["dims"].append(m["dims"][0]), "dims"),
    "absurd size": (lambda m: m["inputs"][0].update(shape=[10**12]), "inputs[0].shape[0]"),
    "negative size": (lambda m: m["inputs"][0].update(shape=[-1]), "inputs[0].shape[0]"),
    "absurd number of elements": (lambda m: m["outputs"][0].update(shape=[1 << 20] * 3), "outputs[0].shape"),
    "absurd rank": (lambda m: m["outputs"][0].update(shape=[1] * 17), "outputs[0].shape"),
    "a dim that is not declared": (lambda m: m["inputs"][0].update(shape=["U"]), "inputs[0].shape[0]"),
    "an unknown element type": (lambda m: m["inputs"][0].update(dtype="object"), "inputs[0].dtype"),
    "low above high": (lambda m: m["inputs"][0].update(low=2.0), "inputs[0].low"),
    "two inputs of one name": (lambda m: m["inputs"].append(m["inputs"][0]), "inputs"),
    "no inputs": (lambda m: m.update(inputs=[]), "inputs"),
    "no outputs": (lambda m: m.update(outputs=[]), "outputs"),
    "a tensor name that drives the terminal": (lambda m: m["inputs"][1].update(name="\x1b[2J"), "inputs"),
    "an empty tensor name": (lambda m: m["outputs"][0].update(name=""), "outputs"),
    "state of an unknown input": (lambda m: m["state"][0].update(input="x2"), "state[0].input"),
    "state of an unknown output": (lambda m: m["state"][0].update(output="x2"), "state[0].output"),
    "stream over an unknown input": (lambda m: m["stream"].update(input="x2"), "stream.input"),
    "stream over an absent axis": (lambda m: m["stream"].update(axis=3), "stream.axis"),
    "stream over a negative axis": (lambda m: m["stream"].update(axis=-1), "stream.axis"),
    "a program of an unknown graph": (lambda m: m["program"][0].update(graph="other"), "program[0].graph"),
    "an endless program": (lambda m: m["program"][0].update(repeat=1 << 40), "program[0].repeat"),
    "a step repeated never": (lambda m: m["program"][0].update(repeat=0), "program[0].repeat"),
    "an empty program": (lambda m: m.update(program=[]), "program"),
    "an unknown pass verdict": (lambda m: m["graphs"]["step"]["passes"][0].update(verdict="PASS"), "verdict"),
    "an unknown weight kind": (lambda m: m["weights"].update(kind="trained"), "weights.kind"),
    "a negative seed": (lambda m: m["weights"].update(seed=-1), "weights.seed"),
    "a case of an unknown dim": (lambda m: m["cases"][0].update(sizes={"U": 1}), "cases[0].sizes"),
    "a case of absurd size": (lambda m: m["cases"][0].update(sizes={"T": 1 << 40}), "cases[0].sizes"),
    "two cases of one name": (lambda m: m["cases"].append(m["cases"][0]), "cases"),
    "a target under another key": (lambda m: m["targets"].update({"a/b": m["targets"]["some/fp32"]}), "targets.a/b"),
    "an unknown status": (lambda m: m["targets"]["some/fp32"].update(status="PASS"), "status"),
    "a form without its file": (lambda m: m["targets"]["some/fp32"].update(forms=["xml"]), "forms"),
    "compiled without a form": (lambda m: m["targets"]["some/fp32"].update(forms=[]), "forms"),
    "absurd threads": (lambda m: m["targets"]["some/fp32"].update(threads=1 << 40), "threads"),
    "a loss below nothing": (lambda m: m["targets"]["some/fp32"]["budget"]["losses"].update(psnr=-1), "losses.psnr"),
    "decibels below nothing": (lambda m: m["targets"]["some/fp32"]["budget"].update(decibels=14.0), "decibels"),
    "an amplification that is text": (
        lambda m: m["targets"]["some/fp32"]["budget"].update(amplification="2"),
        "amplification",
    ),
    "calibration that is undeclared": (
        lambda m: m["targets"]["some/fp32"]["calibration"]["files"].append("calibration/x"),
        "calibration.files",
    ),
    "a graph under another name": (
        lambda m: (
            m["graphs"]["step"].update(traced="graphs/traced.bin"),
            m["files"].update({"graphs/traced.bin": m["files"]["graphs/traced.onnx"]}),
        ),
        "graphs.step.traced",
    ),
    "an undeclared graph": (lambda m: m["files"].pop("graphs/traced.onnx"), "graphs.step.traced"),
    "an undeclared case": (lambda m: m["files"].pop("cases/opt.safetensors"), "cases[0].file"),
    "an undeclared artifact": (lambda m: m["files"].pop("targets/some/fp32/model.bin"), "files.bin"),
    "an undeclared report": (lambda m: m["reports"].update(verify="reports/verify.json"), "reports.verify"),
    "control characters in text": (lambda m: m["model"].update(source="a\x1b[31m"), "model.source"),
    "half a surrogate": (lambda m: m["model"].update(source="\ud800"), "model.source"),
    "reversed reading order": (lambda m: m["model"].update(licence="\u202eTIM"), "model.licence"),
    "endless text": (lambda m: m["model"].update(source="x" * 10_000), "model.source"),
    "an option that is no number": (lambda m: m["model"]["options"].update(a=1 << 65), "model.options.a"),
    "a control character in a key": (lambda m: m["tools"].update({"a\x1b": "1"}), "tools"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_spoiled(name: str) -> None:
    change, place = SPOILED[name]
    error = refusal(spoiled(change))
    assert place in error.where
    assert all(letter.isprintable() for letter in error.where + error.what)


BAD_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/../x",
    "a/..",
    "a/./x",
    "/etc/passwd",
    "//server/share",
    "a//x",
    "a/",
    "C:/x",
    "c:x",
    "C:\\x",
    "a\\x",
    "\\\\server\\share",
    "a\x00b",
    "a\nb",
    "a b",
    "a\tb",
    "~/x",
    "$HOME",
    "-rf",
    "a/-rf",
    ".hidden",
    "a/.hidden",
    ".lock",
    ".work-1/x",
    "ends.",
    "a./x",
    "con",
    "NUL.txt",
    "a/Com1.onnx",
    "lpt9",
    "stream:ads",
    "ümlaut",
    "a\u202eb",
    "\uff0e\uff0e/x",
    "manifest.json",
    "Manifest.JSON",
    "manifest.json.tmp",
    "USE.md",
    "x" * 129,
    "/".join(["d"] * 9),
    "/".join(["d" * 60] * 5),
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_names_that_would_leave_the_bundle_or_mean_something_else(name: str) -> None:
    assert file_name_problem(name)

    def put(value: Any) -> None:
        value["files"][name] = {"sha256": DIGEST, "bytes": 1}
        value["graphs"]["step"]["traced"] = name

    refusal(spoiled(put))


@pytest.mark.parametrize(
    "name", ["a", "graphs/model-0123456789ab.onnx", "a/b.c+d_e-1", "console.txt", "a/manifest.json"]
)
def test_names_that_are_fine(name: str) -> None:
    assert file_name_problem(name) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [("a/x.bin", "a/X.bin"), ("a/x.bin", "A/y.bin"), ("a/b", "a/b/c"), ("a/b", "a/b/c/d"), ("A", "a")],
)
def test_names_that_clash_on_some_systems(first: str, second: str) -> None:
    def put(value: Any) -> None:
        value["files"].update({name: {"sha256": DIGEST, "bytes": 1} for name in (first, second)})

    refusal(spoiled(put))


def test_the_good_manifest_is_good() -> None:
    """Without this every refusal above could have another cause."""
    assert decode(spoiled(lambda m: None)) == manifest()
    assert json.loads(encode(manifest()))["files"]["graphs/traced.onnx"] == {"sha256": DIGEST, "bytes": 1}
    assert manifest().files["graphs/traced.onnx"] == FileInfo(DIGEST, 1)
