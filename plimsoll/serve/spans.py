"""Requests as OpenTelemetry spans: one for each, and one inside it for each stage.

What is exported and where to is said by OpenTelemetry's own environment variables. A caller's trace is continued.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from plimsoll.core.errors import Unsupported
from plimsoll.serve.asking import Asker
from plimsoll.serve.metrics import STAGES


class Spans:
    """Writes spans with a tracer provider of the SDK."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("plimsoll.serve")
        self._context = TraceContextTextMapPropagator()

    def record(self, request: Asker, stages_ms: Sequence[float], version: str) -> None:
        """Write the spans of a request that was answered now; stages_ms: of each of `STAGES`, one after the other."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        ended_ns = time.time_ns()
        at_ns = began_ns = ended_ns - round((time.perf_counter() - request.arrived) * 1e9)
        carrier = {name: request.headers[name.encode()].decode("latin-1")
                   for name in ("traceparent", "tracestate") if name.encode() in request.headers}
        whole = self._tracer.start_span(
            f"{request.method} {request.path}".strip(), context=self._context.extract(carrier),
            kind=SpanKind.SERVER, start_time=began_ns,
            attributes={"plimsoll.route": request.route, "plimsoll.version": version})
        inside = set_span_in_context(whole)
        for stage, ms in zip(STAGES, stages_ms, strict=True):
            span = self._tracer.start_span(stage, context=inside, start_time=at_ns)
            at_ns += round(ms * 1e6)
            span.end(at_ns)
        whole.end(ended_ns)

    def close(self) -> None:
        """Export what is left."""
        self._provider.shutdown()


def exported() -> Spans:
    """Return spans that go to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names. Raises Unsupported without one."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise Unsupported("spans need OpenTelemetry's SDK and exporter",
                          'pip install "plimsoll-ml[spans]"') from None
    # OTEL_SERVICE_NAME, where it is set, is stronger
    provider = TracerProvider(resource=Resource.create({"service.name": "plimsoll"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider)
