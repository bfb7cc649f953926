"""What a person writes is read as it was meant, or refused: in a file and with --set alike."""

from pathlib import Path

import pytest
import yaml

from golongrl.recipe import RecipeError, load, packaged, read_yaml, source
from golongrl.recipe.unused import unused_settings

# What readers of YAML 1.1, of YAML 1.2 and people understand in different ways.
DOUBTFUL = (
    "1:30", "1:30:00", "-1:30", "0:05", "190:20:30.15", "010", "-010", "08", "0_1", "0o10", "-0O7", "0b11", "0X10",
    "0x_1F",
    "1__000", "1000_", "0.1_0", "1_.5", "!!int 5", "!!float 5", "!!bool yes", "!!null x", "!!binary aGk=", "!!set {a}",
    "!!omap [a: 1]", "!!timestamp 2026-01-01", "!!python/object/apply:os.system [true]", "!mine 5",
    "y", "Y", "n", "N", "[n]", "{on: 1}", "{Yes: 1}", "{y: 1}", "{N: 1}", "{True: 1}", "{FALSE: 1}",
)  # fmt: skip
REFUSED = r"plain digits|for true or false|without the tag|could not determine a constructor"


@pytest.mark.parametrize("written", DOUBTFUL)
@pytest.mark.parametrize("key", ["learner.steps", "learner.lr", "data.train", "name", "data.tasks"])
def test_a_doubtful_value_is_refused_in_a_file_and_with_set(tmp_path: Path, key: str, written: str) -> None:
    with pytest.raises(RecipeError, match=REFUSED) as by_option:
        load("quickstart", [f"{key}={written}"])
    path = tmp_path / "mine.yaml"
    section, _, name = key.rpartition(".")
    path.write_text(f"{section}: {{{name}: {written}}}\n" if section else f"{name}: {written}\n", "utf-8")
    with pytest.raises(RecipeError, match=REFUSED) as by_file:
        load(str(path))
    assert "\n" not in str(by_option.value) + str(by_file.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("90", 90), ("1_000", 1000), ("268_435_456", 268435456), ("0x10", 16), ("+1", 1), ("0", 0), ("1e3", 1000.0),
        ("1E-6", 1e-6), (".5", 0.5), ("+.5", 0.5), ("-.5e1", -5.0), ("5.", 5.0), ("0.5", 0.5), ("00.5", 0.5),
        ("1_000.5", 1000.5),
        ("yes", True), ("off", False), ("true", True), ("~", None), ("'010'", "010"), ('"1:30"', "1:30"),
        ("!!str 010", "010"),
        ("'n'", "n"), ("yN", "yN"), ("=", "="), ("<<", "<<"), ("10k", "10k"), ("1,000", "1,000"), ("http://h:80", "http://h:80"),
        ("v1.2.3", "v1.2.3"),
        ("2026-01-01", "2026-01-01"), ("2026-13-45", "2026-13-45"), ("2026-01-02 03:04:05Z", "2026-01-02 03:04:05Z"),
        ("{1: a, n: b, '~': c, '1.5': d, 'on': e}", {"1": "a", "n": "b", "~": "c", "1.5": "d", "on": "e"}),
    ],
)  # fmt: skip
def test_any_other_value_is_what_it_looks_like(written: str, meant: object) -> None:
    found = read_yaml(written)
    assert found == meant
    assert type(found) is type(meant)


@pytest.mark.parametrize("key", ["0x1", "1e3", "1.5", "~", "null", "+1", "1_000", "-0", ".inf", "<<", "9" * 19, ""])
def test_a_key_that_readers_write_in_other_ways_is_refused(key: str) -> None:
    with pytest.raises(yaml.YAMLError, match="line 2, column 3"):
        read_yaml(f"a:\n  {key}: {{a: 2}}\n  1: 2\n")


def test_nothing_is_merged() -> None:
    with pytest.raises(RecipeError, match="unknown key <<"):
        load("quickstart", ["<<={seed: 5}"])


@pytest.mark.parametrize("value", ["rows #2.jsonl", "#2.jsonl", "'rows' #2", "[T1] # T2", "5 # steps"])
def test_set_does_not_drop_what_yaml_takes_for_a_comment(value: str) -> None:
    with pytest.raises(RecipeError, match="read as a comment; put quotes"):
        load("quickstart", [f"data.validation={value}"])
    assert load("quickstart", ["data.validation='rows #2.jsonl'"]).data.validation == "rows #2.jsonl"


@pytest.mark.parametrize("value", ["no", "yes", "5", "0.5", "1e3"])
def test_a_text_that_yaml_reads_as_something_else_is_told_how_to_quote(value: str) -> None:
    with pytest.raises(RecipeError, match=r"name: Input should be a valid string; it is read as .*quotes"):
        load("quickstart", [f"name={value}"])


@pytest.mark.parametrize("name", ["a..b", "a.-b", "a-.b", ".a", "a.", "-a", "a-", "A", "a_b", "a/b", "", "a b", "é"])
def test_a_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=r"name: .* cannot be used: use lower-case letters"):
        load("quickstart", [f"name={name!r}"])


@pytest.mark.parametrize("name", ["a", "a.b", "a-b.c--d.0", "0"])
def test_a_good_name_is_taken(name: str) -> None:
    assert load("quickstart", [f"name={name!r}"]).name == name


def unused(*overrides: str) -> str:
    return "\n".join(unused_settings(load("quickstart", overrides)))


@pytest.mark.parametrize("name", packaged())
def test_packaged_recipes_set_nothing_without_use(name: str) -> None:
    assert not list(unused_settings(load(name)))
    assert yaml.safe_load(source(name)) == read_yaml(source(name))


ROWS = ("data.corpus=null", "data.train=rows.jsonl")


@pytest.mark.parametrize(
    ("setting", "others", "reason"),
    [
        ("algorithm.reweight=true", ["algorithm.estimator=grpo"], "only algorithm.estimator tmn_grpo reads it"),
        ("algorithm.normalize=false", ["algorithm.estimator=rloo"], "tmn_grpo or grpo reads it"),
        ("algorithm.epsilon=0.1", ["algorithm.estimator=dr_grpo"], "tmn_grpo, grpo, qwenlong_grpo or aepo reads it"),
        ("algorithm.epsilon=0.1", ["algorithm.normalize=false"], "algorithm.normalize is false"),
        ("algorithm.entropy_low=0.1", [], "only algorithm.estimator aepo reads it"),
        ("algorithm.entropy_high=0.5", ["algorithm.estimator=my.own:function"], "aepo"),
        ("algorithm.gamma=2", ["algorithm.reweight=false"], "algorithm.reweight is false"),
        ("algorithm.clip_ratio_low=0.1", ["algorithm.policy_loss=gpg"], "only algorithm.policy_loss vanilla"),
        ("algorithm.clip_ratio_c=5", ["algorithm.policy_loss=gspo"], "vanilla, dppo_tv or dppo_kl reads it"),
        ("algorithm.loss_agg_mode=seq-mean-token-sum", ["algorithm.policy_loss=sapo"], "averages in its own way"),
        ("algorithm.kl_loss_type=mse", [], "algorithm.kl_loss_coef is 0"),
        ("algorithm.overlong_penalty=0.5", [], "algorithm.overlong_buffer is 0"),
        ("algorithm.overlong_buffer=5", ["algorithm.overlong_penalty=0"], "algorithm.overlong_penalty is 0"),
        ("algorithm.rollout_is_mode=mask", ["algorithm.rollout_is=null"], "algorithm.rollout_is is null"),
        ("algorithm.rollout_is_clip=[0.1, 2]", ["algorithm.proximal=behaviour"], "algorithm.proximal is behaviour"),
        ("algorithm.rollout_rs={token_k2: 1.5}", ["algorithm.proximal=behaviour"], "every importance weight 1"),
        ("data.context_tokens=50", ROWS, "data.train is set"),
        ("data.bad_rows=skip", [], "have no bad rows"),
        ("data.validation_prompts=5", ["data.validation=held.jsonl"], "data.validation is set"),
        ("data.validation=held.jsonl", [], "nothing validates"),
        ("queue.min_prompts_per_task=2", ["data.tasks=[T1]"], "one task type"),
        ("queue.min_prompts_per_task=19", [], "exceeds queue.groups_per_step 18"),
        ("queue.max_routes_bytes=1000000", [], "learner.routing_replay is false"),
        ("rollout.validation_temperature=0.1", [], "nothing validates"),
        ("rollout.validation_top_p=0.5", ["learner.test_freq=5", "rollout.validation_temperature=0"], "likeliest"),
        ("learner.validation_deadline_s=5", [], "nothing validates"),
        ("learner.keep_weights=9", ["learner.weights=broadcast"], "learner.weights is broadcast"),
        ("learner.weight_base_every=9", ["learner.weights=broadcast"], "learner.weights is broadcast"),
    ],
)  # fmt: skip
def test_a_setting_that_another_makes_unused_is_named_with_the_reason(
    setting: str, others: list[str], reason: str
) -> None:
    key = setting.partition("=")[0]
    lines = [line for line in unused(*others, setting).splitlines() if f"{key}," in line or f"{key}:" in line]
    assert len(lines) == 1
    assert reason in lines[0]


@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm.kl_loss_coef=0.1", "algorithm.kl_loss_type=mse", "algorithm.overlong_buffer=5"],
        ["algorithm.estimator=aepo", "algorithm.reweight=false", "algorithm.alpha=0.5", "algorithm.entropy_low=0.1"],
        ["algorithm.policy_loss=my.own:loss", "algorithm.clip_ratio_c=5", "algorithm.clip_ratio_low=0.1"],
        ["algorithm.policy_loss=sapo", "algorithm.loss_agg_mode=seq-mean-token-sum", "algorithm.entropy_coeff=0.1"],
        ["learner.test_freq=5", "rollout.validation_temperature=0.1", "learner.validation_deadline_s=5"],
    ],
)
def test_a_setting_in_use_is_not_named(overrides: list[str]) -> None:
    assert not unused(*overrides)
