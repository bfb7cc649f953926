"""The optional Job that evaluates a release's newest weights."""

from typing import Annotated

from pydantic import Field

from golongrl.kubernetes.values.common import Argument, Count, Image, PodPlacement, Resources, Size
from golongrl.kubernetes.values.inputs import SecretKey


class JudgeValues(SecretKey):
    """The model that judges answers which rules cannot score; its key from an existing Secret."""

    url: Argument = Field(
        "", description="OpenAI-compatible endpoint. Empty means no judge. Its address needs an egress rule."
    )
    model: Argument = Field("", description="Name of the model there. Empty takes the only one it serves.")


class EvaluationValues(PodPlacement):
    """A Job that runs `golongrl eval` on the newest weights of the release's volume. It needs them there already."""

    enabled: bool = Field(False, description="Create the Job. Another suite, image or argument makes another Job.")
    suite: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        "long-context", description="Packaged suite, or one benchmark."
    )
    data: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")] = Field(
        "eval-data", description="Folder of the data on the release's volume, as `golongrl eval fetch` fills it."
    )
    image: Image = Field(
        Image(repository="golongrl/golongrl-learner"),
        description="Has the embedded CPU engine. For GPUs, name one that has SGLang as well.",
    )
    args: list[Argument] = Field(default_factory=list, description="Additional arguments of `golongrl eval run`.")
    judge: JudgeValues = JudgeValues(key="api-key")
    backoff_limit: Count = Field(3, description="How often a failed Job is started again. It continues where it was.")
    active_deadline_seconds: Count = Field(0, description="Longest time that the Job may take. 0 means no limit.")
    resources: Resources = Resources(requests={"cpu": "1", "memory": "3Gi"}, limits={"memory": "5Gi"})
    shared_memory: Size = Field("2Gi", description="Size limit of /dev/shm, which is in memory.")
    scratch: Size = Field("20Gi", description="Size limit of /tmp.")
