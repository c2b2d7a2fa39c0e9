"""What `finetune` and `finetune_text` share."""

import math
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..adapters import check_ranks, on_given_base, start_adapter, trainable_report
from ..adapters.starts import STARTS
from ..analysis import step_bytes
from ..checked import finite_number, one_of, whole_number
from ..formats import check_target, read_model
from ..formats.model import model_place, weights_file
from ..training import attach, available_cores, blas_threads, shard_threads, split_batch, stream
from ..training.progress import duration
from ..training.threads import LARGE  # parameters; also taken for the bytes of a base's file, which are soon known
from .resuming import check_state

SMALLEST = float(np.finfo(np.float32).tiny)  # smaller numbers lose their digits, and weights no longer move
LARGEST_SHARD = 1024  # tokens that one thread of a large model's training works on; more need more memory
MOST_TOKENS = 512  # of a text that a large model reads, unless more are wanted
LEAST_STEPS, MOST_PASSES = 100, 4  # of a large model, by default
MOST_EPOCHS = 100_000  # more is a slip of the finger, and would take years


class Defaults(NamedTuple):
    """What a fine-tuning does where nothing else is asked for."""

    methods: dict  # method -> (learning rate, AdapterConfig or None)
    epochs: int
    batch_size: int


def is_large(base):
    """Whether a model's file is so large that a training takes minutes on a laptop; False if there is none."""
    file = weights_file(model_place(base))
    return file.is_file() and file.stat().st_size > LARGE


def training_settings(defaults, method, learning_rate, adapter_config, epochs, batch_size, seed, out, sources):
    """Check the arguments of a fine-tuning before anything is read.

    `defaults` are the Defaults; `sources` are the files and folders that will be read.

    Returns
    -------
    adapter_config : that of the method; None for "full"
    settings : dict for `classifier_training` or `language_training`
    """
    one_of("method", method, defaults.methods)
    epochs = whole_number("epochs", defaults.epochs if epochs is None else epochs, most=MOST_EPOCHS)
    batch_size = whole_number("batch_size", defaults.batch_size if batch_size is None else batch_size)
    whole_number("seed", seed, least=0, most=2**63 - 1)
    check_target(out, "out", sources)
    check_state(out)
    methods = defaults.methods
    rate, default = methods[method]
    rate = finite_number("learning_rate", rate if learning_rate is None else learning_rate, least=SMALLEST)
    adapter_config = adapter_config or methods["lora"][1]
    init, kind = adapter_config.init, adapter_config.kind
    if init == "loftq":
        raise ValueError("init: got 'loftq', which needs a quantised base; expected another init")
    if method == "lora" and kind != "vera" and abs(adapter_config.alpha) < SMALLEST * adapter_config.r:
        raise ValueError(
            f"alpha: got {adapter_config.alpha:g}, with which LoRA's update is zero; expected a number such as "
            f"{2 * adapter_config.r}, twice the rank"
        )
    if init in STARTS and kind != "lora":
        raise ValueError(f"init: {init!r} needs kind 'lora' here, got {kind!r}: see `on_given_base`")
    settings = {"learning_rate": rate, "epochs": epochs, "batch_size": batch_size, "seed": seed}
    return adapter_config if method == "lora" else default, settings


def silent(line):
    """A `report` that says nothing."""


@contextmanager
def answers_of(model):
    """Put the model's name in front of an error about its numbers."""
    try:
        yield
    except FloatingPointError as error:
        raise FloatingPointError(f"{model}: {error}") from None


def load_base(base, dropout, adapter_config, weights="dense"):
    """The model to start from, a Task, which the adapter's settings must fit; without one all weights are trained."""
    if adapter_config is None and weights != "dense":
        raise ValueError(f"weights: got {weights!r}, expected 'dense': whole weights can only be trained as arrays")
    task = read_model(base, weights=weights)
    if adapter_config is not None:
        check_ranks(task.params, adapter_config)
    return task._replace(config=replace(task.config, dropout=dropout))


def most_tokens(config, base, asked=None, most=MOST_TOKENS):
    """How many tokens of a text are read: as asked, or all that the model can, but of a large one at most `most`."""
    if asked is None:
        return min(config.n_positions, most) if is_large(base) else config.n_positions
    return whole_number("max_tokens", asked, most=config.n_positions, why="the model's n_positions")


def passes(base, epochs, batch_size, n_rows):
    """How often a training reads its rows: as asked, or of a large model's once, or of few rows up to four times."""
    if epochs is not None or not is_large(base):
        return {}
    return {"epochs": min(MOST_PASSES, math.ceil(LEAST_STEPS * batch_size / n_rows))}


def computing(base, batch_size, longest, threads=None, recompute=False):
    """How the steps of a training are computed: a dict with shards, threads and recompute.

    The batches of a large model are split into shards, one for each thread, or more where texts are long.

    Parameters
    ----------
    base : of the training
    batch_size, longest : int, rows of a batch, and tokens of the longest row
    threads : int; None: one, or for a large model all cores
    recompute : bool, see `lora_np.model.forward`
    """
    threads = (available_cores() if is_large(base) else 1) if threads is None else whole_number("threads", threads)
    pieces = math.ceil(batch_size * longest / LARGEST_SHARD) if is_large(base) else 1
    return {"shards": min(batch_size, max(threads, pieces)), "threads": threads, "recompute": recompute}


def start_training(params, config, adapter_config, seed):
    """The frozen weights, and the adapter to train on them; None if the weights themselves are to be trained."""
    if adapter_config is None:
        return params, None
    if not config.n_classes:  # `train_head` is about a classifier's head; a language model may have one of its own, too
        adapter_config = replace(adapter_config, train_head=False)
    return start_adapter(params, adapter_config, stream(seed, "adapter"))


def announce(report, params, config, adapter, given, batch_size, length):
    """Say what will be trained in how many steps, and what full fine-tuning of a large model takes.

    Parameters
    ----------
    report : function of a line of text
    params, config : the model
    adapter : Adapter, or None if the whole model is trained
    given : dict of `train`'s arguments
    batch_size, length : int, of the largest batch
    """
    trained = trainable_report(params, given["trainable"])
    share = f"{trained.trainable:,} parameters ({trained.percent:.3f} %)"
    report(f"training {share} in {given['config'].steps:,} steps")
    if adapter is None and trained.trainable > LARGE:
        shards = given["config"].shards
        memory, saved = (f"{n / 1e9:.1f} GB" for n in bytes_of_full(config, batch_size, length, shards))
        seconds = given["config"].steps * seconds_of_step(given)
        report(f"this takes about {duration(seconds)} and at least {memory} of memory, and {saved} for the state")


def seconds_of_step(given):
    """How long a training step takes without the optimiser, from the first batch; `given` as in `announce`."""
    config, started = given["config"], time.perf_counter()
    batch = given["epoch_batches"](stream(config.seed, "shuffle", 0))[0]
    with blas_threads(1), shard_threads(config.threads) as run:
        shards = split_batch(batch, config.shards)
        for _ in run(lambda shard: given["objective"](given["trainable"], shard, stream(0, "masks", 0)), shards):
            pass
    return time.perf_counter() - started


def bytes_of_full(config, batch_size, length, shards):
    """Bytes that training a whole model takes in memory, without arrays of a moment, and those of its saved state."""
    step = step_bytes(config, batch_size, length)
    trained = 2 * step.parameters + step.optimiser  # the weights in training, their best values, two moments
    # At the end of the backward passes each shard has its gradients and activations; then comes their mean.
    passing = shards * step.gradients + max(sum(step.activations.values()), step.gradients)
    return step.parameters + trained + passing, trained


def end_training(params, frozen, start, state):
    """The best weights in a form that fits the unchanged base.

    Returns
    -------
    params, adapter : the adapter may be None
    facts : dict for the task's file
    """
    report = trainable_report(params, state.best)
    trained, adapter = attach(frozen, start, state.best)
    if start is not None:
        trained, adapter = params, on_given_base(params, start, adapter)
    return trained, adapter, {"trainable": report.trainable, "percent": report.percent}
