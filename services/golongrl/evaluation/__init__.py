"""The evaluation of the papers: benchmarks, their data, scoring, budgets, the judge and how scores are summed up.

`golongrl.evaluation.registry` has the benchmarks and suites by name; `golongrl.evaluation.benchmark` says how a runner
uses one. Nothing here needs an evaluation harness.
"""
