"""A run with a target of known rank: the teacher is the student with a matrix of rank k added to one weight."""

from dataclasses import dataclass

import numpy as np

from ...adapters import AdapterConfig, init_adapter
from ...data import Batch
from ...model import GPT2Config, backward, forward, initial_params
from ...model.objective import Objective
from ...training import TrainConfig, attach, blas_threads, stream, train

CONFIG = GPT2Config(vocab_size=64, n_positions=16, d_model=32, n_layers=1, n_heads=4, d_ff=64)
LAYER = "blocks.0.attn.v_proj"
BATCH_SIZE, N_BATCHES, N_TEST = 16, 32, 256


@dataclass(frozen=True)
class PlantedRun:
    """The settings of a run: the planted change's rank k, the adapter's rank r, and the number of optimiser steps."""

    k: int
    r: int
    seed: int
    learning_rate: float = 2e-2
    steps: int = 400

    def carry_out(self):
        """Return the held-out loss before training ("base_loss") and after ("test_loss"), and an empty dict."""
        student, teacher = planted_model(self.k, self.seed)
        n_texts = N_BATCHES * BATCH_SIZE + N_TEST
        texts = stream(self.seed, "sample", 0).integers(0, CONFIG.vocab_size, (n_texts, CONFIG.n_positions))
        batches = [labelled(ids, teacher) for ids in np.split(texts[:-N_TEST], N_BATCHES)]
        test = labelled(texts[-N_TEST:], teacher)
        config = AdapterConfig(r=self.r, alpha=float(self.r), targets=(LAYER,), train_head=False)
        adapter = init_adapter(student, config, stream(self.seed, "adapter"))

        def objective(trainable, batch, rng):
            model, attached = attach(student, adapter, trainable)
            return squared_error(model, batch, attached, tuple(trainable))

        more = {"warmup_steps": self.steps // 20, "clip_norm": None, "seed": self.seed}
        settings = TrainConfig(self.steps, self.learning_rate, **more)
        state = train(
            adapter.weights, objective, lambda rng: [batches[i] for i in rng.permutation(N_BATCHES)], settings
        )
        with blas_threads(1):
            model, attached = attach(student, adapter, state.best)
            numbers = {
                "base_loss": squared_error(student, test, None).loss,
                "test_loss": squared_error(model, test, attached).loss,
            }
        return numbers, {}


def planted_model(k, seed):
    """Make the student, a random transformer in float64, and the teacher, a copy with a change of rank k in one layer.

    The k singular values of the change are equal, so that all directions matter equally. Each of these singular
    values is about as large as the weight's largest, which is about 2 √C times the standard deviation of the weight's
    entries. Returns the weights of both as dicts.
    """
    params = initial_params(CONFIG, stream(seed, "weights"))
    params = {name: array.astype(np.float64) for name, array in params.items()}
    C = CONFIG.d_model
    for name, array in params.items():
        if array.ndim == 2:  # larger than initial weights, as in a trained model
            params[name] = array / array.std() / np.sqrt(C)
    rng = stream(seed, "sample", 1)
    U, V = (np.linalg.qr(rng.standard_normal((C, k)))[0] for _ in range(2))  # (C, k), orthonormal
    teacher = {**params, f"{LAYER}.weight": params[f"{LAYER}.weight"] + 2.0 * U @ V.T}
    return params, teacher


def labelled(ids, teacher):
    """A batch whose targets are the teacher's logits."""
    logits, _ = forward(teacher, ids, CONFIG)
    lengths = np.full(len(ids), ids.shape[1])
    return Batch(ids, logits, lengths, np.arange(len(ids)))


def squared_error(params, batch, adapter, wanted=()):
    """The mean squared error L = mean (z − z*)² of logits z and targets z*, and its gradients; dz = 2 (z − z*)/n."""
    logits, cache = forward(params, batch.ids, CONFIG, adapter=adapter, wanted=wanted)
    difference = logits - batch.targets  # (B, T, V)
    grads = backward(2.0 / difference.size * difference, cache) if wanted else {}
    return Objective(float(np.mean(difference**2)), difference.size, grads)
