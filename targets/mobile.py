"""Mobile: one model in two files for ONNX Runtime, ``.onnx`` for its full builds and ``.ort`` for its reduced ones.

The ``.ort`` file is optimised for ARM and holds no layout nodes of one processor; beside it lie the list of operators
a reduced build needs, and a report on which mobile accelerators could take the graph. Formats:
https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-models.html
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

import numpy as np
from polygraphy.backend.base import BaseRunner
from polygraphy.backend.onnxrt import OnnxrtRunner

from exporter.errors import NotProven
from exporter.graph import Graph
from exporter.target import (
    QUANTISED,
    STORED,
    TYPES,
    Artifact,
    Availability,
    Imported,
    Layer,
    Options,
    Problem,
    Progress,
    Ran,
    Target,
    silent,
)

from ._mobile import imported as printed
from ._mobile.quantise import quantised, small
from ._processor import SEVEN_BITS, saturates

PROVIDER = "CPUExecutionProvider"
# Of a plain graph: one with signed values between its scales, as TensorRT wants them, is computed in eight bits on
# every processor. Without this some of its products run in float32 where the processor likes unsigned ones better.
AS_WRITTEN = {"session.qdqisint8allowed": "1"}
IN_TWO = "its weights lie beside it, deploy both files; there is no .ort, which is one file of 2 GiB at most"
# ONNX Runtime's names of the types arithmetic can run in.
FLOATS = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "double": "fp64"}
# What the runtime adds to the name of a node that it made of one between scales.
TOKEN = re.compile(r"_token_\d+$")
# What the runtime makes of a product between its scales: it computes in integers.
INTEGER = frozenset({"ConvInteger", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QGemm",
                     "QLinearConv", "QLinearMatMul"})  # fmt: skip
# Operators the XNNPACK provider takes: https://onnxruntime.ai/docs/execution-providers/Xnnpack-ExecutionProvider.html
XNNPACK = {"AveragePool", "Conv", "ConvTranspose", "Gemm", "MatMul", "MaxPool", "QLinearAveragePool", "QLinearConv",
           "QLinearSoftmax", "Resize", "Softmax"}  # fmt: skip


class Mobile(Target):
    """``exporter mobile MODEL``."""

    name = "mobile"
    extra = "mobile"
    # fp16 is how it is stored: the CPU provider computes nearly every operator in float32.
    precisions = {"fp32": ("fp32", "fp32"), "fp16": ("fp16", "fp32|fp16"), "int8": ("int8", "int8")}
    lowers = {"fp16": (TYPES,), "int8": (QUANTISED, STORED)}
    without = {"bf16": "ONNX Runtime's CPU provider computes nothing in bf16"}
    rung = "portable"
    runs_graphs = 1
    quantises = True
    beside = ("data",)
    python_example = """\
import numpy as np, onnxruntime as ort
session = ort.InferenceSession("{file}", providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
outputs = dict(zip(names, session.run(names, {inputs})))
result = outputs["{output}"]
"""
    cpp_example = """\
#include <onnxruntime_cxx_api.h>
Ort::Env env;
Ort::Session session(env, "{file}", Ort::SessionOptions());
auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
std::vector<int64_t> shape = {{{shape}}};
auto input = Ort::Value::CreateTensor<float>(memory, data, count, shape.data(), shape.size());  // and every other
const char* inputs[] = {{"{input}"}};
const char* outputs[] = {{"{output}"}};
auto result = session.Run(Ort::RunOptions(), inputs, &input, 1, outputs, 1);
"""

    # perf_test draws from all data sets that lie beside a model: of one size, so that its timings are of one thing.
    phone_example = """\
D=/data/local/tmp/{name}                   # both programs come with a build of ONNX Runtime for Android
adb shell mkdir -p $D/parity/{name} $D/speed/{name}
adb push onnx_test_runner onnxruntime_perf_test libonnxruntime.so $D/
adb push {tests}/test_data_set_* $D/parity/{name}/
adb push {first} $D/parity/{name}/model.onnx
adb push {file} $D/speed/{name}/model.{ending}
adb push {tests}/test_data_set_0 $D/speed/{name}/
for ep in cpu xnnpack nnapi; do
  rm -f speed-$ep.csv                      # where a provider fails, the file of the last time must not stand for it
  adb shell "cd $D && LD_LIBRARY_PATH=. ./onnx_test_runner -e $ep parity" > parity-$ep.txt
  adb shell "cd $D && rm -f speed.csv; LD_LIBRARY_PATH=. ./onnxruntime_perf_test -e $ep -m times -r 300 \
    speed/{name}/model.{ending} speed.csv" > speed-$ep.txt
  adb pull $D/speed.csv speed-$ep.csv
  exporter profile BUNDLE --target {target} --import speed-$ep.csv --import speed-$ep.txt --import parity-$ep.txt \
    --as "$(adb shell getprop ro.product.model) $ep" --save
done
"""

    def computes(self, precision: str, way: str) -> str:
        return "fp32" if way == STORED else super().computes(precision, way)

    def available(self) -> Availability:
        try:
            return Availability(True, version("onnxruntime"))
        except PackageNotFoundError:
            return Availability(False, reason="onnxruntime is not installed", next="pip install onnxruntime")

    def problems(self, graph: Graph, options: Options) -> list[Problem]:
        import onnx
        import onnxruntime as ort

        model, found = graph.linked(), []
        newest = onnx.defs.onnx_opset_version()
        for domain in model.opset_import:
            if domain.domain in ("", "ai.onnx") and domain.version > newest:
                found.append(Problem("opset", f"{domain.version} is newer than {newest}", "export at an older opset"))
        known = {schema.name for schema in onnx.defs.get_all_schemas()}
        foreign = [n for n in model.graph.node if n.domain in ("", "ai.onnx") and n.op_type not in known]
        remedy = f"write it with operators that ONNX Runtime {ort.__version__} has"
        found += [Problem(n.name or n.op_type, f"{n.op_type} is no ONNX operator", remedy) for n in foreign]
        return found

    def compile(self, graph: Graph, options: Options, folder: Path, progress: Progress = silent) -> Artifact:
        portable = Graph(folder / "model.onnx")
        left, narrow = dict[str, str](), options.way == QUANTISED and saturates()
        if options.way == QUANTISED:
            progress("taking scales", 0, 0)
            left = quantised(graph, options.calibration_files, options.kept, portable.path, narrow=narrow)
            small(portable, portable, graph)
        elif options.way == STORED:
            if not small(graph, portable, graph):
                raise NotProven(
                    "unsupported",
                    "no weight of a product has values enough to be stored in eight bits",
                    where=f"target {self.name}, graph {graph.path.name}",
                    why="what is asked for as int8 and stored as float32 is not int8",
                    next="--precision fp32",
                )
        else:
            portable = graph.copied(portable.path)
        report = folder / "mobile-usability.txt"
        report.write_text(_usability(portable), encoding="utf-8")
        files, advice = portable.roles, _advice(graph, options) + [SEVEN_BITS] * narrow
        if "data" in files:
            advice.append(IN_TWO)
        else:
            files |= _converted(portable, folder)
        forms = tuple(role for role in ("onnx", "ort") if role in files)
        fingerprint = {"onnxruntime": version("onnxruntime")}
        kind = self.precisions[options.precision][0]
        return Artifact(
            options.precision, {**files, "usability": report}, forms, fingerprint, kind, tuple(advice), left
        )  # fmt: skip

    def quantise(self, graph: Graph, calibration: Sequence[str], kept: Sequence[str], output: Path) -> dict[str, str]:
        return quantised(graph, calibration, kept, output, symmetric=True)

    def open(self, artifact: Artifact, options: Options, form: str | None = None) -> BaseRunner:
        return MobileRunner(artifact.files[form or artifact.forms[0]], options)

    def open_graph(self, graph: Graph, options: Options) -> BaseRunner:
        return MobileRunner(graph.path, options, AS_WRITTEN)

    def ran(self, runner: BaseRunner) -> Ran:
        assert isinstance(runner, MobileRunner)
        return runner.ran()

    def imported(self, text: str) -> Imported | None:
        return printed.imported(text)

    def timer(self, runner: BaseRunner, feeds: Mapping[str, np.ndarray]) -> Callable[[], Mapping[str, np.ndarray]]:
        assert isinstance(runner, MobileRunner)
        return runner.bound(feeds)

    def layers(self, runner: BaseRunner, feeds: Mapping[str, np.ndarray], runs: int) -> list[Layer]:
        assert isinstance(runner, MobileRunner)
        return runner.layers(feeds, runs)


class MobileRunner(OnnxrtRunner):  # type: ignore[misc]  # Polygraphy carries no types
    """Polygraphy's runner of one file, with its first run observed: the provider and type of every node.

    ONNX Runtime tells what a node ran in only through its profiler, so the first run is profiled and no other.
    """

    def __init__(self, path: Path, options: Options, more: Mapping[str, str] = MappingProxyType({})) -> None:
        self._events = Path(tempfile.mkdtemp(prefix="exporter-"))
        name, events = f"mobile-{path.suffix[1:]}", self._events / "events"
        super().__init__(lambda: _session(path, options, events, more), name=name)
        self._path, self._options = path, options
        self._ran: Ran | None = None
        self._runs = 0

    def infer_impl(self, feed_dict: Mapping[str, np.ndarray]) -> OrderedDict[str, np.ndarray]:
        if self._runs == 1:
            self.ran()
        self._runs += 1
        # Not the parent's: to see whether it was given tensors of PyTorch, it imports all of PyTorch.
        values = self.sess.run(None, dict(feed_dict))
        return OrderedDict(zip((output.name for output in self.sess.get_outputs()), values, strict=True))

    def deactivate_impl(self) -> None:
        super().deactivate_impl()
        shutil.rmtree(self._events, ignore_errors=True)

    def ran(self) -> Ran:
        """What the first run ran in, per node; nothing is known before a run."""
        if self._ran is None:
            self._ran = _observed(json.loads(Path(self.sess.end_profiling()).read_text(encoding="utf-8")))
        return self._ran

    def layers(self, feeds: Mapping[str, np.ndarray], runs: int) -> list[Layer]:
        """Each node's median, in a session of its own with the runtime's profiler on: it costs time."""
        session = _session(self._path, self._options, self._events / "layers")
        for _ in range(runs + 1):
            session.run(None, dict(feeds))
        spent: dict[str, list[float]] = {}
        kinds: dict[str, tuple[str, str]] = {}
        for event in _kernels(json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))):
            name = event["name"].removesuffix("_kernel_time")
            spent.setdefault(name, []).append(event["dur"] * 1e3)
            kinds[name] = event["args"]["op_name"], _type_of(event["args"])
        # The first run allocates.
        return [Layer(name, kinds[name][0], _nodes(name), median(ns[1:]), kinds[name][1]) for name, ns in spent.items()]

    def bound(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], Mapping[str, np.ndarray]]:
        """A call on bound inputs and outputs; outputs are allocated once and written to again."""
        import onnxruntime as ort

        given = self.infer(feeds, check_inputs=False)
        self.ran()  # ends the profiling: nothing of it may be inside a timed call
        binding, session = self.sess.io_binding(), self.sess
        # Neither side of a binding keeps what is bound to it.
        inputs = {name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value)) for name, value in feeds.items()}
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        # Not what the binding itself would allocate: onnxruntime 1.23 hands that out by references into itself.
        outputs = {
            name: ort.OrtValue.ortvalue_from_shape_and_type(list(value.shape), value.dtype, "cpu")
            for name, value in given.items()
        }
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        held = inputs, outputs, {name: value.numpy() for name, value in outputs.items()}
        run = session.run_with_iobinding

        def call() -> Mapping[str, np.ndarray]:
            run(binding)
            return held[-1]

        return call


def _session(path: Path, options: Options, events: Path, more: Mapping[str, str] = MappingProxyType({})) -> Any:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.log_severity_level = 3
    settings.enable_profiling = True
    settings.profile_file_prefix = str(events)
    # Spinning threads of one runtime slow down the next; a phone would pay for them with its battery.
    for entry in {"session.intra_op.allow_spinning": "0", **more}.items():
        settings.add_session_config_entry(*entry)
    return ort.InferenceSession(str(path), settings, providers=[PROVIDER])


def _kernels(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [e for e in events if e.get("cat") == "Node" and str(e.get("name", "")).endswith("_kernel_time")]


def _nodes(name: str) -> tuple[str, ...]:
    """The graph's node behind a node of the optimised graph, where its name still says so.

    ``node_matmul/MatmulTransposeFusion/`` is ``node_matmul``; ``conv2d_nchwc`` is named after what ``node_conv2d``
    gives; a reordering of memory is the runtime's own.
    """
    if name.startswith("Reorder"):
        return ()
    first = TOKEN.sub("", name.partition("/")[0])
    return (f"node_{first.removesuffix('_nchwc')}",) if first.endswith("_nchwc") else (first,)


def _observed(events: list[dict[str, Any]]) -> Ran:
    kernels = _kernels(events)
    nodes = [event["args"] for event in kernels]
    # A node computes in floating point when it gives floating point: a Shape or a Gather of indices does not.
    given = [kind for node in nodes if (kind := _type_of(node))]
    layers, providers = dict(Counter(given)), dict(Counter(node.get("provider", "?") for node in nodes))
    named = {_nodes(event["name"].removesuffix("_kernel_time")): _type_of(event["args"]) for event in kernels}
    types = {nodes[0]: kind for nodes, kind in named.items() if nodes and kind}
    return Ran("+".join(sorted(layers)) or "none", layers, providers, nodes=types)


def _type_of(node: Mapping[str, Any]) -> str:
    """The type that a node computes in; nothing for one that moves, converts or counts."""
    if node["op_name"] in INTEGER:
        return "int8"
    found = _float_outputs(node)
    return FLOATS[found[0]] if found else ""


def _float_outputs(node: Mapping[str, Any]) -> list[str]:
    kinds = [kind for output in node.get("output_type_shape", []) for kind in output]
    return [kind for kind in kinds[:1] if kind in FLOATS]


def _converted(portable: Graph, folder: Path) -> dict[str, Path]:
    """The ``.ort`` file for ARM and the configuration of a reduced build, by ONNX Runtime's own tool."""
    from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

    made = folder / "ort"

    def convert(by_type: bool) -> None:
        convert_onnx_models_to_ort(
            portable.path, made, [OptimizationStyle.Fixed], target_platform="arm", enable_type_reduction=by_type
        )

    try:
        convert(by_type=True)
    except KeyError:  # a type that the tool has no name of, such as int4: the list then names operators alone
        convert(by_type=False)
    (reduced,), (operators,) = made.glob("*.ort"), made.glob("*.config")
    return {
        "ort": reduced.rename(folder / "model.ort"), "operators": operators.rename(folder / "required_operators.config")
    }  # fmt: skip


def _usability(portable: Graph) -> str:
    """ONNX Runtime's estimate for NNAPI and CoreML, and the operators XNNPACK would take."""
    from onnxruntime.tools.mobile_helpers import usability_checker

    lines: list[str] = []
    logger = logging.Logger("usability", logging.INFO)
    logger.addHandler(_Lines(lines))
    hollow = portable.linked()  # the checker loads a graph whole, several times over, and looks at no weight
    for tensor in hollow.graph.initializer:
        if tensor.external_data:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    with tempfile.TemporaryDirectory(prefix="exporter-") as place:
        path = Path(place) / "model.onnx"
        path.write_bytes(hollow.SerializeToString())
        try:
            usability_checker.checker(path, logger)
        except Exception as error:  # an estimate that cannot be made costs no artifact
            lines.append(f"ONNX Runtime's checker cannot read this graph: {type(error).__name__}: {error}")
    nodes = [node.op_type for node in hollow.graph.node]
    taken = sum(kind in XNNPACK for kind in nodes)
    others = ", ".join(sorted({kind for kind in nodes if kind not in XNNPACK}))
    lines.append(f"XNNPACK: {taken} of {len(nodes)} nodes are of operators it takes; the rest runs on the CPU provider")
    lines.append(f"\tOther operators: {others}")
    return "\n".join(lines) + "\n"


class _Lines(logging.Handler):
    """Collects log messages."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


def _advice(graph: Graph, options: Options) -> list[str]:
    """What the user of a phone should know of this graph."""
    import onnx_ir as ir

    advice = []
    if options.dynamic:
        named = ", ".join(options.dynamic)
        advice.append(f"dynamic dims {named}: NNAPI and CoreML want fixed shapes; fix them with --dim NAME=VALUE")
    tensors = [value.const_value for value in ir.from_proto(graph.linked()).graph.initializers.values()]
    wide = [tensor for tensor in tensors if tensor is not None and tensor.dtype == ir.DataType.INT64]
    # The two sentinels of Slice survive the narrowing to 32 bits that mobile providers do.
    limits = np.iinfo(np.int32)
    for tensor in wide:
        values = tensor.numpy()
        beyond = values[(values > limits.max) | (values < limits.min)]
        beyond = beyond[np.abs(beyond.astype(np.float64)) < 2.0**62]
        if beyond.size:
            advice.append(f"{tensor.name} holds {int(beyond[0])}, beyond 32 bits: mobile accelerators narrow it")
    return advice
