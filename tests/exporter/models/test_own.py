"""A user's own model as a definition: what it takes, what it gives, and what happens when it is none."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporter import define
from exporter.errors import NotProven, Refused
from exporter.isolate import Limits
from exporter.models import found, own
from exporter.models.call import named_tensors
from exporter.models.described import Described
from exporter.models.scaffold import scaffold
from exporter.parity.cases import Case, generated_inputs
from exporter.request import Request
from exporter.spec import UNTOLD, ModelDef
from exporter.stages import silent

NETS = str(Path(__file__).parent / "nets.py")


class Quiet:
    def send(self, value: Any) -> None: ...


def build(model: str, *inputs: str, dims: tuple[str, ...] = (), seed: int = 0, **options: Any) -> dict[str, Any]:
    place = model if ":" in model or model.endswith(".pt2") else f"{NETS}:{model}"
    request = Request(place, "", inputs=inputs, dims=dims, settings=options, own=True, seed=seed)
    return request.build


def defined(model: str, *inputs: str, **more: Any) -> ModelDef:
    return own.defined(build(model, *inputs, **more))


def shapes(definition: ModelDef) -> dict[str, tuple[int | str, ...]]:
    return {tensor.name: tensor.shape for tensor in definition.outputs}


def test_inputs_that_are_said_and_outputs_that_are_seen() -> None:
    it = defined("net", "image=1x3xHxW", dims=("H=4:8:16", "W=8"), width=6)
    assert [(t.name, t.shape) for t in it.inputs] == [("image", (1, 3, "H", "W"))]
    assert shapes(it) == {"logits": (1, 5), "maps.0": (1, 6, "H", 8), "maps.1": (1, 6, "H/2", 4)}
    assert it.family == "own" and it.weighted and it.options == {"width": 6}


def test_a_size_that_is_no_simple_multiple_is_untold() -> None:
    it = defined("net", "image=1x3xHx8", dims=("H=4:7:16",))
    assert shapes(it)["maps.1"] == (1, 4, UNTOLD, 4)


def test_names_of_your_own_are_handed_on_in_order() -> None:
    it = defined("net", "picture=1x3x8x8", "factor=1:f32:1:2")
    assert [t.name for t in it.inputs] == ["picture", "factor"]
    both = [torch.ones(1, 3, 8, 8), torch.full((1,), 2.0)]
    double, once = it.build().eval()(*both), it.build().eval()(both[0], torch.ones(1))
    assert torch.equal(double[1], 2 * once[1])
    with pytest.raises(Refused, match="no parameter 'factor'"):
        defined("net", "image=1x3x8x8", "factor=1:f32:1:2")


def test_parameters_by_name_whatever_their_order() -> None:
    it = defined("net", "scale=1:f32:1:2", "image=1x3x8x8")
    assert {t.name for t in it.inputs} == {"image", "scale"}
    values = {"image": torch.ones(1, 3, 8, 8), "scale": torch.full((1,), 2.0)}
    assert len(it.build()(*(values[t.name] for t in it.inputs))) == 3


def test_an_example_gives_shapes_ranges_and_a_real_case() -> None:
    it = defined("with_example")
    (image,) = it.inputs
    assert (image.name, image.shape, image.dtype) == ("image", (1, 3, 8, 8), "float32")
    assert (image.low, image.high) == (-3, 3)
    assert it.samples is not None
    (sample,) = it.samples()
    assert sample.name == "example" and sample.values["image"].shape == (1, 3, 8, 8)
    (ids,) = defined("with_tokens").inputs
    assert (ids.dtype, ids.low, ids.high) == ("int64", 1, 49)
    assert defined("untrained").inputs[0].shape == (3, 4)


def test_nested_inputs_and_outputs_get_the_names_of_their_places() -> None:
    it = defined("nested")
    assert [t.name for t in it.inputs] == ["batch.x", "batch.rest.0"]
    assert shapes(it) == {"first.boxes": (2, 4), "second": (2, 4)}
    module = it.build().eval()
    x, rest = torch.randn(2, 4), torch.randn(2, 4)
    boxes, second = module(x, rest)
    assert torch.allclose(boxes, second + rest)
    assert torch.equal(second, module.head(x) ** 2), "what is no tensor stays as it was"


def test_one_tensor_in_two_places_is_two_inputs() -> None:
    assert [t.name for t in defined("twice").inputs] == ["image", "scale"]


def test_it_stays_the_module_that_it_was() -> None:
    """Names of weights and of submodules are the user's: checkpoints fit, and reports name their modules."""
    module = defined("with_example").build()
    assert type(module).__name__ == "Net" and set(module.state_dict()) == {
        "conv.weight", "conv.bias", "head.weight", "head.bias",
    }  # fmt: skip
    copied = copy.deepcopy(module)
    with torch.no_grad():
        copied.head.bias += 1
    x = torch.ones(1, 3, 8, 8)
    assert torch.allclose(copied(x)[0], module(x)[0] + 1, atol=1e-5), "a copy computes with its own weights"


def test_weights_are_the_user_s_and_the_seed_s() -> None:
    _, first = define.weighted(defined("with_example"), None, 0)
    _, again = define.weighted(defined("with_example"), None, 0)
    _, other = define.weighted(own.defined(build("with_example", seed=1)), None, 1)
    assert first.kind == "own" and "nets.py:with_example" in first.source and str(Path(NETS).parent) not in first.source
    assert first.digest == again.digest != other.digest


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("raises", "factory-failed", "ValueError: no such width"),
        ("leaves", "factory-failed", "SystemExit"),
        ("wrong", "wrong-model", "gave int"),
        ("scripted", "wrong-model", "TorchScript"),
        ("network", "needs-network", "asked for the network"),
        ("net", "no-inputs", "nothing says what nets.py:net takes"),
        ("no_tensor", "wrong-outputs", "no tensor"),
        ("nothing", "unknown-model", "no function 'nothing'"),
        ("no.such.package:make", "unknown-model", "no module 'no'"),
        ("timm:resnet81", "unknown-model", "resnet18"),
    ],
)
def test_what_is_no_model_of_ours(model: str, error: str, words: str) -> None:
    before = Path.cwd()
    with pytest.raises(Refused, match=words) as caught:
        defined(model)
    assert caught.value.code == error and caught.value.where and caught.value.why and caught.value.next
    assert Path.cwd() == before
    if error == "factory-failed":
        assert "nets.py:" in caught.value.where, "the user's own line"


def test_inputs_that_it_does_not_run_on_cite_the_user_s_line() -> None:
    with pytest.raises(Refused) as caught:
        defined("net", "image=1x2x8x8")
    assert caught.value.code == "example-failed" and "self.conv(image)" in caught.value.where
    with pytest.raises(Refused, match="depth"):
        defined("net", "image=1x3x8x8", depth=3)


def test_a_folder_that_it_changes_to_is_left_again() -> None:
    before = Path.cwd()
    defined("chatty")
    assert Path.cwd() == before


def test_a_file_that_does_not_import_cites_its_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import helper_that_is_not_there\n")
    with pytest.raises(Refused) as caught:
        defined(f"{file}:make")
    assert caught.value.code == "factory-failed" and "broken.py:1: import helper" in caught.value.where


BROKEN = """import torch
def needs(width, *, depth=2): return torch.nn.Linear(width, 4), torch.ones(2, width)
def three(): return torch.nn.Linear(4, 4), torch.ones(2, 4), torch.ones(2, 4)
class Odd(Exception):
    def __str__(self): raise RuntimeError
def odd(): raise Odd
def complex(): return torch.nn.Identity(), torch.ones(2, dtype=torch.complex64)
def short(): return torch.nn.Identity(), torch.ones(2, dtype=torch.bfloat16)
def meta(): return torch.nn.Identity(), torch.ones(2, device="meta")
def size(): return torch.nn.Linear(4, 4), torch.ones(2, 5)
def half(): return torch.nn.Linear(4, 4).half(), torch.ones(2, 4).half()
def empty(): return torch.nn.Linear(4, 4), torch.ones(0, 4)
def compiled(): return torch.compile(torch.nn.Linear(4, 4)), torch.ones(2, 4)
def long(): raise ValueError("x" * 9000)
def fails(width=3): raise ValueError(f"width {width}")
"""


@pytest.mark.parametrize(
    ("name", "options", "error", "what", "where", "next"),
    [
        ("needs", {}, "bad-option", "needs width", "(width, *, depth=2)", "--set width=VALUE"),
        ("needs", {"widht": 3}, "bad-option", "nearest: width", "needs", "parameters"),
        ("three", {}, "wrong-model", "a tuple of 3", "three", "return module, (first, second)"),
        ("odd", {}, "factory-failed", "raised Odd", "my net.py:6: def odd", "runpy"),
        ("long", {}, "factory-failed", "xxx...", "my net.py:14", "runpy"),
        ("half", {}, "unsupported-dtype", "weight is float16", "Linear", "module.float()"),
        ("empty", {}, "bad-input", "is empty: (0, 4)", "Linear.forward", "something in it"),
        ("compiled", {}, "wrong-model", "torch.compile", "compiled", "return the module"),
        ("size", {}, "bad-dim", "given twice", "--dim", "leave one of them out"),
        ("complex", {}, "unsupported-dtype", "complex64", "Identity.forward", "real numbers"),
        ("short", {}, "unsupported-dtype", "bfloat16", "Identity.forward", "float32"),
        ("meta", {}, "bad-input", "device meta", "Identity.forward", "on the CPU"),
        ("size", {}, "example-failed", "does not run on input (2, 5)", "my net.py:size", "mend the model"),
    ],
)
def test_what_a_function_does_wrong_is_told_with_its_line_and_what_to_type(
    name: str, options: dict[str, Any], error: str, what: str, where: str, next: str, tmp_path: Path
) -> None:
    file = tmp_path / "my net.py"
    file.write_text(BROKEN)
    with pytest.raises(Refused) as caught:
        given = ["input=Bx4"] if error == "bad-dim" else []
        defined(f"{file}:{name}", *given, dims=("B=1:2:3", "B=1:2:4") if given else (), **options)
    assert caught.value.code == error and len(caught.value.what) < 500
    assert what in caught.value.what and where in caught.value.where and next in caught.value.next
    assert "call.py" not in caught.value.where, "ours"


@pytest.mark.parametrize("folder", ["plain", "with space", "it's $HOME"])
def test_the_command_that_calls_a_function_by_hand_does(folder: str, tmp_path: Path) -> None:
    """Wherever one types it, whatever the file is called."""
    file = tmp_path / folder / "my net.py"
    file.parent.mkdir()
    (file.parent / "beside.py").write_text("")
    file.write_text("import beside\n" + BROKEN)
    with pytest.raises(Refused) as caught:
        defined(f"{file}:fails", width="4 or 5")
    typed = caught.value.next.replace(" python ", f" {sys.executable} ")
    ran = subprocess.run(["bash", "-c", typed], cwd="/", capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines()[-1] == "ValueError: width 4 or 5"


def test_a_file_that_is_no_python_cites_its_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import torch\ndef make(:\n    pass\n")
    with pytest.raises(Refused) as caught:
        defined(f"{file}:make")
    assert "broken.py:2: def make(:" in caught.value.where and "SyntaxError" in caught.value.what


def test_a_file_of_a_package_may_import_relatively(tmp_path: Path) -> None:
    package = tmp_path / "relatives"
    package.mkdir()
    for name, text in {
        "__init__": "",
        "parts": "WIDTH = 3\n",
        "net": "import torch\nfrom .parts import WIDTH\n",
    }.items():
        (package / f"{name}.py").write_text(text)
    with (package / "net.py").open("a") as file:
        file.write("def make(): return torch.nn.Linear(4, WIDTH), torch.ones(1, 4)\n")
    assert shapes(defined(f"{package / 'net.py'}:make")) == {"output": (1, 3)}


@pytest.mark.parametrize("drawn", ["torch.rand(1)", "np.random.rand()", "random.random()"])
def test_whatever_weights_are_drawn_from_is_seeded(drawn: str, tmp_path: Path) -> None:
    file = tmp_path / "drawn.py"
    file.write_text(
        "import random, torch\nimport numpy as np\ndef make():\n net = torch.nn.Linear(4, 2)\n"
        f" torch.nn.init.constant_(net.weight, float({drawn}))\n return net, torch.ones(1, 4)\n"
    )
    digests = {
        define.weighted(own.defined(build(f"{file}:make", seed=seed)), None, seed)[1].digest for seed in (3, 3, 4)
    }
    assert len(digests) == 2


def test_a_file_is_run_once(tmp_path: Path) -> None:
    """An operator of one's own can be registered once."""
    file = tmp_path / "ops.py"
    file.write_text(
        "import torch\ntorch.library.Library('tests_ops', 'DEF').define('twice(Tensor x) -> Tensor')\n"
        "def make():\n return torch.nn.Linear(4, 2), torch.ones(1, 4)\n"
    )
    it = defined(f"{file}:make")
    assert it.build() is not it.build()


def test_what_it_imports_beside_it_counts_as_its_source(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("WIDTH = 3\n")
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch, beside_it\ndef make():\n return torch.nn.Linear(4, beside_it.WIDTH), torch.ones(1, 4)\n"
    )
    said = own.describe({"build": build(f"{file}:make")}, Quiet())
    assert {name for name, _ in said["sources"]} >= {"mine.py", "beside_it.py"}
    assert str(tmp_path) not in str(said["described"])
    assert not any(name == "spec.py" for name, _ in said["sources"]), "ours are counted apart"
    sys.modules.pop("beside_it")


def test_what_is_described_is_the_definition_but_for_its_code() -> None:
    it = defined("with_example")
    again = Described.from_json(Described.of(it).as_json()).definition()
    for name in ("name", "inputs", "outputs", "dims", "budget", "weighted", "graphs", "program", "options"):
        assert getattr(again, name) == getattr(it, name)
    with pytest.raises(AssertionError):
        again.build()


@pytest.mark.parametrize("name", ["with_example", "nested", "named", "untrained"])
@pytest.mark.parametrize("place", [("nets.py", "."), ("its nets.v2.py", "elsewhere")], ids=str)
def test_a_definition_that_is_written_gives_the_same_model(name: str, place: tuple[str, str], tmp_path: Path) -> None:
    """However ``forward`` takes its tensors, whatever the file is called and wherever the definition is written."""
    file, folder = tmp_path / place[0], tmp_path / place[1]
    file.write_text(Path(NETS).read_text())
    folder.mkdir(exist_ok=True)
    path, model = scaffold(Request(f"{file}:{name}", ""), folder / f"{name}_it.py", silent)
    compile(path.read_text(), str(path), "exec")
    asked, written = defined(f"{file}:{name}"), defined(model)
    assert (written.inputs, written.outputs) == (
        tuple(replace(tensor, meaning=written.inputs[0].meaning) for tensor in asked.inputs),
        tuple(replace(tensor, meaning=written.inputs[0].meaning) for tensor in asked.outputs),
    )
    inputs = generated_inputs(asked, Case("one", "generated", "normal", {}))
    found = []
    for definition in (asked, written):
        module, weights = define.weighted(definition, None, 0)
        found.append((weights.digest, module(*(torch.from_numpy(inputs[t.name]) for t in asked.inputs))))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_a_definition_that_does_not_run_cites_the_line_of_its_module(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(
        "import torch\nfrom exporter.spec import ModelDef, Tensor\n"
        "class Net(torch.nn.Module):\n def forward(self, x):\n  return x @ x\n"
        "def net():\n x, y = Tensor('x', (2, 3)), Tensor('y', (2, 3))\n"
        " return ModelDef('net', 'own', Net, (x,), (y,), '', '', weighted=True)\n"
    )
    with pytest.raises(Refused, match="does not run on x") as caught:
        defined(f"{file}:net")
    assert caught.value.code == "example-failed" and "wrong.py:5: return x @ x" in caught.value.where


def test_the_parent_runs_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "theirs.py"
    file.write_text(
        "import os, torch\ndef make():\n open('who', 'w').write(str(os.getpid()))\n"
        " return torch.nn.Linear(4, 2), torch.ones(1, 4)\n"
    )
    monkeypatch.chdir(tmp_path)
    it = found(Request("theirs.py:make", ""), silent)
    assert int((tmp_path / "who").read_text()) != os.getpid() and "own_theirs" not in sys.modules
    assert it.request.own and it.definition.name == "make"
    assert it.definition.samples is not None
    (sample,) = it.definition.samples()
    assert sample.name == "example" and np.array_equal(sample.values["input"], np.ones((1, 4), np.float32))


def test_one_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import time\ndef make():\n time.sleep(1000)\n")
    with pytest.raises(Exception, match="was stopped after 8 s") as caught:
        found(Request(f"{file}:make", "", limits=Limits(seconds=8)), silent)
    assert caught.value.code == "stage-timed-out"


def test_names_of_outputs() -> None:
    x = torch.ones(1)
    assert [name for name, _ in named_tensors(x)] == ["output"]
    assert [name for name, _ in named_tensors((x, [x, None, 3]))] == ["output.0", "output.1.0"]
    assert [name for name, _ in named_tensors({"a b": x, 7: {"ü/x": x}})] == ["a b", "output.7.ü/x"]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, net = tmp_path_factory.mktemp("programs"), nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.ReLU())
    for name, module, sizes in (
        ("fixed", net.eval(), None),
        ("bounded", net.eval(), ({0: torch.export.Dim("batch", min=2, max=9)},)),
        ("endless", net.eval(), ({0: torch.export.Dim.AUTO},)),
        ("training", net.train(), None),
    ):
        module.train(name == "training")
        example = (torch.ones(3, 4),)
        torch.export.save(torch.export.export(module, example, dynamic_shapes=sizes), folder / f"{name}.pt2")
    (folder / "cut.pt2").write_bytes((folder / "fixed.pt2").read_bytes()[:300])
    return folder


def test_a_program_says_what_it_takes(programs: Path) -> None:
    it = defined(str(programs / "fixed.pt2"))
    assert it.inputs[0].shape == (3, 4) and shapes(it) == {"output": (3, 4)} and it.weighted
    bounded = defined(str(programs / "bounded.pt2"))
    (dim,) = bounded.dims
    assert (dim.min, dim.opt, dim.max) == (2, 3, 9) and bounded.outputs[0].shape == (dim.name, 4)
    (narrow,) = defined(str(programs / "bounded.pt2"), dims=(f"{dim.name}=2:3:4",)).dims
    assert narrow.max == 4
    module, weights = define.weighted(it, None, 0)
    assert weights.kind == "own" and module(torch.ones(3, 4)).shape == (3, 4)


@pytest.mark.parametrize(
    ("name", "more", "error", "words"),
    [
        ("cut", {}, "bad-program", "does not load"),
        ("endless", {}, "bad-dim", "has no end"),
        ("fixed", {"dims": ("N=1:2:3",)}, "bad-dim", "names no dim"),
    ],
)
def test_programs_that_will_not_do(programs: Path, name: str, more: dict[str, Any], error: str, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        defined(str(programs / f"{name}.pt2"), **more)
    assert caught.value.code == error


def test_programs_have_their_inputs_and_their_mode(programs: Path) -> None:
    with pytest.raises(Refused, match="no input of"):
        defined(str(programs / "fixed.pt2"), "x=3x4")
    with pytest.raises(NotProven, match="train mode"):
        defined(str(programs / "training.pt2"))


def test_a_model_of_timm_has_its_pictures_normalised() -> None:
    it = defined("timm:test_resnet.r160_in1k", num_classes=7)
    assert it.family == "libraries" and not it.weighted and shapes(it) == {"output": (1, 7)}
    assert [step.step for step in it.before] == ["image", "resize", "normalise"]
    assert it.inputs[0].shape == (1, 3, 160, 160)
