"""The Open Inference Protocol, version 2, over REST: https://github.com/kserve/open-inference-protocol.

A text goes in as an element of the BYTES tensor `text` [n]. Where a text has one label, out come `label` BYTES [n],
`probability` FP32 [n] and `logits` FP32 [n, labels]; elsewhere `prediction` BYTES [n], each a JSON object.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from plimsoll.core.artifact import Artifact
from plimsoll.core.errors import UserError, nearest
from plimsoll.core.prediction import Prediction
from plimsoll.serve.asking import Answered

DESCRIPTION = {"text": ("BYTES", [-1]), "label": ("BYTES", [-1]), "probability": ("FP32", [-1]),
               "prediction": ("BYTES", [-1])}


class Input(msgspec.Struct):
    """A tensor that is asked."""

    name: str
    shape: list[int]
    datatype: str
    data: list[str | list[str]]
    parameters: msgspec.Raw = msgspec.Raw(b"{}")


class Output(msgspec.Struct):
    """A tensor that is wanted."""

    name: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")


class Infer(msgspec.Struct):
    """The body of an inference request."""

    inputs: list[Input]
    id: str | None = None
    outputs: list[Output] | None = None
    parameters: msgspec.Raw = msgspec.Raw(b"{}")


def output_names(artifact: Artifact) -> tuple[str, ...]:
    """Return the names of the tensors that a version answers with."""
    return ("label", "probability", "logits") if one_label(artifact) else ("prediction",)


def one_label(artifact: Artifact) -> bool:
    """Return whether the answer to a text is one label."""
    return artifact.task.name() == "text_classification"


def texts(asked: Infer, artifact: Artifact) -> tuple[list[str], tuple[str, ...]]:
    """Return the texts of a request and the names of the outputs that it wants. Raises UserError for a wrong one."""
    if len(asked.inputs) != 1 or asked.inputs[0].name != "text":
        raise UserError('need one input, named "text"', "GET /v2/models/NAME describes it")
    tensor = asked.inputs[0]
    if tensor.datatype != "BYTES":
        raise UserError('the input "text" is of datatype BYTES', "send strings")
    flat = [t for row in tensor.data for t in (row if isinstance(row, list) else [row])]
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ([], [1]) or tensor.shape[0] != len(flat):
        raise UserError(f"{len(flat)} texts do not have the shape {tensor.shape!r:.80}", f"say [{len(flat)}]")
    known = output_names(artifact)
    if asked.outputs is None:
        return flat, known
    wanted = tuple(output.name for output in asked.outputs)
    for name in wanted:
        if name not in known:
            raise UserError(f"there is no output {name!r:.80}", nearest(name[:80], known))
    if len(set(wanted)) < len(wanted) or not wanted:
        raise UserError("each output may be asked for once, and at least one", f"known: {', '.join(known)}")
    return flat, wanted


def answer(answered: Answered, model: str, request_id: str | None, wanted: tuple[str, ...]) -> dict[str, Any]:
    """Return the body of an inference response."""
    n = len(answered.answers)
    made: dict[str, Any] = {}
    if "prediction" in wanted:
        made["prediction"] = [msgspec.json.encode(a.record()).decode() for a in answered.answers]
    else:
        single = [a for a in answered.answers if isinstance(a, Prediction)]
        made["label"] = [a.label for a in single]
        made["probability"] = [a.score for a in single]
    outputs: list[dict[str, Any]] = []
    for name in wanted:
        if name == "logits":
            values = np.stack(answered.outputs)
            outputs.append({"name": name, "datatype": "FP32", "shape": list(values.shape),
                            "data": values.ravel().tolist()})
        else:
            outputs.append({"name": name, "datatype": DESCRIPTION[name][0], "shape": [n], "data": made[name]})
    said = {"model_name": model, "model_version": answered.engine.version.name, "outputs": outputs}
    return said if request_id is None else {**said, "id": request_id}


def metadata(artifact: Artifact, model: str, version: str) -> dict[str, Any]:
    """Return what a model takes and gives."""
    outputs = [{"name": "logits", "datatype": "FP32", "shape": [-1, len(artifact.labels)]} if name == "logits"
               else {"name": name, "datatype": DESCRIPTION[name][0], "shape": [-1]} for name in output_names(artifact)]
    return {"name": model, "versions": [version], "platform": f"plimsoll_{artifact.runtime.name()}",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}], "outputs": outputs}
