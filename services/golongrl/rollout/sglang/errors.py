"""What can go wrong with an engine, by what the caller should do about it."""

from golongrl.errors import GolongrlError


class EngineError(GolongrlError):
    """Base of everything an engine's client raises; the message names the call."""


class EngineUnavailableError(EngineError):
    """No answer (connection refused or cut, deadline passed, 5xx): the engine may be dead, its weights are unknown."""


class EngineSilentError(EngineUnavailableError):
    """No answer within the deadline; the engine may merely be slow."""


class EngineBusyError(EngineError):
    """503: the engine is up but takes no request now (queue full, paused)."""


class EngineRefusedError(EngineError):
    """A 4xx answer: the request is wrong and sending it again will not help; nothing has changed in the engine."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class EngineAbortedError(EngineError):
    """The engine ended a response again and again, and nobody of ours asked it to; it says no more than that."""


class EngineKeyError(EngineRefusedError):
    """401 or 403: this worker's keys are not the engine's."""


class EngineProtocolError(EngineError):
    """A 200 whose content contradicts itself or the API; its tokens must not be used."""


class AdoptionError(GolongrlError):
    """The engine did not confirm the announced weights; one line says why.

    `unchanged`: it still holds, and says so, the weights it had, so what is in flight may continue.
    """

    def __init__(self, message: str, *, unchanged: bool) -> None:
        super().__init__(message)
        self.unchanged = unchanged


class WeightsMissingError(AdoptionError):
    """The announced weights are not available now; the engine was not touched. One line says what is waited for."""

    def __init__(self, message: str) -> None:
        super().__init__(message, unchanged=True)
