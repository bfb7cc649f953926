"""The policies are the design's arrows and nothing else: evaluated as Kubernetes evaluates them, against a table."""

from itertools import product
from typing import Any

import pytest

from support.chart_values import MATRIX
from support.helm import Helm, Manifest, Rendered, pod_specs

# Who may open a connection to whom, and on which port; None is any port. Everything else must be refused.
ARROWS: dict[tuple[str, str], set[int | None]] = {
    ("rollout", "redis"): {6379},
    ("learner", "redis"): {6379},
    ("test", "redis"): {6379},
    ("rollout", "reward"): {8080},
    ("test", "reward"): {8080},
    ("learner", "learner"): {None},
    ("prometheus", "reward"): {8080},
    ("prometheus", "rollout"): {8090, 30000},
    ("prometheus", "learner"): {8080, 8090},
    ("kuberay", "learner"): {8265},
    ("kuberay-here", "learner"): {8265},
}
BROADCAST: dict[tuple[str, str], set[int | None]] = {("learner", "rollout"): {None}, ("rollout", "learner"): {None}}
MULTI_NODE: dict[tuple[str, str], set[int | None]] = {("rollout", "rollout"): {None}}
OPERATOR: dict[tuple[str, str], set[int | None]] = {("operator", "redis"): {6379}, ("prometheus", "operator"): {8090}}
INSIDE = ("redis", "reward", "rollout", "learner", "test")
OUTSIDE = {
    "prometheus": {"app.kubernetes.io/name": "prometheus"},
    "kuberay": {"app.kubernetes.io/component": "kuberay-operator"},
    "kuberay-here": {"app.kubernetes.io/component": "kuberay-operator"},
    # A pod that anybody with a namespace of their own may create.
    "impostor": {"app.kubernetes.io/component": "kuberay-operator"},
    "stranger": {"app.kubernetes.io/name": "stranger"},
    # A pod of another release in the same namespace.
    "neighbour": {"app.kubernetes.io/instance": "other", "app.kubernetes.io/component": "rollout"},
}
# Of the pods that are not in the release's namespace.
NAMESPACES = {"prometheus": "monitoring", "kuberay": "kuberay-operator", "impostor": "team-x", "stranger": "team-x"}
DNS = {"k8s-app": "kube-dns"}
PORTS = (53, 443, 6379, 8080, 8090, 8265, 10001, 20000, 30000)


def labels(name: str) -> dict[str, str]:
    if name in OUTSIDE:
        return OUTSIDE[name]
    return {"app.kubernetes.io/instance": "demo", "app.kubernetes.io/component": name}


def selects(selector: Manifest, given: dict[str, str]) -> bool:
    assert all(one["operator"] == "In" for one in selector.get("matchExpressions", []))
    chosen = all(given.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", []))
    return chosen and selector.get("matchLabels", {}).items() <= given.items()


def peer_allows(peers: list[Manifest] | None, given: dict[str, str], namespace: str | None) -> bool:
    if not peers:
        return True  # no `from` or `to`: anyone
    for peer in peers:
        if "ipBlock" in peer:
            continue  # pods are matched by label
        if "namespaceSelector" not in peer and namespace is not None:
            continue
        if not selects(peer.get("namespaceSelector", {}), {"kubernetes.io/metadata.name": namespace or "rl"}):
            continue
        if selects(peer.get("podSelector", {}), given):
            return True
    return False


def port_allows(rule: Manifest, port: int) -> bool:
    ports = rule.get("ports")
    return not ports or any(entry["port"] == port for entry in ports)


def direction_allows(policies: list[Manifest], pod: str, other: str, port: int, direction: str) -> bool:
    key, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    mine = [
        policy["spec"]
        for policy in policies
        if selects(policy["spec"]["podSelector"], labels(pod)) and direction in policy["spec"]["policyTypes"]
    ]
    if not mine:
        return True  # not isolated
    return any(
        peer_allows(rule.get(peers), labels(other), NAMESPACES.get(other)) and port_allows(rule, port)
        for spec in mine
        for rule in spec.get(key, [])
    )


def connects(policies: list[Manifest], source: str, target: str, port: int) -> bool:
    out = source in OUTSIDE or direction_allows(policies, source, target, port, "Egress")
    return out and direction_allows(policies, target, source, port, "Ingress")


def arrows_of(objects: Rendered) -> set[tuple[str, str, int]]:
    policies = objects.of("NetworkPolicy")
    inside = (*INSIDE, "operator") if objects.of("TrainingRun") else INSIDE
    return {
        (source, target, port)
        for source, target, port in product((*inside, *OUTSIDE), inside, PORTS)
        if connects(policies, source, target, port)
    }


def expected(*tables: dict[tuple[str, str], set[int | None]]) -> set[tuple[str, str, int]]:
    return {
        (source, target, port)
        for table in tables
        for (source, target), ports in table.items()
        for port in PORTS
        if None in ports or port in ports
    }


@pytest.mark.parametrize(
    ("switch", "tables"),
    [
        ("defaults", (ARROWS,)),
        ("broadcast-weights", (ARROWS, BROADCAST)),
        ("engines-over-nodes", (ARROWS, MULTI_NODE)),
        ("autoscaled", (ARROWS,)),
        ("operator", (ARROWS, OPERATOR)),
    ],
)
def test_exactly_the_arrows(helm4: Helm, switch: str, tables: tuple[Any, ...]) -> None:
    assert arrows_of(helm4.template(MATRIX[switch])) == expected(*tables)


@pytest.mark.parametrize("switch", ["defaults", "operator"])
def test_every_pod_is_isolated_both_ways(helm4: Helm, switch: str) -> None:
    objects = helm4.template(MATRIX[switch])
    for name, metadata, _ in pod_specs(objects):
        types = {
            direction
            for policy in objects.of("NetworkPolicy")
            if selects(policy["spec"]["podSelector"], metadata["labels"])
            for direction in policy["spec"]["policyTypes"]
        }
        assert types == {"Ingress", "Egress"}, name


def test_only_what_resolves_names_reaches_dns(helm4: Helm) -> None:
    for policy in helm4.template().of("NetworkPolicy"):
        component = policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        reaches = any(
            peer_allows(rule.get("to"), DNS, "kube-system") and port_allows(rule, 53)
            for rule in policy["spec"]["egress"]
        )
        assert reaches == (component in ("rollout", "learner", "test")), component


def test_the_reward_service_and_redis_open_nothing(helm4: Helm) -> None:
    for name in ("redis", "reward"):
        assert helm4.template().one("NetworkPolicy", f"-{name}")["spec"]["egress"] == []


def test_an_external_redis_is_reached_at_its_addresses_and_port_only(helm4: Helm) -> None:
    objects = helm4.template(MATRIX["external-redis"])
    assert {policy["metadata"]["name"].rpartition("-")[2] for policy in objects.of("NetworkPolicy")} == set(INSIDE) - {
        "redis"
    }
    rule = {"ports": [{"port": 6380, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}
    for name in ("rollout", "learner"):
        assert rule in objects.one("NetworkPolicy", f"-{name}")["spec"]["egress"]


def test_extra_egress_is_the_users(helm4: Helm) -> None:
    rule = {"to": [{"ipBlock": {"cidr": "1.2.3.4/32"}}], "ports": [{"port": 443, "protocol": "TCP"}]}
    objects = helm4.template(
        {"networkPolicy": {"extraEgress": {name: [rule] for name in ("redis", "reward", "rollout", "learner")}}}
    )
    for name in ("redis", "reward", "rollout", "learner"):
        assert rule in objects.one("NetworkPolicy", f"-{name}")["spec"]["egress"]


def test_dns_is_where_the_cluster_says(helm4: Helm) -> None:
    """A node-local cache behind iptables answers at the Service's address, OpenShift's DNS at another port."""
    plain = helm4.template().one("NetworkPolicy", "-rollout")["spec"]["egress"][0]
    kube_dns = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
    assert plain["to"] == [kube_dns, {"ipBlock": {"cidr": "169.254.20.10/32"}}]
    assert {(entry["port"], entry["protocol"]) for entry in plain["ports"]} == {(53, "UDP"), (53, "TCP")}
    own = {"cidrs": ["10.96.0.10/32"], "port": 5353, "podSelector": {"matchLabels": {"k8s-app": None, "dns": "own"}}}
    changed = helm4.template({"networkPolicy": {"dns": own}}).one("NetworkPolicy", "-rollout")["spec"]["egress"][0]
    assert changed["to"][0]["podSelector"] == {"matchLabels": {"dns": "own"}}
    assert changed["to"][1:] == [{"ipBlock": {"cidr": "10.96.0.10/32"}}]
    assert {entry["port"] for entry in changed["ports"]} == {53, 5353}
