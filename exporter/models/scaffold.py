"""``exporter init``: a definition of a user's own model, written out with comments, to be gone on from."""

from __future__ import annotations

import json
import keyword
import os
import re
from pathlib import Path

from exporter.errors import Refused
from exporter.folders import write_whole
from exporter.models.find import Found, found
from exporter.models.place import Place, placed
from exporter.request import Request
from exporter.spec import Dim, Tensor
from exporter.stages import Progress

HEAD = '''"""{name}, as a definition: what it takes and gives, and what is known of it.

Written by `exporter init {shown}`; yours to change. Try it:
    exporter TARGET {file}:{function} --no-profile
"""

{importing}


def build():
    made = make_it({options})
    {built}


def {function}() -> ModelDef:
    """What `exporter models` would say of it; arguments become options of --set."""
    return ModelDef(
        name="{label}",
        family="own",
        # Makes the module. It is called in a process of its own, with the seed set before.
        build=build,
        # In the order of `forward`. A size is a number, a Dim, or a part or multiple of one: "H/4", "H*2".
        # low and high are what the task gives: generated inputs lie between them.
        inputs=(
{inputs}
        ),
        # Every tensor that `forward` gives, in order. "?" is a size that follows from the dims in no such simple way.
        outputs=(
{outputs}
        ),
        # Sizes that may vary, from the least to the largest, and the one to optimise for.
        dims=({dims}),
        # `build` gives it its weights. Without this line they are a checkpoint's (--checkpoint FILE), or seeded noise.
        weighted=True,
        source="where it was published",
        licence="its licence",
        # before=(HostStep("image", {{"to": "{first}", "high": 1.0}}),),  # from a file to the inputs: exporter/host/
        # after=(),  # from the outputs to a file
        # metrics=("psnr",),  # what the task counts, on real inputs with a truth
        # samples=lambda: [Sample("one", {{"{first}": array}})],  # real inputs: cases of their own
        # state=(State("h", "h_next"),), stream=Stream("{first}", "y", axis=1),  # a model that is called step by step
    )
'''

# What `build` does with what the function made, by how tensors reach `forward`.
BUILT = {
    "in order": "return made[0] if isinstance(made, tuple) else made  # without the example that may stand beside it",
    "by name": """net = made[0] if isinstance(made, tuple) else made
    return by_names(net, {names})  # of the parameters of `forward`, in the order of `inputs`""",
    "nested": """net, example = made if isinstance(made, tuple) else (made, None)
    return as_shown(net, example)  # the tensors of `inputs` go to where the example has some""",
}
NEEDS = {"by name": "by_names", "nested": "as_shown"}


def scaffold(request: Request, file: Path | None, progress: Progress) -> tuple[Path, str]:
    """Writes a definition file for a user's own module, by looking at it.

    Args:
        request: the model, and what was said of its inputs.
        file: where to; default ``NAME_definition.py`` in the folder one is in.
        progress: told what happens.

    Returns:
        The file, and its ``MODEL``.

    Raises:
        Refused: ``has-definition`` for a model that is one already, ``file-exists``, or what :func:`found` refuses.
    """
    place = placed(request.model)
    if place.kind not in ("file", "package"):
        raise Refused(
            "has-definition",
            f"{place.shown} needs no definition",
            where=f"MODEL {place.shown}",
            why="a definition is written for a function of yours that returns a module",
            next=f"exporter models {place.shown}" if place.kind == "registered" else "export it as it is",
        )
    it = found(request, progress)
    name = _identifier(place.label)
    folder = Path(place.place).parent if place.kind == "file" else Path()  # beside what it imports
    path = file or folder / f"{name}_definition.py"
    if path.exists():
        raise Refused(
            "file-exists",
            f"{path} is there already",
            where=str(path),
            why="what you wrote is not overwritten",
            next="-o ANOTHER.py",
        )
    write_whole(path, _text(it, place, path, name).encode())
    return path, f"{path}:{name}_definition"


def _text(it: Found, place: Place, path: Path, name: str) -> str:
    definition = it.definition
    names = ", ".join(json.dumps(tensor.name) for tensor in definition.inputs)
    return HEAD.format(
        name=place.name, shown=place.shown, file=path.name, function=f"{name}_definition",
        importing=_importing(it, place, path), built=BUILT[it.handed].format(names=names),
        options=", ".join(f"{key}={value!r}" for key, value in definition.options.items()),
        label=definition.name, first=definition.inputs[0].name,
        inputs="\n".join(_tensor(tensor, True) for tensor in definition.inputs),
        outputs="\n".join(_tensor(tensor, False) for tensor in definition.outputs),
        dims="".join(f"{_dim(dim)}, " for dim in definition.dims).rstrip(),
    )  # fmt: skip


def _importing(it: Found, place: Place, path: Path) -> str:
    """How a definition gets the function: from where it lies, as seen from the definition's own file."""
    file = Path(place.place).resolve() if place.kind == "file" else Path.cwd() / place.place
    folder = os.path.relpath(file.parent, path.resolve().parent)
    there = "Path(__file__).parent" + (f" / {json.dumps(folder)}" if folder != "." else "")
    named = place.kind == "package" or file.stem.isidentifier()
    module = file.stem if place.kind == "file" else place.place
    standard = [
        *(["import sys"] if folder != "." else []),
        *(["from pathlib import Path"] if folder != "." or not named else []),
        *([] if named else ["from runpy import run_path"]),
    ]
    ours = [f"from exporter.models.call import {NEEDS[it.handed]}"] if it.handed in NEEDS else []
    theirs = [
        *([f"sys.path.insert(0, str({there}))  # what it imports lies there too"] if folder != "." else []),
        f"from {module} import {place.name} as make_it" if named else
        f"make_it = run_path(str({there} / {json.dumps(file.name)}))[{json.dumps(place.name)}]",
    ]  # fmt: skip
    blocks = standard, [*ours, "from exporter.spec import Dim, ModelDef, Tensor"], theirs
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _tensor(tensor: Tensor, ranged: bool) -> str:
    more = f', dtype="{tensor.dtype}"' if tensor.dtype != "float32" else ""
    more += f", low={tensor.low:g}, high={tensor.high:g}" if ranged else ""
    shape = f"({', '.join(map(json.dumps, tensor.shape))}{',' if len(tensor.shape) == 1 else ''})"
    return f'            Tensor({json.dumps(tensor.name)}, {shape}, "what it is: unit, layout"{more}),'


def _dim(dim: Dim) -> str:
    step = f", {dim.step}" if dim.step != 1 else ""
    return f"Dim({json.dumps(dim.name)}, {dim.min}, {dim.opt}, {dim.max}{step})"


def _identifier(label: str) -> str:
    name = re.sub(r"\W", "_", label)
    return f"_{name}" if keyword.iskeyword(name) or name[:1].isdigit() else name
