"""The description of every endpoint, as OpenAPI 3.1 and as a page that needs no network."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment

from plimsoll.core.artifact import Artifact
from plimsoll.serve.oip import one_label, output_names
from plimsoll.serve.settings import Settings

_REFUSED = {
    "400": "The request is wrong; the message says how.",
    "401": "The server wants an API key that it does not know this request by.",
    "408": "The request did not arrive in time.",
    "413": "The body, a text or the number of texts is too large.",
    "429": "Refused at once: the answer would come after the deadline, or this key has had its share. See Retry-After.",
    "431": "The headers are too large.",
    "500": "The model could not answer one of these texts.",
    "503": "No version is in service, or its worker died with this request in flight. See Retry-After.",
    "504": "The deadline passed while the request waited.",
}
_OPEN = ("408", "431")
"""What an endpoint without a body may say, too."""


def document(artifact: Artifact, model: str, version: str, settings: Settings, *, keys: bool) -> dict[str, Any]:
    """Return the OpenAPI document of a server with this version."""
    error = {"type": "object", "required": ["error"], "properties": {"error": {
        "type": "object", "required": ["code", "message"], "properties": {
            "code": {"type": "string"}, "message": {"type": "string"}, "retry_after_ms": {"type": "number"}}}}}
    v2_error = {"type": "object", "required": ["error"], "properties": {
        "error": {"type": "string"}, "code": {"type": "string"}, "retry_after_ms": {"type": "number"}}}
    tensor = {"type": "object", "required": ["name", "shape", "datatype", "data"], "properties": {
        "name": {"type": "string"}, "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"type": "string"}, "data": {"type": "array"}}}
    text: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": settings.characters}
    if artifact.task.per_token:
        text = {"oneOf": [text, {"type": "array", "items": {"type": "string"}, "minItems": 1,
                                 "description": "its words"}]}
    elif artifact.task.texts > 1:
        text = {"oneOf": [text, {"type": "array", "items": text, "minItems": artifact.task.texts,
                                 "maxItems": artifact.task.texts, "description": "texts to compare"}]}
    predict = {"type": "object", "required": ["texts"], "additionalProperties": False, "properties": {
        "texts": {"type": "array", "items": text, "minItems": 1, "maxItems": settings.rows}}}
    predicted = {"type": "object", "required": ["predictions", "version"], "properties": {
        "predictions": {"type": "array", "items": _answer(artifact)}, "version": {"type": "string"}}}
    asked = {"type": "object", "required": ["name", "shape", "datatype", "data"], "properties": {
        "name": {"const": "text"}, "datatype": {"const": "BYTES"}, "parameters": {"type": "object"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "data": {"type": "array", "minItems": 1, "maxItems": settings.rows, "items": {
            "type": "string", "minLength": 1, "maxLength": settings.characters}}}}
    wanted = {"type": "object", "required": ["name"], "properties": {
        "name": {"enum": list(output_names(artifact))}, "parameters": {"type": "object"}}}
    infer = {"type": "object", "required": ["inputs"], "properties": {
        "id": {"type": "string"}, "parameters": {"type": "object"},
        "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": asked},
        "outputs": {"type": "array", "minItems": 1, "uniqueItems": True, "items": wanted}}}
    inferred = {"type": "object", "required": ["model_name", "outputs"], "properties": {
        "model_name": {"type": "string"}, "model_version": {"type": "string"}, "id": {"type": "string"},
        "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}}}}
    v2 = f"/v2/models/{model}"
    paths = {
        "/predict": {"post": _post("Answer texts.", "Predict", "Predicted", "Error", settings)},
        "/v2": {"get": _get("What this server is.")},
        "/v2/health/live": {"get": _get("The server runs.")},
        "/v2/health/ready": {"get": _get("A request asked now would be computed: 200, else 503.", unready=True)},
        v2: {"get": _get("The model's tensors.")},
        f"{v2}/ready": {"get": _get("As /v2/health/ready.", unready=True)},
        f"{v2}/infer": {"post": _post("Answer texts, in the Open Inference Protocol's form.", "Infer", "Inferred",
                                      "V2Error", settings)},
        "/metrics": {"get": _get("What the server counts, as Prometheus reads it.", kind="text/plain")},
        "/openapi.json": {"get": _get("This description.")},
        "/": {"get": _get("This description as a page.", kind="text/html")},
    }
    schemas = {"Predict": predict, "Predicted": predicted, "Infer": infer, "Inferred": inferred, "Tensor": tensor,
               "Error": error, "V2Error": v2_error}
    security: dict[str, Any] = {}
    components: dict[str, Any] = {"schemas": schemas}
    if keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        security = {"security": [{"key": []}]}
    return {"openapi": "3.1.0", "info": {"title": model, "version": version,
                                         "description": f"{artifact.task.name()} served by Plimsoll"},
            "paths": paths, "components": components, **security}


def _answer(artifact: Artifact) -> dict[str, Any]:
    if one_label(artifact):
        return {"type": "object", "required": ["label", "score"], "properties": {
            "label": {"enum": list(artifact.labels)}, "score": {"type": "number"}}}
    return {"type": "object"}


def _get(summary: str, kind: str = "application/json", *, unready: bool = False) -> dict[str, Any]:
    statuses = ("401", *_OPEN, *(("503",) if unready else ()))
    return {"summary": summary, "responses": {"200": {"description": "As said.", "content": {kind: {}}},
                                              **{s: {"description": _REFUSED[s]} for s in statuses}}}


def _post(summary: str, asks: str, gives: str, error: str, settings: Settings) -> dict[str, Any]:
    def body(schema: str) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}

    deadline = {"name": "Plimsoll-Deadline-Ms", "in": "header", "required": False,
                "description": f"Milliseconds from arrival; {settings.deadline_ms:g} without it.",
                "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 3_600_000}}
    return {"summary": summary, "parameters": [deadline], "requestBody": {"required": True, "content": body(asks)},
            "responses": {"200": {"description": "The answers, in order, all of one version.", "content": body(gives)},
                          **{s: {"description": d, "content": body(error)} for s, d in _REFUSED.items()}}}


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
 body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
 pre { background: #8882; padding: .75rem; overflow: auto; }
 code { font-family: ui-monospace, monospace; }
 dt { font-weight: 600; }
 :root { color-scheme: light dark; }
</style>
<h1>{{ title }}</h1>
<p>{{ description }}, version <code>{{ version }}</code>.
The same for programs: <a href="openapi.json">openapi.json</a>.
{% for path, methods in paths.items() %}{% for method, operation in methods.items() %}
<h2><code>{{ method | upper }} {{ path }}</code></h2>
<p>{{ operation.summary }}
{% if operation.requestBody %}{% set asks = name_of(operation.requestBody) %}
<details><summary>Body</summary><pre><code>{{ shown(schemas[asks]) }}</code></pre></details>
{% endif %}
<details><summary>Responses</summary><dl>
{% for status, response in operation.responses.items() %}
<dt>{{ status }}<dd>{{ response.description }}
{% endfor %}</dl></details>
{% endfor %}{% endfor %}
</html>
"""


def page(described: dict[str, Any]) -> str:
    """Return the document as HTML, without scripts and without anything from elsewhere."""
    def shown(schema: dict[str, Any]) -> str:
        return json.dumps(schema, indent=1, ensure_ascii=False)

    def name_of(body: dict[str, Any]) -> str:
        return body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]

    info = described["info"]
    return Environment(autoescape=True).from_string(_PAGE).render(
        title=info["title"], description=info["description"], version=info["version"], paths=described["paths"],
        schemas=described["components"]["schemas"], shown=shown, name_of=name_of)
