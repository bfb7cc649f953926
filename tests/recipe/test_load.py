"""Reading recipes: strictness, overrides, messages, and the paper's numbers."""

from pathlib import Path

import pytest
import yaml

from golongrl.recipe import Recipe, RecipeError, dump, load, packaged, parse, read_yaml, source


@pytest.mark.parametrize("name", packaged())
def test_every_packaged_recipe_is_good_and_survives_a_round_trip(name: str) -> None:
    recipe = load(name)
    assert recipe.name == name
    assert parse(yaml.safe_load(dump(recipe))) == recipe


def test_the_packaged_recipes_are_the_five_of_the_readme() -> None:
    assert packaged() == ["quickstart", "qwen3-30b-a3b-grpo", "qwen3-4b-grpo", "qwen3-4b-tmn-reweight", "smollm2-135m"]


def test_overrides_are_yaml_and_may_open_a_section() -> None:
    recipe = load("quickstart", ["queue.max_staleness=0", "data.tasks=[T1, T4]", "algorithm.rollout_is=null"])
    assert recipe.queue.max_staleness == 0
    assert recipe.data.tasks == ("T1", "T4")
    assert recipe.algorithm.rollout_is is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learner.stepz=3", "unknown key learner.stepz; did you mean learner.steps?"),
        ("steps=3", "unknown key steps; did you mean learner.steps?"),
        ("learner.max_staleness=3", "unknown key learner.max_staleness; did you mean queue.max_staleness?"),
        ("larner.steps=3", "unknown key larner; did you mean learner?"),
        ("queue.max_staleness=-1", "queue.max_staleness: Input should be greater than or equal to 0"),
        ("queue.max_staleness=1.5", "queue.max_staleness: Input should be a valid integer"),
        ("queue.max_staleness='1'", "queue.max_staleness: Input should be a valid integer"),
        ("data.train=file.jsonl", "`corpus` and `train` are both set; set the other one to null (data.corpus=null)"),
        ("data.corpus=null", "data: set `corpus` or `train`"),
        ("rollout.max_response_tokens=4096", "model.context_length 512 is below"),
        ("learner.ulysses=3", "learner.ulysses 3 does not divide learner.ranks 1"),
        ("queue", "--set queue: expected key.path=value"),
        ("name.x=1", "--set name.x=1: name is not a section"),
        ("model=3", "model: Input should be an object"),
        ("learner.steps=", "--set learner.steps=: no value; write learner.steps=null to set none"),
        ("learner.steps= # 3", "# 3 would be read as a comment"),
        ("seed={a", "--set seed={a: the value is not YAML"),
        ("learner.lr=.nan", "learner.lr: nan must be a string, finite number, list or mapping"),
        ("learner.steps=1e400", "learner.steps: inf must be a string, finite number, list or mapping"),
        ("data.tasks=[T1, .inf]", "data.tasks.1: inf must be a string"),
        ("model={1: {2: 3}}", "unknown key model.1"),
    ],
)
def test_a_wrong_override_is_one_line_that_names_the_key(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load("quickstart", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_nearest_packaged_recipe() -> None:
    with pytest.raises(
        RecipeError, match=r"recipe quickstrat: no such file or packaged recipe; did you mean quickstart\?"
    ):
        load("quickstrat")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("- a", "expected a mapping"),
        ("", "expected a mapping of sections, got nothing"),
        ("name: x", "missing key model"),
        ("model: {pathh: x}", "unknown key model.pathh; did you mean model.path?; missing key name"),
        ("2026-01-01: x", "unknown key 2026-01-01"),
        ("\xff", ""),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecipeError, match=r"mine\.yaml") as caught:
        load(str(path))
    assert message in str(caught.value)


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load("quickstart").queue.max_staleness = 3  # type: ignore[misc]


def test_every_field_says_what_it_is() -> None:
    for section in Recipe.model_fields.values():
        for key, field in getattr(section.annotation, "model_fields", {}).items():
            assert field.description, key


PAPER = {  # arXiv 2605.19577, training section; facts of the released configuration
    "data.max_prompt_tokens": 163_840,
    "data.epochs": 10,
    "data.overlong": "filter",
    "rollout.max_response_tokens": 16_384,
    "rollout.temperature": 1.0,
    "rollout.top_p": 1.0,
    "rollout.n": 16,
    "rollout.group_filter": True,
    "rollout.max_gen_batches": 32,
    "reward.mode": "compat",
    "queue.groups_per_step": 128,
    "learner.lr": 2e-6,
    "learner.lr_warmup_steps": 5,
    "learner.weight_decay": 0.1,
    "learner.grad_clip": 1.0,
    "learner.checkpoint_every": 5,
    "algorithm.clip_ratio_low": 0.2,
    "algorithm.clip_ratio_high": 0.28,
    "algorithm.clip_ratio_c": 3.0,
    "algorithm.loss_agg_mode": "token-mean",
    "algorithm.kl_loss_coef": 0.0,
    "algorithm.entropy_coeff": 0.0,
    "algorithm.rollout_is": "token",
    "algorithm.rollout_is_clip": (0.5, 5.0),
    "algorithm.rollout_token_veto": 1e-4,
}


@pytest.mark.parametrize("name", ["qwen3-4b-grpo", "qwen3-4b-tmn-reweight", "qwen3-30b-a3b-grpo"])
def test_the_papers_recipes_have_the_papers_numbers(name: str) -> None:
    recipe = load(name)
    for path, expected in PAPER.items():
        value = recipe
        for part in path.split("."):
            value = getattr(value, part)
        assert value == expected, path


def test_only_tmn_reweights_and_with_alpha_08_and_gamma_1() -> None:
    algorithm = load("qwen3-4b-tmn-reweight").algorithm
    assert (algorithm.estimator, algorithm.reweight, algorithm.alpha, algorithm.gamma) == ("tmn_grpo", True, 0.8, 1.0)
    assert load("qwen3-4b-grpo").algorithm.estimator == load("qwen3-30b-a3b-grpo").algorithm.estimator == "grpo"


def test_source_is_the_file_with_its_comments() -> None:
    assert source("quickstart").startswith("#")


def test_a_learning_rate_may_be_written_without_a_point() -> None:
    assert load("quickstart", ["learner.lr=1e-6"]).learner.lr == 1e-6
    assert read_yaml("{a: 2E+3, b: '1e-6', c: 1e}") == {"a": 2000.0, "b": "1e-6", "c": "1e"}


def test_every_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = load(
        "quickstart",
        ["model.path=~/model", "data.corpus=~/texts", "data.validation=~/held.jsonl", "learner.resume=~/global_step_5"],
    )
    found = (recipe.model.path, recipe.data.corpus, recipe.data.validation, recipe.learner.resume)
    assert found == tuple(f"{tmp_path}/{name}" for name in ("model", "texts", "held.jsonl", "global_step_5"))
    assert load("quickstart", ["data.corpus=null", "data.train=~/t"]).data.train == f"{tmp_path}/t"
    assert load("quickstart", ["model.path=org/~name"]).model.path == "org/~name"


@pytest.mark.parametrize("url", ["https://me:hidden@h/x", "https://hidden@h/x", "s3://b/x?X-Amz-Signature=hidden"])
@pytest.mark.parametrize("key", ["model.path", "data.train", "data.corpus", "data.validation", "learner.resume"])
def test_a_place_with_a_secret_is_refused_because_recipes_are_kept_and_shown(key: str, url: str) -> None:
    with pytest.raises(RecipeError, match=rf"{key}.*environment variable") as error:
        load("quickstart", [f"{key}='{url}'"])
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("name=A_B", 'name: "A_B" cannot be used: use lower-case letters, digits, - and .'),
        ("telemetry.otlp_endpoint=localhost:4317", '"localhost:4317" cannot be used: write it as http://HOST:PORT'),
        ("telemetry.otlp_endpoint=http://u:secret@x", "http://HOST:PORT, without a user or password"),
        ("learner.wandb_project=a/b", 'learner.wandb_project: "a/b" cannot be used: leave out / '),
        ("data.tasks=[]", "data.tasks: it has 0 entries, at least 1 are needed"),
        ("data.tasks=[T10]", "data.tasks.0: Input should be 'T1'"),
        ("data.task_weights={X: 1}", "data.task_weights.X: Input should be 'T1'"),
        (r'name="\ud800"', "name: it has half of a character"),
        (r'data.task_weights={"\udfff": 1}', r"data.task_weights.\udfff: it has half of a character"),
    ],
)
def test_what_a_form_asks_for_is_said_in_words(override, line):
    with pytest.raises(RecipeError) as caught:
        load("quickstart", [override])
    message = str(caught.value)
    assert line in message
    assert all(word not in message for word in ("secret", "pattern", "Tuple", "[key]", "\n"))
