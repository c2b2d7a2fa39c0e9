"""The whole state of a training run, on disk so that it can go on bit for bit."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..formats import read_tensors, write_tensors

GROUPS = ("trainable", "m", "v", "best", "history", "memory")


class TrainState(NamedTuple):
    """Everything that the next step depends on, and what has been learnt so far.

    There is no generator's state in it: the shuffling of an epoch and the dropout masks of a step
    are drawn from generators that are made anew for each, see `stream`.
    """

    step: int  # steps done
    trainable: dict[str, np.ndarray]
    m: dict[str, np.ndarray]  # AdamW's first moments
    v: dict[str, np.ndarray]  # and second
    best: dict[str, np.ndarray]  # the trainable arrays at the best evaluation; empty before the first
    history: dict[str, np.ndarray]  # see `train`
    memory: dict[str, np.ndarray]  # what the hook `adjust` keeps from step to step; see `train`


def save_state(path, state, label=""):
    """Write the state to one safetensors file, whole or not at all.

    Parameters
    ----------
    path : where to
    state : TrainState
    label : str, what the run is (its settings), to be checked when it is resumed
    """
    tensors = {f"{group}/{name}": array for group in GROUPS for name, array in getattr(state, group).items()}
    write_tensors(path, tensors, {"step": str(state.step), "label": json.dumps(label)})


def load_state(path, label="", trainable=None):
    """Read what `save_state` wrote.

    Parameters
    ----------
    path : where it is
    label : str, that of `save_state`
    trainable : dict or None, the arrays that the run started from. The state's must be of their names,
        shapes and dtypes, and come back in their order, which a file does not keep: dropout masks are
        drawn in the order of the names.

    Raises
    ------
    ValueError
        If the file is damaged, is no training state, or belongs to a run with other settings.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path}: is a folder, expected a saved training state")
    tensors, metadata = read_tensors(path)
    if "step" not in metadata or "label" not in metadata:
        raise ValueError(f"{path}: not a saved training state")
    try:
        step, saved = int(metadata["step"]), json.loads(metadata["label"])
    except ValueError as error:
        raise ValueError(f"{path}: not a saved training state ({error})") from None
    if saved != label:
        raise ValueError(f"{path}: saved by a run with other settings\n  saved: {saved}\n  this run: {label}")
    groups = {group: {} for group in GROUPS}
    for key, array in tensors.items():
        group, _, name = key.partition("/")
        if group not in groups:
            raise ValueError(f"{path}: not a saved training state (unexpected tensor {key})")
        groups[group][name] = array
    for group in ("trainable", "m", "v", "best") if trainable is not None else ():
        if group == "best" and not groups[group]:
            continue
        got = {name: (array.shape, array.dtype) for name, array in groups[group].items()}
        expected = {name: (array.shape, array.dtype) for name, array in trainable.items()}
        for name in {**got, **expected}:
            if got.get(name) != expected.get(name):
                raise ValueError(
                    f"{path}: {group}/{name} is {got.get(name)}, this run trains {expected.get(name)} (shape, dtype)"
                )
        groups[group] = {name: groups[group][name] for name in trainable}
    return TrainState(step, **groups)
