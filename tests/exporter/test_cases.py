"""The plan of cases: few, within what is declared, one at the largest size, the same everywhere."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.parity.cases import LARGEST, SCALES, Case, generated_inputs, guarding, odd_interior, plan, values
from exporter.spec import Dim, ModelDef, State, Stream, Tensor


@st.composite
def dims(draw: st.DrawFn, name: str = "T") -> Dim:
    low, step = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    first, more = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    return Dim(name, low, low + first * step, low + (first + more) * step, step)


@st.composite
def definitions(draw: st.DrawFn) -> ModelDef:
    names = draw(st.sampled_from([(), ("T",), ("H", "W"), ("batch", "H", "W")]))
    inputs = [Tensor("x", (1, *names, 2), low=-3.0, high=5.0)]
    state, stream = (), None
    if draw(st.booleans()):
        inputs.append(Tensor("h", (1, 4)))
        state, stream = (State("h", "h_out"),), Stream("x", "y", 0, 5)
    made = tuple(draw(dims(name)) for name in names)
    return ModelDef(
        "m",
        "m",
        lambda: None,
        tuple(inputs),
        (Tensor("y", (1,)),),
        "s",
        "l",
        dims=made,
        state=state,
        stream=stream,  # type: ignore[arg-type,return-value]
    )


@settings(deadline=None, max_examples=60)
@given(definitions())
def test_the_plan(definition: ModelDef) -> None:
    found = plan(definition)
    assert found == plan(definition), "the same plan twice"
    assert 1 <= len(found) <= LARGEST == 10
    assert len({case.name for case in found}) == len(found)
    free = [dim for dim in definition.dims if not dim.fixed]
    for case in found:
        assert set(case.sizes) == {dim.name for dim in definition.dims}
        assert all(dim.allows(case.sizes[dim.name]) for dim in definition.dims), case
    single = [case for case in found if case.steps == 1]
    if free:
        at_max = [case for case in single if all(case.sizes[d.name] == d.max for d in definition.dims)]
        everywhere_opt = all(d.opt == d.max for d in definition.dims)
        assert at_max and (len(at_max) == 1 or everywhere_opt)
        assert any(all(case.sizes[d.name] == d.min for d in definition.dims) for case in single)
    assert {case.scale for case in found} == set(SCALES)
    opts = [case for case in single if case.sizes == definition.opt_sizes()]
    assert len(opts) >= 2, "two cases of one size, so that an output which nothing moves is noticed"
    assert (definition.stream is None) == all(case.kind != "sequence" for case in found), "a state is judged in use"


@settings(deadline=None, max_examples=60)
@given(definitions())
def test_what_guards_a_pass_has_two_sizes_of_every_dim(definition: ModelDef) -> None:
    """One alone would keep a pass that freezes a batch of 1, which is both the least and the usual one."""
    cases = [case.__dict__ for case in plan(definition)]
    found = guarding(cases, definition)
    assert 2 <= len(found) <= 2 + len(definition.dims) and all(case["steps"] == 1 for case in found)
    assert [case["scale"] for case in found[:2]] == ["sparse", "wide"]
    for dim in definition.dims:
        assert dim.fixed or len({case["sizes"][dim.name] for case in found}) > 1, dim


@given(dims())
def test_the_odd_size_is_strictly_inside(dim: Dim) -> None:
    size = odd_interior(dim)
    inside = [s for s in range(dim.min, dim.max + 1, dim.step) if dim.min < s < dim.max and s != dim.opt]
    if size is None:
        assert not inside
    else:
        assert dim.allows(size) and size in inside
        same_side = [s for s in inside if (s > dim.opt) == (size > dim.opt)]
        assert size % 2 or not any(s % 2 for s in same_side)


@settings(deadline=None, max_examples=60)
@given(definitions())
def test_inputs_are_the_declared_ones(definition: ModelDef) -> None:
    for case in plan(definition)[:3]:
        made, again = generated_inputs(definition, case), generated_inputs(definition, case)
        assert list(made) == [tensor.name for tensor in definition.inputs]
        for tensor in definition.inputs:
            x = made[tensor.name]
            assert x.shape == tensor.sized(case.sizes) and x.dtype == np.dtype(tensor.dtype)
            assert np.isfinite(x).all() and x.min() >= tensor.low and x.max() <= tensor.high
            assert np.array_equal(x, again[tensor.name])


def test_truth_values_are_of_both_kinds() -> None:
    tensor = Tensor("mask", (400,), dtype="bool", low=0, high=1)
    shares = [values(tensor, (400,), Case("c", "generated", scale, {})).mean() for scale in ("normal", "sparse")]
    assert 0.4 < shares[0] < 0.6 and 0 < shares[1] < 0.15


def test_scales_look_as_they_are_named() -> None:
    tensor, shape = Tensor("x", (1,), low=-2.0, high=2.0), (100_000,)
    made = {scale: values(tensor, shape, Case(scale, "generated", scale, {})) for scale in SCALES}
    assert 0.5 < np.abs(made["normal"]).max() <= 2.0 and 0.5 < made["normal"].std() < 0.8
    sizes = np.abs(made["wide"])
    assert sizes.max() / sizes.min() > 1e4
    assert 0 < np.abs(made["near-zero"]).max() <= 2e-3
    assert 0.93 < np.mean(made["sparse"] == 0.0) < 0.97
    assert all(not np.array_equal(a, b) for a in made.values() for b in made.values() if a is not b)


def test_integers_reach_both_ends() -> None:
    tensor = Tensor("ids", (1,), dtype="int64", low=0, high=3)
    assert set(values(tensor, (1000,), Case("n", "generated", "normal", {}))) == {0, 1, 2, 3}


def test_a_sequence_starts_with_zero_state() -> None:
    inputs = (Tensor("x", (1, 2, 3)), Tensor("h", (1, 4)))
    definition = ModelDef(
        "m", "m", lambda: None, inputs, (Tensor("y", (1, 2, 3)), Tensor("h2", (1, 4))), "s", "l",  # type: ignore[arg-type,return-value]
        state=(State("h", "h2"),), stream=Stream("x", "y", 1, 7),
    )  # fmt: skip
    sequence = plan(definition)[-1]
    made = generated_inputs(definition, sequence)
    assert sequence.steps == 7 and made["x"].shape == (1, 14, 3) and not made["h"].any()
    assert made["x"].any()
    single = generated_inputs(definition, plan(definition)[0])
    assert single["h"].any(), "a single call has a state that is not zero: else nothing shows that it is used"
