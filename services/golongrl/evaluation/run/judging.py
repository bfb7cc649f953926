"""The judge: a second model decides whether an answer is right, where rules cannot.

A reply without a verdict is asked again, at a temperature at which it may come out otherwise; without a verdict after
all attempts the sample counts as unjudged. Every reply is kept as it came, with the hash of the words that were asked.
"""

from collections.abc import Sequence

from golongrl.evaluation.benchmark import Benchmark
from golongrl.evaluation.judge import prompt_hash
from golongrl.evaluation.kinds import Mode
from golongrl.evaluation.problems import EvalProblem
from golongrl.evaluation.replies import ScoredReply
from golongrl.evaluation.run.silence import SilenceCount
from golongrl.evaluation.store.journal import Judged
from golongrl.evaluation.suite import JudgeSection
from golongrl.llm import ChatClient, ChatRequest, LlmMessage, LlmRefusedError, LlmUnavailableError
from golongrl.tasks.text import CLOSE


class Judge:
    """Asks one model for verdicts."""

    def __init__(self, client: ChatClient, settings: JudgeSection) -> None:
        self.client = client
        self.silence = SilenceCount()
        self._settings = settings

    @property
    def name(self) -> str:
        """The model that judges, for the record."""
        return self.client.endpoint.model

    @property
    def concurrency(self) -> int:
        return self.client.endpoint.concurrency

    async def decide(
        self, benchmark: Benchmark, problem: EvalProblem, scored: ScoredReply, mode: Mode
    ) -> tuple[ScoredReply, Sequence[Judged], int]:
        """The final score of a reply, what the judge said, and the tokens it took.

        Raises:
            LlmUnusableError, TargetGoneError: the judge refuses everything, or is gone.
        """
        judged: list[Judged] = []
        tokens = 0
        for prompt in benchmark.judge_prompts(problem, scored.answer, mode):
            one, used = await self._ask(benchmark, prompt, mode)
            judged.append(one)
            tokens += used
            # The best verdict counts, and there is none above this.
            if one.verdict == 1.0:
                break
        return benchmark.decide(scored, [one.verdict for one in judged], mode), judged, tokens

    async def _ask(self, benchmark: Benchmark, prompt: str, mode: Mode) -> tuple[Judged, int]:
        replies: list[str] = []
        tokens = 0
        settings = self._settings
        for attempt in range(settings.attempts):
            request = ChatRequest(
                messages=(LlmMessage(role="user", content=prompt),),
                max_tokens=settings.max_tokens,
                temperature=settings.retry_temperature if attempt else settings.temperature,
            )
            try:
                answer, _ = await self.client.chat(request, cost=0)
            except LlmRefusedError as error:
                self.silence.broken()
                replies.append(f"refused: {error}")
                break
            except LlmUnavailableError as error:
                self.silence.lasts(error)
                replies.append(f"no reply: {error}")
                continue
            self.silence.broken()
            tokens += answer.tokens or 0
            replies.append(answer.text)
            verdict = benchmark.verdict(answer.text.rpartition(CLOSE)[2], mode)
            if verdict is not None:
                return Judged(prompt_hash(prompt), tuple(replies), verdict), tokens
        return Judged(prompt_hash(prompt), tuple(replies), None), tokens
