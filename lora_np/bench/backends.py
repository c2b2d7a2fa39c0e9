"""The timed backends: lora_np, its peers (NAME, or NAME=DIR for another checkout), and a matmul for reference."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..checked import one_of
from ..compress import QuantisedWeight
from ..model import forward, generate
from ..training import AdamW, TrainConfig, blas_threads, initial_state, model_objective, train_step
from ..training.accumulate import mean_over_shards, split_batch
from . import jax_peer, llama_cpp_peer, torch_peer
from .case import ADAPTERS, GENERATED_ROWS, LEARNING_RATE, WEIGHT_DECAY, WORKS, Backend

OURS = "lora_np"
PEAK_SIZE = 2048
PEAK_FLOPS = 2 * PEAK_SIZE**3


class Peer(NamedTuple):
    """A backend that lora_np is compared with."""

    packages: tuple[str, ...]  # the Python packages that it requires; () for variants of lora_np itself
    works: tuple[str, ...]
    make_backend: Callable  # (case, number of threads) -> Backend


def program_of(name):
    """Return a backend's key in BACKENDS, and the folder of the lora_np checkout that its process imports.

    For another checkout, given as old=/path/to/it, the key is lora_np's own, and the folder is /path/to/it.
    """
    label, equals, folder = name.partition("=")
    if label and equals:
        return OURS, Path(os.path.realpath(folder))
    return name, Path(__file__).resolve().parents[2]


def check_peer(name):
    """Raise ValueError unless `name` is an installed peer in PEERS, or NAME=DIR with a checkout of lora_np in DIR."""
    backend, folder = program_of(name)
    if backend != name:  # another checkout
        if not (folder / "lora_np" / "bench" / "worker.py").is_file():
            raise ValueError(f"peers: got {name!r}, expected a checkout of lora_np in the folder {folder}")
    elif missing := missing_packages(PEERS[one_of("peers", name, [*PEERS, "NAME=DIR"])]):
        problem = f"{name} is not installed (missing: {', '.join(missing)})"
        raise ValueError(f'peers: {problem}; install it with: pip install "lora_np[bench]"')


def missing_packages(peer):
    """Return the packages that a peer requires but that are not installed, without importing any."""
    return [package for package in peer.packages if find_spec(package) is None]


def parse_peers(texts):
    """Parse the names of peers given on a command line.

    Parameters
    ----------
    texts : list of str, each a name or several names separated by commas, or None for the installed DEFAULT_PEERS

    Returns
    -------
    peers : list of str without duplicates; `bench` checks them
    absent : list of str, the default peers that are not installed, with the missing packages
    """
    if texts is None:
        missing = {name: missing_packages(PEERS[name]) for name in DEFAULT_PEERS}
        absent = [f"{name} (not installed: {', '.join(lacks)})" for name, lacks in missing.items() if lacks]
        return [name for name, lacks in missing.items() if not lacks], absent
    return list(dict.fromkeys(name for text in texts for name in text.split(",") if name)), []


# ---------------------------------------------------------------- lora_np and the machine


def our_backend(case, threads, blocks=False, recompute=False):
    """Make lora_np's Backend for a case.

    With `blocks`, the weights remain quantised in blocks. `recompute` has the same meaning as in
    `lora_np.model.forward`. The rows of a batch are divided among the threads, except in generation: there, batches
    have few rows, and each matrix product uses all threads.
    """
    if not blocks:
        case = case.dense()
    elif not any(isinstance(weight, QuantisedWeight) for weight in case.params.values()):
        raise ValueError("the weights of this rung are not quantised in blocks; use a Llama rung, such as smollm2")
    blas_threads(threads if case.n_new else 1)  # not reset, because the process does nothing else
    if case.n_new:
        generation = partial(generate, case.params, case.batch.ids, case.config, case.n_new)
        return Backend(lambda: (0.0, {"tokens": generation()}), generation)

    run = map if threads == 1 else ThreadPoolExecutor(threads).map
    objective = model_objective(case.params, case.config, case.adapter, recompute=recompute)
    state = initial_state({name: case.arrays[name] for name in case.trained})
    shards = split_batch(case.batch, threads)

    def loss_and_gradients():  # the gradients are empty if nothing is trained
        return mean_over_shards(list(run(lambda shard: objective(state.trainable, shard, None), shards)), run)

    if not case.trained:
        logits = partial(forward, case.params, case.batch.ids, case.config, lengths=case.batch.lengths)
        return Backend(lambda: (loss_and_gradients()[0], {"logits": logits()[0]}), loss_and_gradients)

    optimiser = {"optimiser": AdamW(weight_decay=WEIGHT_DECAY), "schedule": "constant", "clip_norm": None}
    settings = TrainConfig(1_000_000, LEARNING_RATE, shards=threads, **optimiser)  # more steps than will be run

    def step():
        nonlocal state
        state, measured = train_step(state, objective, case.batch, settings, run)
        return measured["loss"]

    return Backend(loss_and_gradients, step)


def peak_backend(case, threads):
    """Make the Backend that measures the machine's speed: NumPy multiplies two 2048 × 2048 float32 matrices."""
    blas_threads(threads)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((PEAK_SIZE, PEAK_SIZE), dtype=np.float32) for _ in "ab")
    out = np.empty_like(a)

    def step():
        np.matmul(a, b, out=out)
        return 0.0

    return Backend(lambda: (0.0, {}), step)


STEPS = tuple(work for work in WORKS if work not in GENERATED_ROWS)  # everything except generation
PEERS = {
    "torch": Peer(("torch", "peft", "transformers"), tuple(WORKS), torch_peer.make_backend),
    "compile": Peer(("torch", "peft", "transformers"), STEPS, partial(torch_peer.make_backend, compiled=True)),
    "jax": Peer(("jax",), STEPS, jax_peer.make_backend),
    "llama.cpp": Peer(("gguf",), tuple(GENERATED_ROWS), llama_cpp_peer.make_backend),
    "blocks": Peer((), (*ADAPTERS, "forward", *GENERATED_ROWS), partial(our_backend, blocks=True)),
    "recompute": Peer((), tuple(work for work in STEPS if work != "forward"), partial(our_backend, recompute=True)),
    "blocks-recompute": Peer((), tuple(ADAPTERS), partial(our_backend, blocks=True, recompute=True)),
}
DEFAULT_PEERS = ("torch", "compile", "jax")  # the peers in figures/bench.md's tables for GPT-2
BACKENDS = {OURS: our_backend, "peak": peak_backend, **{name: peer.make_backend for name, peer in PEERS.items()}}
