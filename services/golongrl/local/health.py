"""When a service that lives is given up: it does not answer, as with Kubernetes' liveness probe, or is not ready in
time. Pure."""

from dataclasses import dataclass
from typing import Final

# Seconds of a start that gets somewhere, on a core or waiting for one; one that hangs has less in minutes. CPU time
# does not tell: the embedded engine is ready after less than that, and yields to every other process.
_WORK_S: Final = 10.0
# A start that works for ever gets nowhere, either.
_LONGEST_STARTS: Final = 4


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


@dataclass
class StartDeadline:
    """How long a service may take to be ready: `span_s`, and as long again while it works, four times in all."""

    span_s: float
    spans: int = 1
    _worked_s: float = 0.0

    @property
    def s(self) -> float:
        """The deadline as it is now, in seconds from the start."""
        return self.spans * self.span_s

    def passed(self, worked_s: float) -> bool:
        """Whether a service that is not ready at the deadline, and has worked or waited for a core for so long, is
        given up; if not, the deadline is a later one now."""
        if self.spans == _LONGEST_STARTS or worked_s - self._worked_s < _WORK_S:
            return True
        self.spans, self._worked_s = self.spans + 1, worked_s
        return False
