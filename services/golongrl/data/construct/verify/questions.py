"""The calls that verify a sample: with its documents, without, and with others around. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from golongrl.data.answer_forms import prompt_of
from golongrl.data.construct.asking import sheet
from golongrl.data.construct.generate_models import AskedModel
from golongrl.data.construct.generators.sample import Language
from golongrl.llm import ChatRequest, LlmCall, LlmMessage

STAGE = "verify"
# Raised where the same input makes other rows: they are then made again.
VERSION = 1


@dataclass(frozen=True)
class Questions:
    """A sample as it is asked; `before` and `after` are the documents around it."""

    data_source: str
    reward_mode: str
    lang: Language
    context: str
    question: str
    before: str = ""
    after: str = ""

    def with_context(self) -> str:
        """The prompt as a policy gets it."""
        return self._prompt(self.context)

    def without_context(self) -> str:
        """The question alone."""
        note = sheet("verify").texts["without"][self.lang]
        return f"{note}\n\n{self._prompt('')}"

    def padded(self) -> str:
        """The documents between others, marked."""
        texts = sheet("verify").texts
        parts = [texts["padded"][self.lang], self.before, texts["begin"], self.context, texts["end"], self.after]
        return self._prompt("\n\n".join(part for part in parts if part))

    def _prompt(self, context: str) -> str:
        return prompt_of(context, self.question, self.data_source, self.reward_mode, self.lang)


def calls(prompt: str, model: AskedModel, tries: int, seed: int) -> list[LlmCall]:
    """So many calls with one prompt and different seeds."""
    return [
        LlmCall(
            STAGE,
            f"{VERSION}-{sheet('verify').sha}",
            model.model,
            ChatRequest(
                messages=(LlmMessage(role="user", content=prompt),),
                max_tokens=model.max_tokens,
                temperature=model.temperature,
                top_p=model.top_p,
                seed=(seed + number) % (1 << 31),
            ),
        )
        for number in range(tries)
    ]


def around(texts: Sequence[str]) -> tuple[str, str]:
    """Other documents, one half before the sample's and one after."""
    half = (len(texts) + 1) // 2
    return "\n\n".join(texts[:half]), "\n\n".join(texts[half:])
