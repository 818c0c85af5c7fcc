"""``USE.md``: what an application needs to run a bundle, written from its manifest."""

from __future__ import annotations

from collections.abc import Sequence

from exporter import registry
from exporter.errors import Refused
from exporter.manifest import Manifest, TargetInfo
from exporter.program import program_of
from exporter.samples import slug
from exporter.spec import Step, Tensor
from exporter.target import Target


def use_page(manifest: Manifest) -> str:
    """The page: tensors with ranges, dims, the state loop, host steps, and ten lines per runtime."""
    parts = [f"# Using {manifest.model.name}", _weights(manifest), "## Inputs", _inputs(manifest), "## Outputs"]
    parts.append(_rows(("name", "type", "shape", "meaning"), [_plain(t) for t in manifest.outputs]))
    if manifest.dims:
        rows = [(d.name, str(d.min), str(d.opt), str(d.max), str(d.step)) for d in manifest.dims]
        parts += ["## Dynamic dims", _rows(("dim", "min", "optimised for", "max", "step"), rows)]
    if manifest.state:
        parts += ["## State", _state(manifest)]
    if not program_of(manifest).single:
        parts += ["## Program", _program(manifest)]
    if manifest.before or manifest.after:
        parts += ["## Before and after", _host(manifest)]
    for info in manifest.targets.values():
        parts += [f"## {info.target}, {info.precision}", _target(manifest, info)]
    return "\n\n".join(parts) + "\n"


def _weights(manifest: Manifest) -> str:
    weights = manifest.weights
    if weights.kind == "seeded":
        return f"**The weights are seeded ({weights.source}): they are noise.** Export again with `--checkpoint FILE`."
    return f"Weights: {weights.source}, licence {weights.licence}, digest `{weights.digest[:16]}`."


def _rows(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(tensor: Tensor) -> tuple[str, str, str, str]:
    return f"`{tensor.name}`", tensor.dtype, " x ".join(map(str, tensor.shape)), tensor.meaning


def _inputs(manifest: Manifest) -> str:
    rows = [(*_plain(t), f"{t.low:g} .. {t.high:g}") for t in manifest.inputs]
    return _rows(("name", "type", "shape", "meaning", "range"), rows)


def _state(manifest: Manifest) -> str:
    lines = ["Start every state as zeros. After each call, feed each output back to its input:", ""]
    lines += [f"- `{s.output}` becomes `{s.input}`" for s in manifest.state]
    if manifest.stream:
        lines += ["", f"One call per slice of `{manifest.stream.input}` along axis {manifest.stream.axis}."]
    return "\n".join(lines)


def _program(manifest: Manifest) -> str:
    """The graphs and the loop that drives them, in the words of a program that an application can follow."""
    rows = [
        (f"`{name}`", ", ".join(f"`{t.name}`" for t in graph.inputs), ", ".join(f"`{t.name}`" for t in graph.outputs))
        for name, graph in ((name, manifest.graphs[name]) for name in program_of(manifest).graphs)
    ]
    code = [f"values = {{{', '.join(f'{t.name!r}: ...' for t in manifest.inputs)}}}  # arrays by name"]
    for step in manifest.program:
        code += _step_lines(step)
    code.append(f"result = {{name: values[name] for name in {[t.name for t in manifest.outputs]}}}")
    said = (
        "Several graphs are the model. Each takes its inputs by name out of all values there are, and adds its outputs:"
    )
    loop = ["```python", *code, "```"]
    return "\n".join([said, "", _rows(("graph", "takes", "gives"), rows), "", *loop])


def _step_lines(step: Step) -> list[str]:
    once = [f"values |= {step.graph}(values)", *(f"values[{s.input!r}] = values[{s.output!r}]" for s in step.state)]
    return once if step.repeat == 1 else [f"for _ in range({step.repeat}):", *(f"    {line}" for line in once)]


def _host(manifest: Manifest) -> str:
    def named(steps: object) -> list[str]:
        return [f"- {s.step}: " + ", ".join(f"{k}={v}" for k, v in s.options.items()) for s in steps]  # type: ignore[attr-defined]

    before = ["Before the graph:", *named(manifest.before)] if manifest.before else []
    after = ["", "After it:", *named(manifest.after)] if manifest.after else []
    ran = [
        "",
        "`exporter run BUNDLE --target T INPUT -o OUTPUT` does all of it; the steps are numpy, in `exporter/host`.",
    ]
    return "\n".join([*before, *after, *ran])


def _target(manifest: Manifest, info: TargetInfo) -> str:
    if info.status != "compiled":
        by_hand = "".join(f"\n    {line}" for line in info.advice)
        return f"Not compiled yet. On a machine with the runtime:\n\n    {info.next}{by_hand}"
    files = "\n".join(f"- {role}: `{name}`" for role, name in info.files.items())
    advice = "".join(f"\n- {line}" for line in info.advice)
    try:
        target = registry.target(info.target)
    except Refused:  # the target's file is not installed here; the artifact is still described
        return files + advice
    # Of several graphs the first is shown: the others are opened and called in the same way.
    name = program_of(manifest).graphs[0]
    graph = manifest.graphs[name]
    role = info.forms[0] if len(manifest.graphs) == 1 else f"{name}.{info.forms[0]}"
    first, output = graph.inputs[0], graph.outputs[0]
    opt = {dim.name: dim.opt for dim in manifest.dims}
    fields = {
        "file": info.files[role],
        "input": first.name,
        "output": output.name,
        "shape": ", ".join(map(str, first.sized(opt))),
        **target.example_fields(info.precision, info.way),
        "inputs": "{" + ", ".join(_zeros(t, opt) for t in graph.inputs) + "}",
    }
    code = [
        f"```{name}\n{text.format(**fields)}```"
        for name, text in (("python", target.python_example), ("cpp", target.cpp_example))
        if text
    ]
    phone = _phone(manifest, info, target)
    shown = [] if len(manifest.graphs) == 1 else [f"How `{name}` is opened and called; the other graphs likewise:"]
    return "\n\n".join([files + advice, *shown, *code, *phone])


def _phone(manifest: Manifest, info: TargetInfo, target: Target) -> list[str]:
    """The lines for a phone without Python: the first form for its answers, the last and smallest for its speed."""
    sets = (name.partition("/test_data_set_0/") for name in manifest.onnx_tests)
    tests = next((folder for folder, found, _ in sets if found), "")
    if not target.phone_example or not tests or len(manifest.graphs) > 1:
        return []
    first, file = info.files[info.forms[0]], info.files[info.forms[-1]]
    fields = {"first": first, "file": file, "ending": file.rpartition(".")[2], "tests": tests,
              "name": slug(manifest.model.name), "target": f"{info.target}/{info.precision}"}  # fmt: skip
    said = f"On a phone without Python, in the bundle's folder (`{tests}` is in ONNX's own test layout):"
    return [said, f"```sh\n{target.phone_example.format(**fields).replace('BUNDLE', '.')}```"]


def _zeros(tensor: Tensor, opt: dict[str, int]) -> str:
    return f'"{tensor.name}": np.zeros({tensor.sized(opt)}, np.{tensor.dtype})'
