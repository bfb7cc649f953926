"""How a response is sampled, and from which seed. Pure."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Self

from golongrl.recipe.models import Rollout


@dataclass(frozen=True)
class SamplingParams:
    """Sampling of one response; training and validation differ only in this."""

    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int | None = None

    @classmethod
    def training(cls, rollout: Rollout) -> Self:
        """What the recipe says of training rollouts."""
        return cls(rollout.temperature, rollout.top_p, rollout.max_response_tokens)

    @classmethod
    def validation(cls, rollout: Rollout) -> Self:
        """What the recipe says of validation."""
        return cls(rollout.validation_temperature, rollout.validation_top_p, rollout.max_response_tokens)

    def seeded(self, seed: int) -> Self:
        """The same sampling from `seed`."""
        return replace(self, seed=seed)

    def as_params(self) -> dict[str, Any]:
        """SGLang's `sampling_params`; no top-k, so that with top_p = 1 the log-probs are the policy's."""
        params: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": -1,
            "max_new_tokens": self.max_new_tokens,
        }
        return params if self.seed is None else {**params, "sampling_seed": self.seed}


def response_seed(run_seed: int, uid: str, index: int) -> int:
    """The seed of response `index` of group `uid`, in [0, 2**31): the same wherever and however often it is generated.

    An engine that knows no sampling seed (SGLang without deterministic inference) ignores it.
    """
    digest = hashlib.blake2b(f"{run_seed}/{uid}/{index}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
