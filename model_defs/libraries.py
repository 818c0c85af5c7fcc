"""Any model of a library by its name, as ``timm:resnet18``: a function per library."""

from __future__ import annotations

from functools import partial
from typing import Any

from exporter.errors import Refused, nearest
from exporter.spec import HostStep, ModelDef, Tensor, collection

from ._timm import library


@collection
def timm(name: str, **options: Any) -> ModelDef:
    """A model of timm with its classifier, its pictures resized and normalised as timm trained it.

    Args:
        name: timm's name, with or without the tag of its published weights.
        options: of ``timm.create_model``, such as ``num_classes=10`` or ``img_size=256``.

    Raises:
        Refused: ``unknown-model`` with the nearest names.
        Incomplete: ``runtime-absent`` where timm is not installed.
    """
    found = library()
    architecture = name.partition(".")[0]
    if not found.is_model(architecture):
        listing = f"from model_defs._timm import library as l; print(l().list_models('{architecture[:4]}*'))"
        raise Refused(
            "unknown-model",
            f"timm has no model {name!r}{nearest(architecture, found.list_models())}",
            where=f"MODEL timm:{name}, timm {found.__version__}",
            why="names are those of timm.list_models()",
            next=f'python -c "{listing}"',
        )
    config = found.get_pretrained_cfg(name) or found.get_pretrained_cfg(architecture)
    channels, height, width = config.input_size
    size = options.get("img_size", height)
    height, width = (size, size) if isinstance(size, int) else size
    channels = options.get("in_chans", channels)
    return ModelDef(
        name=f"timm-{name}",
        family="libraries",
        build=partial(found.create_model, architecture, pretrained=False, **options),
        inputs=(Tensor("image", (1, channels, height, width), "pictures, normalised"),),
        outputs=(),
        source=f"timm:{name}",
        licence=config.license or "unknown: see timm",
        before=(
            HostStep("image", {"to": "image", "high": 1.0, "channels": channels}),
            HostStep("resize", {"of": "image", "height": height, "width": width}),
            HostStep("normalise", {"of": "image", "mean": list(config.mean), "std": list(config.std)}),
        ),
        options=options,
    )
