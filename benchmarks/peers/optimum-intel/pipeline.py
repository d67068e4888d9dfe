"""Optimum Intel: exported to OpenVINO, int8 by its quantizer, any length or static ones; the head stays outside."""

import nncf
import numpy as np
from optimum.intel import OVConfig, OVModelForFeatureExtraction, OVQuantizationConfig, OVQuantizer

OFFERS = {"int8": ["any length", "static lengths"]}
CALIBRATION_ROWS = 300


def build(offer, given, out):
    exported = OVModelForFeatureExtraction.from_pretrained(given.hugging_face, export=True)
    rows = given.token_ids("train")[:CALIBRATION_ROWS]
    config = OVConfig(quantization_config=OVQuantizationConfig(sym=True, num_samples=len(rows)))
    OVQuantizer.from_pretrained(exported).quantize(nncf.Dataset(rows, inputs), out, config)


def inputs(row, length=None):
    ids = np.zeros((1, length or len(row)), dtype=np.int64)
    mask = np.zeros_like(ids)
    ids[0, : len(row)] = row
    mask[0, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def serve(offer, way, given, folder):
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": given.threads}
    lengths = given.lengths if way == "static lengths" else [None]
    models = {}
    for length in lengths:
        models[length] = OVModelForFeatureExtraction.from_pretrained(folder, ov_config=settings, compile=False)
        if length:
            models[length].reshape(1, length)
        models[length].compile()
    tokenizer, labels = given.tokenizer(), given.labels
    weight, bias = given.head()

    def answer(text):
        row = tokenizer.encode(text).ids
        length = next((n for n in lengths if n and n >= len(row)), None)
        hidden = models[length](**inputs(row, length)).last_hidden_state
        return labels[int((weight @ hidden[0, : len(row)].mean(axis=0) + bias).argmax())]

    return answer
