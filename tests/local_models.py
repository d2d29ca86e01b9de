"""ONNX graphs for tests of serving: so small that what is tested is the serving."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper


def channel_means(*, scale: float = 1.0, batch: int | str = "N", side: int | str = 4, dtype: int = TensorProto.UINT8) -> bytes:
    """ONNX: image [batch, side, side, 3] -> mean [batch, 3] (times scale) and total [batch]."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["real"], ["plain"], axes=[1, 2], keepdims=0),
            helper.make_node("Mul", ["plain", "scale"], ["mean"]),
            helper.make_node("ReduceSum", ["mean", "axis"], ["total"], keepdims=0),
        ],
        "channel_means",
        [helper.make_tensor_value_info("image", dtype, [batch, side, side, 3])],
        [
            helper.make_tensor_value_info("mean", TensorProto.FLOAT, [batch, 3]),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, [batch]),
        ],
        [helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]), helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
