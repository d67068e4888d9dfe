"""Sentence Transformers: its ONNX backend in dynamic int8 or optimized to O3; the head is a dense module behind it."""

import shutil
import tempfile
from pathlib import Path

import torch
from onnxruntime import SessionOptions
from sentence_transformers import (
    SentenceTransformer,
    export_dynamic_quantized_onnx_model,
    export_optimized_onnx_model,
    models,
)

OFFERS = {"int8 dynamic": ["encode"], "O3 fp32": ["encode"]}


def build(offer, given, out):
    vnni = "avx512_vnni" in Path("/proc/cpuinfo").read_text()
    with tempfile.TemporaryDirectory() as scratch:
        body = models.Transformer(str(given.hugging_face), max_seq_length=given.max_length)
        weight, bias = given.head()
        head = models.Dense(
            given.hidden_size, len(given.labels), activation_function=torch.nn.Identity(),
            init_weight=torch.from_numpy(weight), init_bias=torch.from_numpy(bias),
        )  # fmt: skip
        SentenceTransformer(modules=[body, models.Pooling(given.hidden_size), head], device="cpu").save(scratch)
        exported = SentenceTransformer(scratch, backend="onnx", device="cpu")
        # one or the other: the quantizer asks for DefaultTensorType after the optimizer, and nothing here can give it
        if offer == "O3 fp32":
            export_optimized_onnx_model(exported, "O3", scratch)
        else:
            export_dynamic_quantized_onnx_model(exported, "avx512_vnni" if vnni else "avx2", scratch)
        shutil.copytree(scratch, out, dirs_exist_ok=True)
    for unused in (out / "model.safetensors", out / "onnx" / "model.onnx"):  # what only the export needed
        unused.unlink(missing_ok=True)


def serve(offer, way, given, folder):
    torch.set_num_threads(given.threads)
    options = SessionOptions()
    options.intra_op_num_threads = given.threads
    (quantized,) = folder.glob("onnx/*.onnx")
    how = {"file_name": f"onnx/{quantized.name}", "session_options": options}
    model = SentenceTransformer(str(folder), backend="onnx", device="cpu", model_kwargs=how)
    labels = given.labels

    def answer(text):
        return labels[int(model.encode(text, show_progress_bar=False).argmax())]

    return answer
