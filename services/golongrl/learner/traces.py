"""The spans that the learner adds to the traces of its batch's groups, and to that of the version it makes of them."""

from dataclasses import dataclass, field

from golongrl.learner.batch.prepare import PreparedBatch
from golongrl.telemetry.tracing import Tracing, of_group, of_version


@dataclass(frozen=True)
class StepTraces:
    """Records what a step was, once it is over."""

    tracing: Tracing
    _begun: dict[int, float] = field(default_factory=dict)
    """When the updates began whose versions are not published yet."""

    def trained(self, batch: PreparedBatch, began: float, ended: float, lineage: str) -> None:
        """The update of a batch, from `began` to `ended` (seconds since 1970): the end of its groups' traces."""
        if not self.tracing.on:
            return
        run, step = self.tracing.run, {"rl.loop.iteration": batch.step, "rl.policy.version": batch.step}
        self._begun[batch.step] = began
        for uid, moments in batch.moments.items():
            context, told = of_group(run, uid), {**step, "rl.group.uid": uid}
            leased, submitted = moments.get("leased", batch.taken), moments.get("submitted", batch.taken)
            self.tracing.record("rl.queue.wait", context, submitted, batch.taken, told)
            self.tracing.record("rl.batch.wait", context, batch.taken, began, told)
            self.tracing.record("rl.train", context, began, ended, told)
            self.tracing.record("rl.group", context, leased, ended, told, root=True)
        told = {**step, "rl.train.batch_size": sum(len(each) for _, each in batch.lengths)}
        self.tracing.record("rl.train", of_version(run, lineage, batch.step), began, ended, told)

    def published(self, version: int, lineage: str, began: float, ended: float, size: int) -> None:
        """A version became available to engines: the root of its trace, which the engines' adoptions follow."""
        context = of_version(self.tracing.run, lineage, version)
        told = {"rl.loop.iteration": version, "rl.policy.version": version, "rl.sync.bytes": size}
        self.tracing.record("rl.sync.publish", context, began, ended, told)
        self.tracing.record("rl.loop", context, self._begun.pop(version, began), ended, told, root=True)
