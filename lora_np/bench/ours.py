"""lora_np's side."""

from contextlib import contextmanager

from ..model import cache_bytes, forward, generate
from ..ops import cross_entropy_forward
from ..training import (
    AdamW,
    TrainConfig,
    accumulated_gradients,
    attach,
    blas_threads,
    initial_state,
    model_objective,
    shard_threads,
    split_batch,
    train_step,
)
from .case import LEARNING_RATE, WEIGHT_DECAY, Side


@contextmanager
def make_side(case, threads):
    """The case on so many threads: the rows of a batch are shared out among them.

    Generation has too few rows for that, and shares out each matrix product.
    """
    if case.n_new:
        with blas_threads(threads):
            yield generation_side(case)
        return
    with blas_threads(1), shard_threads(threads) as run:
        yield training_side(case, threads, run) if case.trained else forward_side(case, threads, run)


def training_side(case, threads, run):
    settings = TrainConfig(
        steps=1_000_000,  # as many as may be asked for
        learning_rate=LEARNING_RATE,
        schedule="constant",
        optimiser=AdamW(weight_decay=WEIGHT_DECAY),
        clip_norm=None,
        shards=threads,
        threads=threads,
    )
    arrays = {**case.params, **(case.adapter.weights if case.adapter is not None else {})}
    trainable = {name: arrays[name] for name in case.trained}
    objective = model_objective(case.params, case.config, case.adapter)
    state = initial_state(trainable)

    def check():
        shards = split_batch(case.batch, threads)
        return accumulated_gradients(lambda i, shard: objective(state.trainable, shard, None), shards, run)

    def step():
        nonlocal state
        state, measured = train_step(state, objective, case.batch, settings, run)
        return measured["loss"]

    model, adapter = attach(case.params, case.adapter, trainable)
    _, cache = forward(
        model, case.batch.ids, case.config, lengths=case.batch.lengths, adapter=adapter, wanted=case.trained
    )
    return Side(check, step, cache_bytes(cache))


def forward_side(case, threads, run):
    objective = model_objective(case.params, case.config)
    shards = split_batch(case.batch, threads)

    def check():
        logits, _ = forward(case.params, case.batch.ids, case.config, lengths=case.batch.lengths)
        return float(cross_entropy_forward(logits, case.batch.targets)[0]), {"logits": logits}

    def step():
        # With nothing to train an objective is a loss alone, and no gradient is computed.
        return accumulated_gradients(lambda i, shard: objective({}, shard, None), shards, run)[0]

    return Side(check, step)


def generation_side(case):
    def check():
        return 0.0, {"tokens": generate(case.params, case.batch.ids, case.config, case.n_new)}

    def step():
        generate(case.params, case.batch.ids, case.config, case.n_new)
        return 0.0

    return Side(check, step)
