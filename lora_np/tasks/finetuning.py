"""The steps of fine-tuning on any kind of data: check, load the base, read the data, train, test, save."""

import warnings
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..adapters import Adapter, check_ranks, for_original_base, start_adapter, trainable_report
from ..checked import finite_number, instance_of, one_of
from ..compress import BlockWeight
from ..formats import check_target, model_place, read_model, save_task
from ..formats.atomic import only_process
from ..formats.checkpoint import read_object
from ..formats.model import model_sha256
from ..training import attach, blas_threads, fine_tuning, stream, train
from .cost import n_shards, report_cost
from .language import Conversations, TextFile
from .preferences import Preferences
from .resuming import check_state, resumable
from .rewards import Rewards
from .search import search
from .settings import (
    Dataset,
    FinetuneSettings,
    base_place,
    default_epochs,
    no_report,
    plain_values,
    with_lengths,
)
from .table import LabelledTable, QuestionTable

KINDS = {kind.task: kind for kind in (LabelledTable, QuestionTable, TextFile, Conversations, Preferences, Rewards)}


def finetune(data, out, settings=None, report=no_report, minutes=None, dask=None):
    """Fine-tune a model on data, test it, and save it.

    The data is split into training, validation and test sets. The best weights are selected on the validation set.
    The methods "lora" and "head" save only the adapter; "full" saves the whole model. The returned dict is also written
    to `task.json` in the folder `out`.

    Parameters
    ----------
    data : LabelledTable, QuestionTable, TextFile or Conversations, or another subclass of Data
    out : folder to write
    settings : FinetuneSettings; None: the defaults
    report : function, called with each line of text that describes the run, before training
    minutes : float, the time to spend on a search around the settings, see `search`; None: no search
    dask : str, the address of a Dask scheduler whose workers compute the shards, see `training/cluster.py`; None:
        this process computes them

    Returns
    -------
    dict: "method"; the results of `Dataset.test_base` and `Dataset.test`; "learning_rate"; "trainable" and "percent",
        the number of trainable parameters and their percentage; "settings", all fields of the settings and of the data

    Raises
    ------
    ValueError
        If a setting or the data cannot be used, or `out` cannot be written.
    FloatingPointError
        If the training diverges.
    """
    given = settings or FinetuneSettings()
    settings = given.with_defaults(data.task, report)
    base = base_place(settings.base)
    check_target(out, "out", [base, *data.paths()])
    check_state(out)
    if Path(out).exists():
        report(f"{out} exists, and will be replaced")
    if minutes is not None:
        if dask is not None:
            raise ValueError("minutes: a search cannot use Dask workers")
        with only_process(out):
            best, trials = best_of_search(data, given, minutes, report)
            return saved(out, *best, {"search": trials, "minutes": minutes})
    run = prepared(data, settings, report)
    with blas_threads(1), naming_model(base):
        before = run.dataset.test_base()
    saving = resumable(out, run.plan, base, data, run.dataset.model, run.settings, report)
    with workers_at(dask, run, report) as workers, saving as more:
        more["workers"] = workers
        return saved(out, data, run, *carried_out(run, **more), before)


def best_of_search(data, settings, minutes, report=no_report):
    """Find better settings for `finetune` or the estimator; see `search` for the arguments and the result.

    If no base is given, SmolLM2 is also tried, provided that it is installed.
    """
    finite_number("minutes", minutes, above=0)
    if data.task != "classifier":
        raise ValueError(f"minutes: a search needs the task 'classifier', got {data.task!r}")

    def train_one(data, tried):
        run = prepared(data, tried, no_report)
        model, finished, state = carried_out(run)
        return data, run, model, finished, state, run.dataset.validation_f1(model)

    def fits(tried):
        try:
            if tried.adapter is not None:
                check_ranks(params, tried.adapter)
        except ValueError:  # a matrix is too small for the rank
            return False
        return True

    other = None
    if settings.base is None:
        with suppress(FileNotFoundError):
            model_place("smollm2")
            other = replace(settings, base="smollm2").with_defaults(data.task)
    run = prepared(data, settings.with_defaults(data.task))
    params = run.base
    return search(train_one, fits, data, run.settings, other, minutes, report)


def saved(out, data, run, trained, finished, state, more):
    """Test a trained model, save it and its results in the folder `out`, and return the results."""
    with blas_threads(1):
        tested, files = run.dataset.test(trained, state.history)
    results = {"method": run.settings.method, **more, **tested, **finished, **about_run(run, data, state)}
    save_task(out, trained, base_place(run.settings.base), results, beside=files)
    return results


class Run(NamedTuple):
    """A fine-tuning run that is ready to start."""

    dataset: Dataset
    settings: FinetuneSettings  # with all values filled in
    frozen: dict  # the base's weights; PiSSA and OLoRA have subtracted the adapter's initial update from them
    adapter: Adapter | None  # None to train all weights
    plan: dict  # the arguments of `train`
    base: dict  # the base's weights as they were read


def prepared(data, settings, report=no_report):
    """Read the base and the data, and return the Run for settings from `FinetuneSettings.with_defaults`."""
    base = base_place(settings.base)
    model = read_model(base, weights=settings.weights)
    if settings.weights == "blocks":
        report_dense(base, model.params)
    adapter_config = settings.adapter_config
    if adapter_config is not None:
        check_ranks(model.params, adapter_config)
    model, base_params = model._replace(config=replace(model.config, dropout=settings.dropout)), model.params
    settings = with_lengths(settings, data.task, model.config)
    dataset = data.read(model, settings)
    if settings.epochs is None:
        settings = replace(settings, epochs=default_epochs(settings, data.task, dataset.n_rows))
    model, frozen, adapter = dataset.model, dataset.model.params, None
    if adapter_config is not None:  # `train_head` applies only to a classifier's head
        trains_head = adapter_config.train_head and model.config.n_classes > 0
        adapter_config = replace(adapter_config, train_head=trains_head)
        frozen, adapter = start_adapter(frozen, adapter_config, stream(settings.seed, "adapter"))
    names = "learning_rate", "epochs", "seed", "threads", "recompute", "patience"
    choices = {name: getattr(settings, name) for name in names}
    choices |= {
        "progress": "reading the texts",
        "class_weights": dataset.class_weights,
        "loss": dataset.loss,
        "shards": n_shards(settings, dataset.texts_per_row * dataset.longest),
    }
    plan = fine_tuning(frozen, model.config, adapter, dataset.epoch_batches, dataset.validation, **choices)
    report_cost(report, base, dataset, adapter, plan, settings.batch_size)
    return Run(dataset, settings, frozen, adapter, plan, base_params)


@contextmanager
def workers_at(address, run, report):
    """Yield the `cluster.Workers` that compute a Run's shards; None if the address is None."""
    if address is None:
        yield None
        return
    from ..training.cluster import Workers

    base, weights = run.settings.base, run.settings.weights
    load = partial(load_base, base, weights, model_sha256(base_place(base)))
    with Workers(address, run.base, load) as workers:
        n_workers, shards = len(workers.client.nthreads()), run.plan["config"].shards
        report(f"{n_workers} Dask workers compute {shards} shards per step; --threads N divides a batch into N shards")
        yield workers


def load_base(base, weights, sha256):
    """Read the weights of a base on a Dask worker, and check that the file is the same as on the client."""
    place = base_place(base)
    if model_sha256(place) != sha256:
        raise ValueError(f"dask: {place} on a worker differs from the base of this run")
    return read_model(place, weights=weights).params


def carried_out(run, **more):
    """Carry out a Run; `more` are further arguments for `train`.

    Returns the LoadedModel with the best weights, a dict of the results of `Dataset.finish`, and the TrainState.
    """
    state, model = train(**run.plan, **more), run.dataset.model
    params, best = attach(run.frozen, run.adapter, state.best)
    if run.adapter is not None:  # convert it to fit the unchanged base
        params, best = model.params, for_original_base(model.params, run.adapter, best)
    return *run.dataset.finish(model._replace(params=params, adapter=best)), state


def about_run(run, data, state):
    """The entries of `task.json` that describe a run, whatever its data."""
    report, settings = trainable_report(run.dataset.model.params, state.best), run.settings
    numbers = {"learning_rate": settings.learning_rate, "trainable": report.trainable, "percent": report.percent}
    numbers["steps"] = state.step
    return numbers | {"settings": plain_values(data, settings)}


def report_dense(base, params):
    """Warn if some of a base's matrices are kept as dense arrays, because the file stores them in another format."""
    matrices = [weight for weight in params.values() if len(weight.shape) == 2]
    dense = [weight for weight in matrices if not isinstance(weight, BlockWeight)]
    if dense:
        size = sum(weight.nbytes for weight in dense) / 1e9
        kept = "as dense arrays, because only Q4_0, Q4_1, Q8_0, Q4_K, Q5_K and Q6_K can stay in blocks"
        warnings.warn(f"{base}: {len(dense)} of {len(matrices)} matrices take {size:.2g} GB {kept}", stacklevel=2)


@contextmanager
def naming_model(name):
    """Prefix the message of a FloatingPointError with the model's name."""
    try:
        yield
    except FloatingPointError as error:
        raise FloatingPointError(f"{name}: {error}") from None


def read_run(path, changes):
    """Read a fine-tuning run's data and settings from a JSON file, and apply changes to them.

    Parameters
    ----------
    path : path of a JSON file with fields of FinetuneSettings, fields of the data, and "task", a key of KINDS that
        gives the class of the data. In a `task.json`, all fields are under "settings". Without "task", the data is a
        QuestionTable if "question" is given, otherwise a LabelledTable if "text_column" or "label_column" is given,
        and otherwise Conversations. None: `changes` contains all values
    changes : dict, name -> value; the value of "adapter" is a dict of only those fields that change

    Returns
    -------
    data : an instance of a class in KINDS
    settings : FinetuneSettings

    Raises
    ------
    ValueError
        If a name is unknown or missing, or a value is invalid; the message names the file unless the value is from
        `changes`.
    """
    values = {} if path is None else read_object(path)
    values = values.get("settings", values)
    instance_of(f"{path}: settings", values, dict, "an object")
    if changes.get("method", "lora") != "lora":
        values = {**values, "adapter": None}  # the adapter in the file is for LoRA
    if "max_tokens" in changes:
        values = {**values, "overlap": None}  # the windows in the file are for its own max_tokens
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
    """Create a fine-tuning run's data and settings from plain values; see `read_run`."""
    names = {field.name for field in fields(FinetuneSettings)}
    settings = FinetuneSettings(**{name: value for name, value in values.items() if name in names})
    rest = {name: value for name, value in values.items() if name not in names}
    task = "classifier" if {"text_column", "label_column", "text", "label"} & rest.keys() else "chat"
    task = one_of("task", rest.pop("task", "question" if "question" in rest else task), KINDS)
    for field in fields(KINDS[task]):
        names.add(field.name)
        if field.default is MISSING and rest.get(field.name) is None:
            raise ValueError(f"{field.name}: is missing, but the task {task!r} requires it")
    for name in rest:
        if name not in names:
            raise ValueError(f"{name}: not a setting of the task {task!r}, expected one of {', '.join(sorted(names))}")
    return KINDS[task](**rest), settings
