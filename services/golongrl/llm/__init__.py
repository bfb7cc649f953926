"""Calls to a language model behind an OpenAI chat endpoint, ours or an outside one.

`ChatClient` makes one call, with its deadline, bounded retries, and a concurrency that follows the server. `Asker` adds
a store of replies under a key for each call, so that nothing is asked twice. `answer_as` reads a reply as a pydantic
model. `Budget` bounds what may be spent.
"""

from golongrl.llm.answers import UnusableAnswerError, answer_as
from golongrl.llm.asker import Asker, LlmCall, LlmReply, estimate, kept_reply
from golongrl.llm.budget import Budget, BudgetSpentError, CallEstimate
from golongrl.llm.client import ChatClient, Endpoint
from golongrl.llm.errors import LlmError, LlmRefusedError, LlmUnavailableError, LlmUnusableError
from golongrl.llm.models import ChatReply, ChatRequest, LlmMessage
from golongrl.llm.replies import ReplyStore

__all__ = [
    "Asker",
    "Budget",
    "BudgetSpentError",
    "CallEstimate",
    "ChatClient",
    "ChatReply",
    "ChatRequest",
    "Endpoint",
    "LlmCall",
    "LlmError",
    "LlmMessage",
    "LlmRefusedError",
    "LlmReply",
    "LlmUnavailableError",
    "LlmUnusableError",
    "ReplyStore",
    "UnusableAnswerError",
    "answer_as",
    "estimate",
    "kept_reply",
]
