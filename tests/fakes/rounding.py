"""A program: how coarsely ONNX Runtime rounds the sums of a convolution on an image of one pixel, here or elsewhere.

It prints the error of all sums over their size, for the channels that EfficientNet squeezes last.
"""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnxruntime

CHANNELS, SQUEEZED, DRAWS = 1152, 48, 50
GRAPH = f"""<ir_version: 10, opset_import: ["": 18]>
g (float[1, {CHANNELS}, 1, 1] x, float[{SQUEEZED}, {CHANNELS}, 1, 1] w) => (float[1, {SQUEEZED}, 1, 1] y) {{
    y = Conv (x, w)
}}"""


def main() -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = onnx.parser.parse_model(GRAPH).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    error = size = 0.0
    for seed in range(DRAWS):
        draw = np.random.default_rng(seed)
        x = draw.standard_normal((1, CHANNELS, 1, 1), np.float32)
        w = draw.standard_normal((SQUEEZED, CHANNELS, 1, 1), np.float32)
        right = w.reshape(SQUEEZED, CHANNELS).astype(np.float64) @ x.ravel().astype(np.float64)
        error += ((session.run(None, {"x": x, "w": w})[0].ravel() - right) ** 2).sum()
        size += (right**2).sum()
    print(float(np.sqrt(error / size)))


if __name__ == "__main__":
    main()
