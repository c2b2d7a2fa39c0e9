"""lora_np's side, and the measure of the machine itself."""

from contextlib import contextmanager

import numpy as np

from ..model import cache_bytes, forward, generate
from ..training import (
    AdamW,
    TrainConfig,
    attach,
    blas_threads,
    initial_state,
    mean_over_shards,
    model_objective,
    shard_threads,
    split_batch,
    train_step,
)
from .case import LEARNING_RATE, WEIGHT_DECAY, Side, side_without_training

PEAK_SIZE = 2048
PEAK_FLOPS = 2 * PEAK_SIZE**3


@contextmanager
def make_side(case, threads):
    """lora_np's Side of a case on so many threads, or the peak's if there is no case.

    The threads share the rows of a batch. A generation has too few rows for that, and the peak none: there they share
    each matrix product.
    """
    in_shards = case is not None and not case.n_new
    with blas_threads(1 if in_shards else threads), shard_threads(threads) as run:
        if in_shards:
            yield side_of_batch(case, threads, run)
        elif case is None:
            yield peak_side()
        else:
            prompt = case.batch.ids
            yield side_without_training(
                lambda: (0.0, {"tokens": generate(case.params, prompt, case.config, case.n_new)})
            )


def peak_side():
    """How fast this machine multiplies two large matrices: float32, 2048 × 2048, in NumPy. There is no loss."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((PEAK_SIZE, PEAK_SIZE), dtype=np.float32) for _ in "ab")
    out = np.empty_like(a)
    return Side(lambda: (0.0, {}), lambda: np.matmul(a, b, out=out))


def side_of_batch(case, threads, run):
    """The Side of a training step or of a forward pass, both over shards; `run` is a map of `shard_threads`."""
    objective = model_objective(case.params, case.config, case.adapter)
    state = initial_state({name: case.arrays[name] for name in case.trained})
    shards = split_batch(case.batch, threads)

    def loss_and_gradients():  # with nothing to train, there are no gradients, and none are computed
        return mean_over_shards(list(run(lambda shard: objective(state.trainable, shard, None), shards)), run)

    def loss_and_logits():
        logits, _ = forward(case.params, case.batch.ids, case.config, lengths=case.batch.lengths)
        return loss_and_gradients()[0], {"logits": logits}

    if not case.trained:
        return Side(loss_and_logits, lambda: loss_and_gradients()[0])

    settings = TrainConfig(
        steps=1_000_000,  # more than are ever taken
        learning_rate=LEARNING_RATE,
        schedule="constant",
        optimiser=AdamW(weight_decay=WEIGHT_DECAY),
        clip_norm=None,
        shards=threads,
        threads=threads,
    )

    def step():
        nonlocal state
        state, measured = train_step(state, objective, case.batch, settings, run)
        return measured["loss"]

    model, adapter = attach(case.params, case.adapter, state.trainable)
    given = {"lengths": case.batch.lengths, "adapter": adapter, "wanted": case.trained}
    _, cache = forward(model, case.batch.ids, case.config, **given)
    return Side(loss_and_gradients, step, cache_bytes(cache))
