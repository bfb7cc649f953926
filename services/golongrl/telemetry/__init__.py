"""Telemetry: structured logs, run metrics (`metrics.jsonl`, TensorBoard) and the run report."""
