"""The output folder of an evaluation: who writes into it, and the samples in it."""
