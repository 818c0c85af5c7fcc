"""timm beside a torchvision whose C++ library does not load, and where there is none."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from exporter.errors import Incomplete
from model_defs import _timm


def in_a_new_process(code: str) -> str:
    """What the code prints there: imports and operators are once per process."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=300
    ).stdout.strip()


def test_declared_operators_let_timm_be_imported_and_still_fail_when_called() -> None:
    """Beside a torchvision that does load nothing is declared, and its own operator runs."""
    found = in_a_new_process("""
        import torch
        from model_defs._timm import backbone, _declared
        model = backbone("efficientnet_b0").eval()
        print(tuple(model(torch.zeros(1, 3, 64, 64)).shape), len(_declared))
        try:
            kept = torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
            print("ran" if len(kept) == 1 else "wrong")
        except NotImplementedError:
            print("not implemented")
    """).splitlines()
    assert found in (["(1, 1280) 1", "not implemented"], ["(1, 1280) 0", "ran"])


def test_definitions_are_listed_without_timm_and_torch() -> None:
    assert (
        in_a_new_process("""
        import sys
        from exporter import registry
        registry.model("vqa"), registry.model("extractor-vit")
        print([name for name in ("timm", "torchvision", "torch") if name in sys.modules])
    """)
        == "[]"
    )


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_without_the_package_it_says_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = _timm.importlib.util.find_spec
    monkeypatch.setattr(_timm.importlib.util, "find_spec", lambda name: None if name == package else find(name))
    _timm.library.cache_clear()
    with pytest.raises(Incomplete) as caught:
        _timm.backbone("efficientnet_b0")
    error = caught.value
    assert error.code == "runtime-absent" and package in error.what and error.next == "pip install '.[zoo]'"


def test_another_error_of_the_import_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        if name == "torchvision":
            raise RuntimeError("libcudart.so is missing")

    monkeypatch.setattr(_timm.importlib, "import_module", broken)
    _timm.library.cache_clear()
    with pytest.raises(RuntimeError, match="libcudart"):
        _timm.library()
    _timm.library.cache_clear()
