"""torchao: int8 weights and dynamic or calibrated int8 activations, compiled by Inductor with the weights frozen."""

import torch
import torch._dynamo.config
import torch._inductor.config
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)

WAYS = ["any length", "static lengths"]
OFFERS = {"int8 dynamic": WAYS, "int8 static": WAYS}
CALIBRATION_ROWS = 300


def build(offer, given, out):
    model = given.module()
    if offer == "int8 dynamic":
        quantize_(model, Int8DynamicActivationInt8WeightConfig())
        torch.save(model.state_dict(), out / "model.pt")
    else:
        torch.export.save(calibrated(model, given), out / "model.pt2")
    for way in WAYS:  # Inductor's cache keeps the kernels for the process that serves
        answer = serve(offer, way, given, out)
        for length in given.lengths:
            answer("a " * length)


def calibrated(model, given):
    rows = [torch.tensor([row]) for row in given.token_ids("train")[:CALIBRATION_ROWS]]
    length = torch.export.Dim("length", min=2, max=given.max_length)
    shapes = {"input_ids": {1: length}, "attention_mask": {1: length}}
    example = (rows[0], torch.ones_like(rows[0]))
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    with torch.no_grad():
        prepared = prepare_pt2e(torch.export.export(model, example, dynamic_shapes=shapes).module(), quantizer)
        for ids in rows:
            prepared(ids, torch.ones_like(ids))
        return torch.export.export(convert_pt2e(prepared), example, dynamic_shapes=shapes)


def serve(offer, way, given, folder):
    torch.set_num_threads(given.threads)
    torch._inductor.config.freezing = True
    torch._dynamo.config.recompile_limit = 8 + len(given.lengths)
    torch._dynamo.reset()
    if offer == "int8 dynamic":
        model = given.module()
        model.load_state_dict(torch.load(folder / "model.pt", weights_only=False), assign=True)
    else:
        model = torch.export.load(folder / "model.pt2").module()
    lengths = given.lengths if way == "static lengths" else []
    compiled = torch.compile(model, dynamic=not lengths)
    tokenizer, labels = given.tokenizer(), given.labels

    @torch.no_grad()
    def answer(text):
        row = tokenizer.encode(text).ids
        length = next((n for n in lengths if n >= len(row)), len(row))
        ids = torch.zeros(1, length, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        ids[0, : len(row)] = torch.tensor(row)
        mask[0, : len(row)] = 1
        return labels[int(compiled(ids, mask).argmax())]

    return answer
