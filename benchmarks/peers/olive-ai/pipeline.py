"""Olive: one workflow of two passes, the fused transformer graph and then int8, dynamic or calibrated."""

import tempfile

import numpy as np
import olive
import torch
from olive.data.registry import Registry
from onnxruntime import InferenceSession, SessionOptions

OFFERS = {"int8 dynamic": ["any length"], "int8 static": ["any length"]}
CALIBRATION_ROWS = 300


def build(offer, given, out):
    Registry.register_dataset("calibration_rows")(lambda **_: calibration(given))
    dynamic = offer == "int8 dynamic"
    fuse = {
        "type": "OrtTransformersOptimization",
        "model_type": "bert",
        "num_heads": given.num_heads,
        "hidden_size": given.hidden_size,
        # the fused attention has an int8 form for dynamic ranges only; with static ones it would stay in fp32
        "optimization_options": {"enable_attention": dynamic},
    }
    quantize = {
        "type": "OnnxDynamicQuantization" if dynamic else "OnnxStaticQuantization",
        "precision": "int8",
        "per_channel": True,
        # the optimizer leaves the fused outputs without a type, which the quantizer then asks for
        "extra_options": {"DefaultTensorType": 1},
    }
    if not dynamic:
        quantize |= {
            "activation_type": "uint8",
            "op_types_to_quantize": ["MatMul", "Gather"],
            "prepare_qdq_config": False,
            "data_config": "rows",
            "extra_options": {"DefaultTensorType": 1, "MatMulConstBOnly": True},
        }
    rows = {
        "name": "rows",
        "load_dataset_config": {"type": "calibration_rows"},
        "dataloader_config": {"type": "no_auto_batch_dataloader"},
    }
    here = {"type": "LocalSystem", "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]}
    with tempfile.TemporaryDirectory() as cache:
        olive.run({
            "input_model": {"type": "OnnxModel", "model_path": str(given.onnx)},
            "systems": {"here": here},
            "data_configs": [rows],
            "passes": {"fuse": fuse, "quantize": quantize},
            "engine": {"target": "here", "output_dir": str(out), "cache_dir": cache},
        })  # fmt: skip


def calibration(given):
    rows = [torch.tensor([row]) for row in given.token_ids("train")[:CALIBRATION_ROWS]]
    return [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in rows]


def serve(offer, way, given, folder):
    options = SessionOptions()
    options.intra_op_num_threads = given.threads
    session = InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    tokenizer, labels = given.tokenizer(), given.labels

    def answer(text):
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        (logits,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        return labels[int(logits.argmax())]

    return answer
