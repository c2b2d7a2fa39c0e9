"""The weights, the adapter and the batch of one rung and kind of work.

Each side makes them in its own process from the same seed, so all sides have the same numbers.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..adapters import Adapter, init_adapter
from ..data import Batch
from ..model import ModelConfig, parameter_shapes
from .rungs import ADAPTERS, GENERATED_ROWS, N_CLASSES, model_config, prompt_length

LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.01  # on matrices, as in lora_np's AdamW


class Case(NamedTuple):
    config: ModelConfig
    params: dict[str, np.ndarray]
    adapter: Adapter | None
    batch: Batch  # in generation `ids` is the prompt, and the targets are not used
    trained: tuple[str, ...]  # names of the parameters that a step trains; () if it trains none
    n_new: int  # tokens to generate

    @property
    def arrays(self):
        """The arrays of the model and its adapter in one dict."""
        return {**self.params, **(self.adapter.weights if self.adapter else {})}


class Side(NamedTuple):
    """One implementation, ready to do one kind of work.

    check() -> (loss, dict of arrays): the gradients of a training step under lora_np's names, the "logits"
    of a forward pass, the "tokens" of a generation (whose loss is 0). It changes nothing.
    step() -> float, the loss: one unit of work, to be timed.
    """

    check: Callable[[], tuple[float, dict[str, np.ndarray]]]
    step: Callable[[], float]
    activation_bytes: int | None = None  # alive between forward and backward, if the side can tell


def side_without_training(check):
    """The Side whose step is its check, without the arrays."""
    return Side(check, lambda: check()[0])


def make_case(rung, work, seed=0):
    """Draw the case of one rung and kind of work."""
    seeds = np.random.SeedSequence(seed).spawn(3)
    weights_rng, batch_rng, adapter_rng = map(np.random.default_rng, seeds)
    config = model_config(rung, work)
    params, adapter = draw_params(config, weights_rng), None
    trained = tuple(params) if work in ("full", "classifier") else ()
    if work in ADAPTERS:
        adapter = init_adapter(params, ADAPTERS[work], adapter_rng)
        trained = tuple(adapter.weights)
        for name, array in adapter.weights.items():
            if name.endswith("lora_B"):
                adapter.weights[name] = adapter_rng.normal(0.0, 0.1, array.shape).astype(array.dtype)
    n_new = rung.length - prompt_length(rung) if work in GENERATED_ROWS else 0
    return Case(config, params, adapter, draw_batch(rung, work, batch_rng), trained, n_new)


def draw_params(config, rng):
    """Random weights as large as a trained model's; none is constant.

    The small numbers of a fresh model hide mistakes: GELU by tanh and by the error function agree to all relevant
    digits on activations of 0.1.
    """
    params = {}
    for name, shape in parameter_shapes(config).items():
        if len(shape) == 2:
            value = rng.normal(0.0, 1.0 / math.sqrt(shape[1]), shape)  # its outputs are as large as its inputs
        else:
            value = rng.normal(float(name.endswith(".weight")), 0.1, shape)
        params[name] = value.astype(np.float32)
    return params


def draw_batch(rung, work, rng):
    """A batch of random tokens: full rows for a language model, right-padded ones for a classifier."""
    B = GENERATED_ROWS.get(work, rung.batch)
    T = prompt_length(rung) if work in GENERATED_ROWS else rung.length
    ids = rng.integers(0, rung.vocab_size, (B, T))
    lengths = np.full(B, T)
    targets = rng.integers(0, rung.vocab_size, (B, T))
    if work == "classifier":
        # Real batches group rows of similar length, so no row is shorter than half of the longest.
        lengths[1:] = rng.integers(T // 2, T + 1, B - 1)
        ids[np.arange(T) >= lengths[:, None]] = 0
        targets = rng.integers(0, N_CLASSES, B)
    return Batch(ids, targets, lengths, np.arange(B))
