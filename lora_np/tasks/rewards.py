"""Data for training a language model on a reward with GRPO: prompts, and a user's function that judges texts."""

import inspect
import runpy
import sys
import threading
import traceback
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..checked import check_fields, finite_number, quoted, whole_number
from ..data import decode, pad_id, read_prompts
from ..formats import chat_prompts, chat_template
from ..model import check_writes, sample
from ..training import grpo_objective, prompt_batches, stream
from .settings import Data, Dataset, check_text, refuse_unused
from .writing import end_ids
from .written import format_texts, written_texts

HELD_OUT = 0.2  # fraction of the prompts that is used only for the report
EQUAL = "of each prompt before training; such rewards have no gradient"


@dataclass(frozen=True)
class Rewards(Data):
    """Prompts and a reward. A fifth of the prompts is used only for the report.

    Parameters
    ----------
    data : path of a file of prompts, see `read_prompts`
    reward : str, "FILE.py:FUNCTION", see `reward_function`. The file is the user's own code: it is executed without any
        restriction
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
        refuse_unused(settings, self.task, dropout=0.0, lora_dropout=0.0, patience=None, epochs=1)
        score = reward_function(self.reward, model.tokenizer)
        conversations, places = read_prompts(self.data)
        prompts = chat_prompts(conversations, model.tokenizer, chat_template(model.files), places)
        for ids, place in zip(prompts, places):
            if len(ids) + self.new_tokens > settings.max_tokens:
                got = f"{place}: got {len(ids)} tokens, which leaves no room for {self.new_tokens} new ones"
                raise ValueError(f"{got} within {settings.max_tokens}; raise --max-tokens or lower --new-tokens")
        n_test = max(1, int(HELD_OUT * len(prompts)))
        if len(prompts) <= n_test:
            raise ValueError(f"data: {self.data} has {len(prompts)} prompt, expected at least two")
        order = stream(settings.seed, "sample").permutation(len(prompts))
        test, train = ([prompts[i] for i in part] for part in (order[:n_test], order[n_test:]))
        stop, n_rows = end_ids(model), self.steps * settings.batch_size

        def loss(params, adapter):
            more = {"group": self.group, "n_new": self.new_tokens, "stop": stop, "beta": self.beta}
            more |= {"recompute": settings.recompute, "reference": model.params}
            return grpo_objective(params, model.config, adapter, score, **more), None

        def test_base():
            """Draw groups of completions of some test prompts; count those without a gradient."""
            groups = [prompt for prompt in test[: settings.batch_size] for _ in range(self.group)]
            rng = stream(settings.seed, "sample", 1)
            completions = sample(model.params, groups, model.config, self.new_tokens, rng, stop=stop)
            equal = float(np.mean(np.ptp(score(groups, completions).reshape(-1, self.group), axis=1) == 0))
            if equal == 1:
                warnings.warn(f"reward: {self.reward} returned equal rewards for all completions {EQUAL}", stacklevel=2)
            return {"prompts": {"train": len(train), "test": n_test}, "equal_groups": equal}

        def test_model(trained, history):
            written = written_texts(model, trained, test, settings.seed, self.new_tokens, score)
            return {"rewards": (-history["loss"]).tolist(), "written": written}, {}

        return Dataset(
            model,
            partial(prompt_batches, train, self.steps, settings.batch_size, pad=pad_id(model.tokenizer)),
            [],
            n_rows,
            max(map(len, prompts)) + self.new_tokens,
            test_model,
            texts_per_row=self.group,
            test_base=test_base,
            loss=loss,
        )

    def summary(self, results):
        n, written = results["prompts"], results["written"]
        lines = [f"prompts: {n['train']:,} for training, {n['test']:,} for testing"]
        lines.append(f"mean reward {written['after']['reward']:.3f} (before: {written['before']['reward']:.3f})")
        if results["equal_groups"] > 0.1:
            share = f"{100 * results['equal_groups']:.0f} % of the groups before training"
            lines.append(f"      In {share}, all completions had the same reward. Such groups have no gradient.")
        return [*lines, *format_texts(written)]


def reward_function(place, tokenizer):
    """Load a user's function from "FILE.py:FUNCTION".

    It is called with a list of N texts, the completions, and returns N numbers. If it has a second parameter without a
    default, it is also given the list of prompts. Parameters named `prompts` and `completions`, as in TRL, may be in
    any order. It is called by one thread at a time.

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
            lines = [of.lineno for of in traceback.extract_tb(error.__traceback__) if of.filename == path]
            where = f" in line {lines[-1]}" if lines else ""
            problem = f"{type(error).__name__}{where}: {' '.join(str(error).split())}"
            raise ValueError(f"reward: {place} raised {problem}") from None

    sys.path.insert(0, str(Path(path).parent.resolve()))  # as if Python ran the file
    function = call(runpy.run_path, path).get(name)
    try:
        named = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        named = ()
    named = [
        of.name for of in named if of.default is of.empty and of.kind in (of.POSITIONAL_ONLY, of.POSITIONAL_OR_KEYWORD)
    ]
    if len(named) not in (1, 2):
        raise ValueError(f"reward: {path} has no function {name!r} of (texts), or of (texts, prompts)")
    lock = threading.Lock()

    def score(prompts, completions):
        texts, starts = ([decode(tokenizer, ids) for ids in sequences] for sequences in (completions, prompts))
        given = {"completions": texts, "prompts": starts}
        with lock:
            found = call(function, *(given.get(name, other) for name, other in zip(named, (texts, starts))))
        rewards = call(partial(np.asarray, dtype=np.float64), found)
        if rewards.shape != (len(texts),):
            got = f"shape {rewards.shape}" if rewards.ndim else quoted(found)  # None, or one number
            raise ValueError(f"reward: {place} returned {got}, expected ({len(texts)},): one number for each text")
        if not np.isfinite(rewards).all():
            row = np.flatnonzero(~np.isfinite(rewards))[0]
            raise ValueError(
                f"reward: {place} returned {rewards[row]} for {quoted(texts[row], 100)}, expected a number"
            )
        return rewards

    return score
