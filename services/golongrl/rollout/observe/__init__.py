"""What a worker reports: state, waits, health endpoints, metrics."""
