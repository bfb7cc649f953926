"""The one error of this room for input that cannot be used, said in one line."""

from golongrl.errors import InputError


class EvaluationError(InputError):
    """The message names the benchmark, file, row and column (or the setting) and what to do about it."""
