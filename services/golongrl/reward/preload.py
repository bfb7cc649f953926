"""Imported once by the fork server: importing it makes the metrics warm, so that every worker is forked warm.

A new worker then costs a fork (milliseconds, memory shared) instead of a second of imports, grammars and dictionaries,
which the metrics load at their first use.
"""

import signal

from golongrl.tasks import score

# One response for each metric that loads something heavy: SymPy with its LaTeX grammar, and the Chinese dictionary.
_HEAVY: tuple[tuple[str, str, dict[str, object], dict[str, str]], ...] = (
    ("math_longcot_math_verify", r"<think>a</think>\boxed{\frac{1}{2}}", {"golden_label": "0.5"}, {}),
    (
        "longbench_pro",
        "<think>思</think>[答案]\n今天天气很好",
        {"doc_ids": ["今天天气好"], "golden_label": "", "summary": "Chinese"},
        {"reward_mode": "T4.2 Query-Focused Summary"},
    ),
)

for _source, _response, _truth, _extra in _HEAVY:
    _outcome = score(_source, _response, _truth, _extra)
    if _outcome.status != "scored":
        raise RuntimeError(f"the {_outcome.metric} metric does not work here: {_outcome.reason}")

# A SIGTERM to the whole process group must not end the fork server: its death would end workers that still compute.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
