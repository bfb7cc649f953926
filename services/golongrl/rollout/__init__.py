"""The worker beside an engine: lease, generate, score, submit; and the adoption of new weights."""
