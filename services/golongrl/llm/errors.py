"""What can go wrong with a call to a language model, by what it means for the caller."""

from golongrl.errors import GolongrlError


class LlmError(GolongrlError):
    """A call to a language model failed; the message names the endpoint and what to do."""


class LlmRefusedError(LlmError):
    """The endpoint refused this very request (400, 413, 422). A repeat would fail, too; other requests may not."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class LlmUnavailableError(LlmError):
    """No attempt was answered: the endpoint could not be reached, stayed busy, or failed. A later run may succeed.

    `of_the_request`: the endpoint answered other calls meanwhile and failed at this one each time, so that the request
    is the likely cause.
    """

    def __init__(self, message: str, *, of_the_request: bool = False) -> None:
        super().__init__(message)
        self.of_the_request = of_the_request


class LlmUnusableError(LlmError):
    """The endpoint refuses every request (key, path or model name are wrong), or is not an OpenAI endpoint."""

    exit_code = 2
