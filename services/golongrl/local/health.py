"""When a service that lives has to be restarted because it does not answer: Kubernetes' liveness probe. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Liveness:
    """How often a service is asked, how long it may take, and how many times in a row it may fail.

    A service may be silent for as long as with the chart's probes, a minute, as one is on a machine that swaps. It is
    asked more often than there, so that its silence is reported long before.
    """

    period_s: float = 5.0
    timeout_s: float = 5.0
    failures: int = 12

    @property
    def longest_s(self) -> float:
        """About how long a service is silent when it is given up."""
        return self.period_s * self.failures


@dataclass
class Pulse:
    """The answers of one life of a service; `observe` says whether it hangs."""

    liveness: Liveness
    failed: int = 0

    def observe(self, answered: bool) -> bool:
        """Whether, after this answer or its lack, the service counts as hanging."""
        self.failed = 0 if answered else self.failed + 1
        return self.failed >= self.liveness.failures
