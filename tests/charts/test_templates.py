"""What each template is for: probes, drains, names, secrets, scaling, upgrades."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from golongrl.broadcast.process import POD_IP
from support.chart_values import GPU_LEARNER, MATRIX, PRESETS, SGLANG
from support.engine_process import SGLANG as SGLANG_VENV
from support.helm import CHART, ROOT, Helm, Manifest, Rendered, containers, pod_specs, tool

LONG = "r" * 53  # the longest release name that helm accepts
RAY_NODE = "ray.io/is-ray-node"
# As a Secret of somebody's own may hold them: one reads as a number, the other needs quotes.
KEY, ADMIN_KEY = "12345", "a b:'c\"d"
KEYS = {"GOLONGRL_ENGINE_API_KEY": KEY, "GOLONGRL_ENGINE_ADMIN_API_KEY": ADMIN_KEY}


def container(spec: Manifest, name: str) -> Manifest:
    (found,) = [item for item in containers(spec) if item["name"] == name]
    return found


def rollout_spec(objects: Rendered) -> Manifest:
    spec: Manifest = objects.one("Deployment", "-rollout")["spec"]["template"]["spec"]
    return spec


def test_both_helms_render_the_same(helm4: Helm) -> None:
    def without_secrets(objects: Rendered) -> list[Manifest]:
        return [item for item in objects if item["kind"] != "Secret"]

    helm3 = Helm(tool("helm3"))
    for values in ({}, MATRIX["engines-over-nodes"], MATRIX["everything-observed"], MATRIX["operator"]):
        assert without_secrets(helm3.template(values)) == without_secrets(helm4.template(values))


@pytest.mark.parametrize("release", ["demo", LONG, "4b", "a.b-c"])
@pytest.mark.parametrize("switch", ["everything-observed", "autoscaled", "engines-over-nodes", "operator"])
def test_names_keep_every_limit(helm4: Helm, release: str, switch: str) -> None:
    for item in helm4.template(MATRIX[switch], release=release):
        name = item["metadata"]["name"]
        limit = {"RayJob": 47, "LeaderWorkerSet": 52, "StatefulSet": 52}.get(item["kind"], 63)
        assert len(name) <= limit, name
        assert name[0].isalpha(), name
        assert all(len(value) <= 63 for value in item["metadata"]["labels"].values())


@pytest.mark.parametrize("pair", [("one", "two"), ("r" * 52 + "a", "r" * 52 + "b")])
def test_two_releases_coexist_in_a_namespace(helm4: Helm, pair: tuple[str, str]) -> None:
    first, second = (helm4.template(MATRIX["everything-observed"], release=name) for name in pair)
    ids = [{(item["kind"], item["metadata"]["name"]) for item in objects} for objects in (first, second)]
    assert not ids[0] & ids[1]
    selectors = [
        {
            json.dumps(item["spec"]["selector"])
            for item in objects
            if item["kind"] in ("Deployment", "StatefulSet", "Service")
        }
        for objects in (first, second)
    ]
    assert not selectors[0] & selectors[1]


def test_selectors_match_their_own_pods_and_survive_an_upgrade(helm4: Helm) -> None:
    objects = helm4.template()
    pods = {name: metadata["labels"] for name, metadata, _ in pod_specs(objects)}
    for item in [*objects.of("Deployment"), *objects.of("StatefulSet")]:
        selector = item["spec"]["selector"]["matchLabels"]
        assert set(selector) == {"app.kubernetes.io/instance", "app.kubernetes.io/component"}  # nothing that changes
        matched = [name for name, labels in pods.items() if selector.items() <= labels.items()]
        assert matched == [f"{item['kind']}/{item['metadata']['name']}"]


def test_the_worker_is_the_main_container_and_its_engine_a_native_sidecar(helm4: Helm) -> None:
    """The kubelet then starts the engine first and ends the worker first: it drains on an engine that still answers."""
    spec = rollout_spec(helm4.template({"rollout": {"drainSeconds": 600}}))
    assert [item["name"] for item in spec["containers"]] == ["worker"]
    assert [item["name"] for item in spec["initContainers"]] == ["wait-for-weights", "engine"]
    assert container(spec, "engine")["restartPolicy"] == "Always"
    assert spec["terminationGracePeriodSeconds"] == 600
    command = container(spec, "worker")["command"]
    assert int(command[command.index("--grace") + 1]) < 600


def test_readiness_is_the_workers_word_and_loads_may_take_45_minutes(helm4: Helm) -> None:
    spec = rollout_spec(helm4.template())
    worker, engine = container(spec, "worker"), container(spec, "engine")
    assert worker["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    startup = engine["startupProbe"]
    assert startup["httpGet"]["path"] == engine["livenessProbe"]["httpGet"]["path"] == "/health"
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 2700
    for drain in (180, 7200):
        deployment = helm4.template({"rollout": {"drainSeconds": drain}}).one("Deployment", "-rollout")["spec"]
        # A pod drains, or waits an hour for weights, and then loads.
        assert deployment["progressDeadlineSeconds"] > max(drain, 3600) + 2700


def test_sglang_is_told_what_a_paused_engine_needs(helm4: Helm) -> None:
    engine = container(rollout_spec(helm4.template(MATRIX["one-node-gpus"])), "engine")
    assert {"name": "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION", "value": "0"} in engine["env"]
    script = engine["args"][0]
    for flag in ("--tp-size 8", "--enable-metrics", "--config", "--weight-version"):
        assert flag in script
    assert engine["resources"]["limits"]["nvidia.com/gpu"] == engine["resources"]["requests"]["nvidia.com/gpu"] == "8"


@pytest.mark.parametrize("replayed", [False, True])
def test_engines_return_experts_and_workers_store_them_where_they_are_replayed(helm4: Helm, replayed: bool) -> None:
    def rendered(name: str) -> Rendered:
        recipe = MATRIX[name].get("recipe", {})
        learner = {**recipe.get("learner", {}), "routing_replay": replayed}
        return helm4.template({**MATRIX[name], "recipe": {**recipe, "learner": learner}})

    over_nodes = rendered("engines-over-nodes").one("LeaderWorkerSet", "-rollout")
    leader, follower = (
        over_nodes["spec"]["leaderWorkerTemplate"][part]["spec"] for part in ("leaderTemplate", "workerTemplate")
    )
    pods = [rollout_spec(rendered(name)) for name in ("defaults", "one-node-gpus")]
    for spec in (*pods, leader, follower):
        assert ("--enable-return-routed-experts" in container(spec, "engine")["args"][0]) is replayed
    for spec in (*pods, leader):
        for name, writes in (("worker", replayed), ("engine", False)):
            (store,) = [mount for mount in container(spec, name)["volumeMounts"] if mount["mountPath"] == "/store"]
            assert store["readOnly"] is not writes


@pytest.mark.parametrize("kind", ["embedded", "sglang"])
def test_the_engine_starts_from_the_newest_published_weights(helm4: Helm, tmp_path: Path, kind: str) -> None:
    """The real script in a real shell: v10 is newer than v9, and a folder still being written is none."""
    values = {} if kind == "embedded" else SGLANG
    args = container(rollout_spec(helm4.template(values)), "engine")["args"]
    for name in ("v9", "v10", "v11.tmp"):
        (tmp_path / "weights" / name).mkdir(parents=True)
        (tmp_path / "weights" / name / "manifest.json").touch()
    (tmp_path / "weights" / "v12").mkdir()
    fake = tmp_path / "bin"
    fake.mkdir()
    for name in ("golongrl", "python3"):
        own = f'if [ "$1" = -c ]; then exec {sys.executable} "$@"; fi\n' if name == "python3" else ""
        (fake / name).write_text(f'#!/bin/sh\n{own}printf "%s\\n" "$@"\n')
        (fake / name).chmod(0o755)
    script = args[0].replace("/store", str(tmp_path)).replace("/dev/shm", str(tmp_path))
    done = subprocess.run(
        ["sh", "-c", script, "engine", "--extra", "a b"],
        # As of a Secret that was made from a file.
        env={"PATH": f"{fake}:/usr/bin:/bin", **{name: f"{key}\n" for name, key in KEYS.items()}},
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    words = done.stdout.splitlines()
    assert words[words.index("--model-path") + 1] == str(tmp_path / "weights" / "v10")
    assert words[words.index("--weight-version") + 1] == "10"
    assert words[-2:] == ["--extra", "a b"]
    # No key on a command line, which the process list shows: SGLang reads them from a file that is its user's alone.
    assert not {KEY, ADMIN_KEY} & set(words)
    if kind == "sglang":
        keys = Path(words[words.index("--config") + 1])
        assert yaml.safe_load(keys.read_text()) == {"api-key": KEY, "admin-api-key": ADMIN_KEY}
        assert keys.stat().st_mode & 0o777 == 0o600


@pytest.mark.full
def test_the_real_sglang_takes_its_keys_from_the_file(tmp_path: Path) -> None:
    if not (SGLANG_VENV / "bin" / "python").is_file():
        pytest.skip("needs .venv-sglang: make sglang")
    keys = tmp_path / "keys.yaml"
    keys.write_text(json.dumps({"api-key": KEY, "admin-api-key": ADMIN_KEY}))
    code = (
        "import argparse, json, sys\n"
        "from sglang.srt.server_args import ServerArgs\n"
        "from sglang.srt.utils.server_args_config_parser import ConfigArgumentMerger\n"
        "parser = argparse.ArgumentParser(); ServerArgs.add_cli_args(parser)\n"
        "got = parser.parse_args(ConfigArgumentMerger(parser).merge_config_with_args(sys.argv[1:]))\n"
        "print(json.dumps([got.api_key, got.admin_api_key, got.port, got.chunked_prefill_size]))\n"
    )
    words = ["--model-path", "m", "--port", "30000", "--config", str(keys), "--chunked-prefill-size", "16384"]
    done = subprocess.run(
        [SGLANG_VENV / "bin" / "python", "-c", code, *words], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [KEY, ADMIN_KEY, 30000, 16384]


def test_workers_wait_for_the_first_weights(helm4: Helm, tmp_path: Path) -> None:
    script = container(rollout_spec(helm4.template()), "wait-for-weights")["args"][0].replace("/store", str(tmp_path))
    quick = script.replace("sleep 5", ":").replace("seq 720", "seq 7")
    (tmp_path / "weights" / "v0.tmp").mkdir(parents=True)
    (tmp_path / "weights" / "v0.tmp" / "manifest.json").touch()
    waited = subprocess.run(["sh", "-c", quick], capture_output=True, text=True, timeout=240, check=False)
    assert waited.returncode == 1
    assert waited.stdout.count("waiting for the learner") == 2
    assert "look at the learner's pods" in waited.stderr
    (tmp_path / "weights" / "v0.tmp").rename(tmp_path / "weights" / "v0")
    assert subprocess.run(["sh", "-c", quick], timeout=240, check=False).returncode == 0


def test_an_engine_over_nodes_is_a_leaderworkerset(helm4: Helm) -> None:
    objects = helm4.template(MATRIX["engines-over-nodes"])
    assert not [item for item in objects.of("Deployment") if item["metadata"]["name"].endswith("-rollout")]
    template = objects.one("LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]
    assert template["size"] == 2
    assert template["restartPolicy"] == "RecreateGroupOnPodRestart"
    leader, follower = template["leaderTemplate"]["spec"], template["workerTemplate"]["spec"]
    assert [item["name"] for item in leader["containers"]] == ["worker"]
    assert [item["name"] for item in follower["containers"]] == ["engine"]
    for spec in (leader, follower):
        engine = container(spec, "engine")
        assert engine["resources"]["limits"]["nvidia.com/gpu"] == "4"
        assert engine["resources"]["limits"]["rdma/hca"] == "1"
        assert '--node-rank "$LWS_WORKER_INDEX"' in engine["args"][0]
        assert {"name": "NCCL_SOCKET_IFNAME", "value": "eth0"} in engine["env"]


def test_the_learner_is_a_rayjob_where_there_is_kuberay_and_else_a_job(helm: Helm) -> None:
    assert not helm.template(kuberay=True).of("Job")
    assert not helm.template(kuberay=False).of("RayJob")
    for kuberay, kind in ((True, "RayJob"), (False, "Job")):
        objects = helm.template(kuberay=kuberay)
        prepared = [
            c["name"]
            for name, _, spec in pod_specs(objects.of(kind))
            if "submitter" not in name
            for c in spec["initContainers"]
        ]
        assert prepared == ["prepare-data"]
    assert helm.template({"learner": {"mode": "job"}}, kuberay=True).of("Job")
    off = helm.template({"learner": {"enabled": False}})
    assert not off.of("RayJob")
    assert not off.of("Job")


def test_a_plain_jobs_sender_is_told_its_pods_address(helm4: Helm) -> None:
    """Its local Ray calls itself 127.0.0.1, where no engine of another pod would find the weights."""
    for values, told in ((MATRIX["broadcast-weights"], True), ({}, False)):
        spec = helm4.template(values, kuberay=False).one("Job")["spec"]["template"]["spec"]
        entries = {entry["name"]: entry for entry in container(spec, "learner")["env"]}
        address = {"fieldRef": {"fieldPath": "status.podIP"}}
        assert (entries.get(POD_IP, {}).get("valueFrom") == address) is told


def test_a_changed_learner_is_a_new_job_and_an_unchanged_one_is_left_alone(helm4: Helm) -> None:
    for kuberay, kind in ((True, "RayJob"), (False, "Job")):
        names = [
            helm4.template(values, kuberay=kuberay).one(kind)["metadata"]["name"]
            for values in (
                {},
                {"reward": {"replicas": 3}, "rollout": {"replicas": 2}},
                {"recipe": {"learner": {"steps": 5}}},
                {"learner": {"image": {"tag": "2"}}},
            )
        ]
        assert names[0] == names[1]
        assert len(set(names)) == 3


def test_retries_resume_and_the_cluster_is_cleaned_up(helm4: Helm) -> None:
    spec = helm4.template(files=(PRESETS[0],)).one("RayJob")["spec"]
    assert spec["backoffLimit"] == 20
    assert spec["shutdownAfterJobFinishes"] is True
    job = helm4.template(kuberay=False).one("Job")["spec"]
    assert job["podFailurePolicy"]["rules"][0]["action"] == "Ignore"


def test_where_scaling_is_on_replicas_are_left_to_it(helm4: Helm) -> None:
    plain, scaled = helm4.template(), helm4.template(MATRIX["autoscaled"])
    for name in ("-reward", "-rollout"):
        assert "replicas" in plain.one("Deployment", name)["spec"]
        assert "replicas" not in scaled.one("Deployment", name)["spec"]
    assert (
        scaled.one("ScaledObject")["spec"]["scaleTargetRef"]["name"]
        == scaled.one("Deployment", "-rollout")["metadata"]["name"]
    )
    assert scaled.one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "demo-golongrl-reward"
    over_nodes = helm4.template(MATRIX["engines-over-nodes"])
    assert over_nodes.one("ScaledObject")["spec"]["scaleTargetRef"]["kind"] == "LeaderWorkerSet"
    assert "replicas" not in over_nodes.one("LeaderWorkerSet")["spec"]


def test_images_by_tag_digest_and_mirror(helm4: Helm) -> None:
    digest = "sha256:" + "0" * 64
    objects = helm4.template(
        {
            "global": {"imageRegistry": "mirror.example"},
            "reward": {"image": {"digest": digest, "tag": "x"}},
            "redis": {"image": {"registry": ""}},
        }
    )
    images = {c["name"]: c["image"] for _, _, spec in pod_specs(objects) for c in containers(spec)}
    assert images["reward"] == f"mirror.example/golongrl/golongrl-reward@{digest}"
    assert images["redis"] == "mirror.example/valkey/valkey:8.1.4-alpine"
    assert images["worker"].startswith("mirror.example/golongrl/golongrl-rollout:")
    plain = {c["image"] for _, _, spec in pod_specs(helm4.template()) for c in containers(spec)}
    assert not [image for image in plain if image.endswith((":", ":latest"))]
    pulled = helm4.template(MATRIX["placed"])
    assert all(spec["imagePullSecrets"] == [{"name": "pull"}] for _, _, spec in pod_specs(pulled))


def test_existing_secrets_and_claims_replace_the_charts_own(helm4: Helm) -> None:
    objects = helm4.template(MATRIX["external-redis"])
    assert not objects.of("Secret")
    assert not objects.of("PersistentVolumeClaim")
    assert not objects.of("StatefulSet")
    for _, _, spec in pod_specs(objects):
        for item in containers(spec):
            secrets = {
                entry["valueFrom"]["secretKeyRef"]["name"]
                for entry in item.get("env", [])
                if "secretKeyRef" in entry.get("valueFrom", {})
            }
            assert secrets <= {"mine"}
        claims = {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in spec["volumes"]
            if "persistentVolumeClaim" in volume
        }
        assert claims <= {"shared"}
    worker = container(rollout_spec(objects), "worker")
    environment = {entry["name"]: entry.get("value") for entry in worker["env"]}
    assert environment["GOLONGRL_REDIS_URL"] == "rediss://redis.example:6380/0"
    assert environment["GOLONGRL_DATA"] == "/store/run-7/data"
    hub = helm4.template(MATRIX["hub-model"]).one("RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"][
        "spec"
    ]
    env = {
        entry["name"]: entry["valueFrom"]["secretKeyRef"]
        for entry in container(hub, "ray-head")["env"]
        if "valueFrom" in entry
    }
    assert env["HF_TOKEN"] == {"name": "hf", "key": "token"}
    assert env["WANDB_API_KEY"] == {"name": "wandb", "key": "k"}


def test_what_holds_data_outlives_release_and_upgrade(helm4: Helm) -> None:
    objects = helm4.template()
    for kind in ("Secret", "PersistentVolumeClaim"):
        for item in objects.of(kind):
            assert item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", item["metadata"]["name"]
    redis = objects.one("StatefulSet")["spec"]
    assert redis["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    # A claim template that changes with the chart's version could not be upgraded.
    assert "helm.sh/chart" not in json.dumps(redis["volumeClaimTemplates"])
    assert "helm.sh/chart" not in json.dumps(redis["template"])


def test_the_secret_is_looked_up_before_it_is_made() -> None:
    """Without a server `helm template` cannot show it, so the template's own text is what can be held here."""
    text = (CHART / "templates/common/secret.yaml").read_text()
    assert 'lookup "v1" "Secret" .Release.Namespace $name' in text
    assert "get $old . | default (randAlphaNum 40 | b64enc)" in text


def test_disruption_budgets(helm4: Helm) -> None:
    names = {item["metadata"]["name"] for item in helm4.template(MATRIX["autoscaled"]).of("PodDisruptionBudget")}
    assert names == {f"demo-golongrl-{part}" for part in ("redis", "reward", "rollout", "learner")}
    preset = helm4.template(files=(PRESETS[0],)).one("PodDisruptionBudget", "-rollout")
    assert preset["spec"]["maxUnavailable"] == "10%"


@pytest.mark.parametrize(
    ("values", "kuberay", "least"),
    [
        ({}, True, 1),
        ({}, False, 1),
        (GPU_LEARNER, True, 3),
        ({**GPU_LEARNER, "operator": {"enabled": True}}, True, 3),
        ({**GPU_LEARNER, "learner": {**GPU_LEARNER["learner"], "enabled": False}}, True, 3),
    ],
)
def test_a_budget_of_the_learner_keeps_all_its_nodes_and_not_the_submitter(
    helm4: Helm, values: Manifest, kuberay: bool, least: int
) -> None:
    learner = {**values.get("learner", {}), "pdb": {"enabled": True}}
    objects = helm4.template({**values, "learner": learner}, kuberay=kuberay)
    spec = objects.one("PodDisruptionBudget", "-learner")["spec"]
    assert spec["minAvailable"] == least
    assert "maxUnavailable" not in spec  # which Kubernetes counts by a scale that a RayCluster has not
    # What KubeRay adds to the pods of its cluster, and to them alone.
    pods = []
    for name, metadata, pod in pod_specs([*objects.of("RayJob"), *objects.of("Job")]):
        ray = {} if name.startswith("Job") or pod["containers"][0]["name"] == "submitter" else {RAY_NODE: "yes"}
        copies = 2 if name.endswith(":ranks") else 1
        pods += [{**metadata["labels"], **ray}] * copies
    kept = [labels for labels in pods if spec["selector"]["matchLabels"].items() <= labels.items()]
    assert len(kept) == (least if pods else 0)


def test_the_learner_has_no_budget_unless_asked_and_never_on_somebody_elses_cluster(helm4: Helm) -> None:
    for values in ({}, {"learner": {"clusterSelector": "team-ray", "pdb": {"enabled": True}}}):
        names = [item["metadata"]["name"] for item in helm4.template(values).of("PodDisruptionBudget")]
        assert "demo-golongrl-learner" not in names


def test_placement_reaches_every_pod(helm4: Helm) -> None:
    for name, metadata, spec in pod_specs(helm4.template(MATRIX["placed"])):
        assert spec["nodeSelector"] == {"pool": "a"}, name
        assert spec["priorityClassName"] == "high", name
        assert spec["runtimeClassName"] == "nvidia", name
        assert spec["tolerations"], name
        assert metadata["labels"]["cost"] == "rl" or "helm.sh/hook" in metadata["annotations"], name


def test_a_recipe_rolls_the_rollout_pods_only(helm4: Helm) -> None:
    before, after = helm4.template(), helm4.template({"recipe": {"rollout": {"n": 4}}})
    learners = helm4.template({"recipe": {"learner": {"lr": 1e-5}, "algorithm": {"gamma": 2.0}}})
    for suffix, rolls in (("-rollout", True), ("-reward", False)):
        pods = [objects.one("Deployment", suffix)["spec"]["template"] for objects in (before, after, learners)]
        assert (pods[0] != pods[1]) is rolls
        assert pods[0] == pods[2], "workers read nothing of it"
    worker = "".join(path.read_text() for path in (ROOT / "services" / "golongrl" / "rollout").rglob("*.py"))
    # What they do read is in the pod template, so that a change rolls them, too.
    assert set(re.findall(r"recipe\.(?:learner|algorithm)\.\w+", worker)) == {"recipe.learner.routing_replay"}
    replayed = helm4.template({"recipe": {"learner": {"routing_replay": True}}})
    pods = [objects.one("Deployment", "-rollout")["spec"]["template"] for objects in (before, replayed)]
    assert pods[0] != pods[1]


def test_gpu_ranks_are_kept_off_the_head(helm4: Helm) -> None:
    cluster = helm4.template(files=(PRESETS[0],)).one("RayJob")["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (group,) = cluster["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    (worker,) = group["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert GPU_LEARNER["learner"]["workers"]["gpus"] == 8


def test_the_reward_service_finishes_before_it_is_killed_and_follows_the_recipe(helm4: Helm) -> None:
    """The command in the pod is the real one: it parses every flag, and stops sooner than the kubelet kills."""
    objects = helm4.template({"recipe": {"reward": {"deadline_s": 2.5}}, "reward": {"workers": 3}})
    spec = objects.one("Deployment", "-reward")["spec"]["template"]["spec"]
    command = container(spec, "reward")["command"]
    flags = dict(word.removeprefix("--").split("=") for word in command[3:])
    assert flags == {"host": "0.0.0.0", "port": "8080", "workers": "3", "deadline": "2.5", "shutdown-s": "45"}
    pre_stop = container(spec, "reward")["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert int(flags["shutdown-s"]) + pre_stop < spec["terminationGracePeriodSeconds"]


def test_every_command_in_a_pod_is_one_that_exists(helm4: Helm) -> None:
    """Each flag that a template passes is known to the command line that gets it."""
    from golongrl import cli

    cli._register_commands()
    root = typer.main.get_command(cli.app)
    seen = set()
    for switch in ("defaults", "learner-job", "existing-cluster", "operator", "learner-off"):
        for text in commands(helm4.template(MATRIX[switch])):
            words = [word for word in shlex.split(text) if word != "--verbose"]  # the test's own extra argument
            node: Any = root
            path: list[str] = []
            while hasattr(node, "commands"):
                path.append(words.pop(0))
                node = node.commands[path[-1]]
            known = {name for parameter in node.params for name in parameter.opts}
            used = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert used <= known, f"{path}: {used - known}"
            seen.add(" ".join(path))
    assert seen == {"reward serve", "rollout", "engine", "learner", "data prepare", "operator", "eval run"}


def commands(objects: Rendered) -> Iterator[str]:
    """Every `golongrl ...` line that the pods run, without the program's name."""
    texts = [
        shlex.join(item["command"])
        if item["command"][0] == "golongrl"
        else "\n".join([*item["command"], *item.get("args", [])])
        for _, _, spec in pod_specs(objects)
        for item in containers(spec)
        if "command" in item
    ]
    texts += [job["spec"]["entrypoint"] for job in objects.of("RayJob")]
    for text in texts:
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|sh -c '|'$", line):
                match = re.match(r"\s*(?:exec )?golongrl (.+)", part)
                if match:
                    yield match.group(1).replace('"$@"', "").replace('"$folder"', "F").replace('"${folder##*/v}"', "1")


def test_extra_objects_are_templates(helm4: Helm) -> None:
    assert helm4.template(MATRIX["extras"]).one("ConfigMap", "demo-x")["data"] == {"a": "b"}


@pytest.mark.parametrize(
    ("mode", "word"),
    [("rayjob", "the KubeRay RayJob"), ("auto", "This cluster has no KubeRay"), ("job", "the plain Job")],
)
def test_notes_say_which_learner_and_what_to_do_next(helm4: Helm, mode: str, word: str) -> None:
    """By Helm 4 alone: Helm 3 asks a server before it shows NOTES."""
    done = helm4.run("install", "demo", str(CHART), "--dry-run=client", "--set", f"learner.mode={mode}")
    notes = done.stdout.partition("NOTES:")[2]
    assert word in notes, done.stderr
    assert "golongrl status --release demo" in notes
    assert "helm test demo" in notes


@pytest.mark.parametrize(("operator", "words"), [("true", "get trainingruns"), ("false", "-f values.yaml")])
def test_notes_say_how_a_learner_is_submitted_where_it_is_off(helm4: Helm, operator: str, words: str) -> None:
    """To the operator as a TrainingRun; as a RayJob with the release's own values, whose images and claims it joins."""
    settings = ["--set", "learner.enabled=false", "--set", f"operator.enabled={operator}"]
    done = helm4.run("install", "demo", str(CHART), "--dry-run=client", *settings)
    notes = done.stdout.partition("NOTES:")[2]
    assert words in notes, done.stderr
    assert ("golongrl render rayjob quickstart" in notes) is (operator == "false")


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ("", "secret/demo-golongrl-auth pvc/demo-golongrl-store pvc/data-demo-golongrl-redis-0"),
        ("auth.existingSecret=mine,storage.existingClaim=shared", "pvc/data-demo-golongrl-redis-0"),
        ("auth.existingSecret=mine,storage.existingClaim=shared,redis.external.host=r", None),
    ],
)
def test_notes_delete_only_what_is_the_releases_own(helm4: Helm, settings: str, left: str | None) -> None:
    """Somebody's own Secret and claims are not this release's to take away."""
    done = helm4.run("install", "demo", str(CHART), "-n", "rl", "--dry-run=client", "--set", settings)
    notes = done.stdout.partition("NOTES:")[2]
    assert "outlives `helm uninstall`" in notes, done.stderr
    assert re.findall(r"kubectl -n rl delete (.*)", notes) == ([left] if left else [])


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ("", False),
        ("model.download.repo=a/b", True),
        ("dataset.download.repo=a/b", True),
        ("model.download.repo=a/b,networkPolicy.extraEgress.learner[0].ports[0].port=443", False),
        ("model.download.repo=a/b,networkPolicy.enabled=false", False),
    ],
)
def test_notes_say_that_a_download_has_no_way_out(helm4: Helm, settings: str, warned: bool) -> None:
    done = helm4.run("install", "demo", str(CHART), "--dry-run=client", "--set", settings)
    notes = done.stdout.partition("NOTES:")[2]
    assert "golongrl status" in notes, done.stderr
    assert ("networkPolicy.extraEgress.learner" in notes) is warned
    assert ("Ray's dashboard" in notes) is ("enabled=false" in settings)


def test_lint(helm: Helm) -> None:
    done = helm.run("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_deleted_learner_has_its_grace_period_to_finish_the_step(helm4: Helm) -> None:
    """KubeRay has Ray stop the job, which kills the driver after RAY_JOB_STOP_WAIT_TIME_S, and deletes all pods at the
    same time. Their processes end at the first signal, which comes when the hooks have seen the learner end."""
    values = {**GPU_LEARNER, "learner": {**GPU_LEARNER["learner"], "drainSeconds": 900}}
    cluster = helm4.template(values, kuberay=True).one("RayJob")["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert len(groups) == 2
    for group in groups:
        spec = group["template"]["spec"]
        (ray,) = spec["containers"]
        assert spec["terminationGracePeriodSeconds"] == 900
        command = ray["lifecycle"]["preStop"]["exec"]["command"]
        assert command == ["python", "-m", "golongrl.learner.pre_stop", "--seconds", "870"]
    (head,) = groups[0]["template"]["spec"]["containers"]
    assert {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "870"} in head["env"]
    job = helm4.template({"learner": {"mode": "job", "drainSeconds": 900}}).one("Job")
    assert job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 900
