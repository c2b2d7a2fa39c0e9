"""A run of the experiment on preferences: DPO on pairs of the small base's own texts, which the reward has ordered."""

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from ...adapters import trainable_report
from ...model import sample
from ...tasks.preferences import pair_batches, preference_loss, preference_results, with_references
from ...training import TrainConfig, attach, stream, token_rows, train, trainable_arrays
from . import load_base
from .rewards import N_NEW, beginnings, sentiment_models, start_of

OTHERS, COMPLETIONS, BATCH_SIZE = 200, 4, 16  # pairs for validation, and as many for testing; texts per prompt


@dataclass(frozen=True)
class PreferenceRun:
    """The settings of a run."""

    method: str  # see `dialect.adapter_of`
    pairs: int  # the number of training pairs
    seed: int  # also determines the prompts and the pairs
    learning_rate: float
    beta: float = 0.1
    steps: int = 125

    def carry_out(self):
        """Carry out the run; return the numbers of the step with the lowest validation loss."""
        base, start = load_base(), start_of(load_base(), self.method, self.seed)
        validation, test, pairs = sampled_pairs(self.seed, self.pairs)
        batches = partial(pair_batches, pairs, BATCH_SIZE)
        loss = preference_loss(base.config, pair_batches(validation, BATCH_SIZE), self.beta)
        plan = TrainConfig(self.steps, self.learning_rate, warmup_steps=5, eval_every=self.steps // 5, seed=self.seed)
        arrays = trainable_arrays(base.params, start)
        objective, evaluate = loss(base.params, start)
        state = train(arrays, objective, batches, plan, evaluate)
        trained = attach(base.params, start, state.best)
        return {
            "trainable": trainable_report(base.params, arrays).trainable,
            "validation_loss": float(state.history["eval_loss"].min()),
            "last_validation_loss": float(state.history["eval_loss"][-1]),
            **preference_results(*trained, base.config, pair_batches(test, BATCH_SIZE), self.beta),
        }, {}


@lru_cache(maxsize=4)
def sampled_pairs(seed, n):
    """Pairs for validation, for testing and n pairs for training; see `pair_batches`.

    The base completes prompts; of a prompt's completions, the one with the highest and the one with the lowest reward
    are a pair. The pairs for validation and testing do not depend on n.
    """
    base, (reward, _), rng = load_base(), sentiment_models(), stream(seed, "sample", 2)
    prompts = [beginnings()[0][i] for i in rng.permutation(len(beginnings()[0]))]
    parts = []
    for size in (OTHERS, OTHERS, n):
        taken = [prompt for prompt in prompts[:size] for _ in range(COMPLETIONS)]
        texts = sample(base.params, taken, base.config, N_NEW, rng)
        order = np.argsort(reward(taken, texts).reshape(size, COMPLETIONS)) + COMPLETIONS * np.arange(size)[:, None]
        rows = [[array[0] for array in token_rows([prompt], [text])] for prompt, text in zip(taken, texts)]
        parts.append(with_references(base, [(rows[best], rows[worst]) for best, worst in order[:, [-1, 0]]]))
        prompts = prompts[size:]
    return parts
