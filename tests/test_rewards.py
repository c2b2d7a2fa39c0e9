"""Preferences and rewards: the log probabilities of tokens, DPO and GRPO, and both through `finetune`."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from lora_np import ops
from lora_np.cli import main
from lora_np.data import IGNORE_INDEX, encode, read_pairs
from lora_np.formats import PRETRAINED, read_model
from lora_np.model import initial_params, sample, token_log_probs
from lora_np.ops.numerical_gradient import numerical_gradient
from lora_np.tasks.finetuning import KINDS, prepared
from lora_np.tasks.preferences import last_answer
from lora_np.tasks.rewards import reward_function
from lora_np.tasks.settings import FinetuneSettings
from lora_np.training import advantages, dpo, grpo, token_rows, train

from .tiny import tiny_llama


@pytest.fixture(scope="module")
def model():
    return read_model(PRETRAINED)


# ---------------------------------------------------------------- log probabilities of tokens


@pytest.mark.parametrize("chunk", [1, 100, 10**6])
def test_their_mean_is_the_cross_entropy(chunk):
    """So is its gradient, whatever the chunks; ignored targets have no log probability and no gradient."""
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(3, 5, 4)), rng.normal(size=(11, 4))
    targets = rng.integers(11, size=(3, 5))
    targets[1, 2:] = targets[0, 0] = IGNORE_INDEX
    n = np.sum(targets != IGNORE_INDEX)
    log_probs, cache = ops.token_log_probs_forward(x, weight, targets, chunk=chunk)
    loss, expected = ops.linear_cross_entropy_forward(x, weight, targets)
    np.testing.assert_allclose(-log_probs.sum() / n, loss, rtol=1e-14)
    assert not log_probs[targets == IGNORE_INDEX].any()
    grads = ops.token_log_probs_backward(np.full(targets.shape, -1 / n), cache)
    for got, its in zip(grads, expected):
        np.testing.assert_allclose(got, its, rtol=0, atol=1e-15)
    alone, cache = ops.token_log_probs_forward(x, weight, targets, wanted=("x",), chunk=chunk)
    assert ops.token_log_probs_backward(np.ones(targets.shape), cache).dweight is None
    with pytest.raises(ValueError, match="targets: got 11, expected 0 to 10"):
        ops.token_log_probs_forward(x, weight, np.full((3, 5), 11))


def test_they_need_no_array_of_all_logits():
    """Forward and backward over 1,000 tokens of 20,000 words take a quarter of their logits' memory."""
    rng = np.random.default_rng(0)
    x, weight = (rng.normal(size=shape).astype(np.float32) for shape in ((1000, 8), (20_000, 8)))
    targets = rng.integers(20_000, size=1000)
    tracemalloc.start()
    log_probs, cache = ops.token_log_probs_forward(x, weight, targets, chunk=2**20)
    ops.token_log_probs_backward(np.ones(1000), cache)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1000 * 20_000 * 4 / 4


@pytest.mark.parametrize("lengths", [(3, 3, 3), (2, 5, 2, 1)])
def test_samples_are_drawn_from_the_model(lengths):
    """Prompts of any lengths; a text ends with its end token; frequencies fit the probabilities (chi-squared)."""
    config = tiny_llama(vocab_size=7, n_positions=12)
    params = initial_params(config, np.random.default_rng(1), np.float64)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(7, size=n) for n in lengths]
    texts = sample(params, prompts, config, 6, rng, stop=(0, 3))
    for text in texts:
        ends = np.flatnonzero(np.isin(text, (0, 3)))
        assert len(text) == (ends[0] + 1 if len(ends) else 6)
    n, prompt = 4000, prompts[0]
    counts = np.bincount([text[0] for text in sample(params, [prompt] * n, config, 1, rng)], minlength=7)
    rows = token_rows([prompt] * 7, [np.array([token]) for token in range(7)])
    log_probs, _ = token_log_probs(params, *rows, config)
    expected = n * np.exp(log_probs[:, len(prompt) - 1])
    np.testing.assert_allclose(expected.sum(), n, rtol=1e-10)
    assert ((counts - expected) ** 2 / expected).sum() < 22.5  # the 99.9 % quantile with 6 degrees of freedom


# ---------------------------------------------------------------- the two losses


def test_advantages_compare_with_the_group():
    rewards = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [0.0, 0.0, 1.0]])
    found = advantages(rewards)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(found[0], [-1, 0, 1], atol=1e-3)
    assert not found[1].any()
    np.testing.assert_allclose(advantages(100 * rewards + 3), found, atol=1e-3)  # neither scale nor origin matters


def test_a_clipped_ratio_has_no_gradient():
    """Only on the side to which the advantage pushes it; without older samples, the gradient is −A / (N T_n)."""
    old = np.log(np.full((2, 3), 0.5))
    log_probs, real = old + np.log([1.5, 1.1, 0.6]), np.array([[True] * 3, [True, True, False]])
    _, slopes = grpo(log_probs, np.array([1.0, -1.0]), real, old)
    assert (slopes == 0).tolist() == [[True, False, False], [False, False, True]]
    _, slopes = grpo(log_probs, np.array([1.0, -2.0]), real)
    np.testing.assert_allclose(slopes, [[-1 / 6] * 3, [2 / 4, 2 / 4, 0]], rtol=1e-12)
    loss, _ = grpo(log_probs, np.zeros(2), real, reference=old, beta=2.0)
    assert loss > 0  # the penalty alone


def test_expected_policy_gradient_is_the_gradient_of_the_expected_reward():
    """Over all tokens that one step can draw: Σ π (R − b) ∇log π = ∇ Σ π R, for any b."""
    config = tiny_llama(vocab_size=5, n_positions=6)
    params = initial_params(config, np.random.default_rng(2), np.float64)
    prompt, rewards = np.array([1, 4]), np.array([0.3, -1.0, 2.0, 0.0, 0.7])
    rows = token_rows([prompt] * 5, [np.array([token]) for token in range(5)])
    name = "blocks.0.attn.v_proj.weight"

    def expected_reward(weight):
        log_probs, _ = token_log_probs({**params, name: weight}, *rows, config)
        return np.exp(log_probs[:, 1]) @ rewards

    log_probs, back = token_log_probs(params, *rows, config, wanted=(name,))
    slopes = np.zeros(log_probs.shape)
    slopes[:, 1] = np.exp(log_probs[:, 1]) * (rewards - 0.4)
    numerical = numerical_gradient(expected_reward, params[name].copy())
    np.testing.assert_allclose(back(slopes)[name], numerical, rtol=1e-5, atol=1e-9)


def test_dpo_sees_only_the_difference():
    log_probs, reference = np.array([[-10.0, -12.0], [-9.0, -9.0]]), np.array([[-11.0, -11.0], [-9.0, -9.0]])
    loss, slopes = dpo(log_probs, reference, 0.5)
    np.testing.assert_allclose(loss, np.mean(np.log1p(np.exp([-1.0, 0.0]))), rtol=1e-12)
    np.testing.assert_allclose(slopes.sum(axis=1), 0, atol=1e-15)
    assert slopes[1, 0] < slopes[0, 0] < 0  # the pair that is not yet in order counts more
    shifted, same = dpo(log_probs - 5.0, reference, 0.5)
    np.testing.assert_allclose(shifted, loss, rtol=1e-12)
    assert np.isfinite(dpo(1e4 * log_probs, reference, 0.5)[0])


# ---------------------------------------------------------------- the command

REWARD = """
def full_stops(texts):
    return [text.count(".") / max(1, len(text.split())) for text in texts]

def as_in_trl(prompts, completions, weight=1.0):
    return [float(text.startswith(prompt)) for prompt, text in zip(prompts, completions)]

def of_two(texts, starts, *, weight=1.0):
    return as_in_trl(starts, texts)

def same(texts):
    return [1.0] * len(texts)

def fails(texts):
    return [1 / 0]

def short(texts):
    return [1.0]

def nan(texts):
    return [float("nan")] * len(texts)

def three(texts, prompts, model):
    return texts

def nothing(texts):
    len(texts)
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "reward.py").write_text(REWARD)
    (tmp_path / "prompts.txt").write_text("the film is\na story of\nthis is a very\n\nwhat a\nin the end\n")
    pairs = [{"prompt": f"film {i} is", "chosen": "good .", "rejected": "bad , dull"} for i in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return tmp_path


def test_a_reward_is_learnt(files, run):
    """On the small base: more full stops after 20 steps; the report warns if the texts collapse."""
    options = ["--prompts", files / "prompts.txt", "--steps", 20, "--new-tokens", 12, "--group", 8]
    said = run("finetune", *options, "--reward", f"{files}/reward.py:full_stops", "--beta", 0, "--out", files / "out")
    about = json.loads((files / "out" / "task.json").read_text())
    before, after = about["written"].values()
    assert after["reward"] > before["reward"] + 0.1 and len(about["rewards"]) == 20
    assert after["divergence"] > before["divergence"] == 0
    assert "mean reward" in said and said.count("\n  before: ") == said.count("\n  after:  ") == 3
    writing = ["generate", "--adapter", files / "out", "--prompt", "the film is", "--tokens", 4]
    assert run(*writing).startswith("the film is")


def test_a_preference_is_learnt(files, run):
    options = ["--preferences", files / "pairs.jsonl", "--epochs", 4, "--lr", 0.003, "--out", files / "out"]
    said = run("finetune", *options)
    about = json.loads((files / "out" / "task.json").read_text())
    assert about["in_order"] == 1.0 and about["preferred"] > about["rejected"]
    n = about["pairs"]["test"]
    assert f"the preferred text gained more than the rejected one in {n} of {n} test pairs" in said


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("task", ["reward", "preferences"])
def test_a_run_resumes(task, files, tiny_base):
    """Stopped after any step, it ends with the same bits, because samples depend only on the seed and the step."""
    file = files / ("prompts.txt" if task == "reward" else "pairs.jsonl")
    more = {"reward": f"{files}/reward.py:full_stops", "steps": 6, "new_tokens": 4} if task == "reward" else {}
    settings = FinetuneSettings(base=tiny_base, batch_size=3, epochs=None if task == "reward" else 1)
    plan = prepared(KINDS[task](file, **more), settings.with_defaults(task)).plan
    plan["config"] = replace(plan["config"], save_every=1)
    whole = train(**plan)

    def stop(step, measured):
        if step == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(**plan, state_path=files / "state.safetensors", on_step=stop)
    resumed = train(**plan, state_path=files / "state.safetensors")
    assert resumed.step == whole.step > 3
    for name, array in whole.best.items():
        assert resumed.best[name].tobytes() == array.tobytes(), name
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"])


@pytest.mark.parametrize(
    "reward, says",
    [
        ("reward.py:fails", "reward.py:fails raised ZeroDivisionError in line 15: division by zero"),
        ("reward.py:short", "reward.py:short returned shape (1,), expected (8,): one number for each text"),
        ("reward.py:nan", "reward.py:nan returned nan for "),
        ("reward.py:nothing", "reward.py:nothing returned None, expected (8,): one number for each text"),
        ("reward.py:three", "has no function 'three' of (texts), or of (texts, prompts)"),
        ("reward.py:none", "has no function 'none' of"),
        ("reward.py", "expected FILE.py:FUNCTION"),
        ("missing.py:f", "missing.py does not exist"),
    ],
)
def test_a_bad_reward_is_named(reward, says, files, tiny_base, capsys):
    command = ["finetune", "--prompts", files / "prompts.txt", "--reward", f"{files}/{reward}", "--base", tiny_base]
    assert main([str(word) for word in (*command, "--new-tokens", 4, "--out", files / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: reward: ") and says in error and error.count("\n") == 1
    assert not (files / "out").exists()


ASKED = {"role": "user", "content": "a"}


def said(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "row, says",
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "row 21, line 21: chosen and rejected are equal"),
        ({"prompt": "a", "chosen": "b"}, "has 'prompt', 'chosen'; expected prompt, chosen and rejected"),
        ({"prompt": 3, "chosen": "b", "rejected": "c"}, "row 21, line 21: prompt is 3, expected a string"),
        ({"prompt": "a", "chosen": " ", "rejected": "c"}, "row 21, line 21: has no answer to train on"),
        ({"chosen": [ASKED, said("b")], "rejected": [said("c")]}, "to be answers to the same prompt"),
        ({"chosen": [ASKED, said("b"), ASKED], "rejected": [ASKED, said("c"), ASKED]}, "answers to the same prompt"),
        (
            {"chosen": [ASKED, {"role": "assistant"}], "rejected": "c"},
            "chosen[1]: content is missing, expected a string",
        ),
    ],
)
def test_a_bad_pair_is_named(row, says, files, tiny_base, capsys):
    with (files / "pairs.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    command = ["finetune", "--preferences", files / "pairs.jsonl", "--base", tiny_base, "--out", files / "out"]
    assert main([str(word) for word in command]) == 2
    assert says in capsys.readouterr().err and not (files / "out").exists()


def test_what_does_not_fit_is_said(files, tiny_base, capsys):
    """Pairs that are too long are left out and counted; a prompt that is too long is an error."""
    with (files / "pairs.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "a film " * 30, "chosen": "b", "rejected": "c"}) + "\n")
    command = ["finetune", "--base", tiny_base, "--out", files / "out"]
    assert main([str(word) for word in (*command, "--preferences", files / "pairs.jsonl")]) == 0
    assert "1 are left out, because they are too long" in capsys.readouterr().out
    (files / "prompts.txt").write_text("a\n" + "a film " * 30)
    reward = ["--prompts", files / "prompts.txt", "--reward", f"{files}/reward.py:same", "--new-tokens", 4]
    assert main([str(word) for word in (*command, *reward)]) == 2
    assert "line 2: got 61 tokens, which leaves no room for 4 new ones within 24" in capsys.readouterr().err
    (files / "prompts.csv").write_text("question\na\nb\n")
    assert main([str(word) for word in (*command, "--prompts", files / "prompts.csv", *reward[2:])]) == 2
    assert "row 1, line 2: has 'question'; expected a column prompt" in capsys.readouterr().err
    (files / "prompts.txt").write_text("a\nfilm\n")
    assert main([str(word) for word in (*command, *reward, "--steps", 2)]) == 0
    output = capsys.readouterr()
    assert "In 100 % of the groups before training, all completions had the same reward" in output.out
    assert "reward.py:same returned equal rewards for all completions" in output.err  # before the training begins
    for name, value in {"dropout": 0.5, "lora-dropout": 0.5, "patience": 2, "epochs": 3}.items():
        assert main([str(word) for word in (*command, *reward, f"--{name}", value)]) == 2
        assert f"{name.replace('-', '_')}: got {value}, but the task 'reward'" in capsys.readouterr().err


def test_pairs_are_read_as_in_trl(tmp_path):
    """With a prompt, without one, and, as some published sets are, with a prompt that the conversations repeat."""
    chosen, rejected = [ASKED, said("b")], [ASKED, said("c")]
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"chosen": chosen, "rejected": rejected}]
    rows += [{"prompt": "a"} | rows[1], {"prompt": [ASKED], "chosen": [said("b")], "rejected": [said("c")]}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_pairs(tmp_path / "pairs.jsonl")[:2] == ([chosen] * 4, [rejected] * 4)


def test_a_reward_function_is_called_with_what_it_names(files, tiny_base):
    tokenizer = read_model(tiny_base).tokenizer
    prompts, texts = encode(tokenizer, ["a film", "a"]), encode(tokenizer, ["a film is", "film"])
    for name in ("as_in_trl", "of_two"):
        assert reward_function(f"{files}/reward.py:{name}", tokenizer)(prompts, texts).tolist() == [1.0, 0.0]


def test_only_the_last_answer_of_a_conversation_counts():
    ids, targets = np.arange(7), np.array([-100, 1, 2, -100, 4, 5, -100])
    assert last_answer((ids, targets))[1].tolist() == [-100, -100, -100, -100, 4, 5, -100]
    assert last_answer((ids[:2], targets[1:3]))[1].tolist() == [1, 2]
