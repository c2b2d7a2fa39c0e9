"""A run of the experiment on preferences: DPO on pairs of the small base's own texts, which the reward has ordered."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...adapters import init_adapter, trainable_report
from ...data import decode
from ...model import sample
from ...tasks.preferences import compared, pair_batches, reference_of
from ...training import TrainConfig, attach, dpo, dpo_objective, stream, token_rows, train, trainable_arrays
from . import load_base
from .dialect import adapter_of
from .rewards import N_NEW, beginnings, sentiment_models

OTHERS, COMPLETIONS, BATCH_SIZE = 200, 4, 16  # pairs for validation, and as many for testing; texts per prompt


@dataclass(frozen=True)
class PreferenceRun:
    """The settings of a run.

    Parameters
    ----------
    method : see `dialect.adapter_of`
    pairs : int, the number of training pairs
    seed : int, also determines the prompts and the pairs
    learning_rate, beta : float
    steps : int
    """

    method: str
    pairs: int
    seed: int
    learning_rate: float
    beta: float = 0.1
    steps: int = 125
    keep: bool = False

    def carry_out(self):
        """Carry out the run; return the numbers of the step with the lowest validation loss."""
        base, adapter_config = load_base(), adapter_of(self.method)
        parts = np.split(sampled_pairs(self.seed, self.pairs + 2 * OTHERS), [self.pairs, self.pairs + OTHERS])
        references = [reference_of(base, pair_batches(part, None, BATCH_SIZE), len(part)) for part in parts]
        start = init_adapter(base.params, adapter_config, stream(self.seed, "adapter")) if adapter_config else None

        def measured(trainable, i):
            batches = pair_batches(parts[i], references[i], BATCH_SIZE)
            log_probs, before = compared(*attach(base.params, start, trainable), base.config, batches)
            return dpo(log_probs, before, self.beta)[0], log_probs - before

        def epoch_batches(rng):
            return pair_batches(parts[0], references[0], BATCH_SIZE, rng)

        objective = dpo_objective(base.params, base.config, start, beta=self.beta)
        plan = TrainConfig(self.steps, self.learning_rate, warmup_steps=5, eval_every=self.steps // 5, seed=self.seed)
        arrays = trainable_arrays(base.params, start)
        state = train(arrays, objective, epoch_batches, plan, lambda trainable: {"loss": measured(trainable, 1)[0]})
        test_loss, change = measured(state.best, 2)
        return {
            "trainable": trainable_report(base.params, arrays).trainable,
            "validation_loss": float(state.history["eval_loss"].min()),
            "last_validation_loss": float(state.history["eval_loss"][-1]),
            "test_loss": test_loss,
            "in_order": float(np.mean(change[:, 0] > change[:, 1])),
            "preferred": float(change[:, 0].mean()),
            "rejected": float(change[:, 1].mean()),
        }, {}


@lru_cache(maxsize=4)
def sampled_pairs(seed, n):
    """Pairs of the base's completions of n prompts: of four, the one with the highest and with the lowest reward.

    Each text is a pair of arrays, ids and targets; the result is an object array (n, 2, 2).
    """
    base, (reward, _), rng = load_base(), sentiment_models(), stream(seed, "sample", 2)
    of_training, _ = beginnings()
    prompts = [of_training[i] for i in rng.permutation(len(of_training))[:n] for _ in range(COMPLETIONS)]
    texts = sample(base.params, prompts, base.config, N_NEW, rng)
    scores = reward.predict_proba([decode(base.tokenizer, np.concatenate(pair)) for pair in zip(prompts, texts)])[:, 1]
    order = np.argsort(scores.reshape(n, COMPLETIONS)) + COMPLETIONS * np.arange(n)[:, None]
    pairs = np.empty((n, 2, 2), dtype=object)
    for i, of_prompt in enumerate(order[:, [-1, 0]]):
        for side, row in enumerate(of_prompt):
            pairs[i, side] = [array[0] for array in token_rows([prompts[row]], [texts[row]])]
    return pairs
