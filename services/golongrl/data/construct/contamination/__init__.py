"""Keeping the benchmarks out of the data: source documents that hold their texts, and questions that are theirs."""
