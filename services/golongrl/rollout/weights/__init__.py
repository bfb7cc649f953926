"""Which weights the engine runs: the adoption policy, and the steps that carry it out."""
