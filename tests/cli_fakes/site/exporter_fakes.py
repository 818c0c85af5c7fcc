"""Models of a few weights and targets that misbehave, joined to the exporter by entry points as another package would.

What a target does wrong it does in its child. Variables of the environment switch the rest: ``FAKES_RUNTIME`` makes
the absent runtime present, ``FAKES_CRASH`` makes an artifact that was fine crash, ``FAKES_NOTES`` names a folder in
which a compile that hangs leaves its process ids.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata

from exporter.spec import Checkpoint, Dim, HostStep, ModelDef, Part, State, Tensor
from exporter.target import HINT, STORED, TYPES, Artifact, Availability, Problem, Ran, Target
from targets.mobile import Mobile

STFT = {"sample_rate": 16000, "length": 512, "hop": 256, "window": "sqrt-hann"}


def _linear(inputs: int, outputs: int):
    import torch

    return torch.nn.Linear(inputs, outputs)


def tiny(width: int = 4) -> ModelDef:
    """A linear layer along a dynamic axis."""
    return ModelDef(
        name="tiny", family="fakes", build=lambda: _linear(width, 3), dims=(Dim("T", 2, 5, 9),),
        inputs=(Tensor("x", ("T", width), "rows"),), outputs=(Tensor("y", ("T", 3), "rows"),),
        source="nowhere", licence="Apache-2.0", options={"width": width} if width != 4 else {},
    )  # fmt: skip


def tiny_other() -> ModelDef:
    """Another model, for the bundle of the first."""
    return ModelDef(
        name="tiny-other", family="fakes", build=lambda: _linear(5, 2), dims=(Dim("T", 2, 5, 9),),
        inputs=(Tensor("x", ("T", 5), "rows"),), outputs=(Tensor("y", ("T", 2), "rows"),),
        source="nowhere", licence="Apache-2.0",
    )  # fmt: skip


def tiny_audio() -> ModelDef:
    """A recording in, a recording out: every complex bin through a 2x2 matrix."""
    shape = (1, 257, "T", 2)
    return ModelDef(
        name="tiny-audio", family="fakes", build=lambda: _linear(2, 2), dims=(Dim("T", 2, 5, 900),),
        inputs=(Tensor("spec", shape, "STFT"),), outputs=(Tensor("enhanced", shape, "STFT"),),
        before=(HostStep("stft", {**STFT, "to": "spec"}),), after=(HostStep("istft", {**STFT, "from": "enhanced"}),),
        checkpoint=Checkpoint("https://example.org/tiny.pt", None, "MIT"), source="nowhere", licence="Apache-2.0",
    )  # fmt: skip


def _chain(layers: int):
    import torch

    class Chain(torch.nn.Module):
        """Linear layers of 16 MiB, each adding a little to what goes through all of them."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Linear(2048, 2048) for _ in range(layers))

        def forward(self, x):
            for layer in self.layers:
                x = x + layer(x).tanh() / layers
            return x

    return Chain()


def large(mebibytes: int = 32) -> ModelDef:
    """As large as is asked for, and little to compute."""
    return ModelDef(
        name="large", family="fakes", build=lambda: _chain(mebibytes // 16), dims=(Dim("T", 2, 8, 9),),
        inputs=(Tensor("x", (1, "T", 2048), "rows"),), outputs=(Tensor("y", (1, "T", 2048), "rows"),),
        source="nowhere", licence="Apache-2.0", options={"mebibytes": mebibytes} if mebibytes != 32 else {},
    )  # fmt: skip


def _loop(width: int):
    import torch

    class Loop(torch.nn.Module):
        """A layer, then another one on its own output as often as is asked for."""

        def __init__(self) -> None:
            super().__init__()
            self.begin, self.again = torch.nn.Linear(4, width), torch.nn.Linear(width, width)

        def forward(self, x, rounds):
            h = self.begin(x)
            for _ in range(rounds):
                h = self.again(h).tanh()
            return h

    return Loop()


def _again(module):
    import torch

    return torch.nn.Sequential(module.again, torch.nn.Tanh())


def tiny_loop(width: int = 3) -> ModelDef:
    """Two graphs, of which the second runs as often as is chosen at run time."""
    x, h, following = (Tensor(name, ("T", size), "rows") for name, size in (("x", 4), ("h", width), ("next_h", width)))
    return ModelDef(
        name="tiny-loop", family="fakes", build=lambda: _loop(width), inputs=(x,), outputs=(h,),
        dims=(Dim("T", 2, 5, 9), Dim("rounds", 1, 2, 6)),
        parts=(
            Part("begin", lambda module: module.begin, (x,), (h,)),
            Part("again", _again, (h,), (following,), "rounds", (State("h", "next_h"),)),
        ),
        source="nowhere", licence="Apache-2.0", options={"width": width} if width != 3 else {},
    )  # fmt: skip


def _sampler():
    import torch

    class Sampler(torch.nn.Module):
        """A volume looked up along a line: GridSample on five axes."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            grid = torch.linspace(-0.9, 0.9, 9).reshape(1, 1, 1, 3, 3).expand(1, 1, 1, 3, 3)
            return torch.nn.functional.grid_sample(x * self.scale, grid, align_corners=True)

    return Sampler()


def tiny_sampler() -> ModelDef:
    """What TensorRT's parser has no operator for."""
    return ModelDef(
        name="tiny-sampler", family="fakes", build=_sampler,
        inputs=(Tensor("x", (1, 1, 4, 4, 4), "a volume"),), outputs=(Tensor("y", (1, 1, 1, 1, 3), "along a line"),),
        source="nowhere", licence="Apache-2.0",
    )  # fmt: skip


def tiny_boom() -> ModelDef:
    """A definition with a mistake in it: no error of the exporter's own."""
    raise ZeroDivisionError("a mistake in a definition")


def _note(name: str) -> None:
    folder = os.environ.get("FAKES_NOTES")
    if folder:
        Path(folder, name).write_text(str(os.getpid()))


class Good(Target):
    """Right in every respect; ONNX Runtime does the arithmetic."""

    name = "fake-good"
    precisions = {"fp32": ("fp32", "fp32")}

    def available(self) -> Availability:
        return Availability(True, "1.0")

    def compile(self, graph, options, folder: Path, progress=None) -> Artifact:
        shutil.copyfile(graph.path, folder / "model.fake")
        stored = self.precisions[options.precision][0]
        return Artifact(options.precision, {"model": folder / "model.fake"}, ("model",), {"fake": "1.0"}, stored)

    def open(self, artifact, options, form=None) -> BaseRunner:
        return Runner(artifact.files[form or "model"], self.spoil)

    def spoil(self, values):
        return values

    def ran(self, runner) -> Ran:
        return Ran("fp32", {"fp32": 1}, {"fake": 1})

    def timer(self, runner, feeds):
        return lambda: runner.infer(feeds, check_inputs=False)


class Runner(BaseRunner):
    """Polygraphy runner of an ONNX file, with a last word on its outputs."""

    def __init__(self, path: Path, spoil) -> None:
        super().__init__(prefix="fake")
        self._path, self._spoil = path, spoil

    def activate_impl(self) -> None:
        import onnxruntime as ort  # a target of another package

        self._session = ort.InferenceSession(self._path.read_bytes(), providers=["CPUExecutionProvider"])

    def deactivate_impl(self) -> None:
        del self._session

    def get_input_metadata_impl(self):
        metadata = TensorMetadata()
        for given in self._session.get_inputs():
            metadata.add(given.name, np.float32, given.shape)
        return metadata

    def infer_impl(self, feed_dict):
        names = [output.name for output in self._session.get_outputs()]
        return self._spoil(OrderedDict(zip(names, self._session.run(names, dict(feed_dict)), strict=True)))


class Segv(Good):
    name = "fake-segv"

    def compile(self, graph, options, folder, progress=None):
        print("the builder is about to fall", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)


class Abort(Good):
    name = "fake-abort"

    def compile(self, graph, options, folder, progress=None):
        os.abort()


class Hang(Good):
    """Never returns, ignores a polite end, and has a helper process that does the same."""

    name = "fake-hang"

    def compile(self, graph, options, folder, progress=None):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        helper = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        (folder / "half.fake").write_bytes(b"half written")
        if os.environ.get("FAKES_NOTES"):
            Path(os.environ["FAKES_NOTES"], "helper").write_text(str(helper.pid))
        _note("hanging")
        while True:
            time.sleep(600)


class Hungry(Good):
    name = "fake-hungry"

    def compile(self, graph, options, folder, progress=None):
        held = []
        while True:
            held.append(np.ones(1 << 22))
            time.sleep(0.005)


class Raise(Good):
    name = "fake-raise"

    def compile(self, graph, options, folder, progress=None):
        raise RuntimeError("the builder says no: [red]not[/] today \x1b[31m")


class Garbage(Good):
    name = "fake-garbage"

    def compile(self, graph, options, folder, progress=None):
        return {"model": "of no use"}


class Elsewhere(Good):
    """Names a file that it never wrote."""

    name = "fake-elsewhere"

    def compile(self, graph, options, folder, progress=None):
        return Artifact(options.precision, {"model": folder / "never.fake"}, ("model",), {}, "fp32")


class Lazy(Good):
    """Calls the graph itself its artifact: it is not the target's to give away."""

    name = "fake-lazy"

    def compile(self, graph, options, folder, progress=None):
        return Artifact(options.precision, {"model": graph.path}, ("model",), {}, "fp32")


class Liar(Good):
    """Right values; what ran is not what was asked for."""

    name = "fake-liar"

    def ran(self, runner) -> Ran:
        return Ran("bf16", {"bf16": 1}, {"fake": 1})


class Wrong(Good):
    name = "fake-wrong"

    def spoil(self, values):
        return OrderedDict((name, value * np.float32(1.001)) for name, value in values.items())


class Nan(Good):
    name = "fake-nan"

    def spoil(self, values):
        return OrderedDict((name, value * np.float32("nan")) for name, value in values.items())


class CrashesLater(Good):
    """Fine when it was exported; after an upgrade of the runtime it is not."""

    name = "fake-crashes-later"

    def spoil(self, values):
        if os.environ.get("FAKES_CRASH"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return values


class Absent(Good):
    name = "fake-absent"

    def available(self) -> Availability:
        if os.environ.get("FAKES_RUNTIME"):
            return Availability(True, "1.0")
        return Availability(False, reason="fakeruntime is not installed", next="pip install fakeruntime")


class Halves(Absent):
    """Takes its precision from the graph; absent like the other."""

    name = "fake-halves"
    precisions = {"fp32": ("fp32", "fp32"), "fp16": ("fp16", "fp16")}
    lowers = {"fp16": (TYPES,)}

    def ran(self, runner) -> Ran:
        import onnx

        kinds = {tensor.data_type for tensor in onnx.load(str(runner._path)).graph.initializer}
        kind = "fp16" if kinds == {onnx.TensorProto.FLOAT16} else "fp32"
        return Ran(kind, {kind: 1}, {"fake": 1}, nodes={"*Gemm": kind})


class Scales(Mobile):
    """Takes scales from calibration inputs; absent like the others."""

    name = "fake-scales"
    available = Absent.available


def _settings(name: str) -> dict[str, float]:
    """``fp32:6,int8:2`` of a variable of the environment."""
    pairs = [pair.split(":") for pair in os.environ.get(name, "").split(",") if pair]
    return {precision: float(value) for precision, value in pairs}


class Choices(Good):
    """Three precisions; ``FAKES_MS`` says how long a call of each takes, ``FAKES_ERROR`` how far int8 is off."""

    name = "fake-choices"
    precisions = {"fp32": ("fp32", "fp32"), "bf16": ("bf16", "bf16"), "int8": ("int8", "int8")}
    lowers = {"bf16": (HINT,), "int8": (STORED,)}
    without = {"fp16": "it has no halves"}

    def open(self, artifact, options, form=None) -> BaseRunner:
        runner = Runner(artifact.files[form or "model"], CHANGES[artifact.precision])
        runner.precision = artifact.precision
        return runner

    def ran(self, runner) -> Ran:
        return Ran(runner.precision, {runner.precision: 1}, {"fake": 1}, nodes={"*Gemm": runner.precision})

    def timer(self, runner, feeds):
        seconds = _settings("FAKES_MS").get(runner.precision, 1.0) / 1e3

        def call():
            until = time.perf_counter() + seconds
            outputs = runner.infer(feeds, check_inputs=False)
            while time.perf_counter() < until:
                pass
            return outputs

        return call


def _as_bf16(values):
    return OrderedDict((n, ((y.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)) for n, y in values.items())


def _off(values):
    error = np.float32(1 + _settings("FAKES_ERROR").get("int8", 0.01))
    return OrderedDict((name, value * error) for name, value in values.items())


CHANGES = {"fp32": lambda values: values, "bf16": _as_bf16, "int8": _off}


class Older(Good):
    """Reads its graphs in an older operator set than they are traced in."""

    name = "fake-older"
    opset = 16


class HalvesIgnored(Halves):
    """Asked for half precision it builds single precision and says nothing, as real ones did."""

    name = "fake-halves-ignored"

    def ran(self, runner) -> Ran:
        return Ran("fp32", {"fp32": 1}, {"fake": 1})


class Unsupported(Good):
    name = "fake-unsupported"

    def problems(self, graph, options):
        return [Problem("gemm", "no matrices here", "use another"), Problem("add", "no sums", "use another")]
