"""Engines of a construction's pass rate: off by default, suspended until they are asked, with no more rights than that;
and the commands of their pods, run as real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from golongrl.data.command import app
from golongrl.data.construct.datajob import datajob_yaml
from golongrl.data.construct.load import load
from golongrl.data.construct.passrate import jobs
from golongrl.data.construct.run import construct
from golongrl.data.construct.stage import StageName
from golongrl.data.construct.tables import Tables
from golongrl.data.construct.workers import Here
from support.chart_values import MATRIX
from support.helm import Helm, Manifest, Rendered, pod_specs
from support.redis_server import free_port

ON = MATRIX["construction-with-engines"]
ON_CPU = MATRIX["construction-with-cpu-engines"]
MODEL = "golongrl.io/passrate"
JOBS = "/apis/batch/v1/namespaces/rl/jobs/"


def pools(objects: Rendered) -> dict[str, Manifest]:
    """By model."""
    found = [one for one in objects.of("Job") if MODEL in one["metadata"]["labels"]]
    return {one["metadata"]["labels"][MODEL]: one for one in found}


def stage_job(objects: Rendered) -> Manifest:
    (found,) = [one for one in objects.of("Job") if one["metadata"]["labels"].get("golongrl.io/stage") == "passrate"]
    return found


def named(spec: Manifest, name: str) -> Manifest:
    (found,) = [one for one in [*spec.get("initContainers", []), *spec["containers"]] if one["name"] == name]
    assert isinstance(found, dict)
    return found


def with_passrate(base: Manifest, **more: Any) -> Manifest:
    chosen = {**base["construction"], "passrate": {**base["construction"]["passrate"], **more}}
    return {**base, "construction": chosen}


def test_they_are_off_by_default(helm4: Helm) -> None:
    for name in ("defaults", "construction", "construction-on-ray"):
        objects = helm4.template(MATRIX[name])
        assert not pools(objects)
        assert "passrate" not in [one["metadata"]["labels"]["app.kubernetes.io/component"] for one in objects]
        assert not [name for name, _, spec in pod_specs(objects) if "token" in [v["name"] for v in spec["volumes"]]]


def test_a_model_has_gpus_only_while_it_is_asked(helm: Helm) -> None:
    objects = helm.template(ON)
    jobs = pools(objects)
    assert set(jobs) == {"small", "large"}
    for model, replicas, gpus in (("small", 4, "1"), ("large", 2, "4")):
        spec = jobs[model]["spec"]
        assert (spec["suspend"], spec["parallelism"], "completions" in spec) == (True, replicas, False)
        pod = spec["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        engine = named(pod, "engine")
        assert engine["restartPolicy"] == "Always"
        assert engine["resources"]["limits"]["nvidia.com/gpu"] == gpus
        assert f"/store/constructed/passrate/rollouts/{model}.json" in engine["args"][0]
        assert f"--board=/store/constructed/passrate/rollouts/{model}.json" in named(pod, "worker")["command"]
    assert "--mem-fraction-static=0.8" in named(jobs["small"]["spec"]["template"]["spec"], "engine")["args"]
    stage = named(stage_job(objects)["spec"]["template"]["spec"], "construction")
    assert "nvidia.com/gpu" not in stage["resources"]["limits"]
    words = stage["command"]
    asked = [words[index + 1] for index, word in enumerate(words) if word == "--pool-job"]
    assert asked == [f"{model}={jobs[model]['metadata']['name']}" for model in ("small", "large")]
    url = words[words.index("--pool-redis-url") + 1]
    env = {one["name"]: one.get("value") for one in named(jobs["small"]["spec"]["template"]["spec"], "worker")["env"]}
    assert env["GOLONGRL_REDIS_URL"] == url
    assert env["GOLONGRL_REWARD_URL"] == "http://demo-golongrl-reward:8080"


def test_the_stage_alone_may_start_them_and_nothing_else(helm4: Helm) -> None:
    for values in (ON, ON_CPU):
        objects = helm4.template(values)
        names = sorted(job["metadata"]["name"] for job in pools(objects).values())
        role = objects.one("Role", "-construction")
        (rule,) = role["rules"]
        assert (rule["apiGroups"], rule["resources"], rule["verbs"]) == (["batch"], ["jobs"], ["get", "patch"])
        assert sorted(rule["resourceNames"]) == names
        (subject,) = objects.one("RoleBinding", "-construction")["subjects"]
        account = objects.one("ServiceAccount", "-construction")
        assert account["automountServiceAccountToken"] is False
        assert subject["name"] == account["metadata"]["name"]
        holders = [name for name, _, spec in pod_specs(objects) if any(v["name"] == "token" for v in spec["volumes"])]
        stage = "passrate" if values is ON else "all"
        assert len(holders) == 1
        assert holders[0].startswith(f"Job/demo-golongrl-data-{stage}-")
        users = [name for name, _, spec in pod_specs(objects) if spec["serviceAccountName"] == subject["name"]]
        assert all("-data-" in name for name in users)


def test_connections_are_only_those_that_are_needed(helm4: Helm) -> None:
    objects = helm4.template(ON)
    mine = objects.one("NetworkPolicy", "golongrl-passrate")["spec"]
    assert [rule["ports"][0]["port"] for rule in mine["egress"]] == [53, 6379, 8080]
    for target, port, peers in (("redis", 6379, ["passrate", "construction"]), ("reward", 8080, ["passrate"])):
        added = objects.one("NetworkPolicy", f"-passrate-{target}")["spec"]
        assert added["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == target
        (rule,) = added["ingress"]
        found = [one["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for one in rule["from"]]
        assert (found, rule["ports"]) == (peers, [{"port": port, "protocol": "TCP"}])
    egress = objects.one("NetworkPolicy", "golongrl-construction")["spec"]["egress"]
    assert [port["port"] for port in egress[-1]["ports"]] == [443, 6443]


def test_other_values_are_other_jobs_and_names_have_room(helm4: Helm) -> None:
    variants = [ON, ON, with_passrate(ON, idleSeconds=60), {**ON, "storage": {"folder": "b"}}]
    names = {pools(helm4.template(one))["small"]["metadata"]["name"] for one in variants}
    assert len(names) == 3
    for release in ("r" * 53, "9" * 53, "a.b"):
        for job in pools(helm4.template(ON, release=release)).values():
            # A pod's name is 6 characters longer, and is a host name.
            assert len(job["metadata"]["name"]) <= 57
            assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (with_passrate(ON, small={"replicas": 0}), "replicas"),
        (with_passrate(ON, medium={}), "medium"),
        (with_passrate(ON, large={"engine": {"kind": "vllm"}}), "kind"),
        (with_passrate(ON, large={"engine": {"kind": "sglang"}}), "construction.passrate.large.engine.image"),
        (with_passrate(ON, idleSeconds="1h"), "idleSeconds"),
        ({"construction": {**ON["construction"], "stages": ["verify"]}}, "construction.stages does not name passrate"),
    ],
)
def test_a_wrong_value_is_refused(helm4: Helm, values: Manifest, message: str) -> None:
    assert message in helm4.refusal(values)


def test_render_datajob_brings_the_engines(helm4: Helm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "helm").symlink_to(helm4.binary)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    text = datajob_yaml("laptop", (), (), "demo", "rl", (), ["construction.passrate.enabled=true"])
    kinds = sorted(one["kind"] for one in yaml.safe_load_all(text))
    assert kinds == [
        "ConfigMap", "Job", "Job", "Job", "NetworkPolicy", "NetworkPolicy", "NetworkPolicy", "NetworkPolicy", "Role",
        "RoleBinding", "ServiceAccount", "ServiceAccount",
    ]  # fmt: skip


# -- the pods' commands as processes -----------------------------------------------------------------------------------


class Api:
    """The API server's Jobs, as far as the stage asks: every call is kept."""

    def __init__(self, started: Callable[[str], None]) -> None:
        self.jobs: dict[str, Manifest] = {}
        self.calls: list[tuple[str, str, Any]] = []
        self.url = ""
        self._started = started

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, Manifest]:
        name = path.removeprefix(JOBS)
        change: Any = json.loads(body) if body else None
        self.calls.append((method, name, change))
        if token != "Bearer t0ken":
            return 401, {"message": "Unauthorized"}
        if name not in self.jobs:
            return 404, {"message": f'jobs.batch "{name}" not found'}
        if method == "PATCH":
            self.jobs[name]["spec"].update(change["spec"])
            self._started(name)
        return 200, self.jobs[name]


@contextmanager
def api_server(api: Api) -> Iterator[Api]:
    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, found = api.answer(self.command, self.path, body, self.headers.get("Authorization", ""))
            text = json.dumps(found).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PATCH = _any  # noqa: N815 (the names that the library calls)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ASKED: Manifest = {
    "path": "builtin:quickstart", "dtype": "float32", "context_length": 4096, "max_response_tokens": 8,
    "concurrent_groups": 4,
}  # fmt: skip
PIPELINE: Manifest = {
    "name": "small",
    "tokenizer": "builtin:quickstart",
    "sources": {"inputs": [{"path": "builtin:python-reference", "licence": "PSF-2.0"}], "min_tokens": 300},
    "select": {"tasks": {"T1": 3}, "bins": [{"name": "short", "min_tokens": 500, "max_tokens": 1500}]},
    "passrate": {"small": ASKED, "large": {**ASKED, "temperature": 0.9}, "batch": 2},
}
CONTROLLER_S = 240


class Pods:
    """One pod of a pool's Job, as the kubelet runs it: the engine, the worker when that answers, the engine's end."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.order: list[str] = []
        self._folder = folder
        self._environment = environment
        self._threads: list[threading.Thread] = []

    def start(self, model: str, job: Manifest) -> None:
        thread = threading.Thread(target=self._run, args=(model, job["spec"]["template"]["spec"]))
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(CONTROLLER_S)

    def _process(self, container: Manifest, log: Path) -> "subprocess.Popen[bytes]":
        given = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        words = [self._here(word) for word in [*container["command"], *container.get("args", [])]]
        with log.open("wb") as out:
            return subprocess.Popen(
                words, stdout=out, stderr=subprocess.STDOUT, env={**given, **self._environment}, start_new_session=True
            )

    def _here(self, word: str) -> str:
        return word.replace("/store/", f"{self._folder}/store/").replace("--port=8090", "--port=0")

    def _run(self, model: str, spec: Manifest) -> None:
        engine = named(spec, "engine")
        port = engine["ports"][0]["containerPort"]
        sidecar = self._process(engine, self._folder / f"{model}-engine.log")
        self.order.append(f"{model} started")
        try:
            while not answers(f"http://127.0.0.1:{port}/health"):
                if sidecar.poll() is not None:
                    self.order.append(f"{model}: the engine ended")
                    return
                time.sleep(0.3)
            worker = self._process(named(spec, "worker"), self._folder / f"{model}-worker.log")
            try:
                self.order.append(f"{model} ended {worker.wait(CONTROLLER_S)}")
            finally:
                worker.kill()
        finally:
            os.killpg(sidecar.pid, signal.SIGKILL)
            sidecar.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


@pytest.mark.full
def test_the_rendered_commands_measure_a_pass_rate(
    helm4: Helm, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage's command starts the small model's Job, and then the large one's; each Job's containers, run with the
    chart's own words, answer all prompts through the queue and end by themselves."""
    engine_port, reward_port = free_port(), free_port()
    engine = {"engine": {"port": engine_port}}
    chosen = {
        "enabled": True, "stages": ["passrate"], "pipeline": json.dumps(PIPELINE),
        "passrate": {"enabled": True, "small": engine, "large": engine},
    }  # fmt: skip
    objects = helm4.template({"construction": chosen})
    store, pipeline = tmp_path / "store", tmp_path / "pipeline.yaml"
    (config,) = [one for one in objects.of("ConfigMap") if "pipeline.yaml" in one["data"]]
    pipeline.write_text(config["data"]["pipeline.yaml"])
    made = load(str(pipeline))
    out = store / "constructed"
    before: tuple[StageName, ...] = ("sources", "select", "generate")
    for stage in before:
        construct(made, out, Here(), lambda line: None, only=stage)

    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("t0ken\n")
    (account / "namespace").write_text("rl")
    monkeypatch.setattr(jobs, "ACCOUNT", account)
    monkeypatch.delenv("GOLONGRL_REDIS_PASSWORD", raising=False)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path),
        "GOLONGRL_REDIS_URL": redis_url, "GOLONGRL_REWARD_URL": f"http://127.0.0.1:{reward_port}",
        "GOLONGRL_REWARD_TOKEN": "r", "GOLONGRL_ENGINE_API_KEY": "k", "GOLONGRL_ENGINE_ADMIN_API_KEY": "a",
        "GOLONGRL_WORKER": "pod-0", "HOME": str(tmp_path),
    }  # fmt: skip
    pods = Pods(tmp_path, environment)
    models = {job["metadata"]["name"]: model for model, job in pools(objects).items()}
    reward = subprocess.Popen(
        [sys.executable, "-m", "golongrl", "reward", "serve", "--port", str(reward_port), "--workers", "1"],
        env=environment,
    )
    words = named(stage_job(objects)["spec"]["template"]["spec"], "construction")["command"]
    assert words[:3] == ["golongrl", "data", "construct"]
    words = [word.replace("/store/", f"{store}/").replace("/etc/golongrl", str(tmp_path)) for word in words[2:]]
    words = [redis_url if word.startswith("redis://") else "0" if word == "8090" else word for word in words]
    with api_server(Api(lambda name: pods.start(models[name], api.jobs[name]))) as api:
        api.jobs = {name: json.loads(json.dumps(pools(objects)[model])) for name, model in models.items()}
        monkeypatch.setattr(jobs, "_server", lambda: api.url)
        try:
            done = CliRunner().invoke(app, words)
        finally:
            pods.join()
            reward.terminate()
            reward.wait()
    logs = "\n".join(f"--- {log}\n{log.read_text()[-1500:]}" for log in sorted(tmp_path.glob("*.log")))
    assert done.exit_code == 0, f"{done.output}\n{done.exception}\n{logs}"
    # One after the other: the large one's engine was started after the small one's worker had been told to end.
    assert sorted(pods.order) == ["large ended 0", "large started", "small ended 0", "small started"], logs
    rows = list(Tables(out, made).table("passrate").rows(kept=False))
    assert len(rows) == len(list(Tables(out, made).table("generate").rows(["id"]))) > 0
    assert [row["rollouts"] for row in rows] == [8] * len(rows)
    changed = [(name, change) for method, name, change in api.calls if method == "PATCH"]
    assert changed == [
        (pools(objects)[model]["metadata"]["name"], {"spec": {"suspend": False}}) for model in ("small", "large")
    ]
    assert json.loads((out / "passrate" / "rollouts" / "large.json").read_text())["ended"] is True
