"""The messages of the Open Inference Protocol over gRPC, from their field numbers: no code is generated.

Source: open_inference_grpc.proto of https://github.com/kserve/open-inference-protocol. Parameters are left out: fields
that a message does not know are passed over, and nothing here has parameters. The pool is our own, so that a client
library of the same protocol may live in the same process.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")

_NAMED = {"name": (1, "string"), "version": (2, "string")}
_TENSOR = {"name": (1, "string"), "datatype": (2, "string"), "shape": (3, "int64*")}
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": (1, "bool")},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": (1, "bool")},
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": {"ready": (1, "bool")},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {**_NAMED, "extensions": (3, "string*")},
    "ModelMetadataRequest": _NAMED,
    "TensorMetadata": _TENSOR,
    "ModelMetadataResponse": {"name": (1, "string"), "versions": (2, "string*"), "platform": (3, "string"),
                              "inputs": (4, "TensorMetadata*"), "outputs": (5, "TensorMetadata*")},
    "InferTensorContents": {"fp32_contents": (6, "float*"), "bytes_contents": (8, "bytes*")},
    "Tensor": {**_TENSOR, "contents": (5, "InferTensorContents")},
    "RequestedOutput": {"name": (1, "string")},
    "ModelInferRequest": {"model_name": (1, "string"), "model_version": (2, "string"), "id": (3, "string"),
                          "inputs": (5, "Tensor*"), "outputs": (6, "RequestedOutput*"),
                          "raw_input_contents": (7, "bytes*")},
    "ModelInferResponse": {"model_name": (1, "string"), "model_version": (2, "string"), "id": (3, "string"),
                           "outputs": (5, "Tensor*"), "raw_output_contents": (6, "bytes*")},
}
"""Name -> field -> number and type; a star stands for any number of them."""


def messages() -> dict[str, Any]:
    """Return the class of each message, by its name."""
    field = descriptor_pb2.FieldDescriptorProto
    plain = {"bool": field.TYPE_BOOL, "string": field.TYPE_STRING, "int64": field.TYPE_INT64,
             "float": field.TYPE_FLOAT, "bytes": field.TYPE_BYTES}
    file = descriptor_pb2.FileDescriptorProto(name="plimsoll_oip.proto", package="inference", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for key, (number, kind) in fields.items():
            what = kind.rstrip("*")
            label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            if what in plain:
                message.field.add(name=key, number=number, label=label, type=plain[what])
            else:
                message.field.add(name=key, number=number, label=label, type=field.TYPE_MESSAGE,
                                  type_name=f".inference.{what}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}"))
            for name in _MESSAGES}
