"""Optimum ONNX: exported, then dynamic int8 per channel for this CPU, or optimized to O3; the head stays outside."""

from pathlib import Path

import numpy as np
from onnxruntime import SessionOptions
from optimum.onnxruntime import ORTModelForFeatureExtraction, ORTOptimizer, ORTQuantizer
from optimum.onnxruntime.configuration import AutoOptimizationConfig, AutoQuantizationConfig

OFFERS = {"int8 dynamic": ["any length"], "O3 fp32": ["any length"]}


def build(offer, given, out):
    exported = ORTModelForFeatureExtraction.from_pretrained(given.hugging_face, export=True)
    if offer == "O3 fp32":
        ORTOptimizer.from_pretrained(exported).optimize(AutoOptimizationConfig.O3(), out)
        return
    # not after the optimizer: the quantizer asks for DefaultTensorType there, which its configuration cannot give
    vnni = "avx512_vnni" in Path("/proc/cpuinfo").read_text()
    config = (AutoQuantizationConfig.avx512_vnni if vnni else AutoQuantizationConfig.avx2)(is_static=False)
    ORTQuantizer.from_pretrained(exported).quantize(config, out)


def serve(offer, way, given, folder):
    options = SessionOptions()
    options.intra_op_num_threads = given.threads
    model = ORTModelForFeatureExtraction.from_pretrained(folder, session_options=options)
    tokenizer, labels = given.tokenizer(), given.labels
    weight, bias = given.head()

    def answer(text):
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        mask = np.ones_like(ids)
        hidden = model(input_ids=ids, attention_mask=mask, token_type_ids=np.zeros_like(ids)).last_hidden_state
        return labels[int((weight @ hidden[0].mean(axis=0) + bias).argmax())]

    return answer
