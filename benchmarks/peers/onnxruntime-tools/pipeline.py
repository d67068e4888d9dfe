"""ONNX Runtime's own tools: the graph fused by its transformer optimizer, then int8, dynamic or calibrated."""

import numpy as np
import onnx
from onnxruntime import InferenceSession, SessionOptions
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model

OFFERS = {"int8 dynamic": ["any length"], "int8 static": ["any length"]}
CALIBRATION_ROWS = 300
# the optimizer leaves the fused outputs without a type, which the quantizers then ask for
UNTYPED = {"DefaultTensorType": onnx.TensorProto.FLOAT}


def build(offer, given, out):
    options = FusionOptions("bert")
    # the fused attention has an int8 form for dynamic ranges only; with static ones it would stay in fp32
    options.enable_attention = offer == "int8 dynamic"
    sizes = {"num_heads": given.num_heads, "hidden_size": given.hidden_size}
    fused = optimize_model(str(given.onnx), "bert", optimization_options=options, **sizes).model
    if offer == "int8 dynamic":
        quantize_dynamic(fused, out / "model.onnx", per_channel=True, extra_options=UNTYPED)
        return
    quantize_static(
        fused,
        out / "model.onnx",
        Calibration(given.token_ids("train")[:CALIBRATION_ROWS]),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gather"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={**UNTYPED, "MatMulConstBOnly": True},
    )


class Calibration(CalibrationDataReader):
    def __init__(self, rows):
        self.rows = iter(rows)

    def get_next(self):
        row = next(self.rows, None)
        return None if row is None else inputs(row)


def inputs(row):
    ids = np.array([row], dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def serve(offer, way, given, folder):
    options = SessionOptions()
    options.intra_op_num_threads = given.threads
    session = InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    tokenizer, labels = given.tokenizer(), given.labels

    def answer(text):
        # bound buffers (io_binding) were measured no faster at batch 1
        (logits,) = session.run(None, inputs(tokenizer.encode(text).ids))
        return labels[int(logits.argmax())]

    return answer
