"""YaRN: running a model beyond its native context, and making sure that every engine turns by the same frequencies.

The override must carry the model's own `rope_theta`: without it transformers and SGLang fall back to 10,000, and the
model writes garbage without an error. Likewise `original_max_position_embeddings` must be the model's native context
and not that of an older model card. So overrides are made here, from the model's config, and `check` compares the
frequencies of two configurations, number by number.

YaRN is static: it changes short prompts too. Benchmarks up to 128K run on a server without it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from golongrl.evaluation.errors import EvaluationError

# The published defaults of YaRN: dimensions that turn more than 32 times within the native context stay, those that
# turn less than once are stretched whole.
_BETA_FAST: Final = 32.0
_BETA_SLOW: Final = 1.0
# What transformers takes where the override carries no theta.
_DEFAULT_THETA: Final = 10_000.0
# Frequencies that agree to this are the same; engines compute them in float32.
_TOLERANCE: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Rotary:
    """What a rotary embedding turns by: one frequency for each pair of dimensions, and the scale of attention."""

    inv_freq: tuple[float, ...]
    attention_factor: float


def rotary(rope_parameters: Mapping[str, Any], head_dim: int, max_position_embeddings: int) -> Rotary:
    """The frequencies of a configuration, as transformers computes them for `default` and `yarn`.

    Raises:
        EvaluationError: a parameter is missing or wrong, or the type is another one.
    """
    theta = _theta(rope_parameters, head_dim, max_position_embeddings)
    dimensions = _even(int(head_dim * _number(rope_parameters, "partial_rotary_factor", 1.0)))
    base = [theta ** (-2 * i / dimensions) for i in range(dimensions // 2)]
    kind = rope_parameters.get("rope_type", rope_parameters.get("type", "default"))
    if kind == "default":
        return Rotary(tuple(base), 1.0)
    if kind != "yarn":
        raise EvaluationError(f"rope_parameters: rope_type must be yarn or default, got {kind!r}")
    native = _number(rope_parameters, "original_max_position_embeddings", max_position_embeddings)
    factor = _number(rope_parameters, "factor", max_position_embeddings / native)
    fast = _number(rope_parameters, "beta_fast", _BETA_FAST)
    slow = _number(rope_parameters, "beta_slow", _BETA_SLOW)
    low, high = (_dimension(turns, dimensions, theta, native) for turns in (fast, slow))
    if rope_parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dimensions - 1)
    span = high - low or 0.001  # no division by 0
    kept = [1 - min(1.0, max(0.0, (i - low) / span)) for i in range(dimensions // 2)]
    mixed = (one / factor * (1 - keep) + one * keep for one, keep in zip(base, kept, strict=True))
    return Rotary(tuple(mixed), _attention_factor(rope_parameters, factor))


def _attention_factor(parameters: Mapping[str, Any], factor: float) -> float:
    if parameters.get("attention_factor") is not None:
        return _number(parameters, "attention_factor")
    scale, all_dims = parameters.get("mscale"), parameters.get("mscale_all_dim")
    if scale and all_dims:
        return _mscale(factor, float(scale)) / _mscale(factor, float(all_dims))
    return _mscale(factor, 1.0)


def _mscale(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _dimension(turns: float, dimensions: int, theta: float, native: float) -> float:
    """The dimension that turns so often within the native context."""
    return dimensions * math.log(native / (turns * 2 * math.pi)) / (2 * math.log(theta))


def _even(head_dim: int) -> int:
    if head_dim < 2 or head_dim % 2:
        raise EvaluationError(f"head_dim must be an even number of at least 2, got {head_dim}")
    return head_dim


def _number(parameters: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = parameters[name] if parameters.get(name) is not None else default
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0 or math.isinf(value):
        given = "is missing" if value is None else f"must be a positive number, got {value!r}"
        raise EvaluationError(f"rope_parameters: {name} {given}")
    return float(value)


def _theta(parameters: Mapping[str, Any], head_dim: int, max_position_embeddings: int) -> float:
    if parameters.get("rope_theta") is not None:
        return _number(parameters, "rope_theta")
    wrong = rotary({**parameters, "rope_theta": _DEFAULT_THETA}, head_dim, max_position_embeddings)
    index = min(40, len(wrong.inv_freq) - 1)
    raise EvaluationError(
        f"rope_theta missing (transformers would take 10000, inv_freq[{index}]={wrong.inv_freq[index]:.5g})"
    )


@dataclass(frozen=True, slots=True)
class YarnProfile:
    """A longer context for a model: how much longer, in tokens and as a factor of its native one."""

    context: int
    factor: float
    rope_parameters: Mapping[str, Any]

    @property
    def override(self) -> dict[str, Any]:
        """What is set over the model's config."""
        return {"rope_parameters": dict(self.rope_parameters), "max_position_embeddings": self.context}

    def sglang_flags(self) -> list[str]:
        """SGLang's launch flags; both lengths are needed, because it derives the shorter one by itself."""
        override = json.dumps(self.override, separators=(",", ":"))
        return ["--json-model-override-args", override, "--context-length", str(self.context)]

    def vllm_flags(self) -> list[str]:
        """vLLM's launch flags."""
        override = json.dumps(self.override, separators=(",", ":"))
        return ["--hf-overrides", override, "--max-model-len", str(self.context)]


def theta_of(config: Mapping[str, Any], where: str) -> float:
    """A model's own rope_theta from its config.json, at either of the places that transformers has written it to.

    Raises:
        EvaluationError: it is at neither.
    """
    nested = config.get("rope_parameters") or config.get("rope_scaling") or {}
    for place in (config, nested if isinstance(nested, Mapping) else {}):
        if place.get("rope_theta") is not None:
            return _number(place, "rope_theta")
    raise EvaluationError(
        f"{where}: no rope_theta, neither at the top nor in rope_parameters; YaRN cannot be set without the model's own"
    )


def native_context(config: Mapping[str, Any], where: str) -> int:
    """The context that the model was trained for.

    Raises:
        EvaluationError: the config does not say it.
    """
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    value = scaling.get("original_max_position_embeddings") if isinstance(scaling, Mapping) else None
    value = value if value is not None else config.get("max_position_embeddings")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise EvaluationError(f"{where}: max_position_embeddings must be a positive integer, got {value!r}")
    return value


def profile(config: Mapping[str, Any], context: int, where: str = "config.json") -> YarnProfile | None:
    """The launch profile of a model for a context; None where its native context is enough.

    Raises:
        EvaluationError: the config lacks what YaRN needs, or is scaled already by another type.
    """
    native = native_context(config, where)
    if context <= native:
        return None
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default")) if isinstance(scaling, Mapping) else "default"
    if kind not in ("default", "yarn"):
        raise EvaluationError(f"{where}: its rope is of type {kind!r}; only default and yarn can be scaled here")
    factor = context / native
    parameters = {
        "rope_type": "yarn",
        "rope_theta": theta_of(config, where),
        "factor": factor,
        "original_max_position_embeddings": native,
    }
    return YarnProfile(context, factor, parameters)


def head_dim(config: Mapping[str, Any], where: str) -> int:
    """The size of an attention head.

    Raises:
        EvaluationError: the config does not say it.
    """
    value = config.get("head_dim")
    if value is None and config.get("hidden_size") and config.get("num_attention_heads"):
        value = config["hidden_size"] // config["num_attention_heads"]
    if isinstance(value, bool) or not isinstance(value, int):
        raise EvaluationError(f"{where}: no head_dim")
    return value


def rotary_of(config: Mapping[str, Any], where: str) -> Rotary:
    """The frequencies of a model's config.json, with or without an override in it.

    Raises:
        EvaluationError: the config lacks what they need.
    """
    nested = config.get("rope_parameters") or config.get("rope_scaling") or {}
    parameters = dict(nested) if isinstance(nested, Mapping) else {}
    if parameters.get("rope_theta") is None and config.get("rope_theta") is not None:
        parameters["rope_theta"] = config["rope_theta"]
    return rotary(parameters, head_dim(config, where), native_context(config, where))


def check(expected: Rotary, found: Rotary, where: str) -> None:
    """Two sides must turn by the same frequencies.

    Raises:
        EvaluationError: naming the first that differs.
    """
    if len(expected.inv_freq) != len(found.inv_freq):
        raise EvaluationError(
            f"{where}: {len(found.inv_freq)} rotary frequencies, expected {len(expected.inv_freq)}: another head_dim"
        )
    for i, (one, other) in enumerate(zip(expected.inv_freq, found.inv_freq, strict=True)):
        if not math.isclose(one, other, rel_tol=_TOLERANCE):
            raise EvaluationError(
                f"{where}: rotary frequency {i} is {other:.5g}, expected {one:.5g}; compare rope_parameters "
                "(rope_theta, factor, original_max_position_embeddings) of both sides"
            )
    if not math.isclose(expected.attention_factor, found.attention_factor, rel_tol=_TOLERANCE):
        raise EvaluationError(
            f"{where}: attention factor {found.attention_factor:.6g}, expected {expected.attention_factor:.6g}; "
            "compare rope_parameters of both sides"
        )
