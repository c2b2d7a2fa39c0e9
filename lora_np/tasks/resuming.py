"""Resume an interrupted fine-tuning run from its saved state, a file next to the run's output folder."""

import hashlib
import os
from contextlib import contextmanager
from pathlib import Path

from .. import __version__
from ..checked import shown
from ..formats.atomic import only_process
from ..formats.model import model_sha256
from ..formats.paths import check_file, is_there
from ..formats.tensors import file_sha256
from ..training import saved_run, whole_label
from .settings import plain_values

SAVE_SECONDS = 60.0  # seconds between saves; a run that takes less time saves no state
SUFFIX = ".training.safetensors"


def state_path(out):
    """Return the path of the saved state of a run whose output folder is `out`."""
    folder = Path(os.path.realpath(out))
    return folder.with_name(folder.name + SUFFIX)


def check_state(out):
    """Return the step and the label of the saved state for the folder `out`, or 0 and None if there is none.

    Raises ValueError if the file at that path is not a saved state, because saving would overwrite it.
    """
    path = state_path(out)
    check_file(path, "out")
    if not is_there(path):
        return 0, None
    try:
        return saved_run(path)
    except ValueError as error:
        raise ValueError(f"out: {error}; the run would overwrite this file, so move it elsewhere") from None


@contextmanager
def resumable(out, plan, base, data, model, settings, report):
    """Yield further arguments, `more`, with which `train(**plan, **more)` saves its state and resumes from a saved one.

    Save the result inside the `with` block: when the block ends without an exception, the saved state is deleted.

    Parameters
    ----------
    out : folder that will be written
    plan : dict of `train`'s arguments
    base : folder or file of the model to start from
    data : Data
    model : LoadedModel to train
    settings : FinetuneSettings with all defaults filled in
    report : function, called with a line of text that says whether the run resumes or starts from scratch

    Yields
    ------
    more : dict of further arguments for `train`
    """
    label = run_label(data, model, base, settings)
    path, whole, steps = state_path(out), whole_label(plan["config"], label), plan["config"].steps
    with only_process(out):
        step, saved = check_state(out)
        if saved == whole:
            report(f"resuming at step {step} of {steps}")
        elif saved is not None:
            reason = f"belongs to a run that differs in {differences(saved, whole)}"
            report(f"starting from scratch: {shown(str(path))} {reason}; the first save, after a minute, replaces it")
        more = {"progress": f"fine-tuning ({settings.method})", "save_seconds": SAVE_SECONDS, "resume": saved == whole}
        try:
            yield {"state_path": path, "label": label, **more}
        except KeyboardInterrupt:
            step, saved = check_state(out)
            remedy = [f"the same command resumes at step {step} of {steps}"] if saved == whole else []
            raise KeyboardInterrupt(*remedy) from None
        if check_state(out)[1] == whole:
            path.unlink()


def run_label(data, model, base, settings):
    """Return the label for `train`: everything that affects the result except the `TrainConfig`, one item per line."""
    facts = plain_values(data, settings)
    for name in ("data", "test_data", "base", "dropout"):  # files may have moved; the dropout is in the model's config
        facts.pop(name, None)
    files = hashlib.sha256(repr(model.files).encode()).hexdigest()
    facts |= {"model": model.config, "tokenizer": files, "base": model_sha256(base)}
    facts |= {"data": [file_sha256(path) for path in data.paths()], "lora_np": __version__}
    return "".join(f"\n{name}: {value!r}" for name, value in facts.items())


def differences(saved, label):
    """Return a str with the names of the items that differ between two labels."""
    saved, label = (dict(line.partition(": ")[::2] for line in text.split("\n")[1:]) for text in (saved, label))
    names = [name for name in label if saved.get(name) != label[name]]
    return ", ".join(names) or "its settings"
