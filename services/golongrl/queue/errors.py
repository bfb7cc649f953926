"""Errors of the queue: wrong calls, a server that does not answer, a run that is damaged."""

from golongrl.errors import GolongrlError, InputError


class QueueError(GolongrlError):
    """Any failure of the queue."""


class FencedError(QueueError):
    """Another learner has attached: this one must end and train nothing more."""


class OutOfOrderError(QueueError):
    """A step, commit or announcement that does not follow from the queue's version."""


class NotSetUpError(QueueError):
    """The run does not exist on this server (yet): its learner sets it up."""


class SettingsMismatchError(QueueError):
    """The run exists with another batch size, staleness bound, order or rows."""


class QueueUnavailableError(QueueError):
    """The server could not be reached, or could not take writes, within the patience given."""


class NotDurableError(QueueError):
    """The server did not confirm in time that a write is on disk, or with its replicas."""


class UnreadableGroupError(QueueError):
    """Bytes that are not a group of a schema this version reads."""


class QueueServerError(QueueError, InputError):
    """The server would lose a run's keys as it is set up: what to set is in the message."""


class QueueDamagedError(QueueError):
    """The server lost a part of the run, or something else wrote into its keys; the message says what."""

    @classmethod
    def unreadable(cls, run: str, server: str, detail: str) -> "QueueDamagedError":
        """The run's keys do not hold what this program writes."""
        return cls(
            f"the data of run {run} on Redis at {server} cannot be read: something else wrote into its keys "
            f"({' '.join(detail.split())[:200]}): remove the run with `golongrl queue remove --run {run}` and restart "
            "its learner, which resumes at its last checkpoint"
        )
