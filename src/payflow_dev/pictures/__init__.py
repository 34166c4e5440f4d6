"""Pictures of a running system, drawn from what its own watchers answer: a trace by Jaeger, a dashboard by Prometheus."""
