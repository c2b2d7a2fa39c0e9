"""The time of one training step, full and LoRA, measured in turns on the same batch."""

import time

import numpy as np

from ..model import cache_bytes, forward
from ..training import TrainConfig, attach, blas_threads, model_objective
from ..training.state import TrainState
from ..training.trainer import train_step
from .fine_tune_run import load_base
from .methods import BY_KEY, starting_point
from .sentiment import load_task


def compare_step_times(repeats=20, keys=("full", "lora_qv_r8", "lora_all_r8", "head")):
    """Median seconds of a whole step (forward, backward, clipping, AdamW) by method, on one thread.

    The methods take turns on one batch, so that whatever else slows the machine slows all of them.

    Parameters
    ----------
    repeats : int, steps of each method, after two that do not count
    keys : the methods; the first is the one that the others are compared with

    Returns
    -------
    dict, key -> {"seconds", "ratio" (to the first), "activation_bytes" (held for the backward pass)}
    """
    task = load_task()
    base, base_config = load_base()
    batch = task.epoch_batches(np.random.default_rng(0))[0]
    settings = TrainConfig(steps=repeats + 2, learning_rate=1e-4)
    states, objectives, held = {}, {}, {}
    for key in keys:
        method = BY_KEY[key]
        params, config, trainable = starting_point(method, base, base_config, 2, 0)
        zeros = {name: np.zeros_like(array) for name, array in trainable.items()}
        states[key] = TrainState(0, trainable, zeros, zeros, {}, {})
        objectives[key] = model_objective(params, config, method.adapter)
        model, adapter = attach(params, method.adapter, trainable)
        _, cache = forward(
            model, batch.ids, config, lengths=batch.lengths, adapter=adapter, wanted=tuple(trainable)
        )
        held[key] = cache_bytes(cache)
    seconds = {key: [] for key in keys}
    with blas_threads(1):
        for repeat in range(repeats + 2):
            for key in keys:
                started = time.perf_counter()
                states[key], _ = train_step(states[key], objectives[key], batch, settings)
                if repeat >= 2:
                    seconds[key].append(time.perf_counter() - started)
    first = np.array(seconds[keys[0]])
    return {
        key: {
            "seconds": float(np.median(seconds[key])),
            "ratio": float(np.median(np.array(seconds[key]) / first)),
            "activation_bytes": held[key],
        }
        for key in keys
    }
