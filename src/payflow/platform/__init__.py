"""The only home of drivers: databases, transports, telemetry, settings."""
