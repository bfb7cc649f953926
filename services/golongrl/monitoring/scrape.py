"""What a Prometheus on this machine needs to scrape a run of `golongrl train`. Pure.

Targets get the labels that a cluster's have, so that the same dashboards and queries work: the release is the run's
name, and each process is a pod of it.
"""

from collections.abc import Mapping

from golongrl import yaml_text

NAMESPACE = "local"
_HOST = "127.0.0.1"
# `rollout-0` and `engine-0` are two containers of one pod.
_ENGINE = "engine-"
_SILENT = frozenset({"redis"})


def pod(run: str, process: str) -> str:
    """The pod that a process of the local run stands for."""
    component = process.replace(_ENGINE, "rollout-")
    return f"{run}-{component}" if component[-1].isdigit() else f"{run}-{component}-0"


def config(run: str, ports: Mapping[str, int], interval: str = "5s") -> str:
    """A configuration file of Prometheus; `ports` has the run's processes and jobs."""
    targets = [
        {
            "targets": [f"{_HOST}:{port}"],
            "labels": {"namespace": NAMESPACE, "pod": pod(run, process), "run": run},
        }
        for process, port in ports.items()
        if process not in _SILENT
    ]
    job = {"job_name": "golongrl", "scrape_interval": interval, "scrape_timeout": interval, "static_configs": targets}
    return yaml_text.dump({"scrape_configs": [job]})
