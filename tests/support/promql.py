"""Grafana's expressions as Prometheus sees them, and the names that an expression asks for."""

import re

# As Grafana fills them in on a page of a few minutes.
INTERVALS = {"$__rate_interval": "1m", "$__interval": "15s", "$__range": "5m"}


def concrete(expression: str, **variables: str) -> str:
    """The expression with Grafana's variables replaced; those not named match everything."""
    for name, value in INTERVALS.items():
        expression = expression.replace(name, value)
    return re.sub(r"\$(\w+)", lambda found: variables.get(found[1], ".*"), expression)


def names(expression: str) -> set[str]:
    """The metrics of this project, of the engines and of Prometheus itself that an expression asks for."""
    without_texts = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\b(?:golongrl_\w+|sglang:\w+|ALERTS)\b", without_texts))


def selectors(expression: str) -> set[str]:
    """Every `name{...}` of an expression, without ranges and offsets."""
    return set(re.findall(r'\b(?:golongrl_|sglang:)\w+(?:\{(?:[^"}]|"[^"]*")*\})?', expression))
