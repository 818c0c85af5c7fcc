"""Targets: a file here is registered by existing."""

import os
import sys

# Runtimes tell their makers over the network what they run, unless they are told not to before they are imported:
# ONNX Runtime by this variable, OpenVINO and NNCF by the absence of the package that does it. It is nobody's business,
# and a thread that sends is no part of a latency.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # what an import takes for absence
