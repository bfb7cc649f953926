"""The part of the OpenAI chat API that is used here: a request, and what is read from its answer."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ChatMessage(BaseModel):
    """One message of a request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class ChatRequest(BaseModel):
    """What is asked. Two equal requests with equal seeds ask for the same answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[ChatMessage, ...]
    max_tokens: int = Field(ge=1)
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    response_schema: dict[str, Any] | None = None
    """JSON schema that the endpoint is asked to keep to; None asks for plain text."""

    def body(self, model: str) -> dict[str, Any]:
        """The request as the API takes it."""
        body: dict[str, Any] = {
            "model": model,
            "messages": [message.model_dump() for message in self.messages],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
        }
        if self.seed is not None:
            body["seed"] = self.seed
        if self.response_schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": self.response_schema},
            }
        return body


class _ServersPart(BaseModel):
    # Servers add fields of their own.
    model_config = ConfigDict(extra="ignore")


class _ReplyMessage(_ServersPart):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(_ServersPart):
    message: _ReplyMessage
    finish_reason: str | None = None


class _Usage(_ServersPart):
    prompt_tokens: int = Field(0, ge=0)
    completion_tokens: int = Field(0, ge=0)


class ChatReply(_ServersPart):
    """The body of a successful answer. `usage` is None where the server does not count."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None

    @property
    def text(self) -> str:
        """What the model wrote, without thoughts that the server separated."""
        return self.choices[0].message.content or ""

    @property
    def finish_reason(self) -> str:
        return self.choices[0].finish_reason or ""

    @property
    def tokens(self) -> int | None:
        """Tokens of prompt and completion; None where the server does not count."""
        return self.usage.prompt_tokens + self.usage.completion_tokens if self.usage else None
