"""An engine that is open: Polygraphy's runner around it, and what is timed of it."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from polygraphy.backend.trt import TrtRunner

from exporter.errors import Refused
from exporter.target import DeviceCall, Layer, Options, Ran

from . import cuda, inspector
from .recipe import Recipe

FEEDS = Mapping[str, np.ndarray]
NAN_BYTE = 0xFF  # every float type reads a word of ones as NaN


class TensorRTRunner(TrtRunner):  # type: ignore[misc]  # Polygraphy carries no types
    """Polygraphy's runner of one engine on one GPU; its outputs are copies.

    Args:
        files: the artifact's: ``engine``, ``recipe``, ``built``, and ``graph`` where weights are put back from it.
        options: ``device``, and whether the engine's host code may run.
    """

    def __init__(self, files: Mapping[str, Path], options: Options) -> None:
        recipe = Recipe.read(files["recipe"])
        built = json.loads(files["built"].read_text(encoding="utf-8"))
        # 100 % of the weights on the GPU where they may be streamed: slower is asked for by a budget, not by default.
        percent = 100 if recipe.settings["weight-streaming"] else None
        super().__init__(lambda: opened(files, options), name="tensorrt", weight_streaming_percent=percent)
        self.recipe, self._built = recipe, built
        self._device = options.device
        self._cuda_graph = bool(options.extra.get("cuda-graph", False))

    def infer_impl(self, feed_dict: FEEDS) -> OrderedDict[str, np.ndarray]:
        outputs = self._infer_impl(dict(feed_dict), copy_outputs_to_host=True, return_raw_buffers=False)
        return OrderedDict((name, np.array(value)) for name, value in outputs.items())

    def ran(self) -> Ran:
        """What the engine says of its layers."""
        return inspector.ran(self._layers(), self.recipe.types, self._built["types"], cuda.devices()[self._device].name)

    def _layers(self) -> list[inspector.LayerFacts]:
        import tensorrt as trt

        shown = self.engine.create_engine_inspector()
        return inspector.layers_of(shown.get_engine_information(trt.LayerInformationFormat.JSON))

    def layers(self, feeds: FEEDS, runs: int) -> list[Layer]:
        """Each layer's median, in a context of its own with the profiler on: it costs time."""
        profiler = _profiler()
        call = BoundEngine(self, feeds, cuda_graph=False)
        call.context.profiler = profiler
        for _ in range(runs):
            call()
        facts = {layer.name: layer for layer in self._layers()}
        return [
            Layer(name, facts[name].kind, facts[name].nodes, median(ms) * 1e6, "+".join(facts[name].types))
            if name in facts
            else Layer(name, "unknown", (), median(ms) * 1e6)
            for name, ms in profiler.spent.items()
        ]

    def bound(self, feeds: FEEDS) -> BoundEngine:
        """What is timed: one call on buffers of the GPU, perhaps as a recorded graph."""
        return BoundEngine(self, feeds, self._cuda_graph)


def opened(files: Mapping[str, Path], options: Options) -> Any:
    """The engine of an artifact, on the GPU that is asked for.

    By ``trt.Runtime`` itself: Polygraphy's loader allows an engine to bring code for the host, whoever made it.

    Raises:
        Refused: ``foreign-artifact`` when TensorRT does not open it.
    """
    import tensorrt as trt
    from polygraphy.backend.trt import get_trt_logger

    cuda.use(options.device)
    logger = get_trt_logger()
    trt.init_libnvinfer_plugins(logger, "")
    runtime = trt.Runtime(logger)
    if options.host_code:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(files["engine"].read_bytes())
    if engine is None:
        raise Refused(
            "foreign-artifact",
            "TensorRT does not open this engine",
            where=f"file {files['engine'].name}",
            why="an engine belongs to the TensorRT and the GPU that it was built with"
            + ("" if options.host_code else "; one that brings code for the host is opened only where it was built"),
            next="exporter compile BUNDLE --target tensorrt builds it again from its graph",
        )
    if "graph" in files:
        _refit(engine, files["graph"], logger)
    return engine


def _refit(engine: Any, graph: Path, logger: Any) -> None:
    """Puts the weights of a graph into an engine that was stripped of them."""
    import tensorrt as trt

    refitter = trt.Refitter(engine, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(graph)) or not refitter.refit_cuda_engine():
        raise Refused(
            "foreign-artifact",
            "the weights of the graph do not fit into the engine",
            why="an engine without weights is built from one graph, and takes its weights alone",
            next="exporter compile BUNDLE --target tensorrt builds it again from its graph",
        )


class BoundEngine(DeviceCall):
    """One execution on fixed buffers of the GPU."""

    def __init__(self, runner: TensorRTRunner, feeds: FEEDS, cuda_graph: bool) -> None:
        from polygraphy.cuda import DeviceArray

        engine = runner.engine
        self.context = engine.create_execution_context()
        if self.context is None:
            raise cuda.CudaError("TensorRT gave no execution context: the GPU's memory may be full")
        self._stream = runner.stream
        self._events = cuda.Events(self._stream.ptr)
        self._arrays: dict[str, Any] = {}
        self._hosts = {name: np.ascontiguousarray(value) for name, value in feeds.items()}
        self._shape_inputs = [name for name in feeds if engine.is_shape_inference_io(name)]
        for name, value in self._hosts.items():
            if not self.context.set_input_shape(name, tuple(value.shape)):
                raise cuda.CudaError(f"TensorRT does not take {name} of shape {value.shape}")
            if name in self._shape_inputs:  # a value that decides a shape stays on the host
                self.context.set_tensor_address(name, value.ctypes.data)
                continue
            self._arrays[name] = DeviceArray(value.shape, value.dtype)
            self._arrays[name].copy_from(value, self._stream)
            self.context.set_tensor_address(name, self._arrays[name].ptr)
        self._outputs = _outputs_of(engine, self.context)
        for name, (shape, dtype) in self._outputs.items():
            self._arrays[name] = DeviceArray(shape, dtype)
            self.context.set_tensor_address(name, self._arrays[name].ptr)
        self._stream.synchronize()
        self._elapsed = 0.0
        self._enqueue()  # the first after new shapes prepares them, and must not be recorded
        self._stream.synchronize()
        self._work = cuda.Graph(self._stream.ptr, self._enqueue).launch if cuda_graph else self._enqueue

    def _enqueue(self) -> None:
        if not self.context.execute_async_v3(self._stream.ptr):
            raise cuda.CudaError("TensorRT did not start the engine")

    def __call__(self) -> BoundEngine:
        self._elapsed = self._events.timed(self._work)
        return self

    def elapsed_ns(self) -> float:
        return self._elapsed

    def copies_ns(self) -> tuple[float, float]:
        there = {name: value.nbytes for name, value in self._hosts.items() if name not in self._shape_inputs}
        back = {name: self._arrays[name].nbytes for name in self._outputs}
        return self._copied(there, cuda.HOST_TO_DEVICE), self._copied(back, cuda.DEVICE_TO_HOST)

    def _copied(self, sizes: Mapping[str, int], kind: int) -> float:
        """The median of what copying these arrays takes, from or to pinned memory."""
        with cuda.pinned(max(sizes.values(), default=0)) as host:

            def work() -> None:
                for name, size in sizes.items():
                    place = self._arrays[name].ptr
                    to, source = (place, host) if kind == cuda.HOST_TO_DEVICE else (host, place)
                    cuda.copy(to, source, size, kind, self._stream.ptr)

            spent = [self._events.timed(work) for _ in range(cuda.PINNED_TIMES)]
        if kind == cuda.HOST_TO_DEVICE:  # what was copied was not the inputs
            for name in sizes:
                self._arrays[name].copy_from(self._hosts[name], self._stream)
            self._stream.synchronize()
        return median(spent)

    def outputs(self) -> dict[str, np.ndarray]:
        found = {}
        for name, (shape, dtype) in self._outputs.items():
            host = np.empty(shape, dtype)
            self._arrays[name].copy_to(host, self._stream)
            found[name] = host
        self._stream.synchronize()
        return found

    def spoil(self) -> None:
        for name in self._outputs:
            cuda.fill(self._arrays[name].ptr, NAN_BYTE, self._arrays[name].nbytes)


def _outputs_of(engine: Any, context: Any) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of every output, for the input shapes that are set."""
    import tensorrt as trt

    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {
        name: (tuple(context.get_tensor_shape(name)), np.dtype(trt.nptype(engine.get_tensor_dtype(name))))
        for name in names
        if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT
    }
    unknown = [name for name, (shape, _) in found.items() if any(size < 0 for size in shape)]
    if unknown:
        raise cuda.CudaError(f"the shape of {unknown[0]} depends on its values: it is not timed on fixed buffers")
    return found


def _profiler() -> Any:
    """TensorRT's profiler, keeping every layer's milliseconds."""
    import tensorrt as trt

    class Profiler(trt.IProfiler):  # type: ignore[misc]  # made here: its base is the runtime's own
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.spent: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.spent.setdefault(layer_name, []).append(ms)

    return Profiler()
