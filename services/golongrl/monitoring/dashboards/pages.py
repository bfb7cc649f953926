"""All dashboards, in the order of their links."""

from golongrl.monitoring.dashboards.evaluation import EVALUATION
from golongrl.monitoring.dashboards.learner import LEARNER
from golongrl.monitoring.dashboards.overview import OVERVIEW
from golongrl.monitoring.dashboards.queue import QUEUE
from golongrl.monitoring.dashboards.reward import REWARD
from golongrl.monitoring.dashboards.rollout import ROLLOUT
from golongrl.monitoring.dashboards.weights import WEIGHTS

PAGES = (OVERVIEW, ROLLOUT, QUEUE, REWARD, LEARNER, WEIGHTS, EVALUATION)
