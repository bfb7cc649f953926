"""The spans that the learner adds to the traces of its batch's groups, and to that of the version it makes of them."""

from dataclasses import dataclass

from golongrl.learner.batch.prepare import PreparedBatch
from golongrl.telemetry.tracing import Tracing, of_group, of_version


@dataclass(frozen=True)
class StepTraces:
    """Records what a step was, once it is over."""

    tracing: Tracing

    def trained(self, batch: PreparedBatch, began: float, ended: float, lineage: str) -> None:
        """The update of a batch, from `began` to `ended` (seconds since 1970): the end of its groups' traces."""
        if not self.tracing.on:
            return
        run, step = self.tracing.run, {"rl.train.step": batch.step, "rl.policy.version": batch.step}
        for uid, moments in batch.moments.items():
            context, told = of_group(run, uid), {**step, "rl.group.uid": uid}
            leased, submitted = moments.get("leased", batch.taken), moments.get("submitted", batch.taken)
            self.tracing.record("rl.queue.wait", context, submitted, batch.taken, told)
            self.tracing.record("rl.batch.wait", context, batch.taken, began, told)
            self.tracing.record("rl.train.step", context, began, ended, told)
            self.tracing.record("rl.group", context, leased, ended, told, root=True)
        told = {**step, "rl.groups": len(batch.moments)}
        self.tracing.record("rl.train.step", of_version(run, lineage, batch.step), began, ended, told)

    def published(self, version: int, lineage: str, began: float, ended: float, size: int) -> None:
        """A version became available to engines: the root of its trace, which the engines' adoptions follow."""
        context = of_version(self.tracing.run, lineage, version)
        told = {"rl.policy.version": version, "rl.weights.bytes": size}
        self.tracing.record("rl.weights.publish", context, began, ended, told)
        self.tracing.record("rl.weights", context, began, ended, told, root=True)
