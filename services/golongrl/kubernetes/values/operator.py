"""Values of the operator's pod, and of the release's own TrainingRun."""

from pydantic import Field

from golongrl.kubernetes.values.common import Count, Image, PodPlacement, Port, Resources


class OperatorValues(PodPlacement):
    """The operator: keeps TrainingRuns of this release training. Needs KubeRay and the TrainingRun CRD."""

    enabled: bool = Field(
        False, description="Deploy it; the learner is then a TrainingRun, whose RayJob it makes, restarts and replaces."
    )
    image: Image = Image(repository="golongrl/golongrl-operator")
    max_restarts: Count = Field(2, description="Of the release's own TrainingRun: spec.maxRestarts.")
    stall_seconds: Count = Field(0, description="Of the release's own TrainingRun: spec.stallSeconds; 0 is never.")
    api_server_cidrs: list[str] = Field(
        default_factory=list,
        description="Addresses of the API server that the NetworkPolicy opens; empty opens its ports to any address.",
    )
    api_server_ports: list[Port] = Field(
        default_factory=lambda: list[Port]([443, 6443]), description="Ports of the API server, behind its Service too."
    )
    resources: Resources = Resources(requests={"cpu": "50m", "memory": "128Mi"}, limits={"memory": "512Mi"})
