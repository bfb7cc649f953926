"""The nine task types of long-context RL and their metrics: pure functions, no I/O, light to import.

    >>> from golongrl.tasks import score
    >>> score("EM", "<think>It says Paris.</think>Paris", {"golden_label": "Paris"}, {}).score
    1.0

`score` judges one response, `task_of` says which type a row is, `TASKS` is the table of the types.
"""

from golongrl.tasks.outcome import Mode, Outcome, Status
from golongrl.tasks.registry import TASKS, Task, TaskType, UnknownTaskError, task_of
from golongrl.tasks.scoring import score

__all__ = ["TASKS", "Mode", "Outcome", "Status", "Task", "TaskType", "UnknownTaskError", "score", "task_of"]

# The name of version 0.1, which code outside the repository catches.
UnknownTask = UnknownTaskError
