"""The fine-tuning protocol: check, load the base, read the data, train, test, save. It is the same for all data."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..adapters import check_ranks, on_given_base, start_adapter, trainable_report
from ..data import Batch
from ..formats import Task, check_target, read_model, save_task
from ..training import attach, blas_threads, fine_tuning, stream, train
from .cost import n_shards, report_cost
from .resuming import check_state, resumable
from .settings import FinetuneSettings, base_place, check_path, enough_epochs, tokens_to_read


class Dataset(NamedTuple):
    """What a model is trained and tested on."""

    model: Task  # to train; with the labels, the head and the other fields with which it will be saved
    epoch_batches: Callable  # (rng) -> list of Batch, see `train`
    validation: list[Batch]  # chooses the best weights
    n_rows: int  # to train on in an epoch
    longest: int  # tokens of the longest of these rows
    arrays: list  # all parts, for the run's digest: arrays of integers, and lists of such arrays
    test: Callable  # (Task, history) -> dict of results on the test part; history as from `train`
    test_base: Callable = lambda: {}  # () -> dict of results that the base has before the training
    class_weights: np.ndarray | None = None  # (n_classes,), see `cross_entropy_forward`


@dataclass(frozen=True)
class Data:
    """What `finetune` asks of a kind of data. Each kind is a subclass with the methods `read` and `summary`.

    Parameters
    ----------
    data : path of a file
    """

    data: str | Path
    task = None  # a key of `settings.DEFAULTS`

    def __post_init__(self):
        for name, path in self.paths().items():
            check_path(name, path)

    def paths(self):
        """The files that are read, by field."""
        return {"data": self.data}

    def fields(self):
        """The task and all fields as plain values, from which `run_from` makes the same data."""
        return {"task": self.task, **asdict(self), **{name: str(path) for name, path in self.paths().items()}}

    def read(self, model, settings):
        """Read the files, and return the Dataset for a Task and FinetuneSettings."""
        raise NotImplementedError

    def files(self, results):
        """The files to save beside the model, name -> bytes."""
        return {}

    def summary(self, results):
        """What `finetune` returned, as lines of text."""
        raise NotImplementedError


def no_report(line):
    """A `report` that says nothing."""


def finetune(data, out, settings=None, report=no_report):
    """Fine-tune a model on data, test it, and save it.

    The data is split into a training part, a validation part, which chooses the best weights, and a test part. "lora"
    and "head" save only the adapter; "full" saves the whole model. Beside it is `task.json` with all that is returned.

    Parameters
    ----------
    data : LabelledTable, QuestionTable, TextFile or Conversations, or another subclass of Data
    out : folder to write
    settings : FinetuneSettings; None: the defaults
    report : function of a line of text about the training, called before it

    Returns
    -------
    dict: "method"; the results of `Dataset.test_base` and `test`; "learning_rate"; "trainable" and "percent", the
        trained parameters and their share; "settings", all fields of the settings and of the data

    Raises
    ------
    ValueError
        If a setting or the data cannot be used, or `out` cannot be written.
    FloatingPointError
        If the training diverges.
    """
    settings = (settings or FinetuneSettings()).with_defaults(data.task)
    base = base_place(settings.base)
    check_target(out, "out", [base, *data.paths().values()])
    check_state(out)
    model = read_model(base, weights=settings.weights)
    if settings.adapter_config is not None:
        check_ranks(model.params, settings.adapter_config)
    model = model._replace(config=replace(model.config, dropout=settings.dropout))
    settings = replace(settings, max_tokens=tokens_to_read(settings, data.task, model.config))
    dataset = data.read(model, settings)
    if settings.epochs is None:
        settings = replace(settings, epochs=enough_epochs(settings.batch_size, dataset.n_rows))
    model, frozen, adapter = dataset.model, *starting_point(dataset.model, settings)
    plan = fine_tuning(
        frozen,
        model.config,
        adapter,
        dataset.epoch_batches,
        dataset.validation,
        learning_rate=settings.learning_rate,
        epochs=settings.epochs,
        seed=settings.seed,
        class_weights=dataset.class_weights,
        shards=n_shards(settings, dataset.longest),
        threads=settings.threads,
        recompute=settings.recompute,
    )
    report_cost(report, model, adapter, plan, settings.batch_size, dataset.longest)
    with blas_threads(1), naming_model(base):
        before = dataset.test_base()
    with resumable(out, plan, base, dataset, settings, report) as more:
        state = train(**plan, **more)
        trained = best_model(model, frozen, adapter, state.best)
        with blas_threads(1):
            results = {**before, **dataset.test(trained, state.history)}
        parameters = trainable_report(model.params, state.best)
        results = {
            "method": settings.method,
            **results,
            "learning_rate": settings.learning_rate,
            "trainable": parameters.trainable,
            "percent": parameters.percent,
            "settings": {**data.fields(), **settings.as_json()},
        }
        save_task(out, trained, base, results, beside=data.files(results))
    return results


@contextmanager
def naming_model(name):
    """Put the model's name in front of an error about its numbers."""
    try:
        yield
    except FloatingPointError as error:
        raise FloatingPointError(f"{name}: {error}") from None


def starting_point(model, settings):
    """The frozen weights, and the adapter to train on them; None if the weights themselves are trained."""
    adapter_config = settings.adapter_config
    if adapter_config is None:
        return model.params, None
    if not model.config.n_classes:  # `train_head` means a classifier's head; a language model may have one of its own
        adapter_config = replace(adapter_config, train_head=False)
    return start_adapter(model.params, adapter_config, stream(settings.seed, "adapter"))


def best_model(model, frozen, adapter, best):
    """The model with its best weights, in a form that fits the unchanged base."""
    params, trained = attach(frozen, adapter, best)
    if adapter is None:
        return model._replace(params=params)
    return model._replace(adapter=on_given_base(model.params, adapter, trained))
