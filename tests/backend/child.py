"""The child that runs node tests: through our target protocol, or by the bare runtime, as anybody would without us."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ml_dtypes import bfloat16

from exporter import registry
from exporter.errors import ExporterError
from exporter.graph import Graph
from exporter.isolate import Channel
from exporter.parity.worker import quiet_polygraphy
from exporter.target import Options, Problem, Target
from tests.backend.cases import read
from tests.backend.judge import difference

PASS, FAIL, UNSUPPORTED = "PASS", "FAIL", "UNSUPPORTED"
OURS, BARE = "ours", "bare"
Feeds, Arrays = Mapping[str, np.ndarray], Sequence[np.ndarray]
Infer = Callable[[Feeds], Arrays]
# Lines of OpenVINO's messages that say where in its sources it was; and the operator that it could not convert.
PLACES = re.compile(r"^(Exception from |Check '.*' failed at |FrontEnd API failed|Loading input model$|While |$)")
OPERATOR, SUMMARY = re.compile(r"^-- (\S+) with a message:$"), "Summary:"
# What ONNX Runtime's messages begin with: its code twice, the file, the place in its sources, the node and its types.
SAID_BEFORE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |Load model from \S+ failed:\s*"
    r"|/onnxruntime_src/\S+:\d+ .*onnxruntime::[^)]*\) "
    r"|This is an invalid model\. In Node, .* , Error |Non-zero status code returned while running "
)


def run(request: Mapping[str, Any], channel: Channel) -> None:
    """Child: runs tests one after another; says which it begins, and what came of it.

    Args:
        request: ``target``; ``way`` (``ours`` or ``bare``); ``folder``, where the tests are; ``names`` of tests.
        channel: gets ``{"begins": NAME}`` and ``{"ends": NAME, "said": {"verdict", "stage", "reason"}}``.
    """
    quiet_polygraphy()
    np.seterr(all="ignore")
    for name in request["names"]:
        channel.send({"begins": name})
        channel.send({"ends": name, "said": said(request["target"], request["way"], Path(request["folder"]) / name)})


def said(target: str, way: str, place: Path) -> dict[str, str]:
    """What comes of one test: a verdict, the stage that it was reached in, and the reason."""
    case, data_sets = read(place)
    if case.outside:
        return _said(UNSUPPORTED, "interface", case.outside)
    with tempfile.TemporaryDirectory(prefix="backend-") as folder:
        attempt = Attempt(target, place / "model.onnx", Path(folder))
        try:
            runs = attempt.bare() if way == BARE else attempt.ours(data_sets[0][0])
            for form, infer in runs.items():
                for inputs, expected in data_sets:
                    attempt.stage = "infer"
                    given = {name: value.copy() for name, value in zip(attempt.inputs, inputs, strict=True)}
                    found = difference(attempt.outputs, infer(given), expected, case.rtol, case.atol)
                    if found:
                        return _said(FAIL, "answer", found if way == BARE or len(runs) == 1 else f"{form}: {found}")
        except Unsupported as error:
            return _said(UNSUPPORTED, attempt.stage, str(error))
        except Exception as error:  # whatever a runtime raises is its refusal, in its own words
            return _said(UNSUPPORTED, attempt.stage, words(error))
        finally:
            attempt.close()
    return _said(PASS, "", "")


class Unsupported(Exception):
    """The target said beforehand that it does not have this."""


class Attempt:
    """One target at one graph.

    Attributes:
        stage: what it is at: ``problems``, ``compile``, ``open`` or ``infer``.
        inputs, outputs: names in the graph's order.
    """

    def __init__(self, target: str, path: Path, folder: Path) -> None:
        self.stage, self._target, self._path, self._folder = "open", target, path, folder
        graph = onnx.load(str(path)).graph
        held = {tensor.name for tensor in graph.initializer}
        self.inputs = [value.name for value in graph.input if value.name not in held]
        self.outputs = [value.name for value in graph.output]
        self._nodes = graph.node
        self._opened: list[Any] = []

    def ours(self, inputs: Arrays) -> dict[str, Infer]:
        """Every form of the artifact, as an export makes, opens and runs it in fp32, at the shapes of these inputs."""
        target, graph = registry.target(self._target), Graph(self._path)
        shapes = {name: tuple(value.shape) for name, value in zip(self.inputs, inputs, strict=True)}
        options = Options(threads=1, shapes=shapes)
        self.stage = "problems"
        problems = target.problems(graph, options)
        if problems:
            raise Unsupported("; ".join(dict.fromkeys(self._named(problem) for problem in problems)))
        self.stage = "compile"
        artifact = target.compile(graph, options, self._folder)
        self.stage = "open"
        return {form: self._open(target, artifact, options, form) for form in artifact.forms}

    def _named(self, problem: Problem) -> str:
        """A problem with the operator it is of, where its node is one of the graph's."""
        kinds = {name: node.op_type for node in self._nodes for name in (node.name, *node.output) if name}
        return f"{kinds[problem.node]}: {problem.reason}" if problem.node in kinds else problem.reason

    def _open(self, target: Target, artifact: Any, options: Options, form: str) -> Infer:
        runner = target.open(artifact, options, form)
        runner.activate()
        self._opened.append(runner)

        def infer(feeds: Feeds) -> Arrays:
            outputs = runner.infer(dict(feeds), check_inputs=False)
            missing = [name for name in self.outputs if name not in outputs]
            if missing:
                raise RuntimeError(f"no output is called {missing[0]}, there are {', '.join(outputs)}")
            return [np.array(outputs[name]) for name in self.outputs]

        return infer

    def bare(self) -> dict[str, Infer]:
        """The runtime by its own Python API and nothing of ours."""
        return {"": BARE_RUNTIMES[self._target](self._path)}

    def close(self) -> None:
        for runner in self._opened:
            runner.deactivate()


def _openvino(path: Path) -> Infer:
    import openvino as ov

    compiled = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def infer(feeds: Feeds) -> Arrays:
        # By name, an input that nothing reads has no port; by place where the frontend named one after an output.
        given = {name: feeds[name] for port in compiled.inputs for name in feeds if name in port.get_names()}
        found = compiled(given if len(given) == len(compiled.inputs) else list(feeds.values()))
        # The binding hands bfloat16 out as the bits of float16.
        bits = [port.get_element_type().get_type_name() == "bf16" for port in compiled.outputs]
        arrays = [np.array(found[index]) for index in range(len(bits))]
        return [array.view(bfloat16) if of else array for array, of in zip(arrays, bits, strict=True)]

    return infer


def _onnxruntime(path: Path) -> Infer:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, dict(feeds))


def _evaluator(path: Path) -> Infer:
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(str(path))
    return lambda feeds: session.run(None, dict(feeds))


BARE_RUNTIMES: Mapping[str, Callable[[Path], Infer]] = {
    "openvino": _openvino, "mobile": _onnxruntime, "onnx-reference": _evaluator
}  # fmt: skip


def words(error: Exception) -> str:
    """The first line of a message that says what was wrong."""
    if isinstance(error, ExporterError):
        return error.what
    lines = [SAID_BEFORE.sub("", line.strip()) for line in str(error).splitlines()]
    told = [line for line in lines if not PLACES.match(line)] or lines
    operator = next((index for index, line in enumerate(told) if OPERATOR.match(line)), None)
    if operator is not None:  # what is wrong with it stands last
        about = list(takewhile(lambda line: line != SUMMARY, told[operator + 1 :]))
        kind = OPERATOR.sub(r"\1", told[operator])
        told = [f"{kind}: {about[-1] if about else 'not converted'}"]
    return f"{type(error).__name__}: {told[0][:300]}" if told else type(error).__name__


def _said(verdict: str, stage: str, reason: str) -> dict[str, str]:
    return {"verdict": verdict, "stage": stage, "reason": reason}
