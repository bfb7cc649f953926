"""Workers that cannot get the announced weights are heard, and not asked all the time."""

from golongrl.learner.weights.missed import MissedWeights
from golongrl.queue import SampleQueue
from golongrl.rollout.observe.state import State


async def test_a_worker_that_lacks_the_weights_is_heard_and_asked_ever_less_often(
    redis_url: str, run_name: str
) -> None:
    now = 0.0
    async with SampleQueue.from_url(redis_url, run_name) as queue:
        missed = MissedWeights(queue, lambda: now)
        state = State(wait="source")
        await queue.beat("rollout", "w0", state.heartbeat("http://engine"), 300.0)
        assert not await missed.asked()
        answers = []
        for second in range(1, 41):
            now = float(second)
            if await missed.asked():
                answers.append(second)
        assert answers == [5, 15, 35]
        state.wait = "slots"
        await queue.beat("rollout", "w0", state.heartbeat("http://engine"), 300.0)
        now = 100.0
        assert not await missed.asked()
        state.wait = "source"
        await queue.beat("rollout", "w0", state.heartbeat("http://engine"), 300.0)
        now = 105.0
        assert await missed.asked()
