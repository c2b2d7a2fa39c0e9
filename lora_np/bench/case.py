"""The weights, the adapter and the batch of one rung and kind of work: the same numbers for every side.

Each side builds them in its own process from the same seed.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..adapters import Adapter, init_adapter
from ..data import Batch
from ..model import ModelConfig, parameter_shapes
from .rungs import GENERATED_ROWS, N_CLASSES, TARGETS, Rung, adapter_config, model_config, prompt_length

LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.01  # on matrices, as lora_np's AdamW has it


class Case(NamedTuple):
    rung: Rung
    work: str
    config: ModelConfig
    params: dict[str, np.ndarray]
    adapter: Adapter | None
    batch: Batch  # in generation `ids` is the prompt, and there are no targets
    trained: tuple[str, ...]  # names of the parameters that a step trains; () where it trains none
    n_new: int  # tokens to generate


class Side(NamedTuple):
    """One implementation, ready to do one kind of work.

    check() -> (loss, dict of arrays): the gradients of a training step under lora_np's names, the "logits"
    of a forward pass, the "tokens" of a generation (whose loss is 0). It changes nothing.
    step() -> float, the loss: one unit of work, to be timed.
    """

    check: Callable[[], tuple[float, dict[str, np.ndarray]]]
    step: Callable[[], float]
    activation_bytes: int | None = None  # held between forward and backward, where a side can tell


def make_case(rung, work, seed=0):
    """Draw the case of one rung and kind of work."""
    weights_rng, batch_rng, adapter_rng = (
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)
    )
    config = model_config(rung, work)
    params = draw_params(config, weights_rng)
    adapter = None
    if work in TARGETS:
        adapter = init_adapter(params, adapter_config(work), adapter_rng)
        for name, array in adapter.weights.items():
            if name.endswith("lora_B"):
                adapter.weights[name] = adapter_rng.normal(0.0, 0.1, array.shape).astype(array.dtype)
    return Case(
        rung,
        work,
        config,
        params,
        adapter,
        draw_batch(rung, work, batch_rng),
        trained=trained_names(work, params, adapter),
        n_new=rung.length - prompt_length(rung) if work in GENERATED_ROWS else 0,
    )


def draw_params(config, rng):
    """Random weights as large as a trained model's, and none of them zero or one throughout.

    In a fresh model what is zero or small hides what is wrong: GELU by tanh and by the error function
    differ in no digit that counts on activations of 0.1.
    """
    params = {}
    for name, shape in parameter_shapes(config).items():
        if len(shape) == 2:
            value = rng.normal(0.0, 1.0 / math.sqrt(shape[1]), shape)  # keeps the size of what it multiplies
        else:
            value = rng.normal(float(name.endswith(".weight")), 0.1, shape)
        params[name] = value.astype(np.float32)
    return params


def draw_batch(rung, work, rng):
    """A batch of random tokens: whole rows for a language model, right-padded ones for a classifier."""
    B = GENERATED_ROWS.get(work, rung.batch)
    T = prompt_length(rung) if work in GENERATED_ROWS else rung.length
    ids = rng.integers(0, rung.vocab_size, (B, T))
    lengths = np.full(B, T)
    targets = rng.integers(0, rung.vocab_size, (B, T))
    if work == "classifier":
        # Rows of similar length stand together in real batches: half of the longest is the least here.
        lengths[1:] = rng.integers(T // 2, T + 1, B - 1)
        ids[np.arange(T) >= lengths[:, None]] = 0
        targets = rng.integers(0, N_CLASSES, B)
    return Batch(ids, targets, lengths, np.arange(B))


def trained_names(work, params, adapter):
    """What a step trains: an adapter alone, every parameter, or nothing."""
    if adapter is not None:
        return tuple(adapter.weights)
    return tuple(params) if work in ("full", "classifier") else ()
