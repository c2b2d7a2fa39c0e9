"""The saved state of a training run, from which an interrupted run resumes with bit-identical results."""

import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..formats import read_names, read_tensors, write_tensors

MOST_OFTEN = 20  # saving takes at most 1 / MOST_OFTEN of the running time


class TrainState(NamedTuple):
    """Everything that the next step depends on, and the results so far.

    It does not contain a random generator's state, because each epoch's shuffling and each step's dropout masks have
    their own generators; see `stream`.
    """

    step: int  # completed steps
    trainable: dict[str, np.ndarray]
    m: dict[str, np.ndarray]  # AdamW's first moments
    v: dict[str, np.ndarray]  # AdamW's second moments
    best: dict[str, np.ndarray]  # the trainable arrays at the best evaluation; empty before the first evaluation
    history: dict[str, np.ndarray]  # see `train`; lists during training
    memory: dict[str, np.ndarray]  # the state of the hook `after_update`; see `train`


def save_state(path, state, label):
    """Write the state to a safetensors file atomically.

    Parameters
    ----------
    path : the file to write
    state : TrainState
    label : str, describes the run; `load_state` requires the same label
    """
    groups = state._asdict()
    step = groups.pop("step")
    tensors = {f"{group}/{name}": np.asarray(a) for group, arrays in groups.items() for name, a in arrays.items()}
    write_tensors(path, tensors, {"step": str(step), "label": json.dumps(label)})


class Saver:
    """Saves a run's state at intervals.

    Parameters
    ----------
    path, label : see `save_state`; if path is None, nothing is saved
    every : int, steps between two saves; the last step is also saved
    seconds : float, seconds between two saves, or MOST_OFTEN times the duration of a save if that is longer; this
        replaces `every`. None: use `every`
    """

    def __init__(self, path, label, every, seconds=None):
        self.path, self.label, self.every, self.seconds = path, label, every, seconds
        self.saved, self.pause = time.monotonic(), seconds

    def stepped(self, state, last):
        """Save the state if a save is due after this step; `last` is True for the run's last step."""
        started = time.monotonic()
        by_step = last or state.step % self.every == 0
        is_due = by_step if self.seconds is None else started - self.saved >= self.pause
        if is_due and self.path is not None:
            save_state(self.path, state, self.label)
            self.saved = time.monotonic()
            self.pause = max(self.seconds or 0.0, MOST_OFTEN * (self.saved - started))


def saved_run(path):
    """Return the step and the label of a saved state; raise ValueError if the file is not a saved state."""
    _, metadata = read_names(path)
    try:
        return int(metadata["step"]), json.loads(metadata["label"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a saved training state ({error!r})") from None


def load_state(path, label, trainable):
    """Read a state that `save_state` wrote.

    Parameters
    ----------
    path : the file to read
    label : str, the label that was passed to `save_state`
    trainable : dict of the arrays that the run started from. The saved arrays must match `trainable` in names, shapes
        and dtypes. The arrays are returned in the order of `trainable`, because dropout masks are drawn in that order,
        and the file does not preserve it.

    Raises
    ------
    ValueError
        If the file is damaged, is not a training state, or is from a run with different settings.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder, expected a saved training state")
    step, saved = saved_run(path)
    if saved != label:
        raise ValueError(f"{path}: saved by a run with different settings\n  saved: {saved}\n  this run: {label}")
    groups = {group: {} for group in TrainState._fields[1:]}
    for key, array in read_tensors(path)[0].items():
        group, _, name = key.partition("/")
        if group not in groups:
            raise ValueError(f"{path}: not a saved training state (unexpected tensor {key})")
        groups[group][name] = array
    expected = shapes_and_dtypes(trainable)
    for group in ("trainable", "m", "v", *(["best"] if groups["best"] else [])):
        got = shapes_and_dtypes(groups[group])
        for name in {**got, **expected}:
            if got.get(name) != expected.get(name):
                difference = f"{group}/{name} is {got.get(name)}, this run trains {expected.get(name)}"
                raise ValueError(f"{path}: {difference} (shape, dtype)")
        groups[group] = {name: groups[group][name] for name in trainable}
    return TrainState(step, **groups)


def shapes_and_dtypes(arrays):
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}
