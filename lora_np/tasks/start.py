"""What `finetune` and `finetune_text` share."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from ..adapters import check_ranks, on_given_base, start_adapter, trainable_report
from ..adapters.starts import STARTS
from ..checked import finite_number, one_of, whole_number
from ..formats import check_target, read_model
from ..training import attach, stream

SMALLEST = float(np.finfo(np.float32).tiny)  # smaller numbers lose their digits, and weights no longer move
MOST_EPOCHS = 100_000  # more is a slip of the finger, and would take years


def training_settings(methods, method, learning_rate, adapter_config, epochs, batch_size, seed, out, sources):
    """Check the arguments of a fine-tuning before anything is read.

    `methods` has the default learning rate and adapter of each method; `sources` are the files and folders that will be
    read.

    Returns
    -------
    adapter_config : that of the method; None for "full"
    settings : dict for `classifier_training` or `language_training`
    """
    one_of("method", method, methods)
    whole_number("epochs", epochs, most=MOST_EPOCHS)
    whole_number("batch_size", batch_size)
    whole_number("seed", seed, least=0, most=2**63 - 1)
    check_target(out, "out", sources)
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
    settings = {
        "learning_rate": rate,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "progress": f"fine-tuning ({method})",
    }
    return adapter_config if method == "lora" else default, settings


@contextmanager
def answers_of(model):
    """Put the model's name in front of an error about its numbers."""
    try:
        yield
    except FloatingPointError as error:
        raise FloatingPointError(f"{model}: {error}") from None


def load_base(base, dropout, adapter_config, weights="dense"):
    """The model to start from, a Task, which the adapter's settings must fit."""
    task = read_model(base, weights=weights)
    if adapter_config is not None:
        check_ranks(task.params, adapter_config)
    return task._replace(config=replace(task.config, dropout=dropout))


def start_training(params, adapter_config, seed):
    """The frozen weights, and the adapter to train on them; None if the weights themselves are to be trained."""
    if adapter_config is None:
        return params, None
    return start_adapter(params, adapter_config, stream(seed, "adapter"))


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
