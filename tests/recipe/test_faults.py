"""What a recipe's text and its numbers show is refused in one line that names key and line, all faults at once."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from golongrl.errors import InputError
from golongrl.learner.checkpoints.resume import resume_note
from golongrl.recipe import RecipeError, load, parse, read_yaml, source
from golongrl.recipe.fit import model_faults, rows_fault, run_faults, steps_warning
from golongrl.recipe.strict_yaml import MAX_BYTES, MAX_DEPTH, yaml_problem
from golongrl.telemetry.history import STEP, History, summary

QUICKSTART = source("quickstart")


def refused(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(RecipeError) as caught:
        load(str(path))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_key_twice_is_refused_with_its_lines(tmp_path):
    message = refused(tmp_path, QUICKSTART + "learner:\n  lr: 1.0\n")
    assert "the key learner stands twice, first in line" in message
    line = QUICKSTART.count("\n") + 1
    assert f"line {line}, column 1" in message
    assert "the key lr stands twice" in refused(tmp_path, "learner: {lr: 1.0, lr: 2.0}\n")


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(20)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "alias *a"),
        ("x: &a 1\nz: *a\n", "alias *a"),
        ("base: &b {a: 1}\nmore: {<<: *b}\n", "alias *b"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"nests more than {MAX_DEPTH} levels"),
        ("{a: " * 2_000 + "}" * 2_000, f"nests more than {MAX_DEPTH} levels"),
        ("a: x\n" * (MAX_BYTES // 5 + 1), f"longer than {MAX_BYTES}"),
        ("a: " + "1" * 5_000, "a value cannot be read"),
        ("a: !!int ''", "a value cannot be read"),
        ("a: !!timestamp 'x'", "a value cannot be read"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ("a: 'open", "line 1"),
        ("\x00", "special characters"),
    ],
)
def test_hostile_yaml_is_one_line(tmp_path, text, expected):
    told = refused(tmp_path, text)
    assert expected in told
    assert "set_int_max_str_digits" not in told


@given(
    st.text(alphabet=st.sampled_from("ab:-&*!{}[],'\"#|>%@\n 0123456789.eExo_~?\t<"), max_size=60)
    | st.text(max_size=40)
)
def test_any_text_is_a_value_or_a_yaml_error(text):
    try:
        value = read_yaml(text)
    except yaml.YAMLError as error:
        lines = yaml_problem(error).splitlines()
    else:
        lines = []
    assert len(lines) < 2
    if lines:
        return
    if isinstance(value, dict):
        with pytest.raises(RecipeError):
            parse(value)


def test_all_faults_are_told():
    with pytest.raises(RecipeError) as caught:
        load("quickstart", ["learner.lrr=1", "queue.max_staleness=-1", "rollout.n=zero", "data.epochs=0"])
    for part in (
        "unknown key learner.lrr; did you mean learner.lr?",
        "queue.max_staleness: ",
        "rollout.n: ",
        "data.epochs: ",
    ):
        assert part in str(caught.value)
    with pytest.raises(RecipeError) as caught:
        load("quickstart", ["model.context_length=300", "learner.max_tokens_per_rank=100", "learner.ulysses=2"])
    for part in ("model.context_length 300", "learner.max_tokens_per_rank 100", "learner.ulysses 2 does not divide"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["learner.max_tokens_per_rank=303"], "at least 304 works"),
        (["learner.max_tokens_per_rank=100", "learner.ulysses=2", "learner.ranks=2"], "at least 152 works"),
        (["data.context_tokens=300"], "data.context_tokens 300 exceeds data.max_prompt_tokens 256"),
        (["algorithm.overlong_buffer=49"], "at most 48 works"),
        (["algorithm.gamma=2000"], "algorithm.gamma: "),
        (["learner.betas=[0.9, 1.0]"], "learner.betas.1: "),
        (["reward.deadline_s=121"], "reward.deadline_s: "),
        (["reward.deadline_s=1e-300"], "reward.deadline_s: below 0.01 s"),
        (["learner.validation_deadline_s=0.001"], "learner.validation_deadline_s: below 0.01 s"),
        (["queue.lease_s=1e-6"], "queue.lease_s: below 0.5 s"),
        (["queue.stall_s=0.4"], "queue.stall_s: below 0.5 s"),
        (["queue.lease_s=0"], "queue.lease_s: "),
        (["telemetry.otlp_endpoint=http://c:99999"], "telemetry.otlp_endpoint: not the address of a collector"),
        (["telemetry.otlp_endpoint=http://c:abc/x"], "telemetry.otlp_endpoint: not the address of a collector"),
        (["telemetry.otlp_endpoint=http://c:0"], "telemetry.otlp_endpoint: not the address of a collector"),
        (["telemetry.otlp_endpoint=http://:4318"], "telemetry.otlp_endpoint: not the address of a collector"),
        (["telemetry.otlp_endpoint='http://[::1'"], "telemetry.otlp_endpoint: not the address of a collector"),
        (["data.corpus=builtin:nope"], "data.corpus builtin:nope: unknown; the builtin corpus is"),
        (["reward.deadline_s=60"], "reward.deadline_s 60 is not below queue.stall_s 60"),
        (["rollout.n=1", "rollout.min_scored=1", "rollout.group_filter=true"], "at least 2 works"),
        (["rollout.min_scored=9"], "rollout.min_scored 9 exceeds rollout.n 8; at most 8 works"),
        (["learner.mini_batch_groups=7"], "6 works"),
        (["learner.ranks=6", "learner.ulysses=4"], "learner.ulysses 4 does not divide learner.ranks 6; 3 works"),
        (["data.tasks=[]"], "data.tasks: "),
        (["algorithm.epsilon=1e-320"], "algorithm.epsilon: "),
        (["algorithm.epsilon=1e300"], "algorithm.epsilon: "),
        (["algorithm.entropy_coeff=1e308"], "algorithm.entropy_coeff: "),
        (["rollout.temperature=1e-300"], "rollout.temperature: "),
        (["rollout.temperature=1e-6"], "rollout.temperature: "),
        (["algorithm.rollout_token_veto=2.0"], "algorithm.rollout_token_veto: "),
        (["algorithm.rollout_is_clip=[2.0, 5.0]"], "algorithm.rollout_is_clip [2, 5] leaves out 1"),
        (["algorithm.rollout_is_clip=[0.1, 0.5]"], "algorithm.rollout_is_clip [0.1, 0.5] leaves out 1"),
        (["algorithm.rollout_rs={token_k1: 0.5}"], "algorithm.rollout_rs.token_k1 0.5 rejects"),
        (["algorithm.rollout_rs={seq_mean_k1: [1.5, 2.0]}"], "algorithm.rollout_rs.seq_mean_k1 [1.5, 2.0] rejects"),
        (["algorithm.policy_loss=sapo", "algorithm.policy_loss_options={tau_pos: 0}"], "tau_pos 0: it must be above 0"),
        (["algorithm.policy_loss=sapo", "algorithm.policy_loss_options={tau_neg: 1e-300}"], "tau_neg 1e-300: it must"),
        (["algorithm.policy_loss=dro", "algorithm.policy_loss_options={dro_beta: -1}"], "dro_beta -1: it must"),
        (
            ["algorithm.policy_loss=kl_cov", "algorithm.policy_loss_options={kl_cov_ratio: 0}"],
            "kl_cov_ratio 0: it must be",
        ),
        (["algorithm.policy_loss=kl_cov", "algorithm.policy_loss_options={kl_cov_ratio: 2}"], "at most 1 works"),
        (
            ["algorithm.policy_loss=clip_cov", "algorithm.policy_loss_options={clip_cov_ub: 1}"],
            "clip_cov_lb 1 is not b",
        ),
        (["learner.weight_decay=1e10"], "is at least 1: each step"),
        (["learner.lr=1000.0"], "is at least 1: each step"),
        (["learner.ranks=200"], "a mini-batch has 144 responses"),
        (["learner.routing_replay=true", "learner.weights=broadcast"], "learner.routing_replay false"),
        (["queue.max_bytes=4095"], "queue.max_bytes 4095 is below one group of the largest size, 4096 bytes"),
        (
            ["rollout.n=2000000"],
            "rollout.n 2000000 x rollout.max_response_tokens 48 and",
        ),
        (["queue.groups_per_step=131073"], "queue.groups_per_step 131073 x rollout.n 8 = 1048584 responses a step"),
        (["data.prompts=2147483647", "data.epochs=2147483647"], "data.prompts 2147483647 x data.epochs 2147483647 = "),
        (
            ["data.prompts=13421773", "data.epochs=10"],
            "x data.epochs 10 = 134217730 groups; a run",
        ),
    ],
)
def test_two_numbers_that_cannot_go_together(overrides, expected):
    with pytest.raises(RecipeError) as caught:
        load("quickstart", overrides)
    assert expected in str(caught.value)


def test_rows_times_epochs_are_bounded():
    recipe = load("quickstart", ["data.epochs=1000"])
    assert rows_fault(recipe, 134217) is None
    assert (
        rows_fault(recipe, 134218) == "134218 rows x data.epochs 1000 = 134218000 groups; a run deals at most 134217728"
    )


def test_a_run_needs_prompts_for_one_batch():
    assert not list(run_faults(load("quickstart")))
    (fault,) = run_faults(load("quickstart", ["data.prompts=9"]))
    assert "at least 18 prompts work" in fault


@pytest.mark.parametrize(
    ("prompts", "epochs", "steps", "most"),
    [(60, 1, 5, 4), (60, 1, 4, None), (60, 2, 7, None), (60, 2, 8, 7), (720, 1, 40, None), (720, 1, "null", None)],
)
def test_steps_that_the_rows_do_not_reach_are_named(prompts, epochs, steps, most):
    made = load("quickstart", [f"data.prompts={prompts}", f"data.epochs={epochs}", f"learner.steps={steps}"])
    said = steps_warning(made)
    assert (said is None) == (most is None)
    assert said is None or f"are at most {most} steps; learner.steps is {steps}" in said
    read = load(
        "quickstart", [f"data.epochs={epochs}", f"learner.steps={steps}", "data.corpus=null", "data.train=a.jsonl"]
    )
    assert steps_warning(read) is None
    assert steps_warning(read, prompts) == (said and said.replace(f"data.prompts {prompts}", f"{prompts} rows"))


def test_what_a_run_cannot_resume_from_is_refused(tmp_path):
    (tmp_path / "global_step_5").mkdir()
    assert [resume_note(value) for value in ("auto", "never", str(tmp_path / "global_step_5"))] == [None] * 3
    for folder in ("", str(tmp_path)):  # the current folder; a run's, say
        with pytest.raises(InputError, match="a checkpoint is a folder global_step_N"):
            resume_note(folder)
    assert "is not on this machine" in (resume_note("/elsewhere/global_step_5") or "")
    for wrong in ("latest", "Auto", str(tmp_path / "step_5"), "global_step_", "global_step_x"):
        with pytest.raises(InputError, match="neither auto, never nor the path of a checkpoint"):
            resume_note(wrong)


def test_a_run_that_used_all_rows_says_so():
    records = History(tuple({STEP: step, "critic/score/mean": 0.5} for step in range(5)))
    assert summary(records, 4) == summary(records) == "done: 4 steps, mean reward 0.500 -> 0.500"
    assert summary(records, 5).startswith("done: 4 steps (all rows were used; learner.steps is 5), mean")


@pytest.mark.parametrize(
    ("config", "vocabulary", "expected"),
    [
        ({"max_position_embeddings": 511}, None, "at most 511 works"),
        ({"text_config": {"max_position_embeddings": 100}}, None, "at most 100 works"),
        ({"vocab_size": 10}, 11, "vocab_size 10 is below the tokenizer's 11 ids"),
    ],
)
def test_a_model_that_does_not_fit(config, vocabulary, expected):
    (fault,) = model_faults(load("quickstart"), config, vocabulary)
    assert expected in fault


@pytest.mark.parametrize("attention", ["flash_attention_2", "flash_attention_3"])
def test_flash_attention_has_no_float32(attention):
    chosen = f"model.attn_implementation={attention}"
    (fault,) = model_faults(load("quickstart", [chosen]), {})
    assert fault.startswith(f"model.attn_implementation {attention} computes in bfloat16 alone")
    assert list(model_faults(load("quickstart", [chosen, "model.dtype=bfloat16"]), {})) == []


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"max_position_embeddings": 512, "vocab_size": 11},
        {"max_position_embeddings": 256, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
        {"max_position_embeddings": "many", "vocab_size": None, "rope_scaling": 3},
    ],
)
def test_a_model_that_fits_or_says_nothing(config):
    assert not list(model_faults(load("quickstart"), config, 11))


@pytest.mark.parametrize("key", ["model.path", "data.corpus", "data.train", "data.validation", "learner.resume"])
@pytest.mark.parametrize("value", ["x" * 256, "a/" * 3000, '"a\\u0000b"', '"a\\u001b[2Jb"', "ü" * 200])
def test_what_can_be_no_path_is_refused_by_its_key(key, value):
    with pytest.raises(RecipeError, match=rf"{re.escape(key)}: no path: ") as error:
        load("quickstart", [f"{key}={value}"])
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    "setting",
    [
        "seed=9007199254740993", "learner.steps=4294967296", "data.epochs=4294967296", "data.prompts=1000000000000",
        "rollout.n=4294967296", "queue.lease_s=1e300", "queue.stall_s=1e9", "learner.validation_deadline_s=1e300",
        "queue.max_bytes=99999999999999999999", "learner.max_tokens_per_rank=99999999999999999999",
    ],
)  # fmt: skip
def test_a_number_that_a_reader_of_the_recipe_could_not_hold_is_refused(setting):
    with pytest.raises(
        RecipeError, match=f"{re.escape(setting.partition('=')[0])}: Input should be less than or equal"
    ):
        load("quickstart", [setting])


MIXTURE = {"model_type": "qwen3_moe", "num_hidden_layers": 2, "num_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        (MIXTURE, True),
        ({"text_config": MIXTURE}, True),
        ({**MIXTURE, "mlp_only_layers": [1]}, True),
        ({**MIXTURE, "mlp_only_layers": [0, 1]}, False),
        ({"model_type": "qwen3"}, False),
        ({"model_type": "mixtral", "num_local_experts": 8}, False),
        ({}, False),
    ],
)
def test_routes_are_replayed_in_a_known_mixture_of_experts_alone(config, fits):
    assert not list(model_faults(load("quickstart"), config))
    faults = list(model_faults(load("quickstart", ["learner.routing_replay=true"]), config))
    assert len(faults) == (not fits)
    for fault in faults:
        assert "learner.routing_replay: a model of type" in fault
        assert fault.endswith("false works")
