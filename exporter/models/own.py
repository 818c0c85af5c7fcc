"""The user's own model, built; only children do that."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from exporter import registry
from exporter.bundle import write_tensors
from exporter.errors import Refused
from exporter.isolate import Channel
from exporter.models import code
from exporter.models.call import handed, positional
from exporter.models.dependencies import answer, looking_on, sources, sources_of_code
from exporter.models.derive import Asked, of_module, refuse_not_running, with_outputs
from exporter.models.described import Described
from exporter.models.graphs import of_graph
from exporter.models.place import Place, placed
from exporter.models.program import of_program
from exporter.spec import TRUTH, ModelDef

# Kinds of places that are files of data.
FILES = {"program": of_program, "graph": of_graph}


def defined(build: Mapping[str, Any]) -> ModelDef:
    """The definition of a model that is no registered one, ready to build.

    Args:
        build: see :attr:`exporter.request.Request.build`.

    Raises:
        Refused: what MODEL, ``--input``, ``--dim`` or ``--set`` say fits nothing.
        Refused: the user's code does not give a module that runs.
    """
    place, options, seed = placed(build["model"]), build["options"], build["seed"]
    asked = Asked(build["inputs"], build["dims"], build["samples"], build.get("known", ()))
    if place.kind in FILES:
        return FILES[place.kind](place, asked)
    _seed(seed)
    made = (
        registry.collection(place.place)(place.name, **options)
        if place.kind == "collection"
        else (code.called(place, options))
    )
    if isinstance(made, ModelDef):
        return _of_definition(made, place, asked)
    module, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    _refuse_no_module(module, place)

    def again() -> nn.Module:
        """A fresh one, seeded alike: it is changed by whoever gets it."""
        _seed(seed)
        fresh = code.called(place, options)
        remade: nn.Module = fresh[0] if isinstance(fresh, tuple) else fresh
        return remade

    return of_module(place, again, example, asked, options)


def _seed(seed: int) -> None:
    """Seeds whatever a user's code may take random weights from."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _of_definition(made: ModelDef, place: Place, asked: Asked) -> ModelDef:
    """A definition of the user's or of a collection; what it gives is seen by running it where it does not say."""
    definition = made.with_dims(asked.dims)
    if definition.deploy is None and not definition.parts:
        definition = replace(definition, build=lambda: positional(made.build(), len(made.inputs)))
    if not definition.outputs:
        return with_outputs(definition, definition.build().eval(), place)
    refuse_not_running(definition, definition.build().eval(), place)
    return definition


def _refuse_no_module(found: Any, place: Place) -> None:
    compiled = type(found).__name__ == "OptimizedModule"  # its own module is slow to import
    if isinstance(found, nn.Module) and not isinstance(found, torch.jit.ScriptModule) and not compiled:
        return
    several = isinstance(found, (tuple, list))
    said = f"{f'a {type(found).__name__} of {len(found)}' if several else type(found).__name__}, no torch.nn.Module"
    said = "a TorchScript module, whose Python is gone" if isinstance(found, torch.jit.ScriptModule) else said
    said = "what torch.compile made of a module" if compiled else said
    raise Refused(
        "wrong-model",
        f"{place.shown} gave {said}",
        where=f"MODEL {place.shown}",
        why="a model is a torch.nn.Module, perhaps with example inputs in a tuple beside it, or a ModelDef",
        next="return module, (first, second)" if several and len(found) > 2 else f"return the module from {place.name}",
    )


def describe(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: looks at a user's own model.

    Args:
        request: ``build``.
        channel: told what is looked at.

    Returns:
        ``{"described": as :class:`Described`, "sources": [[name, digest], ...], "files": [path, ...], "handed": as
        :func:`handed`}``: the files that its graph depends on, then what else it does; the last source is the weights,
        since nobody knows what code reads them from, and a graph's may lie beside it.
    """
    from exporter.define import weights_digest  # which asks this package for definitions

    build = request["build"]
    place = placed(build["model"])
    channel.send({"event": "progress", "what": f"looking at {place.shown}"})
    with looking_on() as read:
        definition = defined(build)
        _seed(build["seed"])
        module = definition.build()
        weights = ["weights", weights_digest(module)]
        answers = [] if place.kind in FILES else [["answer", answer(definition, module)]]
    files, digests = sources([place.place]) if place.kind in FILES else sources_of_code(read)
    return {
        "described": Described.of(replace(definition, options=dict(build["options"]))).as_json(),
        "sources": [*digests, *answers, weights],
        "files": [str(path) for path in files],
        "handed": handed(module),
    }


def samples(request: dict[str, Any], channel: Channel) -> list[list[str]]:
    """Child: writes a definition's own real inputs to files.

    Args:
        request: ``build``; ``which``, ``samples`` or ``calibration``; ``folder``.
        channel: gets a progress event per input.

    Returns:
        ``[[name, file], ...]``.
    """
    given = getattr(defined(request["build"]), request["which"])
    written = []
    for index, sample in enumerate(given() if given is not None else ()):
        file = Path(request["folder"]) / f"{index}.safetensors"
        write_tensors(file, {**sample.values, **{TRUTH + name: value for name, value in sample.truth.items()}})
        written.append([sample.name, str(file)])
        channel.send({"event": "progress", "what": f"{request['which']} {sample.name}"})
    return written
