"""Bounds for chat templates, which are programs that come with a model: one may loop for ever or fill the memory.

Counted are the steps of loops and all calls (of macros, methods, recursive loops), so that nothing runs on without
being seen; a text or list that an operator makes has a largest size. A template of a real model takes a few steps a
message and never multiplies.
"""

import threading
from collections.abc import Iterable
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

# A conversation of thousands of messages takes some hundred thousand; these take seconds.
MOST_STEPS = 1_000_000
# Steps that a call counts for, by its time.
_CALL = 10
# Characters of a text, or items of a list. A prompt of a million tokens has a few million.
LONGEST = 64 << 20
_STEPS, _JOINED = "golongrl_steps", "golongrl_joined"


class _Counted(NodeTransformer):
    """Has every loop count its steps, and every `~` check the size of what it makes."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - jinja's own interface
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, _STEPS, [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, _JOINED, [], [], None, None, lineno=node.lineno)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox in which transformers renders templates, with bounds."""

    intercepted_binops = frozenset({"*", "**", "+"})

    def __init__(self, extensions: list[type[Extension] | str]) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        self._used = threading.local()
        self.filters[_STEPS] = self._steps
        self.filters[_JOINED] = lambda parts: "".join(map(str, self._fitting(parts)))

    def begin(self) -> None:
        """Before a template is rendered: it has all its steps again."""
        self._used.steps = 0

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        parsed: nodes.Template = _Counted().visit(super()._parse(source, name, filename))
        return parsed.set_environment(self)  # type: ignore[return-value]

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._count(_CALL)
        for value in (*args, *kwargs.values()):
            if isinstance(value, int) and value > LONGEST:
                raise TemplateError(f"a call with {value}; at most {LONGEST}")
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            self._fitting([left, right])
        else:
            sizes = [len(side) if isinstance(side, str | list | tuple) else side for side in (left, right)]
            numbers = [size for size in sizes if isinstance(size, int)]
            if (operator == "**" and any(abs(n) > 1000 for n in numbers)) or _product(numbers) > LONGEST:
                raise TemplateError(f"the result of {operator} is too large")
        return super().call_binop(context, operator, left, right)

    def _steps(self, items: Iterable[Any]) -> list[Any]:
        found = []
        for item in items:
            self._count(1)
            found.append(item)
        return found

    def _count(self, steps: int) -> None:
        self._used.steps = getattr(self._used, "steps", 0) + steps
        if self._used.steps > MOST_STEPS:
            raise TemplateError(f"more than {MOST_STEPS} steps: the template does not end")

    def _fitting(self, parts: Iterable[Any]) -> list[Any]:
        found = list(parts)
        if sum(len(part) for part in found if isinstance(part, str | list | tuple)) > LONGEST:
            raise TemplateError(f"a text or list is longer than {LONGEST}")
        return found


def _product(numbers: list[int]) -> int:
    product = 1
    for number in numbers:
        product *= abs(number)
    return product


def render_bounded(template: Template, **values: Any) -> str:
    """What the template of a `LimitedEnvironment` makes of the values.

    Raises:
        TemplateError: it refuses them, does not end, or makes too long a text; other errors are the template's own.
    """
    environment = template.environment
    assert isinstance(environment, LimitedEnvironment)
    environment.begin()
    parts, length = [], 0
    for part in template.generate(**values):
        parts.append(part)
        length += len(part)
        if length > LONGEST:
            raise TemplateError(f"a text is longer than {LONGEST}")
    return "".join(parts)
