"""Helm and a Kubernetes API server with its controllers, to try the chart against; by hand and in tests."""
