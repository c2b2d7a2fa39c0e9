"""Data for training a language model on a reward with GRPO: prompts, and a user's function that judges texts."""

import inspect
import runpy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..checked import check_fields, finite_number, quoted, whole_number
from ..data import decode, pad_id, read_prompts
from ..formats import chat_prompts, chat_template
from ..model import check_writes
from ..training import grpo_objective, prompt_batch, stream
from .settings import Data, Dataset, check_text
from .writing import end_ids
from .written import format_texts, written_texts

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
        score, equal = reward_function(self.reward, model.tokenizer), []
        conversations, places = read_prompts(self.data)
        prompts = chat_prompts(conversations, model.tokenizer, chat_template(model.files), places)
        for ids, place in zip(prompts, places):
            if len(ids) + self.new_tokens > settings.max_tokens:
                got = f"{place}: got {len(ids)} tokens, which leaves no room for {self.new_tokens} new ones"
                raise ValueError(f"{got} within {settings.max_tokens}")
        n_test = max(1, int(HELD_OUT * len(prompts)))
        if len(prompts) <= n_test:
            raise ValueError(f"data: {self.data} has {len(prompts)} prompt, expected at least two")
        order = stream(settings.seed, "sample").permutation(len(prompts))
        test, train = ([prompts[i] for i in part] for part in (order[:n_test], order[n_test:]))
        n_rows = self.steps * settings.batch_size

        def counted(prompts, completions):
            rewards = score(prompts, completions)
            equal.extend(np.ptp(rewards.reshape(-1, self.group), axis=1) == 0)
            return rewards

        def loss(params, adapter):
            more = {"group": self.group, "n_new": self.new_tokens, "stop": end_ids(model), "beta": self.beta}
            more |= {"recompute": settings.recompute, "reference": model.params}
            return grpo_objective(params, model.config, adapter, counted, **more), None

        def epoch_batches(rng):
            order = np.concatenate([rng.permutation(len(train)) for _ in range(-(-n_rows // len(train)))])[:n_rows]
            return [
                prompt_batch([train[i] for i in rows], pad_id(model.tokenizer)) for rows in np.split(order, self.steps)
            ]

        def test_model(trained, history):
            written = written_texts(model, trained, test, settings.seed, self.new_tokens, score)
            results = {"prompts": {"train": len(train), "test": n_test}, "rewards": (-history["loss"]).tolist()}
            return {**results, "equal_groups": float(np.mean(equal or [0])), "written": written}, {}

        longest = max(map(len, prompts)) + self.new_tokens
        return Dataset(model, epoch_batches, [], n_rows, self.group * longest, test_model, loss=loss)

    def summary(self, results):
        n, written = results["prompts"], results["written"]
        lines = [f"prompts: {n['train']:,} for training, {n['test']:,} for testing"]
        lines.append(f"mean reward {written['after']['reward']:.3f} (before: {written['before']['reward']:.3f})")
        if results["equal_groups"] > 0.1:
            share = f"{100 * results['equal_groups']:.0f} % of the groups"
            lines.append(f"      In {share}, all completions had the same reward, so they taught nothing.")
        return [*lines, *format_texts(written)]


def reward_function(place, tokenizer):
    """Load a user's function from "FILE.py:FUNCTION".

    Returns a function (prompts, completions), both lists of N arrays of token ids, -> rewards, array (N,). It raises
    ValueError unless the user's function returns N finite numbers.
    """
    path, _, name = place.rpartition(":")
    if not path.endswith(".py") or not name:
        raise ValueError(f"reward: got {quoted(place)}, expected FILE.py:FUNCTION")
    if not Path(path).is_file():
        raise FileNotFoundError(f"reward: {path} does not exist")

    def call(function, *arguments):
        try:
            return function(*arguments)
        except Exception as error:
            raise ValueError(f"reward: {place} raised {type(error).__name__}: {' '.join(str(error).split())}") from None

    function = call(runpy.run_path, path).get(name)
    takes = len(inspect.signature(function).parameters) if callable(function) else 0
    if takes not in (1, 2):
        raise ValueError(f"reward: {path} has no function {name!r} of (texts), or of (texts, prompts)")

    def score(prompts, completions):
        texts, starts = ([decode(tokenizer, ids) for ids in sequences] for sequences in (completions, prompts))
        found = call(function, *(texts, starts)[:takes])
        rewards = call(partial(np.asarray, dtype=np.float64), found)
        if rewards.shape != (len(texts),):
            expected = f"expected ({len(texts)},): one number for each text"
            raise ValueError(f"reward: {place} returned shape {rewards.shape}, {expected}")
        if not np.isfinite(rewards).all():
            row = np.flatnonzero(~np.isfinite(rewards))[0]
            raise ValueError(
                f"reward: {place} returned {rewards[row]} for {quoted(texts[row], 100)}, expected a number"
            )
        return rewards

    return score
