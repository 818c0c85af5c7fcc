"""timm's backbones, imported only when one is built, beside whatever torchvision is installed.

timm imports torchvision, and torchvision's Python registers shape rules for two operators of its C++ library. The
registry's torchvision is built for CUDA: beside a CPU-only PyTorch the library does not load, the operators do not
exist, and the import ends with "operator torchvision::nms does not exist". None of the backbones uses them. Declaring
them, without an implementation, is enough for the import; calling one still fails, as it should.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from exporter.errors import Incomplete

if TYPE_CHECKING:
    from torch import nn

# What torchvision's own C++ library would declare.
_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_NEEDED = ("nms", "qnms")
# A library's declarations live as long as the object does.
_declared: list[torch.library.Library] = []


def backbone(name: str, **options: Any) -> nn.Module:
    """A timm model without its classifier and without weights from anywhere: nothing is downloaded.

    Args:
        name: timm's name, such as ``vit_tiny_patch16_224``.
        options: more keyword arguments of ``timm.create_model``.

    Raises:
        Incomplete: ``runtime-absent`` when timm is not installed.
    """
    made: nn.Module = library().create_model(name, pretrained=False, num_classes=0, **options)
    return made


@cache
def library() -> Any:
    """The module ``timm``.

    Raises:
        Incomplete: ``runtime-absent`` when timm, or the torchvision it needs, is not installed.
    """
    for package in ("timm", "torchvision"):
        if importlib.util.find_spec(package) is None:
            raise Incomplete(
                "runtime-absent",
                f"{package} is not installed",
                where="model family vqa",
                why="the backbones of the video quality models are timm's",
                next="pip install '.[zoo]'",
            )
    _declare_missing_operators()
    return importlib.import_module("timm")


def _declare_missing_operators() -> None:
    """Loads torchvision's C++ library where it loads, and declares what is missing where it does not."""
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    fragment = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _NEEDED:
        if not hasattr(torch.ops.torchvision, operator):
            fragment.define(operator + _BOXES)
    _declared.append(fragment)
