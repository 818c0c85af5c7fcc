"""The process behind the double that knows ONNX: the one under test may have neither ``onnx`` nor ONNX Runtime.

Speaks over its own pipes: a line of JSON, then as many bytes as it says; the same back. ``DOUBLE_PYTHON`` names an
interpreter with ``onnx`` and ``onnxruntime``.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import Any, ClassVar

import numpy as np


class Helper:
    """The process, started when it is first asked."""

    one: ClassVar[Helper | None] = None

    def __init__(self) -> None:
        python = os.environ["DOUBLE_PYTHON"]
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LD_LIBRARY_PATH")}
        env["PYTHONPATH"] = os.environ.get("DOUBLE_HELPER_PATH", "")
        self._process = subprocess.Popen([python, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)

    @classmethod
    def get(cls) -> Helper:
        if cls.one is None:
            cls.one = cls()
        return cls.one

    def ask(
        self, request: dict[str, Any], model: bytes, feeds: dict[str, np.ndarray] | None = None
    ) -> tuple[Any, dict[str, np.ndarray]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        arrays = packed(feeds or {})
        send(self._process.stdin, request | {"model": len(model), "arrays": len(arrays)}, model + arrays)
        answer = json.loads(self._process.stdout.readline())
        return answer["value"], unpacked(self._process.stdout.read(answer["arrays"]))


def send(stream: Any, head: dict[str, Any], body: bytes) -> None:
    stream.write(json.dumps(head).encode() + b"\n" + body)
    stream.flush()


def packed(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name.replace("/", "\x00"): value for name, value in arrays.items()})
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data)) as found:
        return {name.replace("\x00", "/"): found[name] for name in found.files}


def describe(content: bytes, untyped: bool) -> dict[str, Any]:
    """Inputs, outputs and layers of a graph, with types and shapes, as TensorRT's parser would have them."""
    import onnx

    model = onnx.load_from_string(content)
    graph = onnx.shape_inference.infer_shapes(model).graph
    infos = {v.name: v for v in [*graph.value_info, *graph.input, *graph.output]}
    kinds = {t.name: t.data_type for t in graph.initializer}
    kinds |= {name: v.type.tensor_type.elem_type for name, v in infos.items()}

    def facts(name: str) -> dict[str, Any]:
        kind = onnx.TensorProto.DataType.Name(kinds.get(name, 1)).lower().replace("float32", "float")
        kind = {"float": "float32", "float16": "float32" if untyped else "float16"}.get(kind, kind)
        dims = infos[name].type.tensor_type.shape.dim if name in infos else []
        return {"name": name, "dtype": kind, "shape": [d.dim_value or -1 for d in dims]}

    constants = {t.name for t in graph.initializer}
    return {
        "inputs": [facts(v.name) for v in graph.input if v.name not in constants],
        "outputs": [facts(v.name) for v in graph.output],
        "layers": [
            {
                "name": node.name, "kind": node.op_type, "metadata": f"[ONNX Layer: {node.name}]",
                "inputs": [facts(n) for n in node.input if n and n not in constants],
                "outputs": [facts(n) for n in node.output if n],
            }
            for node in graph.node
        ],
    }  # fmt: skip


SESSIONS: dict[Any, Any] = {}


def run(content: bytes, untyped: bool, key: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The graph in ONNX Runtime: what is declared in half precision is rounded after every node, unless untyped."""
    import onnx
    import onnxruntime as ort

    if (key, untyped) not in SESSIONS:
        low = onnx.load_from_string(content)
        if any(t.data_type == onnx.TensorProto.FLOAT16 for t in low.graph.initializer):
            import onnx_ir as ir

            from exporter.lower.rounding import rounded

            low = ir.to_proto(rounded(low))
        if untyped:
            del low.graph.value_info[:]
            for node in low.graph.node:  # the casts that round become casts that do nothing
                if node.op_type == "Cast":
                    for attribute in node.attribute:
                        if attribute.i == onnx.TensorProto.FLOAT16:
                            attribute.i = onnx.TensorProto.FLOAT
        SESSIONS[key, untyped] = ort.InferenceSession(low.SerializeToString(), providers=["CPUExecutionProvider"])
    session = SESSIONS[key, untyped]
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def serve() -> None:
    reading, writing = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    while line := reading.readline():
        request = json.loads(line)
        content, feeds = reading.read(request["model"]), unpacked(reading.read(request["arrays"]))
        untyped = request.get("untyped", False)
        if request["do"] == "describe":
            value, arrays = describe(content, untyped), {}
        else:
            value, arrays = None, run(content, untyped, request["key"], feeds)
        body = packed(arrays)
        send(writing, {"value": value, "arrays": len(body)}, body)


if __name__ == "__main__":
    serve()
