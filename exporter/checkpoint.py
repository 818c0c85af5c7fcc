"""Reads a checkpoint file as data: safetensors, or a PyTorch file through ``weights_only``; never an unsafe retry."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from exporter.errors import Refused, nearest
from exporter.graph import sha256

# Names under which trainers keep the state dict beside the epoch and the optimizer.
WRAPPERS = ("model", "params", "params_ema", "state_dict", "model_state_dict")
SHOWN = 5


def read(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a checkpoint file, without a trainer's wrapper and without a ``module.`` prefix.

    Raises:
        Refused: ``missing-file``, ``bad-checkpoint`` (truncated, altered, no checkpoint) or ``unsafe-checkpoint``.
    """
    if not path.is_file():
        raise Refused(
            "missing-file",
            f"there is no checkpoint {path}",
            why="--checkpoint takes a .safetensors file or a PyTorch checkpoint",
            next=f"ls {path.parent}",
        )
    content = _torch_file(path) if zipfile.is_zipfile(path) else _safetensors(path)
    return _without_prefix(_unwrapped(content, path))


def _safetensors(path: Path) -> dict[str, object]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, OSError) as error:
        raise _damaged(path, f"it is neither a PyTorch zip file nor safetensors ({error})") from error


def _torch_file(path: Path) -> dict[str, object]:
    # Every record carries a CRC; PyTorch's reader does not check all of them.
    with zipfile.ZipFile(path) as archive:
        try:
            broken = archive.testzip()
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
            raise _damaged(path, f"its archive does not read ({error})") from error
    if broken is not None:
        raise _damaged(path, f"record {broken} does not match its checksum")
    try:
        # A file object: given a name, PyTorch would go by its ending, and this goes by content.
        with path.open("rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Refused(
            "unsafe-checkpoint",
            f"{path.name} holds more than tensors: {str(error).splitlines()[0]}",
            where=f"file {path}",
            why="a pickle can run code when it is read; it was not read any further, and is never read another way",
            next="save the state dict alone: torch.save(module.state_dict(), FILE), or as safetensors",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _damaged(path, str(error).splitlines()[0]) from error
    if not isinstance(content, Mapping):
        raise _damaged(path, f"it holds a {type(content).__name__}, not a state dict")
    return dict(content)


def _damaged(path: Path, reason: str) -> Refused:
    return Refused(
        "bad-checkpoint",
        f"{path.name} is no readable checkpoint: {reason}",
        where=f"file {path} ({path.stat().st_size} bytes, sha256 {sha256(path)[:16]}...)",
        why="a truncated or altered file gives a model that is not the one that was trained",
        next="fetch the file again and compare its size and digest with the publisher's",
    )


def _unwrapped(content: Mapping[str, object], path: Path) -> dict[str, torch.Tensor]:
    for wrapper in WRAPPERS:
        inner = content.get(wrapper)
        if isinstance(inner, Mapping):
            return _unwrapped(inner, path)
    odd = [key for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if odd or not content:
        raise _damaged(path, f"entry {odd[0]!r} is no tensor" if odd else "it holds no tensor")
    return {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}


def _without_prefix(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """DataParallel saves every key under ``module.``."""
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state


def load(module: torch.nn.Module, path: Path) -> None:
    """Loads a checkpoint strictly: every key, every shape, every type, every value finite.

    Raises:
        Refused: as :func:`read` and :func:`load_state`.
    """
    load_state(module, read(path), f"file {path}, model {type(module).__name__}")


def load_state(module: torch.nn.Module, state: Mapping[str, torch.Tensor], where: str) -> None:
    """Loads tensors by name, strictly.

    Args:
        module: takes them.
        state: as :func:`read` gives them.
        where: the file and the model, for errors.

    Raises:
        Refused: ``wrong-checkpoint`` listing missing, unexpected and mis-shaped keys with nearest names;
            ``nan-weights``.
    """
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    shared = [key for key in wanted if key in state]
    misfits = [key for key in shared if not _fits(state[key], wanted[key])]
    if missing or unexpected or misfits:
        raise Refused(
            "wrong-checkpoint",
            _difference(missing, unexpected, misfits, state, wanted),
            where=where,
            why="a partly loaded model runs, and is noise",
            next="exporter models, to see which checkpoint belongs to which model",
        )
    _refuse_not_finite({key: state[key] for key in shared}, where)
    module.load_state_dict(state, strict=True)


def _fits(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return found.shape == wanted.shape and found.dtype == wanted.dtype


def _difference(
    missing: list[str],
    unexpected: list[str],
    misfits: list[str],
    state: Mapping[str, torch.Tensor],
    wanted: Mapping[str, torch.Tensor],
) -> str:
    def listed(keys: list[str], describe: Callable[[str], str] = str) -> str:
        shown = [describe(key) for key in keys[:SHOWN]]
        return ", ".join(shown) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")

    def shapes(key: str) -> str:
        found, want = state[key], wanted[key]
        return f"{key} {tuple(found.shape)} {found.dtype} instead of {tuple(want.shape)} {want.dtype}"

    if len(missing) == len(wanted):
        # Of another model's keys the nearest would be chance.
        none, others = f"none of the {len(wanted)} keys of this model", f"{len(state)} others"
        return f"the checkpoint has {none} ({listed(missing)}), but {others} ({listed(unexpected) or 'none'})"
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing: {listed(missing)}")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected: {listed(unexpected, lambda k: k + nearest(k, missing, 1))}")
    if misfits:
        parts.append(f"{len(misfits)} mis-shaped: {listed(misfits, shapes)}")
    return "the checkpoint is not of this model: " + "; ".join(parts)


def _refuse_not_finite(state: Mapping[str, torch.Tensor], where: str) -> None:
    for key, value in state.items():
        bad = ~torch.isfinite(value) if value.is_floating_point() else torch.zeros(())
        count = int(bad.sum())
        if count:
            first = tuple(int(i) for i in bad.nonzero()[0])
            raise Refused(
                "nan-weights",
                f"{key} holds {count} values that are NaN or infinite, the first at {first}",
                where=where,
                why="every output they touch is NaN, and two equal NaNs are no agreement",
                next="train on from an earlier checkpoint",
            )


def refuse_not_finite(module: torch.nn.Module) -> None:
    """Refuses a module any of whose parameters or buffers is NaN or infinite.

    Raises:
        Refused: ``nan-weights`` naming the tensor, the count and the first index.
    """
    _refuse_not_finite(module.state_dict(), f"model {type(module).__name__}")
