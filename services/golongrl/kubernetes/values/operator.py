"""Values of the operator's pod, and of the release's own TrainingRun."""

from typing import Annotated

from pydantic import Field

from golongrl.kubernetes.values.common import Cidr, Count, Image, Port, Positive, Resources
from golongrl.kubernetes.values.placement import PodPlacement


class OperatorValues(PodPlacement):
    """The operator, which runs the TrainingRuns of this release. It needs KubeRay and the TrainingRun CRD."""

    enabled: bool = Field(
        False,
        description="Deploy it. The learner is then a TrainingRun, and the operator creates, restarts and replaces its "
        "RayJob.",
    )
    external: bool = Field(
        False,
        description="Render only what an operator needs that Helm does not install (`golongrl operator --dev`, or "
        "`kubectl apply -k operators/config/default`): its ConfigMap and NetworkPolicies.",
    )
    image: Image = Image(repository="golongrl/golongrl-operator")
    max_restarts: Count = Field(2, description="spec.maxRestarts of the release's own TrainingRun.")
    stall_seconds: Count = Field(0, description="spec.stallSeconds of the release's own TrainingRun. 0 means never.")
    min_replicas: Positive = Field(
        1, description="spec.rollout.minReplicas of the release's own TrainingRun, if maxReplicas is set."
    )
    max_replicas: Count = Field(
        0,
        description="spec.rollout.maxReplicas of the release's own TrainingRun: the operator then sizes the pool by "
        "what the learner needs. 0 means the fixed number rollout.replicas.",
    )
    # Shares are found GPU by GPU.
    gpu_budget: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0,
        description="GPUs that the runs of this release may use together, learners and rollout pools. Runs of higher "
        "priority suspend others. 0: as many as the cluster has.",
    )
    api_server_cidrs: list[Cidr] = Field(
        default_factory=list,
        description="Addresses of the API server that the NetworkPolicy allows. Empty allows its ports at any address.",
    )
    # Without a port the rule would allow all of them.
    api_server_ports: Annotated[list[Port], Field(min_length=1)] = Field(
        default_factory=lambda: list[Port]([443, 6443]),
        description="Ports of the API server: that of its Service and that behind it.",
    )
    resources: Resources = Resources(requests={"cpu": "50m", "memory": "128Mi"}, limits={"memory": "512Mi"})
