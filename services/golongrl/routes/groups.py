"""The routes of one group in memory.

A row of routes is one token's: for each MoE layer, in model order, the experts that its router chose, in the router's
order (best first). The prompt's rows are kept once, as they were computed for the first response, because the learner
computes the prompt once too.

The last token of a response is never fed to the engine's model, so a response of T tokens has T - 1 rows (none where T
is 0).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


def expert_type(experts: int) -> np.dtype[Any]:
    """The smallest type that holds the number of an expert."""
    return np.dtype(np.uint8 if experts <= 1 << 8 else "<u2")


@dataclass(frozen=True, slots=True, eq=False)
class GroupRoutes:
    """Experts by token: `prompt` [P, L, K], `responses` [T - 1, L, K] each; L MoE layers, K experts a token.

    uint8, or uint16 for more than 256 experts. All are below `experts`, the number that the model has.
    """

    prompt: NDArray[Any]
    responses: tuple[NDArray[Any], ...]
    experts: int

    def __post_init__(self) -> None:
        """Raises ValueError on arrays that contradict each other or the number of experts."""
        wanted = expert_type(self.experts)
        for name, rows in (("prompt", self.prompt), *((f"response {i}", r) for i, r in enumerate(self.responses))):
            if rows.ndim != 3 or rows.shape[1:] != self.prompt.shape[1:]:
                raise ValueError(f"routes of {name} have shape {rows.shape}, those of the prompt {self.prompt.shape}")
            if rows.dtype != wanted:
                raise ValueError(f"routes of {name} are {rows.dtype}, {self.experts} experts need {wanted}")
            if rows.size and int(rows.max()) >= self.experts:
                raise ValueError(f"routes of {name} name expert {int(rows.max())} of {self.experts}")

    @property
    def layers(self) -> int:
        """MoE layers."""
        return int(self.prompt.shape[1])

    @property
    def top_k(self) -> int:
        """Experts a token is sent to."""
        return int(self.prompt.shape[2])

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.prompt.nbytes + sum(rows.nbytes for rows in self.responses)

    def fault(self, prompt_tokens: int, response_tokens: Sequence[int]) -> str | None:
        """Why these cannot be the routes of a group with so many tokens; None if they can."""
        if len(self.responses) != len(response_tokens):
            return f"routes of {len(self.responses)} responses, the group has {len(response_tokens)}"
        if len(self.prompt) != prompt_tokens:
            return f"routes of {len(self.prompt)} prompt tokens, the prompt has {prompt_tokens}"
        for index, (rows, tokens) in enumerate(zip(self.responses, response_tokens, strict=True)):
            if len(rows) != max(tokens - 1, 0):
                return f"response {index} of {tokens} tokens has {len(rows)} rows of routes, not {max(tokens - 1, 0)}"
        return None
