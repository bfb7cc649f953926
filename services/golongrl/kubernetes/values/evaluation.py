"""The optional Job that evaluates a release's newest weights."""

from typing import Annotated, Literal

from pydantic import Field

from golongrl.kubernetes.values.common import Argument, Count, DeviceName, Folder, Image, Resources, ServiceUrl, Size
from golongrl.kubernetes.values.inputs import SecretKey
from golongrl.kubernetes.values.placement import PodPlacement


class JudgeValues(SecretKey):
    """The model that judges answers which rules cannot score; its key from an existing Secret."""

    url: ServiceUrl | Literal[""] = Field(
        "", description="OpenAI-compatible endpoint. Empty means no judge. Its address needs an egress rule."
    )
    model: Argument = Field("", description="Name of the model there. Empty takes the only one it serves.")


class EvaluationValues(PodPlacement):
    """A Job that runs `golongrl eval` on the newest weights of the release's volume, or on its rollout pool."""

    enabled: bool = Field(False, description="Create the Job. Other values of its pod make another Job.")
    suite: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        "long-context", description="Packaged suite, or one benchmark."
    )
    data: Folder = Field(
        "eval-data", description="Folder of the data on the release's volume, as `golongrl eval fetch` fills it."
    )
    target: Literal["weights", "pool"] = Field(
        "weights",
        description="`weights` starts an engine in the Job for the newest weights, which have to be there. `pool` asks "
        "the running engines, whose own rollouts go first.",
    )
    image: Image = Field(
        Image(repository="golongrl/golongrl-learner"),
        description="Has the embedded CPU engine. With `gpus`, name one that has SGLang as well.",
    )
    gpus: Count = Field(0, description="GPUs of the Job's SGLang server. 0 means the embedded CPU engine.")
    gpu_resource: DeviceName = Field("nvidia.com/gpu", description="Resource name of a GPU.")
    sglang_prefix: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]*$")] = Field(
        "/usr", description="Where the Python is that has SGLang in `image`: PREFIX/bin/python or PREFIX/bin/python3."
    )
    tokenizer: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._/-]*)?$")] = Field(
        "",
        description="Folder of the tokenizer, for `pool`. Empty means the recipe's model where that is under /store, "
        "else what the engines tell.",
    )
    args: list[Argument] = Field(default_factory=list, description="Additional arguments of `golongrl eval run`.")
    judge: JudgeValues = JudgeValues(key="api-key")
    backoff_limit: Count = Field(3, description="How often a failed Job is started again. It continues where it was.")
    active_deadline_seconds: Count = Field(0, description="Longest time that the Job may take. 0 means no limit.")
    resources: Resources = Resources(requests={"cpu": "1", "memory": "3Gi"}, limits={"memory": "5Gi"})
    shared_memory: Size = Field("2Gi", description="Size limit of /dev/shm, which is in memory.")
    scratch: Size = Field("20Gi", description="Size limit of /tmp.")
