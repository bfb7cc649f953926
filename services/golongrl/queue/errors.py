"""Errors of the queue: wrong calls, a server that does not answer, a run that is damaged."""

from golongrl.errors import GolongrlError, InputError, brief


class QueueError(GolongrlError):
    """Any failure of the queue."""


class FencedError(QueueError):
    """Another learner has attached: this one must end and train nothing more."""


class OutOfOrderError(QueueError):
    """A step, commit or announcement that does not follow from the queue's version."""

    @classmethod
    def at_attach(cls, run: str, checkpoint: int, version: int, committed: int) -> "OutOfOrderError":
        """A learner resumes from a checkpoint that the queue cannot continue."""
        if checkpoint < committed:
            return cls(
                f"attach({checkpoint}): run {run} has committed step {committed}, its earlier batches are gone; "
                f"resume from checkpoint {committed}"
            )
        return QueueBehindError(
            f"attach({checkpoint}): the queue of run {run} is only at version {version}, behind the checkpoint: its "
            "data was lost, set back to an older copy, or is another run's; restore the newer append-only file, or "
            f"{_begin_again(run)}"
        )


class QueueBehindError(OutOfOrderError, InputError):
    """The queue is older than the checkpoint: whatever starts again, only a person can bring them together."""


class NotSetUpError(QueueError):
    """The run does not exist on this server (yet): its learner sets it up."""


class SettingsMismatchError(QueueError, InputError):
    """The run exists with another batch size, staleness bound, order or rows."""


class QueueUnavailableError(QueueError):
    """The server could not be reached, or could not take writes, within the patience given."""


class NotDurableError(QueueError):
    """The server did not confirm in time that a write is on disk, or with its replicas."""


def last_reason(error: QueueError) -> str:
    """What a call waited for in vain, without how often and how long; else the error's own words."""
    waited = isinstance(error, QueueUnavailableError | NotDurableError)
    return str((error.__cause__ if waited else None) or error)


class UnreadableGroupError(QueueError):
    """Bytes that are not a group of a schema this version reads."""


class QueueServerError(QueueError, InputError):
    """The server would lose a run's keys as it is set up: what to set is in the message."""


class QueueDamagedError(QueueError):
    """The server lost a part of the run, or something else wrote into its keys; the message says what."""

    @classmethod
    def lost(cls, run: str, key: str) -> "QueueDamagedError":
        """A key is not there."""
        return cls(
            f"the server lost the key {key} of run {run} (evicted, or deleted by somebody): "
            f"{_begin_again(run, 'the rest of the run')}"
        )

    @classmethod
    def foreign(cls, run: str, key: str) -> "QueueDamagedError":
        """A key is not the one that this run made."""
        return cls(
            f"the key {key} of run {run} is another run's, or another key's (copied or renamed by somebody): "
            f"{_begin_again(run)}"
        )

    @classmethod
    def torn(cls, run: str, key: str | None) -> "QueueDamagedError":
        """The keys are of two moments. `key`: the older one, where that is known."""
        which = f"the key {key} of run {run} was" if key else f"one of the keys of run {run} was"
        return cls(f"{which} set back to an older value (its rows and groups do not add up): {_begin_again(run)}")

    @classmethod
    def unreadable(cls, run: str, server: str, detail: str) -> "QueueDamagedError":
        """The run's keys do not hold what this program writes."""
        return cls(
            f"the data of run {run} on Redis at {server} cannot be read: something else wrote into its keys "
            f"({brief(detail, 200)}): {_begin_again(run)}"
        )


def _begin_again(run: str, what: str = "the run") -> str:
    return (
        f"remove {what} with `golongrl queue remove --run {run}` (of a stopped run with a Redis of its own: remove its "
        "folder redis) and restart its learner (on one machine: use --resume), which resumes at its last checkpoint"
    )


# The names of version 0.1, which code outside the repository catches.
Fenced, NotDurable, NotSetUp, OutOfOrder = FencedError, NotDurableError, NotSetUpError, OutOfOrderError
SettingsMismatch, Unavailable, UnreadableGroup = SettingsMismatchError, QueueUnavailableError, UnreadableGroupError
