"""Data for training a language model on a reward with GRPO: prompts, and a user's function that judges texts."""

import importlib.util
import inspect
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..checked import check_fields, finite_number, quoted, whole_number
from ..data import Batch, decode, pad_id, pad_sequences, read_prompts
from ..formats import chat_prompts, chat_template
from ..model import check_writes, sample
from ..training import grpo_objective, stream
from .settings import Data, Dataset, check_text
from .writing import end_ids
from .written import SAMPLES, change_of_writing, format_change

HELD_OUT = 0.2  # fraction of the prompts that is used only for the report


@dataclass(frozen=True)
class Rewards(Data):
    """Prompts and a reward. A fifth of the prompts is used only for the report.

    Parameters
    ----------
    data : path of a file of prompts, see `read_prompts`
    reward : str, "FILE.py:FUNCTION". The function is called with a list of the completions' texts, and with a list of
        their prompts if it takes two arguments, and returns a number for each. The file is the user's own code: it is
        executed without any restriction
    group : int, the number of completions per prompt, at least 2
    beta : float, the weight of the penalty for the divergence from the base; see `grpo`
    steps : int, the number of steps, each with `batch_size` prompts
    new_tokens : int, the maximum number of tokens in a completion
    """

    reward: str
    group: int = 8
    beta: float = 0.05
    steps: int = 50
    new_tokens: int = 32
    task = "reward"

    def __post_init__(self):
        super().__post_init__()
        check_fields(self, check_text, "reward")
        check_fields(self, whole_number, "group", least=2)
        check_fields(self, whole_number, "steps", "new_tokens")
        check_fields(self, finite_number, "beta", least=0)

    def paths(self):
        return [self.data, self.reward.rpartition(":")[0]]

    def read(self, model, settings):
        check_writes(model.config, "base")
        judge = reward_function(self.reward)
        conversations, places = read_prompts(self.data)
        prompts = chat_prompts(conversations, model.tokenizer, chat_template(model.files), places)
        for ids, place in zip(prompts, places):
            if len(ids) + self.new_tokens > settings.max_tokens:
                got = f"{place}: got {len(ids)} tokens, which leaves no room for {self.new_tokens} new ones"
                raise ValueError(f"{got} within {settings.max_tokens}")
        order = stream(settings.seed, "sample").permutation(len(prompts))
        n_test = max(1, int(HELD_OUT * len(prompts)))
        if len(prompts) <= n_test:
            raise ValueError(f"data: {self.data} has {len(prompts)} prompt, expected at least two")
        test, train = ([prompts[i] for i in part] for part in (order[:n_test], order[n_test:]))
        end, pad, equal = end_ids(model), pad_id(model.tokenizer), []

        def score(prompts, completions):
            rewards = rewards_of(judge, self.reward, *(texts_of(model, ids) for ids in (completions, prompts)))
            equal.extend(np.ptp(rewards.reshape(-1, self.group), axis=1) == 0)
            return rewards

        def loss(params, adapter):
            more = {"group": self.group, "n_new": self.new_tokens, "stop": end, "beta": self.beta}
            more |= {"recompute": settings.recompute, "reference": model.params}
            return grpo_objective(params, model.config, adapter, score, **more), None

        def epoch_batches(rng):
            n = self.steps * settings.batch_size
            order = np.concatenate([rng.permutation(len(train)) for _ in range(-(-n // len(train)))])[:n]
            return [prompt_batch([train[i] for i in rows], pad) for rows in np.split(order, self.steps)]

        def mean_reward(of):
            rng, some = stream(settings.seed, "sample", 1), [test[i % n_test] for i in range(SAMPLES)]
            completions = sample(of.params, some, of.config, self.new_tokens, rng, of.adapter, end)
            return float(np.mean(rewards_of(judge, self.reward, texts_of(of, completions), texts_of(of, some))))

        def test_model(trained, history):
            results = {"reward": mean_reward(trained), "rewards": (-history["loss"]).tolist()}
            results["equal_groups"] = float(np.mean(equal)) if equal else 0.0
            return results | change_of_writing(model, trained, test, settings.seed, self.new_tokens), {}

        def test_base():
            return {"prompts": {"train": len(train), "test": n_test}, "reward_before": mean_reward(model)}

        longest = max(map(len, prompts)) + self.new_tokens
        n_rows = self.steps * settings.batch_size
        return Dataset(model, epoch_batches, [], n_rows, self.group * longest, test_model, test_base, loss=loss)

    def summary(self, results):
        n = results["prompts"]
        lines = [f"prompts: {n['train']:,} for training, {n['test']:,} for testing"]
        lines.append(f"mean reward {results['reward']:.3f} (before: {results['reward_before']:.3f})")
        if results["equal_groups"] > 0.1:
            share = f"{100 * results['equal_groups']:.0f} % of the groups"
            lines.append(f"      In {share}, all completions had the same reward, so they taught nothing.")
        return [*lines, *format_change(results)]


def prompt_batch(prompts, pad):
    """Return a Batch of prompts; `split_batch` only needs its targets to be present."""
    ids, lengths = pad_sequences(prompts, pad)
    return Batch(ids, np.zeros(len(ids), dtype=np.int64), lengths, np.arange(len(ids)))


def texts_of(model, sequences):
    return [decode(model.tokenizer, ids) for ids in sequences]


def reward_function(place):
    """Load a user's function from "FILE.py:FUNCTION"; return a function (texts, prompts) that calls it."""
    path, _, name = place.rpartition(":")
    if not path.endswith(".py") or not name:
        raise ValueError(f"reward: got {quoted(place)}, expected FILE.py:FUNCTION")
    if not Path(path).is_file():
        raise FileNotFoundError(f"reward: {path} does not exist")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"reward: {path} raised {describe(error)}") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"reward: {path} has no function {name!r}")
    takes = len(inspect.signature(function).parameters)
    if takes not in (1, 2):
        raise ValueError(f"reward: {place} takes {takes} arguments, expected (texts) or (texts, prompts)")
    return function if takes == 2 else lambda texts, prompts: function(texts)


def rewards_of(judge, place, texts, prompts):
    """Return the rewards of texts as an array (N,); raise ValueError unless the user's function returns N numbers."""
    try:
        rewards = np.asarray(judge(texts, prompts), dtype=np.float64)
    except Exception as error:
        raise ValueError(f"reward: {place} raised {describe(error)}") from None
    if rewards.shape != (len(texts),):
        raise ValueError(f"reward: {place} returned shape {rewards.shape}, expected ({len(texts)},): one for each text")
    if not np.isfinite(rewards).all():
        row = np.flatnonzero(~np.isfinite(rewards))[0]
        raise ValueError(f"reward: {place} returned {rewards[row]} for {quoted(texts[row], 100)}, expected a number")
    return rewards


def describe(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
