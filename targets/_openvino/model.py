"""A graph as OpenVINO reads it, under the graph's own names: the frontend gives some operators and inputs others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OUTSIDE = frozenset({"Constant", "Parameter", "Result"})
# What the ONNX frontend puts behind an output's name where it names the operator that gives it.
SINK = "/sink_port_0"


def read(path: Path) -> Any:
    """The model with its operators named after the graph's nodes: the frontend names what gives an output otherwise."""
    import openvino as ov
    from openvino.frontend import FrontEndManager

    model = ov.Core().read_model(str(path))
    loaded = FrontEndManager().load_by_framework("onnx").load(str(path))  # owns its places
    _name_inputs(model, [place.get_names()[0] for place in loaded.get_inputs()])
    made = [(place.get_names(), place.get_producing_operation()) for place in loaded.get_outputs()]
    nodes = {name: node.get_names()[0] for names, node in made if node and node.get_names() for name in names}
    for result in model.get_results():
        last = result.input_value(0).get_node()
        if last.get_type_name() not in OUTSIDE and last.get_friendly_name() in nodes:
            last.set_friendly_name(nodes[last.get_friendly_name()])
    return model


def _name_inputs(model: Any, names: list[str]) -> None:
    """Gives inputs the graph's names: one that is an output as well was named after that."""
    parameters = model.get_parameters()
    if len(parameters) != len(names):  # an input that nothing reads is left out, the others keep their names
        return
    for parameter, name in zip(parameters, names, strict=True):
        if parameter.get_friendly_name() != name:
            parameter.set_friendly_name(name)
            parameter.output(0).get_tensor().add_names({name})


def input_name(port: Any) -> str:
    """The graph's name of an input; its tensor has those of all that it passes through unchanged, or only the last."""
    return str(port.get_node().get_friendly_name())


def output_name(port: Any) -> str:
    """The graph's name of an output, among all names of its tensor."""
    own = str(port.get_node().get_friendly_name()).removesuffix(SINK)
    return own if own in port.get_names() else str(port.get_any_name())
