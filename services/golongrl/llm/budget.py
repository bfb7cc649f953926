"""How much may be asked: a bound on calls and tokens that holds while calls are in flight. Pure.

Invariant: calls and tokens spent plus those reserved never exceed the bound. A call reserves the most that it may cost
before it is sent, and gives back what it did not use.
"""

from dataclasses import dataclass

from golongrl.errors import GolongrlError


class BudgetSpentError(GolongrlError):
    """The next call might exceed the budget."""


@dataclass(frozen=True, slots=True)
class CallEstimate:
    """What a stage would ask for at most: calls, and the tokens of their prompts and completions."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "CallEstimate") -> "CallEstimate":
        return CallEstimate(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def __str__(self) -> str:
        return (
            f"{self.calls} calls, about {self.prompt_tokens} prompt tokens, up to {self.completion_tokens} completion "
            "tokens"
        )


@dataclass(slots=True)
class Budget:
    """Bounds on calls and tokens (None: no bound) and what of them is used."""

    max_calls: int | None = None
    max_tokens: int | None = None
    calls: int = 0
    tokens: int = 0
    reserved: int = 0
    """Tokens of the calls in flight, at most."""

    def fits(self, tokens: int) -> bool:
        """Whether so many tokens are left now."""
        return self.max_tokens is None or self.tokens + self.reserved + tokens <= self.max_tokens

    def reserve(self, tokens: int) -> None:
        """Make room for a call that costs at most `tokens`.

        Raises:
            BudgetSpentError: there is none.
        """
        if self.max_calls is not None and self.calls >= self.max_calls:
            raise BudgetSpentError(
                f"the budget of {self.max_calls} calls is spent; raise budget.calls and start again: "
                "finished calls are kept"
            )
        if not self.fits(tokens):
            raise BudgetSpentError(
                f"the budget of {self.max_tokens} tokens is spent: {self.tokens} used, and the next call may cost "
                f"{tokens}; raise budget.tokens and start again: finished calls are kept"
            )
        self.calls += 1
        self.reserved += tokens

    def settle(self, reserved: int, used: int) -> None:
        """A call that had reserved so many tokens is over and used so many (0: it brought nothing)."""
        self.reserved -= reserved
        self.tokens += used
