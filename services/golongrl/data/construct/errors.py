"""What can be wrong with a pipeline or with the folder that it writes."""

from golongrl.data.errors import DataError


class PipelineError(DataError):
    """The pipeline file, or the folder of an earlier run, cannot be used; the message says what to do."""
