"""Choose the number of shards for a training run, and estimate the run's time and memory."""

import math
import time
from pathlib import Path

from ..adapters import trainable_report
from ..analysis import step_bytes
from ..training import blas_threads, shard_threads, split_batch, stream
from ..training.progress import duration
from ..training.threads import LARGE
from .settings import kind_of_base

LARGEST_SHARD = 1024  # maximum number of tokens per shard, which limits the memory for a large model


def n_shards(settings, tokens):
    """Return the number of shards per batch: one per thread, or more if the base is large and the rows are long.

    `tokens` is the largest number of tokens in a row.
    """
    pieces = math.ceil(settings.batch_size * tokens / LARGEST_SHARD) if kind_of_base(settings.base) == "large" else 1
    return min(settings.batch_size, max(settings.threads, pieces))


def report_cost(report, base, dataset, adapter, plan, batch_size):
    """Report how many parameters are trained on how many rows; for full fine-tuning of a large model, also the cost.

    Parameters
    ----------
    report : function, called with each line of the report
    base : str or path, the model's name or folder
    dataset : Dataset
    adapter : Adapter, or None if the whole model is trained
    plan : dict of `train`'s arguments
    batch_size : int, rows per step
    """
    model, config = dataset.model, plan["config"]
    trained = trainable_report(model.params, plan["trainable"])
    share = f"{trained.trainable:,} parameters ({trained.percent:.3f} %)"
    labels = f" with {len(model.labels)} labels" if model.labels else ""
    report(f"training {share} of {Path(base).name} in {config.steps:,} steps on {dataset.n_rows:,} rows{labels}")
    if adapter is None and trained.trainable > LARGE:
        n_texts = batch_size * dataset.texts_per_row
        memory, disk = (f"{n / 1e9:.1f} GB" for n in bytes_of_full(model.config, n_texts, dataset.longest))
        takes = duration(config.steps * seconds_of_step(plan))
        report(f"this takes about {takes}, at least {memory} of memory, and {disk} on disk for the saved state")


def seconds_of_step(plan):
    """Measure how long a training step on the first batch takes, in seconds, excluding the optimiser's update."""
    config, started = plan["config"], time.perf_counter()
    batch = plan["epoch_batches"](stream(config.seed, "shuffle", 0))[0]
    with blas_threads(1), shard_threads(config.threads) as run:
        shards = split_batch(batch, config.shards)
        list(run(lambda shard: plan["objective"](plan["trainable"], shard, stream(0, "masks", 0)), shards))
    return time.perf_counter() - started


def bytes_of_full(config, batch_size, length):
    """Return, in bytes, the peak memory of full fine-tuning (without temporary arrays), and the saved state's size."""
    step = step_bytes(config, batch_size, length)
    trained = 2 * step.parameters + step.optimiser  # the trained weights, their best values, and AdamW's two moments
    # All activations are stored until the backward pass ends, and all gradients until their norm is known.
    return step.parameters + trained + step.gradients + sum(step.activations.values()), trained
