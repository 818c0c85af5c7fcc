"""What the double does: ONNX Runtime computes, in a process of its own (:mod:`helper`), in host memory.

``DOUBLE_FAULT`` makes it misbehave: ``untyped`` builds what was asked for in half precision in float32, as versions
before strongly typed networks did; ``abort`` crashes while it builds; ``no-engine`` builds nothing; ``refuse`` has a
parser that refuses the first node; ``stale`` runs nothing and leaves the last answer; ``tf32`` multiplies
in TF32 unasked.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .helper import Helper

MAGIC = b"DOUBLE-ENGINE:"
CACHE_MAGIC = b"DOUBLE-TIMINGS:"
FAULT = os.environ.get("DOUBLE_FAULT", "")
trt: dict[str, Any] = {}
METHODS: dict[str, Any] = {}
READ: dict[str, Any] = {}
FUNCTIONS: dict[str, Any] = {}


def does(call: str) -> Any:
    def keep(function: Any) -> Any:
        METHODS[call] = function
        return function

    return keep


def reads(call: str) -> Any:
    def keep(function: Any) -> Any:
        READ[call] = function
        return function

    return keep


def settle(space: dict[str, Any], surface: dict[str, Any]) -> None:
    """Takes the classes, and refuses a behaviour for what the real bindings do not have in any version."""
    trt.update(space)
    for call in [*METHODS, *READ]:
        owner, _, name = call.partition(".")
        facts = surface["classes"].get(owner)
        if facts is not None and name not in facts["methods"] and name not in facts["properties"]:
            gone = {"IBuilderConfig.get_quantization_flag", "IBuilderConfig.int8_calibrator", "ILayer.precision_is_set"}
            assert call in gone | NEWER, f"the real bindings of {surface['version']} have no {call}"


# Of later versions than 10.3; the target and Polygraphy ask for them with care.
NEWER = {
    "ICudaEngine.get_aliased_input_tensor", "ICudaEngine.get_device_memory_size_for_profile_v2",
    "ICudaEngine.weight_streaming_budget_v2",
}  # fmt: skip


def made(kind: str, **state: Any) -> Any:
    """An object of a class that the real bindings do not let callers make."""
    thing = object.__new__(trt[kind])
    thing.__dict__.update(state)
    return thing


def gpu() -> dict[str, Any]:
    return {"gpu": os.environ.get("DOUBLE_GPU_NAME", "Double 9000"), "version": trt["__version__"]}


KINDS = {"float32": "FLOAT", "float16": "HALF", "int64": "INT64", "int32": "INT32", "bool": "BOOL", "bfloat16": "BF16"}


def data_type(name: str) -> Any:
    return trt["DataType"][KINDS[name]]


# ------------------------------------------------------------------------------------------------------ building


@does("Builder.__init__")
def _(self: Any, logger: Any) -> None:
    self.logger_ = logger


@does("Builder.create_network")
def _(self: Any, flags: int = 0) -> Any:
    return made("INetworkDefinition", flags_=flags, model=None, info=None)


@does("Builder.create_builder_config")
def _(self: Any) -> Any:
    return made("IBuilderConfig", flags_={trt["BuilderFlag"].TF32}, profiles=[], cache=None, pools={})


@does("Builder.create_optimization_profile")
def _(self: Any) -> Any:
    return made("IOptimizationProfile", shapes={})


@does("IOptimizationProfile.set_shape")
def _(self: Any, input: str, min: Any, opt: Any, max: Any) -> None:
    self.shapes[input] = [list(min), list(opt), list(max)]


@does("IOptimizationProfile.set_shape_input")
def _(self: Any, input: str, min: Any, opt: Any, max: Any) -> bool:
    self.shapes[input] = [list(min), list(opt), list(max)]
    return True


@does("OnnxParser.__init__")
def _(self: Any, network: Any, logger: Any) -> None:
    self.network, self.logger_, self.errors = network, logger, []


def whole(path: str) -> bytes:
    """A graph with its external data in it, which the real parser looks for beside the graph."""
    if not Path(f"{path}.data").is_file():
        return Path(path).read_bytes()
    import onnx

    return bytes(onnx.load(path).SerializeToString())


@does("OnnxParser.parse_from_file")
def _(self: Any, model: str) -> bool:
    content = whole(model)
    info = Helper.get().ask({"do": "describe"}, content)[0]
    if FAULT == "refuse":
        node = info["layers"][0]["name"]
        self.errors.append(f"In node 0 with name: {node}: UNSUPPORTED_NODE: No importer registered for op")
        self.logger_.log(trt["ILogger"].ERROR, self.errors[-1])
        return False
    self.network.model, self.network.info = content, info
    return True


@reads("OnnxParser.num_errors")
def _(self: Any) -> int:
    return len(self.errors)


@does("OnnxParser.get_error")
def _(self: Any, index: int) -> str:
    return str(self.errors[index])


@reads("INetworkDefinition.num_inputs")
def _(self: Any) -> int:
    return len(self.info["inputs"])


@reads("INetworkDefinition.num_outputs")
def _(self: Any) -> int:
    return len(self.info["outputs"])


@reads("INetworkDefinition.num_layers")
def _(self: Any) -> int:
    return len(self.info["layers"])


@does("INetworkDefinition.__len__")
def _(self: Any) -> int:
    return len(self.info["layers"])


def tensor(facts: dict[str, Any]) -> Any:
    return made("ITensor", facts=facts)


@does("INetworkDefinition.get_input")
def _(self: Any, index: int) -> Any:
    return tensor(self.info["inputs"][index])


@does("INetworkDefinition.get_output")
def _(self: Any, index: int) -> Any:
    return tensor(self.info["outputs"][index])


@does("INetworkDefinition.get_layer")
def _(self: Any, index: int) -> Any:
    return made("ILayer", facts=self.info["layers"][index])


@does("INetworkDefinition.__getitem__")
def _(self: Any, arg0: int) -> Any:
    if arg0 >= len(self.info["layers"]):
        raise IndexError(arg0)
    return made("ILayer", facts=self.info["layers"][arg0])


@does("INetworkDefinition.get_flag")
def _(self: Any, flag: Any) -> bool:
    return bool(self.flags_ >> int(flag) & 1)


for _name in ("name", "metadata"):
    READ[f"ILayer.{_name}"] = lambda self, key=_name: self.facts[key]
READ["ILayer.num_outputs"] = lambda self: len(self.facts["outputs"])
READ["ILayer.precision_is_set"] = lambda self: False
READ["ITensor.name"] = lambda self: self.facts["name"]
READ["ITensor.shape"] = lambda self: tuple(self.facts["shape"])
READ["ITensor.dtype"] = lambda self: data_type(self.facts["dtype"])
READ["ITensor.is_shape_tensor"] = lambda self: False


@does("ILayer.get_output")
def _(self: Any, index: int) -> Any:
    return tensor(self.facts["outputs"][index])


@does("IBuilderConfig.set_flag")
def _(self: Any, flag: Any) -> None:
    self.flags_.add(flag)


@does("IBuilderConfig.clear_flag")
def _(self: Any, flag: Any) -> None:
    self.flags_.discard(flag)


@does("IBuilderConfig.get_flag")
def _(self: Any, flag: Any) -> bool:
    return flag in self.flags_


@does("IBuilderConfig.add_optimization_profile")
def _(self: Any, profile: Any) -> int:
    self.profiles.append(profile.shapes)
    return len(self.profiles) - 1


READ["IBuilderConfig.num_optimization_profiles"] = lambda self: len(self.profiles)
READ["IBuilderConfig.DLA_core"] = lambda self: -1
READ["IBuilderConfig.int8_calibrator"] = lambda self: None
METHODS["IBuilderConfig.get_tactic_sources"] = lambda self: 0
METHODS["IBuilderConfig.get_preview_feature"] = lambda self, feature: False
METHODS["IBuilderConfig.get_quantization_flag"] = lambda self, flag: False
READ["IBuilderConfig.default_device_type"] = lambda self: trt["DeviceType"].GPU


@does("IBuilderConfig.set_memory_pool_limit")
def _(self: Any, pool: Any, pool_size: int) -> None:
    self.pools[pool] = pool_size


@does("IBuilderConfig.get_memory_pool_limit")
def _(self: Any, pool: Any) -> int:
    return int(self.pools.get(pool, 0))


@does("IBuilderConfig.create_timing_cache")
def _(self: Any, serialized_timing_cache: Any) -> Any:
    data = bytes(serialized_timing_cache)
    if data and not data.startswith(CACHE_MAGIC):
        return None
    return made("ITimingCache", of=json.loads(data[len(CACHE_MAGIC) :]) if data else gpu())


@does("IBuilderConfig.set_timing_cache")
def _(self: Any, cache: Any, ignore_mismatch: bool) -> bool:
    if cache.of != gpu() and not ignore_mismatch:
        return False
    self.cache = cache
    return True


@does("IBuilderConfig.get_timing_cache")
def _(self: Any) -> Any:
    return self.cache


@does("ITimingCache.serialize")
def _(self: Any) -> Any:
    return trt["IHostMemory"](CACHE_MAGIC + json.dumps(self.of).encode())


@does("Builder.build_serialized_network")
def _(self: Any, network: Any, config: Any) -> Any:
    watch = config.double.get("progress_monitor")
    if watch is not None:
        watch.phase_start("Building Engine", None, 2)
        watch.phase_start("Timing", "Building Engine", 1)
        watch.step_complete("Timing", 0)
        watch.phase_finish("Timing")
        watch.step_complete("Building Engine", 0)
    if FAULT == "abort":
        os.abort()
    if FAULT == "no-engine":
        self.logger_.log(trt["ILogger"].ERROR, "Error Code 10: Could not find any implementation for node")
        return None
    self.logger_.log(trt["ILogger"].INFO, "Engine generation completed")
    if watch is not None:
        watch.phase_finish("Building Engine")
    head = {
        **gpu(), "profile": config.profiles[0], "flags": sorted(flag.name for flag in config.flags_),
        "untyped": FAULT == "untyped", "capability": os.environ.get("DOUBLE_CAPABILITY", "89"),
        "stripped": "STRIP_PLAN" in {flag.name for flag in config.flags_},
    }  # fmt: skip
    return trt["IHostMemory"](MAGIC + json.dumps(head).encode() + b"\n" + network.model)


# ------------------------------------------------------------------------------------------------------- running


@does("Runtime.__init__")
def _(self: Any, logger: Any) -> None:
    self.logger_ = logger


@does("Runtime.deserialize_cuda_engine")
def _(self: Any, serialized_engine: Any) -> Any:
    content = bytes(serialized_engine)
    if not content.startswith(MAGIC):
        self.logger_.log(trt["ILogger"].ERROR, "Error Code 1: Serialization (magic tag does not match)")
        return None
    head, _, model = content[len(MAGIC) :].partition(b"\n")
    facts = json.loads(head)
    if facts["version"] != trt["__version__"] and "VERSION_COMPATIBLE" not in facts["flags"]:
        return None
    info = Helper.get().ask({"do": "describe", "untyped": facts["untyped"]}, model)[0]
    return made("ICudaEngine", head=facts, model=model, info=info, weights=not facts["stripped"])


def io(engine: Any) -> list[dict[str, Any]]:
    return [*engine.info["inputs"], *engine.info["outputs"]]


def of(engine: Any, name: str) -> dict[str, Any]:
    return next(t for t in io(engine) if t["name"] == name)


READ["ICudaEngine.num_io_tensors"] = lambda self: len(io(self))
READ["ICudaEngine.streamable_weights_size"] = lambda self: len(self.model)
METHODS["ICudaEngine.get_tensor_name"] = lambda self, index: io(self)[index]["name"]
METHODS["ICudaEngine.get_tensor_shape"] = lambda self, name: tuple(of(self, name)["shape"])
METHODS["ICudaEngine.get_tensor_dtype"] = lambda self, name: data_type(of(self, name)["dtype"])
METHODS["ICudaEngine.is_shape_inference_io"] = lambda self, name: False
METHODS["ICudaEngine.get_aliased_input_tensor"] = lambda self, name: None
METHODS["ICudaEngine.create_engine_inspector"] = lambda self: made("EngineInspector", engine=self)


@does("ICudaEngine.get_tensor_format")
def _(self: Any, name: str, profile_index: int = 0) -> Any:
    return trt["TensorFormat"].LINEAR


@does("ICudaEngine.get_tensor_mode")
def _(self: Any, name: str) -> Any:
    names = [t["name"] for t in self.info["inputs"]]
    return trt["TensorIOMode"].INPUT if name in names else trt["TensorIOMode"].OUTPUT


@does("ICudaEngine.create_execution_context")
def _(self: Any, strategy: Any = None) -> Any:
    return made("IExecutionContext", engine_=self, shapes={}, addresses={}, allocators={}, kept=[])


READ["IExecutionContext.active_optimization_profile"] = lambda self: 0
READ["IExecutionContext.engine"] = lambda self: self.engine_
METHODS["IExecutionContext.set_all_tensors_debug_state"] = lambda self, flag: True
METHODS["IExecutionContext.set_debug_listener"] = lambda self, listener: True
METHODS["IExecutionContext.get_tensor_address"] = lambda self, name: self.addresses.get(name, 0)


@does("IExecutionContext.set_input_shape")
def _(self: Any, name: str, shape: Any) -> bool:
    low, _, high = self.engine_.head["profile"][name]
    if len(shape) != len(low) or not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
        return False
    self.shapes[name] = tuple(shape)
    return True


@does("IExecutionContext.set_tensor_address")
def _(self: Any, name: str, memory: int) -> bool:
    self.addresses[name] = memory
    return True


@does("IExecutionContext.set_output_allocator")
def _(self: Any, name: str, output_allocator: Any) -> bool:
    self.allocators[name] = output_allocator
    return True


@does("IExecutionContext.get_tensor_shape")
def _(self: Any, name: str) -> Any:
    if name in {t["name"] for t in self.engine_.info["inputs"]}:
        return self.shapes.get(name, tuple(of(self.engine_, name)["shape"]))
    zeros = {t["name"]: np.zeros(self.shapes[t["name"]], t["dtype"]) for t in self.engine_.info["inputs"]}
    return tuple(computed(self.engine_, zeros)[name].shape)


def computed(engine: Any, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    request = {"do": "run", "untyped": engine.head["untyped"], "key": hashlib.sha256(engine.model).hexdigest()}
    return Helper.get().ask(request, engine.model, feeds)[1]


@does("IExecutionContext.execute_async_v3")
def _(self: Any, stream_handle: int) -> bool:
    runtime = ctypes.CDLL("libcudart.so")
    if runtime.double_recording():
        item = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0 if execute(self) else 1)
        self.kept.append(item)  # the graph holds a pointer to it
        return bool(runtime.double_record(item) == 0)
    return execute(self)


def execute(self: Any) -> bool:
    if not self.engine_.weights:
        return False
    feeds = {}
    for facts in self.engine_.info["inputs"]:
        name, shape = facts["name"], self.shapes[facts["name"]]
        kind = np.dtype(facts["dtype"])
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        feeds[name] = np.frombuffer(ctypes.string_at(self.addresses[name], size), kind).reshape(shape)
    if FAULT == "stale":
        return True
    outputs = computed(self.engine_, feeds)
    for name, value in outputs.items():
        if name in self.allocators:
            place = self.allocators[name].reallocate_output(name, 0, value.nbytes, 1)
            self.allocators[name].notify_shape(name, value.shape)
        else:
            place = self.addresses[name]
        ctypes.memmove(place, np.ascontiguousarray(value).ctypes.data, value.nbytes)
    watch = self.__dict__.get("double", {}).get("profiler")
    if watch is not None:
        for index, layer in enumerate(self.engine_.info["layers"]):
            watch.report_layer_time(layer["name"], 0.001 * (index + 1))
    return True


WORDS = {"float32": "Row major linear FP32", "float16": "Row major linear FP16 format", "int64": "Int64",
         "bool": "Bool", "int32": "Int32"}  # fmt: skip


def tactic(engine: Any, kind: str) -> str:
    """A kernel's name, which says so where it multiplies in TF32."""
    tensor_cores = "TF32" in engine.head["flags"] or FAULT == "tf32"
    return "sm80_xmma_gemm_tf32f32_tf32f32_f32" if tensor_cores and kind in ("Gemm", "MatMul", "Conv") else ""


@does("EngineInspector.get_engine_information")
def _(self: Any, format: Any) -> str:
    assert format == trt["LayerInformationFormat"].JSON
    layers = [
        {
            "Name": layer["name"], "LayerType": layer["kind"], "Metadata": layer["metadata"],
            "TacticName": tactic(self.engine, layer["kind"]),
            "Inputs": [{"Name": t["name"], "Format/Datatype": WORDS[t["dtype"]]} for t in layer["inputs"]],
            "Outputs": [{"Name": t["name"], "Format/Datatype": WORDS[t["dtype"]]} for t in layer["outputs"]],
        }
        for layer in self.engine.info["layers"]
    ]  # fmt: skip
    return json.dumps({"Layers": layers, "Bindings": []})


@does("Refitter.__init__")
def _(self: Any, engine: Any, logger: Any) -> None:
    self.engine_ = engine


@does("OnnxParserRefitter.__init__")
def _(self: Any, refitter: Any, logger: Any) -> None:
    self.refitter = refitter


@does("OnnxParserRefitter.refit_from_file")
def _(self: Any, model: str) -> bool:
    return whole(model) == self.refitter.engine_.model


@does("Refitter.refit_cuda_engine")
def _(self: Any) -> bool:
    self.engine_.weights = True
    return True


FUNCTIONS["init_libnvinfer_plugins"] = lambda *args, **kwargs: True
FUNCTIONS["nptype"] = lambda trt_type: np.dtype({v: k for k, v in KINDS.items()}[trt_type.name])
