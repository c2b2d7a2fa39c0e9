"""Read and mix several adapters of one base, and time a merged adapter."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..adapters import Adapter, compress, merge, mix
from ..checked import quoted
from ..formats import PRETRAINED, LoadedModel, attach_adapter, load_task, model_place, task_base, task_folder
from ..model import forward, modules
from ..training import blas_threads

BASE = "base"  # the name of the base without an adapter


class LoadedAdapters(NamedTuple):
    """Several adapters, and the base that they share."""

    task: LoadedModel  # the base, without an adapter
    adapters: dict[str, Adapter | None]  # by name; None for the base itself
    base: Path  # the base's folder
    folders: list[Path]  # all folders that were read; no command may overwrite them


def load_adapter_set(names, base=None):
    """Read several adapters of one base.

    Parameters
    ----------
    names : list of str, folders or GGUF files of adapters, names of included adapters, or "base"
    base : the base, see `read_model`; None: that of the first adapter, or the included base if there is no adapter

    Returns
    -------
    LoadedAdapters

    Raises
    ------
    ValueError
        If a name is repeated, if a name is that of a full model, or if the adapters differ in their base or labels.
    """
    names = [str(name) for name in names]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ValueError(f"adapter: {repeated[0]!r} is repeated; give each name only once")
    adapted = [name for name in names if name != BASE]
    base = model_place(base) if base is not None else task_base(adapted[0]) if adapted else PRETRAINED
    task = load_task(base)
    if task.adapter is not None:
        raise ValueError(f"model: {base} is an adapter, expected a model; give it as --adapter {base}")
    tasks = {}
    for name in adapted:
        tasks[name] = attach_adapter(name, base, task)
        labels, first = tasks[name].labels, tasks[adapted[0]].labels
        if labels != first:
            raise ValueError(f"adapter: {name} has the labels {quoted(labels)}, but {adapted[0]} has {quoted(first)}")
    adapters = {name: tasks[name].adapter if name in tasks else None for name in names}
    task = tasks[adapted[0]]._replace(adapter=None) if adapted else task
    places = [Path(name) if Path(name).suffix == ".gguf" else task_folder(name) for name in adapted]
    return LoadedAdapters(task, adapters, base, [base, *places])


def mixed(loaded, weights=None, rank=None):
    """Combine all adapters into one whose update is the weighted sum of their updates.

    Parameters
    ----------
    loaded : LoadedAdapters
    weights : list of float, one per adapter, in the same order; None: 1 each
    rank : int, the rank of the mix; None: the sum of the ranks, which makes the mix exact

    Returns
    -------
    adapter : Adapter
    error : float, ‖ΔW − ΔW′‖ / ‖ΔW‖ over all layers, where ΔW′ is the update of rank `rank`; 0 if `rank` is None
    """
    adapters = loaded.adapters
    if BASE in adapters:
        raise ValueError(f"adapter: got {BASE!r}, expected only adapters")
    weights = [1.0] * len(adapters) if weights is None else weights
    if len(weights) != len(adapters):
        raise ValueError(f"weights: got {len(weights)}, expected one for each of {len(adapters)} adapters")
    exact = mix(loaded.task.params, adapters, dict(zip(adapters, weights)))
    check_finite(exact.weights)
    if rank is None:
        return exact, 0.0
    reduced = compress(loaded.task.params, exact, rank)
    return reduced.adapter, reduced.error


def check_finite(arrays):
    """Return `arrays`, a dict of arrays; raise ValueError if any value is not finite."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"weights: {name} becomes NaN or infinite; expected smaller weights")
    return arrays


def forward_times(loaded, adapter):
    """Time single-threaded forward passes of the base, the base with the adapter, and the merged model.

    Returns
    -------
    dict: "base", "attached", "merged" -> (seconds for 16 rows of 128 tokens, or n_positions if that is less, and the
        ratio to the base's time), both medians over 20 rounds
    """
    params, config = loaded.task.params, loaded.task.config
    models = {"base": (params, None), "attached": (params, adapter), "merged": (merge(params, adapter), None)}
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (16, min(config.n_positions, 128)))
    seconds = {name: [] for name in models}
    with blas_threads(1):
        for _ in range(22):  # the first two rounds are a warm-up
            for name, (weights, attached) in models.items():
                started = time.perf_counter()
                forward(weights, ids, config, adapter=attached, head="head" in modules(config))
                seconds[name].append(time.perf_counter() - started)
    times = {name: np.array(values[2:]) for name, values in seconds.items()}
    return {name: (float(np.median(t)), float(np.median(t / times["base"]))) for name, t in times.items()}
