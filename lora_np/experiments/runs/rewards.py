"""A run of the experiment on rewards: GRPO on the small base, which is rewarded for positive film snippets."""

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from ...adapters import init_adapter, trainable_report
from ...data import decode, encode, load_reviews
from ...tasks.baseline import word_classifier
from ...training import TrainConfig, attach, complete, grpo_objective, prompt_batches, stream, train, trainable_arrays
from . import load_base
from .dialect import adapter_of

PROMPTS, GROUP, N_NEW, BEGINNING = 4, 8, 24, 4  # prompts per step, completions of each; tokens
WARMUP, EVERY, MEASURED = 4, 2, 64  # steps; steps between measurements; completions in each


@dataclass(frozen=True)
class RewardRun:
    """The settings of a run."""

    method: str  # see `dialect.adapter_of`
    seed: int
    learning_rate: float  # constant after the warm-up
    beta: float = 0.0  # the weight of the penalty
    steps: int = 24

    def carry_out(self):
        """Carry out the run and return its numbers: "reward", "judge", "divergence" and "distinct", lists
        over the measured steps, beginning with the base. Completions continue after an end token."""
        base, (reward, judge) = load_base(), sentiment_models()
        train_prompts, test_prompts = beginnings()
        start = start_of(base, self.method, self.seed)
        epoch_batches = partial(prompt_batches, train_prompts, self.steps, PROMPTS)

        def measure(trainable):
            policy, rng = attach(base.params, start, trainable), stream(self.seed, "sample", 1)
            completions, numbers = complete(policy, base.params, base.config, test_prompts[:MEASURED], rng, N_NEW)
            scores = [float(of(test_prompts[:MEASURED], completions).mean()) for of in (reward, judge)]
            return {"loss": -scores[0], "judge": scores[1], **numbers}

        settings = {"group": GROUP, "n_new": N_NEW, "beta": self.beta}
        objective = grpo_objective(base.params, base.config, start, reward, **settings)
        plan = TrainConfig(self.steps, self.learning_rate, "constant", WARMUP, eval_every=EVERY, seed=self.seed)
        arrays = trainable_arrays(base.params, start)
        before, state = measure(arrays), train(arrays, objective, epoch_batches, plan, measure)
        paths = {name: [before[name], *state.history[f"eval_{name}"].tolist()] for name in before}
        paths["reward"] = [-loss for loss in paths.pop("loss")]
        trainable = trainable_report(base.params, arrays).trainable
        return {"trainable": trainable, "validation_loss": -paths["reward"][-1], **paths}, {}


@lru_cache(maxsize=1)
def sentiment_models():
    """The reward and an independent judge: functions (prompts, completions), lists of N arrays of ids -> array (N,).

    Each is the probability of "positive" by a tf-idf regression that was fitted to one half of the snippets.
    """
    reviews, tokenizer = load_reviews("rotten_tomatoes"), load_base().tokenizer
    halves = [(reviews.train.texts[half::2], np.array(reviews.train.labels[half::2])) for half in (0, 1)]

    def score(model, prompts, completions):
        texts = [decode(tokenizer, np.concatenate(pair)) for pair in zip(prompts, completions)]
        return model.predict_proba(texts)[:, 1]

    return [partial(score, word_classifier(half, tuple(reviews.validation), r"\S+", (True,), (10,))) for half in halves]


def start_of(base, method, seed):
    """The initial adapter of a method, or None for full fine-tuning."""
    config = adapter_of(method)
    return config and init_adapter(base.params, config, stream(seed, "adapter"))


@lru_cache(maxsize=1)
def beginnings():
    """The different beginnings of the snippets, for testing and, without these, for training: lists of arrays."""
    base, reviews = load_base(), load_reviews("rotten_tomatoes")
    parts = (encode(base.tokenizer, part.texts) for part in (reviews.train, reviews.test))
    starts = [[tuple(ids[:BEGINNING].tolist()) for ids in part if len(ids) >= 2 * BEGINNING] for part in parts]
    train, test = map(dict.fromkeys, starts)
    return [np.array(start) for start in train if start not in test], list(map(np.array, test))
