"""torch.compile: the torch module with its weights frozen, compiled by Inductor, in fp32 or in bf16."""

import torch
import torch._dynamo.config
import torch._inductor.config

WAYS = ["any length", "static lengths"]
OFFERS = {"fp32": WAYS, "bf16": WAYS}


def build(offer, given, out):
    torch.save(module(offer, given).state_dict(), out / "model.pt")
    for way in WAYS:  # Inductor's cache keeps the kernels for the process that serves
        answer = serve(offer, way, given, out)
        for length in given.lengths:
            answer("a " * length)


def module(offer, given):
    return given.module().bfloat16() if offer == "bf16" else given.module()


def serve(offer, way, given, folder):
    torch.set_num_threads(given.threads)
    torch._inductor.config.freezing = True
    torch._dynamo.config.recompile_limit = 8 + len(given.lengths)
    torch._dynamo.reset()
    model = module(offer, given)
    model.load_state_dict(torch.load(folder / "model.pt"))
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
