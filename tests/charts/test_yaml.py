"""Every YAML file that ships means the same to kubectl and Helm, who read YAML 1.1, as to the person who wrote it."""

import copy
import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from golongrl import recipe as recipes
from golongrl import yaml_text
from golongrl.kubernetes.helm import template
from golongrl.kubernetes.rayjob.load import merge
from golongrl.kubernetes.rayjob.render import rayjob_yaml
from golongrl.kubernetes.values import Values
from golongrl_operator.crd import crd
from support.chart_values import MATRIX, PRESETS
from support.helm import CHART, KUBERAY, ROOT, YAML, Helm, Manifest, Rendered, containers, pod_specs, tool

# Templates are not YAML, and what tests/ holds has faults on purpose.
FOLDERS = ("charts", "operators", "services", "examples", "images")
SHIPPED = [
    *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.yaml") if "templates" not in path.parts),
    ROOT / "skaffold.yaml",
]


PAGES = [
    page
    for page in [
        *ROOT.glob("*.md"),
        *(found for folder in (*FOLDERS, "docs") for found in (ROOT / folder).rglob("*.md")),
    ]
    if "```yaml" in page.read_text()
]
_FENCE = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Core(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.2's core schema: what a word means to people and to newer readers."""


Core.yaml_implicit_resolvers = {}
for tag, pattern, first in (
    ("null", r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(0|[1-9][0-9]*)$", list("-+0123456789")),
    ("float", r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$", list("-+.0123456789")),
):
    Core.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), first)


def documents(text: str) -> list[str]:
    """The documents of a stream as texts; a line of three dashes separates them."""
    return [part for part in re.split(r"^---.*$", text, flags=re.MULTILINE) if yaml.compose(part, Loader=Core)]


@cache
def as_helm_reads(texts: tuple[str, ...], folder: Path, binary: str = "helm4") -> list[Any]:
    """What Helm's own reader (that of kubectl too) makes of each text, by a chart that prints it as JSON."""
    probe = folder / "probe"
    shutil.rmtree(probe, ignore_errors=True)
    (probe / "templates").mkdir(parents=True)
    (probe / "Chart.yaml").write_text("apiVersion: v2\nname: probe\nversion: 0.1.0\n")
    for number, text in enumerate(texts):
        (probe / f"{number:04}.txt").write_text(text)
    (probe / "templates" / "out.yaml").write_text(
        '{{- range $path, $_ := .Files.Glob "*.txt" }}\n---\n'
        '{{ dict "a" ($.Files.Get $path | fromYaml) | toJson }}\n{{- end }}\n'
    )
    done = Helm(tool(binary)).run("template", "probe", str(probe))
    assert done.returncode == 0, done.stderr
    found = [json.loads(line)["a"] for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) == len(texts)
    return found


def assert_unambiguous(texts: list[str], tmp_path: Path) -> None:
    """Core, PyYAML as 1.1 with all its booleans, and Helm's reader agree."""
    for text, helms in zip(texts, as_helm_reads(tuple(texts), tmp_path), strict=True):
        meant = yaml.load(text, Loader=Core)
        assert plain(yaml.load(text, Loader=YAML)) == plain(meant)
        assert plain(helms) == plain(meant)


def plain(value: Any) -> Any:
    """Numbers as numbers, whatever their kind; a key that is no text keeps its kind, so that it differs."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def test_the_readers_differ_where_they_should(tmp_path: Path) -> None:
    """Else the tests below would hold nothing."""
    for text in ("n: 1", "a: on", "a: [y]", "a: 010", "off: 1"):
        with pytest.raises(AssertionError):
            assert_unambiguous([text], tmp_path)
    with pytest.raises(AssertionError):  # sexagesimal: PyYAML's alone
        assert_unambiguous(["a: 1:30"], tmp_path)
    assert_unambiguous(["'n': 1\na: 'on'\nb: [1, 1.5, 1.0e-6, null, true, x, 2Gi]"], tmp_path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shipped_file_is_read_as_it_was_meant(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    assert_unambiguous(documents(text), tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_shows_is_read_as_it_was_meant(page: Path, tmp_path: Path) -> None:
    """People paste it into values, recipes and TrainingRuns."""
    assert_unambiguous([part for text in _FENCE.findall(page.read_text()) for part in documents(text)], tmp_path)


@pytest.mark.parametrize("binary", ["helm3", "helm4"])
def test_generated_files_say_what_they_were_made_of(binary: str, tmp_path: Path) -> None:
    files = {
        CHART / "values.yaml": Values().model_dump(mode="json", by_alias=True),
        CHART / "charts" / "crds" / "crds" / "trainingruns.golongrl.io.yaml": crd(),
    }
    read = as_helm_reads(tuple(path.read_text() for path in files), tmp_path, binary)
    assert [plain(item) for item in read] == [plain(item) for item in files.values()]


@pytest.mark.parametrize("name", recipes.packaged())
def test_a_recipe_is_the_same_to_every_reader(name: str, tmp_path: Path) -> None:
    """As `golongrl recipe show` prints it, for a ConfigMap or under the chart's `recipe:`."""
    recipe = recipes.load(name)
    (read,) = as_helm_reads((recipes.dump(recipe),), tmp_path)
    assert recipes.parse(read) == recipe
    (written,) = as_helm_reads((recipes.source(name),), tmp_path)
    assert recipes.parse(written) == recipe


@pytest.mark.parametrize(
    "switches", ["everything-observed", "operator", "engines-over-nodes", "yunikorn", "learner-job"]
)
def test_what_the_chart_renders_is_read_as_it_was_meant(helm4: Helm, switches: str, tmp_path: Path) -> None:
    values = tmp_path / "values.json"
    values.write_text(json.dumps(MATRIX[switches]))
    done = helm4.run("template", "demo", str(CHART), "-f", str(values), "--api-versions", KUBERAY)
    assert_unambiguous(documents(done.stdout), tmp_path)


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_preset_renders_is_read_as_it_was_meant(helm4: Helm, preset: str, tmp_path: Path) -> None:
    done = helm4.run("template", "demo", str(CHART), "-f", str(CHART / preset), "--api-versions", KUBERAY)
    assert_unambiguous(documents(done.stdout), tmp_path)


def test_what_render_prints_is_read_as_it_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helm").symlink_to(tool("helm4"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    text = rayjob_yaml("quickstart", "demo", "rl")
    assert_unambiguous(documents(text), tmp_path)
    config = yaml.load(documents(text)[0], Loader=YAML)
    assert_unambiguous([config["data"]["recipe.yaml"]], tmp_path)


@pytest.mark.parametrize(
    "word",
    ["y", "n", "Y", "N", "yes", "No", "on", "OFF", "true", "null", "~", "", "010", "0o17", "0x1f", "0b1", "1:30",
     "12:30:45", "1_000", "1e3", "1E-6", "+1", ".5", "5.", "1.", ".inf", ".NaN", "2001-01-01", "=", "<<", "- a", "a: b",
     "#", "a #b", "'", '"', "|", "%", "@", "`", "*a", "&a", "!t", "{", "[", "two\nlines", " x ", "\t", "é", "a\u2028b"],
)  # fmt: skip
def test_our_writer_quotes_what_a_reader_could_mistake(word: str, tmp_path: Path) -> None:
    tree = {word or "empty": word, "list": [word], "below": {"key": {word or "empty": 1}}}
    (read,) = as_helm_reads((yaml_text.dump(tree),), tmp_path)
    assert read == tree
    for loader in (YAML, Core):
        assert yaml.load(yaml_text.dump(tree), Loader=loader) == tree
        assert list(yaml.load_all(yaml_text.dump_all([tree, tree]), Loader=loader)) == [tree, tree]


# Each is a text that some reader of YAML takes for something else, and a valid label's value.
WORDS = ("y", "n", "Y", "N", "yes", "No", "on", "OFF", "true", "False", "null", "NULL", "010", "0o17", "0x1f", "0b1",
         "1_000", "1e3", "1E5", "5.0", "2001-01-01", "0", "1.2.3")  # fmt: skip
FREE = (*WORDS, "~", "=", "<<", "12:30", "12:30:45", "+1", ".5", "5.", ".inf", "- a", "a: b", "#", "|", "é", "a\u2028b",
        "'", '"', "{{ .Values }}", "*a", "&a", "!t", " x ")  # fmt: skip


def with_words() -> Manifest:
    """Values with such texts wherever a text is free."""
    labels = {**{f"w{number}": word for number, word in enumerate(WORDS)}, "n": "n", "yes": "on", "0": "1", "1e3": "no"}
    texts = {f"w{number}": word for number, word in enumerate(FREE)} | {"off": "off", "2001-01-01": "y"}
    env = [{"name": f"W{number}", "value": word} for number, word in enumerate(FREE)] + [{"name": "n", "value": "y"}]
    expression = {"key": "on", "operator": "In", "values": list(WORDS)}
    placed: Manifest = {
        "nodeSelector": labels, "podLabels": labels, "podAnnotations": texts, "env": env,
        "tolerations": [{"key": "y", "value": word} for word in WORDS],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [expression]}]}}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "n", "whenUnsatisfiable": "ScheduleAnyway",
                                       "labelSelector": {"matchLabels": labels}}],
        "priorityClassName": "n", "runtimeClassName": "on",
    }  # fmt: skip
    parts = ("redis", "reward", "rollout", "learner", "evaluation", "construction", "operator")
    values: Manifest = {part: copy.deepcopy(placed) for part in parts}
    peer = {"namespaceSelector": {"matchLabels": labels}, "podSelector": {"matchExpressions": [expression]}}
    numbers = {"registry": "", "repository": "1", "tag": "30"}
    for part in ("redis", "reward", "learner", "evaluation", "construction", "operator"):
        values[part]["image"] = numbers
    values["reward"] |= {"args": list(FREE)}
    values["rollout"]["worker"] = {"args": list(FREE), "image": numbers}
    values["rollout"]["engine"] = {"args": ["n"], "env": [{"name": "y", "value": "n"}], "image": numbers}
    values["learner"] |= {"args": list(FREE), "gang": {"scheduler": "kueue", "queue": "n"},
                          "head": {"rayStartParams": {"n": "y", "0": "1e3"}}}  # fmt: skip
    judge = {"url": "http://n", "model": "y", "existingSecret": "on"}
    values["evaluation"] |= {"enabled": True, "args": list(FREE), "judge": judge}
    values["construction"] |= {"enabled": True, "out": "n", "documentsClaim": "y", "stages": ["sources"]}
    return values | {
        "run": "n", "commonLabels": labels, "storage": {"folder": "n", "storageClass": "y", "annotations": texts},
        "serviceAccount": {"annotations": texts}, "global": {"imagePullSecrets": ["n"]},
        "auth": {"existingSecret": "on"},
        "huggingface": {"existingSecret": "y", "key": "n"}, "wandb": {"existingSecret": "no", "key": "1e3"},
        "network": {"socketInterface": "n", "ncclEnv": {"NCCL_Y": "y", "NCCL_X": "010"}},
        "networkPolicy": {"prometheus": peer, "dns": peer, "kuberayOperator": peer,
                          "extraEgress": {"learner": [{"ports": [{"port": "n"}], "to": [peer]}]}},
        "rbac": {"viewer": {"create": True, "subjects": [{"kind": "User", "name": word} for word in FREE]}},
        "metrics": {"monitors": {"enabled": True, "labels": labels}, "rules": {"enabled": True, "labels": labels},
                    "dashboards": {"labels": labels, "annotations": texts},
                    "traces": {"existingSecret": "n", "key": "y"}},
        "recipe": {"name": "n", "telemetry": {"otlp_endpoint": "http://n:4317"}},
        "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n", "labels": labels},
                          "data": {"n": "y", "on": "1e3"}}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("binary", "switch"),
    [
        pytest.param("helm3", {}, marks=pytest.mark.full),
        pytest.param("helm4", {}, marks=pytest.mark.full),
        ("helm4", {"operator": {"enabled": True}}),
        pytest.param("helm4", {"learner": {"mode": "job"}}, marks=pytest.mark.full),
    ],
    ids=str,
)
def test_texts_of_the_values_stay_texts(binary: str, switch: Manifest, tmp_path: Path) -> None:
    values = merge(with_words(), switch)
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values, ensure_ascii=False))
    apis = ["--api-versions", KUBERAY, "--api-versions", "monitoring.coreos.com/v1"]
    done = Helm(tool(binary)).run("template", "demo", str(CHART), "-f", str(file), *apis)
    assert done.returncode == 0, done.stderr
    assert_unambiguous(documents(done.stdout), tmp_path)
    for pod, metadata, spec in pod_specs([yaml.load(part, Loader=YAML) for part in documents(done.stdout)]):
        assert all(isinstance(text, str) for text in strings(metadata)), pod
        for container in containers(spec):
            assert all(isinstance(entry.get("value", ""), str) for entry in container.get("env", [])), pod
            assert all(isinstance(word, str) for key in ("args", "command") for word in container.get(key, [])), pod


def test_our_own_reader_of_helms_objects_reads_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helm").symlink_to(tool("helm4"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    command = ["demo", str(CHART), "--values", "-", "--api-versions", KUBERAY]
    reward = Rendered(template(command, json.dumps(with_words()))).one("Deployment", "-reward")
    found = reward["spec"]["template"]["metadata"]["annotations"]
    assert found.items() >= {"w24": "=", "w25": "<<", "off": "off"}.items()


def strings(metadata: Manifest) -> list[Any]:
    """Keys and values of labels and annotations."""
    parts = [metadata.get(key) or {} for key in ("labels", "annotations")]
    return [text for part in parts for entry in part.items() for text in entry]
