"""lora_np's side, and the measure of the machine itself."""

from contextlib import contextmanager

import numpy as np

from ..model import cache_bytes, forward, generate
from ..ops import cross_entropy_forward
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
from .case import LEARNING_RATE, WEIGHT_DECAY, Side, generation_side

PEAK_SIZE = 2048
PEAK_FLOPS = 2 * PEAK_SIZE**3


@contextmanager
def make_side(case, threads):
    """The case on so many threads, which share the rows of a batch.

    A generation has too few rows for that: there the threads share each matrix product.
    """
    if case.n_new:
        with blas_threads(threads):
            yield generation_side(lambda: generate(case.params, case.batch.ids, case.config, case.n_new))
        return
    with blas_threads(1), shard_threads(threads) as run:
        yield training_side(case, threads, run) if case.trained else forward_side(case, threads, run)


def training_side(case, threads, run):
    settings = TrainConfig(
        steps=1_000_000,  # more than are ever taken
        learning_rate=LEARNING_RATE,
        schedule="constant",
        optimiser=AdamW(weight_decay=WEIGHT_DECAY),
        clip_norm=None,
        shards=threads,
        threads=threads,
    )
    trainable = {name: case.arrays[name] for name in case.trained}
    objective = model_objective(case.params, case.config, case.adapter)
    state = initial_state(trainable)

    def check():
        shards = split_batch(case.batch, threads)
        return mean_over_shards(list(run(lambda shard: objective(state.trainable, shard, None), shards)), run)

    def step():
        nonlocal state
        state, measured = train_step(state, objective, case.batch, settings, run)
        return measured["loss"]

    model, adapter = attach(case.params, case.adapter, trainable)
    given = {"lengths": case.batch.lengths, "adapter": adapter, "wanted": case.trained}
    _, cache = forward(model, case.batch.ids, case.config, **given)
    return Side(check, step, cache_bytes(cache))


def forward_side(case, threads, run):
    objective = model_objective(case.params, case.config)
    shards = split_batch(case.batch, threads)

    def check():
        logits, _ = forward(case.params, case.batch.ids, case.config, lengths=case.batch.lengths)
        return float(cross_entropy_forward(logits, case.batch.targets)[0]), {"logits": logits}

    def step():
        # With nothing to train, an objective computes the loss and no gradients.
        return mean_over_shards(list(run(lambda shard: objective({}, shard, None), shards)), run)[0]

    return Side(check, step)


@contextmanager
def peak_side(threads):
    """How fast this machine multiplies two large matrices: float32, 2048 × 2048, in NumPy on so many threads."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((PEAK_SIZE, PEAK_SIZE), dtype=np.float32) for _ in "ab")
    out = np.empty_like(a)

    def step():
        np.matmul(a, b, out=out)
        return 0.0

    with blas_threads(threads):
        yield Side(lambda: (0.0, {}), step)
