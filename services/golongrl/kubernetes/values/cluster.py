"""What lies around the parts: accounts and roles, networks and their policies, metrics, tests."""

from typing import Literal

from pydantic import Field

from golongrl.kubernetes.values.common import Labels, Passthrough, PassthroughList, Port, Positive, ValuesSection

# A switch that may follow the cluster: an object whose CRD is missing fails a whole installation.
OnWhere = bool | Literal["auto"]


class ServiceAccount(ValuesSection):
    """One account for each component; only the operator's pod has a token."""

    create: bool = Field(
        True, description="Create an account for each component; else the namespace's default is used."
    )
    annotations: Labels = Field(default_factory=dict, description="Annotations (cloud identity).")


class Viewer(ValuesSection):
    """Role for people and tools that run `golongrl status`: reads objects, and runs it inside a pod (pods/exec)."""

    create: bool = Field(False, description="Create the Role and, with subjects, its RoleBinding.")
    subjects: PassthroughList = Field(default_factory=list, description="RBAC subjects bound to the Role.")


class Rbac(ValuesSection):
    """No workload but the operator calls the Kubernetes API; this Role is for people."""

    viewer: Viewer = Viewer()


class Rdma(ValuesSection):
    """RDMA for engines and ranks: an explicit opt-out of Pod Security `restricted` (IPC_LOCK, as root)."""

    enabled: bool = Field(
        False, description="Request the resource and run engines and ranks as root with IPC_LOCK only."
    )
    resource: str = Field("rdma/hca", description="Extended resource of the RDMA device plugin.")
    count: Positive = Field(1, description="Devices of each pod.")


class Network(ValuesSection):
    """Interfaces of the collective libraries."""

    socket_interface: str = Field(
        "", description="NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME; empty leaves the choice to them."
    )
    nccl_env: Labels = Field(default_factory=dict, description="Further NCCL_* variables of engines and ranks.")
    rdma: Rdma = Rdma()


class Peer(ValuesSection):
    """Pods of another namespace that reach in."""

    namespace_selector: Passthrough = Field(default_factory=dict, description="Namespaces; empty is any.")
    pod_selector: Passthrough = Field(default_factory=dict, description="Pods.")


class ExtraEgress(ValuesSection):
    """Further ways out of a component (a hub, an object store, Weights & Biases): NetworkPolicy egress rules."""

    redis: PassthroughList = Field(default_factory=list, description="Of Redis.")
    reward: PassthroughList = Field(default_factory=list, description="Of the reward service.")
    rollout: PassthroughList = Field(default_factory=list, description="Of the rollout pool.")
    learner: PassthroughList = Field(default_factory=list, description="Of the learner.")


class Dns(Peer):
    """Who resolves names, for the parts that may ask."""

    cidrs: list[str] = Field(
        default_factory=lambda: ["169.254.20.10/32"],
        description="Addresses too: a node-local cache answers from the node; where kube-proxy uses iptables, at the "
        "address of the DNS Service, which then belongs here.",
    )
    port: Port = Field(53, description="Port of the pods, behind the Service (5353 on OpenShift).")


class NetworkPolicy(ValuesSection):
    """Exactly the design's arrows; everything else is refused."""

    enabled: bool = Field(True, description="Create the policies.")
    dns: Dns = Dns(pod_selector={"matchLabels": {"k8s-app": "kube-dns"}})
    prometheus: Peer = Peer(pod_selector={"matchLabels": {"app.kubernetes.io/name": "prometheus"}})
    # Its chart and its kustomization name it differently, but say the same component.
    kuberay_operator: Peer = Peer(pod_selector={"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}})
    extra_egress: ExtraEgress = ExtraEgress()


class Monitors(ValuesSection):
    """ServiceMonitor and PodMonitors of the Prometheus operator."""

    enabled: OnWhere = Field(False, description="Create them; `auto`: where the cluster has the operator's CRDs.")
    interval: str = Field("15s", description="Scrape interval.")
    labels: Labels = Field(default_factory=dict, description="Labels that your Prometheus selects by.")


class Rules(ValuesSection):
    """PrometheusRule with the loop's alerts."""

    enabled: OnWhere = Field(False, description="Create it; `auto`: where the cluster has the operator's CRDs.")
    labels: Labels = Field(default_factory=dict, description="Labels that your Prometheus selects by.")
    no_step_for: str = Field(
        "1h",
        pattern=r"^[1-9][0-9]*[mh]$",
        description="Time without a new policy version that is alerted: longer than your longest step.",
    )


class Dashboards(ValuesSection):
    """Grafana dashboards as ConfigMaps."""

    enabled: bool = Field(True, description="Create them.")
    labels: Labels = Field(
        default_factory=lambda: {"grafana_dashboard": "1"}, description="Labels that Grafana's sidecar selects by."
    )
    annotations: Labels = Field(default_factory=dict, description="Annotations (the folder, for some sidecars).")


class MetricsValues(ValuesSection):
    """Observability."""

    monitors: Monitors = Monitors()
    rules: Rules = Rules()
    dashboards: Dashboards = Dashboards()


class Tests(ValuesSection):
    """What `helm test` runs."""

    enabled: bool = Field(True, description="Create the smoke test of Redis and the reward service.")
