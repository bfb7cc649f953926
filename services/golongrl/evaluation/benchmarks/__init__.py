"""The benchmarks, one module for each or for a family that shares its rules."""
