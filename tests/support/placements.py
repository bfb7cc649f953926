"""Placement and resources of pods: what the API server refuses of them, and what it takes."""

from typing import Any

from support.helm import Manifest

TERM = {"topologyKey": "zone"}
REQUIRED, PREFERRED = (f"{word}DuringSchedulingIgnoredDuringExecution" for word in ("required", "preferred"))
SPREAD: Manifest = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
# Labels of at most 63 characters, and together more than a prefix may have.
LONG = ".".join(["a" * 60] * 5)


def node(expression: Manifest) -> Manifest:
    return {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}


# What one part may not be.
ODD_SHAPES: list[tuple[str, Any]] = [
    ("tolerations", [{"key": "a", "operator": "exists"}]),
    ("tolerations", [{"key": "a", "effect": "NoRun"}]),
    ("tolerations", [{"key": "a", "value": "x y"}]),
    ("tolerations", [{"key": "a b"}]),
    ("affinity", {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": []}}}),
    ("affinity", {"nodeAffinity": {REQUIRED: {}}}),
    ("affinity", {"nodeAffinity": {REQUIRED: []}}),
    ("affinity", node({"key": "a", "operator": "in", "values": ["b"]})),
    ("affinity", node({"operator": "Exists"})),
    ("affinity", node({"key": "a"})),
    ("affinity", node({"key": "a", "operator": "In", "values": ["x y"]})),
    ("affinity", {"nodeAffinity": {PREFERRED: [{"weight": 0, "preference": {}}]}}),
    ("affinity", {"nodeAffinity": {PREFERRED: [{"weight": 101, "preference": {}}]}}),
    ("affinity", {"nodeAffinity": {PREFERRED: [{"weight": 1}]}}),
    ("affinity", {"podAffinity": {REQUIRED: [{}]}}),
    ("affinity", {"podAntiAffinity": {REQUIRED: [{"topologyKey": ""}]}}),
    ("affinity", {"podAntiAffinity": {REQUIRED: [{**TERM, "namespaces": ["A"]}]}}),
    ("affinity", {"podAffinity": {PREFERRED: [{"weight": 0, "podAffinityTerm": TERM}]}}),
    ("affinity", {"podAffinity": {PREFERRED: [{"podAffinityTerm": TERM}]}}),
    ("topologySpreadConstraints", [{**SPREAD, "maxSkew": 0}]),
    ("topologySpreadConstraints", [{**SPREAD, "whenUnsatisfiable": "Never"}]),
    ("topologySpreadConstraints", [{"maxSkew": 1}]),
    ("topologySpreadConstraints", [{**SPREAD, "minDomains": 0}]),
]
# What does not fit each other, with what the message says.
MISFITS: list[tuple[str, Any, str]] = [
    ("tolerations", [{"operator": "Equal", "value": "x"}], "tolerations.0: operator Equal needs a key"),
    ("tolerations", [{}], "tolerations.0: operator Equal needs a key"),
    ("tolerations", [{"effect": "NoExecute"}], "tolerations.0: operator Equal needs a key"),
    ("tolerations", [{"key": "a", "operator": "Exists", "value": "x"}], "Exists takes no value"),
    ("tolerations", [{"key": "a", "tolerationSeconds": 1}], "needs the effect NoExecute"),
    ("tolerations", [{"key": "a"}, {"key": "b", "operator": "Gt", "value": "x"}], "1.value: operator"),
    ("affinity", node({"key": "a", "operator": "In"}), "matchExpressions.0: operator In needs values"),
    ("affinity", node({"key": "a", "operator": "Exists", "values": ["b"]}), "Exists takes no values"),
    ("affinity", node({"key": "a", "operator": "Gt", "values": ["1", "2"]}), "Gt needs one value"),
    ("affinity", {"podAffinity": {REQUIRED: [{**TERM, "matchLabelKeys": ["a"]}]}}, "needs a labelSelector"),
    ("topologySpreadConstraints", [SPREAD, SPREAD], "zone, DoNotSchedule stands there twice"),
    (
        "resources",
        {"requests": {"memory": "0.5Gi"}, "limits": {"memory": "100Mi"}},
        "requests.memory 0.5Gi is more than limits.memory 100Mi",
    ),
    ("resources", {"requests": {"a.b/c": 1}}, "requests.a.b/c needs a limit"),
    (
        "topologySpreadConstraints",
        [{**SPREAD, "labelSelector": {"matchLabels": {"a": "b"}}, "matchLabelKeys": ["a"]}],
        "a stands there twice",
    ),
    (
        "topologySpreadConstraints",
        [{**SPREAD, "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2}],
        "minDomains needs whenUnsatisfiable",
    ),
    ("tolerations", [{"key": f"{LONG}/x", "operator": "Exists"}], "tolerations.0.key: aaa"),
    ("topologySpreadConstraints", [{**SPREAD, "topologyKey": f"{LONG}/x"}], "Constraints.0.topologyKey: aaa"),
    ("resources", {"limits": {"memory": "2Ki"}, "requests": {"memory": "2049"}}, "requests.memory 2049 is more than"),
    ("resources", {"limits": {"memory": "1e3"}, "requests": {"memory": "1.1k"}}, "requests.memory 1.1k is more than"),
    ("resources", {"limits": {"a.b/c": 2}, "requests": {"a.b/c": "1"}}, "must be equal"),
    ("resources", {"limits": {"requests.nvidia.com/gpu": "1"}}, "is not a resource of a container"),
    (
        "resources",
        {"limits": {"hugepages-2Mi": "4Mi"}, "requests": {"hugepages-2Mi": "2Mi", "cpu": 1}},
        "must be equal",
    ),
    ("resources", {"limits": {"hugepages-2Mi": "3Mi", "cpu": 1}}, "hugepages-2Mi: 3Mi is no multiple of the page"),
]
# What it takes.
TAKEN: Manifest = {
    "tolerations": [
        {"operator": "Exists"}, {"key": "a"}, {"key": "", "operator": "Exists"}, {"key": "a", "operator": "Equal"},
        {"key": "a/b", "operator": "Equal", "value": "n", "effect": "NoExecute", "tolerationSeconds": 0},
    ],
    "affinity": {
        "nodeAffinity": {
            REQUIRED: {"nodeSelectorTerms": [
                {}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
                {"matchExpressions": [{"key": "a/b", "operator": "Lt", "values": ["3"]}]},
            ]},
            PREFERRED: [{"weight": 100, "preference": {}}],
        },
        "podAffinity": {REQUIRED: [{**TERM, "labelSelector": {}, "namespaceSelector": {}, "namespaces": ["a"]}]},
        "podAntiAffinity": {PREFERRED: [{"weight": 1, "podAffinityTerm": {
            **TERM, "labelSelector": {"matchLabels": {"a": "b"}},
            "matchLabelKeys": ["c"], "mismatchLabelKeys": ["d"],
        }}]},
    },
    "topologySpreadConstraints": [SPREAD, {**SPREAD, "whenUnsatisfiable": "ScheduleAnyway"},
                                  {**SPREAD, "topologyKey": "host", "minDomains": 2, "labelSelector": {}}],
    "nodeSelector": {"a.b/c": "", "d": "e"},
}  # fmt: skip
