"""Save and load the whole state of a training run, so that an interrupted run resumes bit for bit."""

import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..formats import read_metadata, read_tensors, write_tensors

MOST_OFTEN = 20  # saves take at most a twentieth of the time


class TrainState(NamedTuple):
    """Everything that the next step depends on, and the results so far.

    It holds no generator's state, because each epoch's shuffling and each step's dropout masks have their own
    generators; see `stream`.
    """

    step: int  # steps done
    trainable: dict[str, np.ndarray]
    m: dict[str, np.ndarray]  # AdamW's first moments
    v: dict[str, np.ndarray]  # and second
    best: dict[str, np.ndarray]  # the trainable arrays at the best evaluation; empty before the first
    history: dict[str, np.ndarray]  # see `train`
    memory: dict[str, np.ndarray]  # of the hook `adjust`; see `train`


def save_state(path, state, label=""):
    """Write the state to one safetensors file, atomically.

    Parameters
    ----------
    path : the file to write
    state : TrainState
    label : str, the run's settings, which `load_state` compares
    """
    groups = state._asdict()
    step = groups.pop("step")
    tensors = {f"{group}/{name}": array for group, arrays in groups.items() for name, array in arrays.items()}
    write_tensors(path, tensors, {"step": str(step), "label": json.dumps(label)})


class Saver:
    """Save the states of a run from time to time.

    Parameters
    ----------
    path, label : see `save_state`; without a path nothing is saved
    every : int, steps between saves; the last step is saved, too
    seconds : float, seconds between saves, or MOST_OFTEN times the duration of a save if that is longer; then `every`
        has no effect. None: see `every`
    """

    def __init__(self, path, label, every, seconds=None):
        self.path, self.label, self.every, self.seconds = path, label, every, seconds
        self.saved, self.pause = time.monotonic(), seconds

    def is_due(self, step, last):
        """Whether to save the state after this step."""
        if self.path is None or self.seconds is None:
            return self.path is not None and (last or step % self.every == 0)
        return time.monotonic() - self.saved >= self.pause

    def save(self, state):
        started = time.monotonic()
        save_state(self.path, state, self.label)
        self.saved = time.monotonic()
        self.pause = max(self.seconds or 0.0, MOST_OFTEN * (self.saved - started))


def saved_run(path):
    """The step and the label of a saved state. Raises ValueError for any other file."""
    metadata = read_metadata(path)
    try:
        return int(metadata["step"]), json.loads(metadata["label"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a saved training state ({error!r})") from None


def load_state(path, label="", trainable=None):
    """Read a state that `save_state` wrote.

    Parameters
    ----------
    path : the file to read
    label : str, the label in `save_state`
    trainable : dict or None, the arrays that the run started from. The state's must have the same names, shapes and
        dtypes, and are returned in this order, which a file does not keep: dropout masks are drawn in the order of
        the names.

    Raises
    ------
    ValueError
        If the file is damaged, is not a training state, or belongs to a run with other settings.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path}: is a folder, expected a saved training state")
    step, saved = saved_run(path)
    tensors, _ = read_tensors(path)
    if saved != label:
        raise ValueError(f"{path}: saved by a run with other settings\n  saved: {saved}\n  this run: {label}")
    groups = {group: {} for group in TrainState._fields[1:]}
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
