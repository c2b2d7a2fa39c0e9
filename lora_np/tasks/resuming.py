"""A fine-tuning that was interrupted resumes, from its state in a file beside the folder that it is to write."""

import hashlib
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .. import __version__
from ..checked import shown
from ..formats.atomic import only_process
from ..formats.paths import check_file, is_there
from ..formats.task import model_sha256
from ..training import saved_run, whole_label

SAVE_SECONDS = 60.0  # from save to save, so that a shorter training leaves no trace
SUFFIX = ".training.safetensors"


def state_path(out):
    """Where the state of a training is that will write the folder `out`."""
    folder = Path(os.path.realpath(out))
    return folder.with_name(folder.name + SUFFIX)


def check_state(out):
    """The step and label of the saved state that belongs to a folder, or None without one.

    Raises ValueError if something else is in its place, which a save would replace.
    """
    path = state_path(out)
    check_file(path, "out")
    if not is_there(path):
        return None
    try:
        return saved_run(path)
    except ValueError as error:
        raise ValueError(f"out: {error}; a training that writes {out} saves its state there, so move it away") from None


@contextmanager
def resumable(out, given, base, data, facts, report):
    """Train, and save the result, in this context: `train(**given, **more)` with what it gives resumes.

    The state is removed at the context's end. What interrupts the context leaves it.

    Parameters
    ----------
    out : folder that will be written
    given : dict of `train`'s arguments
    base : folder of the model to start from
    data : list of arrays of integers, or of lists of such arrays: all that is trained and tested on
    facts : dict, name -> whatever else the result depends on, with the "method"
    report : function of a line of text

    Yields
    ------
    dict of more arguments of `train`
    """
    facts = {**facts, "base": model_sha256(base), "data": digest(data), "lora_np": __version__}
    label = "".join(f"\n{name}: {value}" for name, value in facts.items())
    path, whole, steps = state_path(out), whole_label(given["config"], label), given["config"].steps
    with only_process(out):
        step, saved = check_state(out) or (0, None)
        if saved == whole:
            report(f"resuming at step {step} of {steps}")
        elif saved is not None:
            reason = f"is of a run with {differences(saved, whole)}; the first save, after a minute, replaces it"
            report(f"starting anew: {shown(str(path))} {reason}")
        more = {"progress": f"fine-tuning ({facts['method']})", "save_seconds": SAVE_SECONDS, "resume": saved == whole}
        try:
            yield {"state_path": path, "label": label, **more}
        except KeyboardInterrupt:
            step, saved = check_state(out) or (0, None)
            remedy = [f"the same command resumes at step {step} of {steps}"] if saved == whole else []
            raise KeyboardInterrupt(*remedy) from None
        if (check_state(out) or (0, None))[1] == whole:
            path.unlink()


def differences(saved, label):
    """Which facts of two labels differ, in words."""
    saved, label = (dict(line.partition(": ")[::2] for line in text.split("\n")[1:]) for text in (saved, label))
    names = [name for name in label if saved.get(name) != label[name]]
    return f"another {', '.join(names)}" if names else "other settings"


def digest(data):
    """The SHA-256 of integer arrays and of lists of them, whatever the integers' dtype."""
    sha = hashlib.sha256()
    for item in data:
        arrays = item if isinstance(item, list) else [item]
        sha.update(np.array([len(arrays), *map(len, arrays)], np.int64).tobytes())
        for array in arrays:
            sha.update(np.asarray(array, np.int64).tobytes())
    return sha.hexdigest()
