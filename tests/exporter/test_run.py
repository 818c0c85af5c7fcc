"""One real input through an artifact: slices of a stack, steps of a stream, counts of a loop, joined again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from exporter import run
from exporter.errors import Refused
from exporter.spec import Dim, State, Stream, Tensor

PICTURE = Tensor("image", (1, 3, "H", "W"))


def manifest(*inputs: Tensor, stream: Stream | None = None, state: tuple[State, ...] = (), **more: Any) -> Any:
    """As much of a manifest as running reads."""
    facts = {"dims": (), "repeats": (), "model": SimpleNamespace(name="fake")} | more
    return SimpleNamespace(inputs=inputs, stream=stream, state=state, **facts)


class Runner:
    """Adds its state to what it gets, counts its calls, and gives back buffers that it writes over."""

    def __init__(self) -> None:
        self.calls, self._buffer = 0, np.zeros((1, 2, 4), np.float32)

    def infer(self, feeds: Mapping[str, np.ndarray], check_inputs: bool) -> dict[str, np.ndarray]:
        self.calls += 1
        self._buffer[...] = feeds["x"] + feeds["h"]
        return {"y": self._buffer, "next_h": feeds["h"] + 1}


def test_tiles_are_run_one_by_one() -> None:
    stack = {"image": np.arange(3 * 3 * 4, dtype=np.float32).reshape(3, 3, 2, 2), "scale": np.array([2.0])}
    slices = run._slices(manifest(PICTURE, Tensor("scale", (1,))), stack)
    assert len(slices) == 3 and all(piece["image"].shape == (1, 3, 2, 2) for piece in slices)
    assert np.array_equal(np.concatenate([piece["image"] for piece in slices]), stack["image"])
    assert all(piece["scale"] is stack["scale"] for piece in slices), "what is no stack goes to every tile"


def test_a_single_picture_a_batch_and_stacks_of_several_heights_are_no_tiles() -> None:
    one = {"image": np.zeros((1, 3, 2, 2))}
    assert run._slices(manifest(PICTURE), one) == [one]
    batch = {"image": np.zeros((4, 3, 2, 2))}
    assert run._slices(manifest(Tensor("image", ("batch", 3, "H", "W"))), batch) == [batch]
    odd = {"left": np.zeros((2, 3, 2, 2)), "right": np.zeros((3, 3, 2, 2))}
    assert run._slices(manifest(*(Tensor(name, (1, 3, "H", "W")) for name in odd)), odd) == [odd]


def test_a_stream_runs_on_its_own_state_and_is_joined() -> None:
    stream, state = Stream("x", "y", axis=1), (State("h", "next_h"),)
    it = manifest(Tensor("x", (1, 2, 4)), Tensor("h", (1,)), stream=stream, state=state)
    x = np.arange(24, dtype=np.float32).reshape(1, 6, 4)
    runner = Runner()
    outputs, calls = run.execute(it, runner, {"x": x, "h": np.zeros(1, np.float32)})  # type: ignore[arg-type]
    assert calls == runner.calls == 3
    expected = x + np.repeat(np.arange(3, dtype=np.float32), 2)[None, :, None]
    np.testing.assert_array_equal(outputs["y"], expected)
    assert outputs["next_h"] == 3, "the state after the last step is an output too"
    stack = {"x": np.zeros((2, 2, 4))}
    assert run._slices(it, stack) == [stack], "a stream's slices follow one another"


def test_counts_of_a_loop_are_within_their_range() -> None:
    it = manifest(PICTURE, dims=(Dim("iterations", 1, 8, 32), Dim("H", 8, 8, 8)), repeats=("iterations",))
    assert run._repeats(it, ["iterations=12"]) == {"iterations": 12}
    assert run._repeats(it, []) == {}
    for wrong in ("iterations=33", "iterations=many", "iteration=3", "H=8"):
        with pytest.raises(Refused) as caught:
            run._repeats(it, [wrong])
        assert caught.value.code == "bad-dim", wrong


def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    after = SimpleNamespace(after=(), outputs=(Tensor("disparity", (1, "H", "W")),), model=SimpleNamespace(name="fake"))
    for output in (tmp_path, tmp_path / "absent" / "out.pfm", tmp_path / "out.doc"):
        with pytest.raises(Refused) as caught:
            run.refuse_output(after, output)  # type: ignore[arg-type]
        assert caught.value.code == "bad-output" and "-o OUTPUT" in caught.value.next
    run.refuse_output(after, tmp_path / "out.npz")  # type: ignore[arg-type]
    run.refuse_output(after, tmp_path / "OUT.NPZ")  # type: ignore[arg-type]
