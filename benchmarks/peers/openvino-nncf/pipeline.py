"""OpenVINO with NNCF: int8 with and without accuracy control, and bf16, at any length or at static ones."""

import nncf
import numpy as np
import openvino

WAYS = ["any length", "static lengths"]
OFFERS = {"int8": WAYS, "int8 with accuracy control": WAYS, "bf16": WAYS}
CALIBRATION_ROWS = 300


def build(offer, given, out):
    model = openvino.Core().read_model(given.onnx)
    rows = given.token_ids("train")[:CALIBRATION_ROWS]
    settings = {
        "calibration_dataset": nncf.Dataset(rows, inputs),
        "model_type": nncf.ModelType.TRANSFORMER,
        "preset": nncf.QuantizationPreset.PERFORMANCE,
        "target_device": nncf.TargetDevice.CPU,
        "subset_size": len(rows),
    }
    if offer == "int8":
        model = nncf.quantize(model, **settings)
    elif offer == "int8 with accuracy control":
        known = list(zip(given.token_ids("validation"), given.targets("validation"), strict=True))
        held_out = nncf.Dataset(known, lambda one: inputs(one[0]))
        model = nncf.quantize_with_accuracy_control(
            model, validation_dataset=held_out, validation_fn=accuracy, max_drop=given.quality_drop, **settings
        )
    openvino.save_model(model, out / "model.xml", compress_to_fp16=offer == "bf16")


def accuracy(compiled, held_out):
    right = [float(compiled(inputs(row))[0].argmax() == target) for row, target in held_out]
    return sum(right) / len(right), right


def inputs(row, length=None):
    ids = np.zeros((1, length or len(row)), dtype=np.int64)
    mask = np.zeros_like(ids)
    ids[0, : len(row)] = row
    mask[0, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def serve(offer, way, given, folder):
    core = openvino.Core()
    model = core.read_model(folder / "model.xml")
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": given.threads}
    if offer == "bf16":
        settings["INFERENCE_PRECISION_HINT"] = "bf16"
    lengths = given.lengths if way == "static lengths" else [None]
    requests = {}
    for length in lengths:
        shaped = model.clone()
        shaped.reshape({port: [1, length or -1] for port in shaped.inputs})
        requests[length] = core.compile_model(shaped, "CPU", settings).create_infer_request()
    tokenizer, labels = given.tokenizer(), given.labels

    def answer(text):
        row = tokenizer.encode(text).ids
        length = next((n for n in lengths if n and n >= len(row)), None)
        result = requests[length].infer(inputs(row, length), share_inputs=True, share_outputs=True)
        return labels[int(result[0].argmax())]

    return answer
