"""The data and the settings of a fine-tuning from plain values: from a JSON file, or from the command line."""

from dataclasses import MISSING, fields

from ..checked import one_of, quoted
from ..formats.checkpoint import read_object
from .language import Conversations, TextFile
from .settings import FinetuneSettings
from .table import LabelledTable, QuestionTable

KINDS = {kind.task: kind for kind in (LabelledTable, QuestionTable, TextFile, Conversations)}


def read_run(path, changes):
    """The data and the settings of a JSON file, with some values changed.

    Parameters
    ----------
    path : path of a file with an object of the values for `run_from`, or of a `task.json`, which has them in its
        "settings"; None: `changes` are all values
    changes : dict, name -> value; those for "adapter" change single fields of it

    Returns
    -------
    data, settings : see `run_from`

    Raises
    ------
    ValueError
        As `run_from`; the message names the file unless the value is a change.
    """
    values = {} if path is None else read_object(path)
    values = values.get("settings", values)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: settings is {quoted(values)}, expected an object")
    if changes.get("method", "lora") != "lora":
        values = {**values, "adapter": None}  # which was for LoRA
    whole, adapter = {**values, **changes}, values.get("adapter")
    if "adapter" in changes and isinstance(adapter, dict):
        whole["adapter"] = {**adapter, **changes["adapter"]}
    try:
        return run_from(whole)
    except ValueError as error:
        if path is None or str(error).partition(":")[0] in {**changes, **changes.get("adapter", {})}:
            raise
        raise ValueError(f"{path}: {error}") from None


def run_from(values):
    """The data and the settings of a fine-tuning from plain values.

    Parameters
    ----------
    values : dict of fields of FinetuneSettings, and of fields of the data with its "task", a key of KINDS. Without a
        task, a question means a QuestionTable, columns mean a LabelledTable, and neither means Conversations

    Returns
    -------
    data : an object of KINDS
    settings : FinetuneSettings

    Raises
    ------
    ValueError
        If a name is unknown or missing, or a value is wrong.
    """
    names = {field.name for field in fields(FinetuneSettings)}
    settings = FinetuneSettings(**{name: value for name, value in values.items() if name in names})
    rest = {name: value for name, value in values.items() if name not in names}
    task = "classifier" if {"text_column", "label_column"} & rest.keys() else "chat"
    task = one_of("task", rest.pop("task", "question" if "question" in rest else task), KINDS)
    for field in fields(KINDS[task]):
        names.add(field.name)
        if field.default is MISSING and rest.get(field.name) is None:
            raise ValueError(f"{field.name}: is missing; the task {task!r} needs it")
    for name in rest:
        if name not in names:
            raise ValueError(f"{name}: no setting of the task {task!r}, expected one of {', '.join(sorted(names))}")
    return KINDS[task](**rest), settings
