"""OTLP/HTTP in and out: metrics, logs and traces in the messages of the OpenTelemetry standard."""
