"""Bounds for chat templates, which are programs that come with a model: one may loop without end or fill the memory.

Counted are the steps of loops and all calls (of macros, methods, recursive loops), so that nothing runs on without
being seen; a text or list that an operator makes has a largest size. A template of a real model takes a few steps a
message and never multiplies.
"""

import functools
import re
import threading
from collections.abc import Callable, Iterable
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
# A width in a format, like the 1000000000 of "%1000000000d" and "{:>1000000000}", or one that is a value itself.
_WIDE = re.compile(r"%[-+ #0]*([0-9.]*[0-9]{7}|\*|[0-9]*\.\*)|\{[^{}]*:[^{}]*([0-9]{7}|\{)")
# What is for web pages, in no model's template, and slower than any bound on its result.
_LEFT_OUT = ("wordwrap", "urlize", "striptags")
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

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, extensions: list[type[Extension] | str]) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        self._used = threading.local()
        self.filters = {name: _bounded(name, made) for name, made in self.filters.items() if name not in _LEFT_OUT}
        del self.globals["lipsum"]
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
        if isinstance(text := getattr(obj, "__self__", None), str):
            _check_growth(obj.__name__, text, [*args, *kwargs.values()])
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            self._fitting([left, right])
        elif operator == "%":
            _check_growth("format", left, [])
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


def _bounded(name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is not called where its result would be too large."""
    first = 1 if hasattr(made, "jinja_pass_arg") else 0

    @functools.wraps(made)
    def called(*args: Any, **kwargs: Any) -> Any:
        for number in (*args[first + 1 :], *kwargs.values()):
            if isinstance(number, int) and number > MOST_STEPS:
                raise TemplateError(f"the filter {name} with {number}; at most {MOST_STEPS}")
        _check_growth(name, args[first] if len(args) > first else None, [*args[first + 1 :], *kwargs.values()])
        return made(*args, **kwargs)

    return called


def _check_growth(name: str, value: object, more: list[Any]) -> None:
    """Raise TemplateError if what a filter or a text's method makes is longer than LONGEST, as far as it is known."""
    size = 0
    if name == "replace" and len(more) > 1:
        size = str(value).count(str(more[0])) * len(str(more[1]))
    elif name == "indent" and more:
        size = str(value).count("\n") * (more[0] if isinstance(more[0], int) else len(str(more[0])))
    elif name == "join":
        texts, between = (more[0], value) if isinstance(value, str) and more else (value, more[0] if more else "")
        if isinstance(texts, str):
            size = len(texts) * len(str(between))
        elif isinstance(texts, list | tuple):
            size = sum(len(part) for part in texts if isinstance(part, str)) + len(texts) * len(str(between))
    elif name in ("format", "format_map") and isinstance(value, str) and _WIDE.search(value.replace("{{", "")):
        raise TemplateError("the result of a format is too large")
    if size > LONGEST:
        raise TemplateError(f"the result of {name} is too large")


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
