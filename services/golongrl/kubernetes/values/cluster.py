"""What surrounds the components: accounts and roles, networks and their policies, metrics, tests."""

from typing import Annotated, Final, Literal

from pydantic import Field

from golongrl.kubernetes.values.common import (
    Annotations,
    Cidr,
    DeviceName,
    EnvName,
    EnvText,
    Labels,
    Port,
    Positive,
    ValuesSection,
)
from golongrl.kubernetes.values.inputs import SecretKey
from golongrl.kubernetes.values.shapes import EgressRule, RbacSubject, Selector

# A switch that may follow the cluster: an object whose CRD is missing fails the whole installation.
OnWhere = bool | Literal["auto"]
# Where KubeRay's chart and its kustomization put the operator, by their documentation. Ray's dashboard runs whatever it
# is sent, so that a pod with the operator's label in any other namespace must not reach it.
KUBERAY_NAMESPACES: Final = ("default", "kuberay", "kuberay-operator", "kuberay-system", "ray-system")


class ServiceAccount(ValuesSection):
    """A service account for each component. Only the operator and `construction.passrate` have an API token."""

    create: bool = Field(
        True, description="Create an account for each component. If false, the namespace's default account is used."
    )
    annotations: Annotations = Field(
        default_factory=dict, description="Annotations of the accounts, such as a cloud identity."
    )


class Viewer(ValuesSection):
    """Role for people and tools that run `golongrl status`, which reads objects and runs a command in a pod."""

    create: bool = Field(False, description="Create the Role and, if there are subjects, its RoleBinding.")
    subjects: list[RbacSubject] = Field(
        default_factory=list[RbacSubject], description="RBAC subjects that get the Role."
    )


class Rbac(ValuesSection):
    """Roles for people. Of the workloads, the operator and `construction.passrate` alone call the Kubernetes API."""

    viewer: Viewer = Viewer()


class Rdma(ValuesSection):
    """RDMA for engines and ranks. Their pods then violate Pod Security `restricted`: root with IPC_LOCK."""

    enabled: bool = Field(
        False, description="Request the resource, and run engines and ranks as root with the capability IPC_LOCK only."
    )
    resource: DeviceName = Field("rdma/hca", description="Resource name of the RDMA device plugin.")
    count: Positive = Field(1, description="Devices for each pod.")


class Network(ValuesSection):
    """Network interfaces of the collective libraries (NCCL, Gloo)."""

    socket_interface: Annotated[str, Field(pattern=r"^[^\s\x00]*$")] = Field(
        "",
        description="Interface for NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME. Empty means that the libraries choose.",
    )
    nccl_env: dict[EnvName, EnvText] = Field(
        default_factory=dict, description="Additional NCCL_* variables of engines and ranks."
    )
    rdma: Rdma = Rdma()


class Peer(ValuesSection):
    """Pods of another namespace that may connect."""

    namespace_selector: Selector = Field(
        default_factory=Selector, description="Label selector of their namespaces. Empty selects every namespace."
    )
    pod_selector: Selector = Field(default_factory=Selector, description="Label selector of the pods.")


class ExtraEgress(ValuesSection):
    """Additional egress rules by component, for example to a hub, an object store or Weights & Biases."""

    redis: list[EgressRule] = Field(default_factory=list[EgressRule], description="Egress rules of Redis.")
    reward: list[EgressRule] = Field(
        default_factory=list[EgressRule], description="Egress rules of the reward service."
    )
    rollout: list[EgressRule] = Field(default_factory=list[EgressRule], description="Egress rules of the rollout pool.")
    learner: list[EgressRule] = Field(default_factory=list[EgressRule], description="Egress rules of the learner.")
    evaluation: list[EgressRule] = Field(
        default_factory=list[EgressRule], description="Egress rules of the evaluation, to a judge."
    )
    construction: list[EgressRule] = Field(
        default_factory=list[EgressRule],
        description="Egress rules of the construction, to an endpoint of a model or to a hub.",
    )


class Dns(Peer):
    """DNS servers that the components may ask."""

    cidrs: list[Cidr] = Field(
        default_factory=lambda: ["169.254.20.10/32"],
        description="Addresses of DNS servers, in addition. A node-local cache answers from the node; where kube-proxy "
        "uses iptables it answers at the address of the DNS Service, which then must be listed here.",
    )
    port: Port = Field(53, description="Port of the DNS pods behind the Service (5353 on OpenShift).")


class NetworkPolicy(ValuesSection):
    """NetworkPolicies that allow only the connections that the components need."""

    enabled: bool = Field(True, description="Create the policies.")
    dns: Dns = Dns(pod_selector={"matchLabels": {"k8s-app": "kube-dns"}})
    prometheus: Peer = Field(
        Peer(pod_selector={"matchLabels": {"app.kubernetes.io/name": "prometheus"}}),
        description="Prometheus, which may connect to the ports that serve /metrics.",
    )
    # KubeRay's chart and its kustomization give the operator different names, but the same component label.
    kuberay_operator: Peer = Field(
        Peer(
            namespace_selector={
                "matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(KUBERAY_NAMESPACES)}
                ]
            },
            pod_selector={"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}},
        ),
        description="KubeRay's operator, which may connect to Ray's dashboard. The dashboard runs any code it is sent: "
        "name the one namespace that has the operator. One in the release's own namespace is always allowed.",
    )
    extra_egress: ExtraEgress = ExtraEgress()


class Monitors(ValuesSection):
    """ServiceMonitor and PodMonitors of the Prometheus operator."""

    enabled: OnWhere = Field(False, description="Create them. `auto` means: if the cluster has their CRDs.")
    interval: Annotated[
        str,
        # Hours at most: without a sample for five minutes, Prometheus takes a series for ended.
        Field(pattern=r"^([0-9]{1,2}h)?([0-9]{1,4}m)?([0-9]{1,5}s)?([0-9]{1,6}ms)?$", min_length=2),
    ] = Field("15s", description="Scrape interval, as a Prometheus duration.")
    labels: Labels = Field(default_factory=dict, description="Labels by which your Prometheus selects monitors.")


class Rules(ValuesSection):
    """PrometheusRule with the loop's alerts."""

    enabled: OnWhere = Field(False, description="Create it. `auto` means: if the cluster has its CRD.")
    labels: Labels = Field(default_factory=dict, description="Labels by which your Prometheus selects rules.")
    no_step_for: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,3}[mh]$")] = Field(
        "1h",
        description="Alert after this time without a new policy version. It must be longer than your longest step.",
    )
    # Prometheus reads {{ in an annotation as a template, and takes none of the rules if it is none.
    runbook_url: Annotated[str, Field(pattern=r"^https?://[^\s\"\\/?#@{]+([/?#][^\s\"\\{]*)?$")] = Field(
        "https://github.com/golongrl/golongrl/blob/main/docs/runbook.md",
        description="Where docs/runbook.md is to be read; each alert links to its section.",
    )


class Dashboards(ValuesSection):
    """Grafana dashboards as ConfigMaps."""

    enabled: bool = Field(True, description="Create them.")
    labels: Labels = Field(
        default_factory=lambda: {"grafana_dashboard": "1"},
        description="Labels by which Grafana's sidecar selects dashboards.",
    )
    annotations: Annotations = Field(
        default_factory=dict, description="Annotations, by which some sidecars choose the folder."
    )


class TracesKey(SecretKey):
    """Headers for the collector of recipe.telemetry.otlp_endpoint (NAME=VALUE,NAME=VALUE), from an existing Secret."""


class MetricsValues(ValuesSection):
    """Monitoring: scraping, alerts and dashboards."""

    monitors: Monitors = Monitors()
    rules: Rules = Rules()
    dashboards: Dashboards = Dashboards()
    traces: TracesKey = TracesKey(key="headers")


class Tests(ValuesSection):
    """What `helm test` runs."""

    enabled: bool = Field(True, description="Create the smoke test of Redis and the reward service.")
