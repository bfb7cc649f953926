"""The frame of a stage that asks models: one pass asks (`ask_all`), the other makes the rows of the kept replies."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from golongrl.data.construct.asking import Job, ask_all, forecast_lines, over_budget, replies_of
from golongrl.data.construct.generate_models import AskedModel, Generate, Verify
from golongrl.data.construct.metrics import DataMetrics
from golongrl.data.construct.stage import CpuStage, Done, Executor, Forecast, Input, StageName, StageShard
from golongrl.data.construct.tables import Tables
from golongrl.llm import CallEstimate, LlmCall


class AskingStage(CpuStage):
    """A stage whose rows depend on the replies of models."""

    def __init__(
        self, tables: Tables, executor: Executor, settings: Generate | Verify, metrics: DataMetrics | None
    ) -> None:
        super().__init__(executor)
        self._tables = tables
        self._metrics = metrics or DataMetrics()
        self._budget = settings.budget
        self._replies = replies_of(settings.replies, tables.out)

    @abstractmethod
    def models(self) -> Sequence[AskedModel]:
        """All that may be asked."""

    @abstractmethod
    def jobs(self, inputs: Iterable[Input]) -> Iterator[Job]:
        """What these inputs ask."""

    @abstractmethod
    def planned_calls(self, inputs: Iterable[Input]) -> Iterator[LlmCall]:
        """The calls of these inputs, as far as they are known before any reply."""

    @abstractmethod
    def most_calls(self, inputs: int) -> tuple[int, StageName]:
        """About how many calls so many inputs make, and the stage whose rows have to be there to say it exactly."""

    def asks(self, one: Input) -> bool:  # noqa: ARG002
        """Whether a model is asked about this input."""
        return True

    def run(self, shards: Sequence[StageShard], done: Done) -> None:
        inputs = [one for shard in shards for one in shard.inputs if self.asks(one)]
        if inputs:
            ask_all(self.jobs(inputs), self.models(), self._budget, self._replies, self._metrics)
        super().run(shards, done)

    def forecast(self, inputs: int, todo: Sequence[Input] | None) -> Forecast:
        if todo is not None:
            calls = self.planned_calls(one for one in todo if self.asks(one))
            return Forecast(forecast_lines(calls, self._replies, self._budget))
        most, before = self.most_calls(inputs)
        total = CallEstimate(most, 0, most * max(model.max_tokens for model in self.models()))
        line = f"at most {most} calls; prompts are counted once {before} has ended"
        return Forecast([line, *over_budget(total, self._budget)])
