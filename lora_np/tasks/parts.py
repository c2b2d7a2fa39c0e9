"""Adapters as parts, from their folders: several on one base, mixed, and merged."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..adapters import Adapter, adapter_set, add_adapter, compress, merge, merge_errors, mix
from ..formats import PRETRAINED, Task, check_base, load_task, put_on, save_task, task_base, task_folder
from ..model import forward
from ..training import blas_threads

BASE = "base"  # what the base alone is called beside its adapters


class Parts(NamedTuple):
    """Several adapters on one base."""

    task: Task  # of the base, without an adapter
    base: Path  # its folder
    adapters: dict[str, Adapter | None]  # by the names that were asked for; None for the base itself


def load_parts(names, base=None):
    """Read several adapters of one base.

    Parameters
    ----------
    names : list of str, folders of adapters, names of those that come with the package, or "base"
    base : folder of the base; None: the one that the first adapter was trained on, or the shipped one

    Returns
    -------
    Parts

    Raises
    ------
    ValueError
        If a name comes twice, or an adapter belongs to another base, has other labels or is a whole model.
    """
    names = [str(name) for name in names]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"adapter: {name!r} comes twice, expected each once")
    adapted = [name for name in names if name != BASE]
    base = Path(base) if base is not None else task_base(adapted[0]) if adapted else PRETRAINED
    first = load_task(base)
    if first.adapter is not None:
        raise ValueError(f"model: {base} holds an adapter, expected a model; give it as --adapter {base}")
    for name in adapted:
        check_base(name, base)
    tasks = {name: put_on(name, first) for name in adapted}
    if tasks:
        first = next(iter(tasks.values()))
    held = adapter_set(first.params)
    for name, task in tasks.items():
        if task.labels != first.labels:
            raise ValueError(f"adapter: {name} has the labels {task.labels}, and {adapted[0]} has {first.labels}")
        held = add_adapter(held, name, task.adapter)
    return Parts(first._replace(adapter=None), base, {name: held.adapters.get(name) for name in names})


def sources(parts):
    """The folders that parts were read from, which no command may write over."""
    return [parts.base, *(task_folder(name) for name in parts.adapters if name != BASE)]


def mixed(parts, weights, rank=None):
    """The weighted mix of all adapters as one.

    Parameters
    ----------
    parts : Parts
    weights : list of float, one for each adapter, in their order
    rank : int, to cut the mix to; None: exact, of the sum of the ranks

    Returns
    -------
    adapter : Adapter
    error : float, ‖ΔW − ΔW′‖ / ‖ΔW‖ over all layers; 0 where nothing was cut
    """
    if BASE in parts.adapters:
        raise ValueError(f"adapter: {BASE!r} is no adapter, expected adapters alone")
    if len(weights) != len(parts.adapters):
        raise ValueError(f"weights: got {len(weights)}, expected one for each of {len(parts.adapters)} adapters")
    whole = mix(parts.task.params, parts.adapters, dict(zip(parts.adapters, weights)))
    if rank is None:
        return whole, 0.0
    cut = compress(parts.task.params, whole, rank)
    return cut.adapter, cut.error


def merged_task(parts, adapter):
    """The task with the adapter in its weights, as costly as the base, and what merging cost in digits.

    Returns
    -------
    task : Task
    errors : dict, "float32" and "float16" -> MergeErrors
    """
    params = parts.task.params
    errors = {name: merge_errors(params, adapter, name) for name in ("float32", "float16")}
    return parts.task._replace(params=merge(params, adapter)), errors


def forward_times(parts, adapter, rows=16, repeats=20):
    """Median seconds of a forward pass: the base, with the adapter attached, and merged, in turns on one thread.

    Parameters
    ----------
    parts : Parts
    adapter : Adapter
    rows : int, texts of n_positions tokens
    repeats : int, passes of each, after two that do not count

    Returns
    -------
    dict: "base", "attached", "merged" -> (seconds, ratio to the base, the median over the turns)
    """
    params, config = parts.task.params, parts.task.config
    models = {"base": (params, None), "attached": (params, adapter), "merged": (merge(params, adapter), None)}
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (rows, config.n_positions))
    seconds = {name: [] for name in models}
    with blas_threads(1):
        for _ in range(repeats + 2):
            for name, (weights, attached) in models.items():
                started = time.perf_counter()
                forward(weights, ids, config, adapter=attached)
                seconds[name].append(time.perf_counter() - started)
    times = {name: np.array(values[2:]) for name, values in seconds.items()}
    return {name: (float(np.median(t)), float(np.median(t / times["base"]))) for name, t in times.items()}


def save_mix(out, parts, adapter, weights):
    """Write a mix as a task of its own."""
    about = {"method": "lora", "mixed_from": dict(zip(parts.adapters, weights))}
    save_task(out, parts.task._replace(adapter=adapter), parts.base, about)
