"""Pictures of a running system, drawn from what its watchers answer: a trace (Jaeger), a dashboard (Prometheus)."""
