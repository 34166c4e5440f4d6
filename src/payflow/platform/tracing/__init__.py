"""Traces: what a payment went through, over all services. Off unless an OTLP endpoint is set, and then free of cost.

One duty a file: `span` is a record, `sampler` says how many, `tracer` which are exported; `requests`, `calls` and
`events` make the spans of the three ways that work comes in; `answers` says what may be told; `export` sends.
"""

from payflow.platform.tracing.requests import is_recorded, keep_trace, note, stop_recording
from payflow.platform.tracing.span import Kind, Span
from payflow.platform.tracing.tracer import Tracer, install, installed, step

__all__ = [
    "Kind",
    "Span",
    "Tracer",
    "install",
    "installed",
    "is_recorded",
    "keep_trace",
    "note",
    "step",
    "stop_recording",
]
