"""A request's spans tell its stages, one after the other, inside the caller's trace."""

from __future__ import annotations

from pathlib import Path

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
