"""The part of the OpenAI chat API that is used here: a request, and what is read from its answer."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class LlmMessage(BaseModel):
    """One message of a request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class ChatRequest(BaseModel):
    """What is asked. Two equal requests with equal seeds ask for the same answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[LlmMessage, ...] = ()
    max_tokens: int = Field(ge=1)
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    response_schema: dict[str, Any] | None = None
    """JSON schema that the endpoint is asked to keep to; None asks for plain text."""
    turns: tuple[dict[str, Any], ...] = ()
    """The conversation as the API writes it, instead of `messages`: with tool calls and their results."""
    extra: dict[str, Any] = {}
    """Further fields that some servers know (`top_k`, `chat_template_kwargs`)."""

    def body(self, model: str) -> dict[str, Any]:
        """The request as the API takes it."""
        body: dict[str, Any] = {
            **self.extra,
            "model": model,
            "messages": list(self.turns) or [message.model_dump() for message in self.messages],
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
    # SGLang and vLLM, and vLLM's later name for it.
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(_ServersPart):
    message: _ReplyMessage
    finish_reason: str | None = None


class _Usage(_ServersPart):
    # More than any context has: a count beyond would spend the whole budget.
    prompt_tokens: int = Field(0, ge=0, le=1 << 26)
    completion_tokens: int = Field(0, ge=0, le=1 << 26)


class _Span(_ServersPart):
    version: str


class _Metadata(_ServersPart):
    weight_versions: list[_Span] = []


class ChatReply(_ServersPart):
    """The body of a successful answer. `usage` is None where the server does not count."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None
    metadata: _Metadata | None = None

    @property
    def text(self) -> str:
        """What the model wrote, without thoughts that the server separated."""
        return self.choices[0].message.content or ""

    @property
    def reasoning(self) -> str | None:
        """The thought, where the server separates it from the answer."""
        message = self.choices[0].message
        return message.reasoning_content or message.reasoning

    @property
    def versions(self) -> list[str]:
        """The policy versions that wrote the answer, where the server tells them, as SGLang does."""
        spans = self.metadata.weight_versions if self.metadata else []
        return list(dict.fromkeys(span.version for span in spans))

    @property
    def finish_reason(self) -> str:
        return self.choices[0].finish_reason or ""

    @property
    def tokens(self) -> int | None:
        """Tokens of prompt and completion; None where the server does not count."""
        return self.usage.prompt_tokens + self.usage.completion_tokens if self.usage else None
