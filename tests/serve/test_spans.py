"""A request's spans tell its stages, one after the other, inside the caller's trace."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from plimsoll.serve.metrics import STAGES
from plimsoll.serve.spans import Spans
from plimsoll.testing.server import Running, settings_of


def test_a_request_is_a_span_with_one_for_each_stage(artifact: Path) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with Running(settings_of(artifact), tracing=Spans(provider)) as running:
        reply = running.ask("POST", "/predict", {"texts": ["light"]}, {"traceparent": f"00-{trace}-{parent}-01"})
        found = kept.get_finished_spans()
    *stages, whole = found
    assert tuple(span.name for span in stages) == STAGES
    assert whole.name == "POST /predict"
    assert whole.parent is not None
    assert (f"{whole.context.trace_id:032x}", f"{whole.parent.span_id:016x}") == (trace, parent)
    assert whole.attributes is not None
    assert whole.attributes["plimsoll.version"] == reply.json["version"]
    ends = [whole.start_time, *(end for span in stages for end in (span.start_time, span.end_time)), whole.end_time]
    assert ends == sorted(ends, key=lambda ns: ns or 0)
    assert all(span.parent is not None and span.parent.span_id == whole.context.span_id for span in stages)


def test_a_collector_gets_them_over_otlp(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        with Running(settings_of(artifact, spans=True)) as running:
            assert running.ask("POST", "/predict", {"texts": ["light"]}).status == 200
        # the end of the server exports what is left
    finally:
        collector.shutdown()
        thread.join()
        collector.server_close()
    assert {path for path, _ in bodies} == {"/v1/traces"}
    sent = [ExportTraceServiceRequest.FromString(body) for _, body in bodies]
    resources = [resource for one in sent for resource in one.resource_spans]
    names = {a.value.string_value for r in resources for a in r.resource.attributes if a.key == "service.name"}
    assert names == {"plimsoll"}
    spans = [span.name for r in resources for scope in r.scope_spans for span in scope.spans]
    assert sorted(spans) == sorted((*STAGES, "POST /predict"))
