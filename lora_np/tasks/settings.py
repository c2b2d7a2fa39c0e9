"""The inputs of a fine-tuning run: its settings, with checks and defaults, and the interface of its training data."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..adapters import VARIANTS, AdapterConfig, variant_config
from ..adapters.starts import STARTS
from ..checked import check_fields, finite_number, instance_of, one_of, quoted, seed_number, whole_number
from ..data import Batch
from ..formats import PRETRAINED, LoadedModel, model_place
from ..formats.model import WEIGHTS, is_encoder, weights_file
from ..training import available_cores
from ..training.threads import LARGE, MOST_THREADS  # LARGE is compared here with a file's size in bytes

METHODS = ("lora", "full", "head")
SMALLEST = float(np.finfo(np.float32).tiny)  # smaller floats lose precision and are too small to change the weights
MOST_EPOCHS = 100_000  # more epochs would take years, so a larger number must be a typo


class Defaults(NamedTuple):
    """Default settings that depend on the task and on the base's size."""

    learning_rates: dict[str, float]  # method -> learning rate
    batch_size: int
    max_tokens: int | None = None  # maximum number of tokens per text; None: n_positions


DEFAULTS = {  # task -> defaults for each kind of base
    "classifier": {
        "small": Defaults({"lora": 2e-3, "full": 5e-4, "head": 1e-2}, 32),
        "encoder": Defaults({"lora": 1e-3, "full": 5e-5, "head": 1e-2}, 16, 256),
        "large": Defaults({"lora": 1e-3, "full": 1e-4, "head": 4e-3}, 16, 512),
    },
    "question": {
        "small": Defaults({"lora": 2e-3, "full": 5e-4}, 32),
        "large": Defaults({"lora": 1e-3, "full": 1e-4}, 16, 512),
    },
    "text": {
        "small": Defaults({"lora": 4e-3, "full": 4e-4}, 16),
        "large": Defaults({"lora": 1e-3, "full": 5e-5}, 8, 256),
    },
    "chat": {
        "small": Defaults({"lora": 4e-3, "full": 4e-4}, 16),
        "large": Defaults({"lora": 1e-3, "full": 5e-5}, 8, 512),
    },
    "preferences": {
        "small": Defaults({"lora": 1e-3, "full": 1e-4}, 16),
        "large": Defaults({"lora": 2e-4, "full": 1e-5}, 8, 512),
    },
    "reward": {
        "small": Defaults({"lora": 3e-3, "full": 3e-4}, 4),
        "large": Defaults({"lora": 5e-4, "full": 2e-5}, 4, 512),
    },
}
RANKS = {"small": 8, "encoder": 8, "large": 4}  # alpha is twice the rank
TARGETS = ("all-linear",)
# The default number of epochs for a task or, if the task has no entry, for a kind of base: (lowest, highest, steps).
# With few rows, there are more epochs than the lowest number, to reach these steps.
EPOCHS = {"preferences": (1, 20, 50), "reward": (1, 1, 0)}
EPOCHS |= {"small": (4, 4, 0), "encoder": (3, 15, 150), "large": (1, 4, 100)}
OVERLAP = 32  # tokens that the windows of a long text have in common


def no_report(line):
    """Ignore a line of text (the default for `report`)."""


def default_base(task, report=no_report):
    """Return the default base: MiniLM for a classifier if MiniLM is installed, otherwise None (the included base)."""
    if task != "classifier":
        return None
    try:
        model_place("minilm")
    except FileNotFoundError as error:
        report(f"Using the small base. MiniLM, an encoder, is usually far more accurate. To install it: {error}")
        return None
    return "minilm"


@dataclass(frozen=True)
class FinetuneSettings:
    """The settings of a fine-tuning run. None selects the default, which depends on task, method and base size.

    Parameters
    ----------
    method : "lora" trains and saves an adapter, "head" only a classification head, and "full" the whole model
    adapter : AdapterConfig for the method "lora"; or a dict of the fields that differ from these defaults: all linear
        layers, rank 8 (4 for a large language model), and alpha twice the rank. The dict may also contain "variant".
        PiSSA and OLoRA are saved as a LoRA adapter of twice the rank, for the unchanged base
    learning_rate : float, the peak learning rate
    epochs, batch_size : int; epochs None: see `default_epochs`
    patience : int, training stops after this many evaluations (two per epoch) without a lower validation loss, or None
    seed : int
    base : the model to start from, see `lora_np.formats.read_model`; None: `default_base`
    dropout : float in [0, 1), the model's dropout probability during training
    weights : "dense", or "blocks" to keep a GGUF file's weights in blocks; see `lora_np.formats.read_model`
    recompute : bool, recompute activations to save memory at the cost of time; see `lora_np.model.forward`
    threads : int; None: one for a small base, otherwise one per core
    max_tokens : int, the maximum number of tokens that the model reads at once; longer texts are truncated
    overlap : int, for a classifier that reads longer texts in windows and averages their probabilities: the number of
        tokens that neighbouring windows share. None: OVERLAP if `max_tokens` is also None, otherwise no windows

    Raises
    ------
    ValueError
        If a field is invalid; the message names the field, its value and what was expected.
    """

    method: str = "lora"
    adapter: AdapterConfig | dict | None = None
    learning_rate: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    seed: int = 0
    base: str | Path | None = None
    dropout: float = 0.0
    weights: str = "dense"
    recompute: bool = False
    threads: int | None = None
    max_tokens: int | None = None
    patience: int | None = None
    overlap: int | None = None

    def __post_init__(self):
        check_fields(self, one_of, "method", choices=METHODS)
        check_fields(self, one_of, "weights", choices=WEIGHTS)
        check_fields(self, seed_number, "seed")
        check_fields(self, finite_number, "dropout", least=0, below=1)
        counts = [name for name in ("batch_size", "max_tokens", "patience") if getattr(self, name) is not None]
        check_fields(self, whole_number, *counts)
        if self.threads is not None:
            check_fields(self, whole_number, "threads", most=MOST_THREADS)
        if self.epochs is not None:
            check_fields(self, whole_number, "epochs", most=MOST_EPOCHS)
        if self.learning_rate is not None:
            check_fields(self, finite_number, "learning_rate", least=SMALLEST)
        check_fields(self, instance_of, "recompute", type_=bool, expected="True or False")
        if self.base is not None:
            check_text("base", self.base)
        if self.method == "full" and self.weights != "dense":
            raise ValueError(f"weights: got {self.weights!r}, expected 'dense': method 'full' trains only dense arrays")
        if self.method != "lora" and self.adapter is not None:
            raise ValueError(f"adapter: needs method 'lora', got method {self.method!r}")
        adapter_from(self.adapter, RANKS["small"])

    @property
    def adapter_config(self):
        """The AdapterConfig for the method: one that adapts no layers for "head", and None for "full"."""
        return {"lora": self.adapter, "head": AdapterConfig(targets=()), "full": None}[self.method]

    def with_defaults(self, task, report=no_report):
        """Return a copy with a task's DEFAULTS filled in; values that depend on the model or data remain None.

        `report` is called with a line of text if an encoder would be better than the base, but is not installed.
        """
        base = default_base(task, report) if self.base is None else self.base
        kind = kind_of_base(base)
        defaults = defaults_for(task, kind)
        one_of("method", self.method, defaults.learning_rates)
        values = {
            "base": base,
            "adapter": adapter_from(self.adapter, RANKS[kind]) if self.method == "lora" else None,
            "learning_rate": self.learning_rate or defaults.learning_rates[self.method],
            "batch_size": self.batch_size or defaults.batch_size,
            "threads": self.threads or (1 if kind == "small" else available_cores()),
        }
        return replace(self, **values)


class Dataset(NamedTuple):
    """A model, and the data on which it is trained and tested."""

    model: LoadedModel  # the model to train, with the labels, head and other fields that will be saved
    epoch_batches: Callable  # (rng) -> list of Batch, see `train`
    validation: list[Batch]  # used to select the best weights
    n_rows: int  # rows per epoch
    longest: int  # number of tokens of the longest training text
    # (LoadedModel, history of `train`) -> dict of results on the test set, and dict: name -> bytes of files to save
    test: Callable
    test_base: Callable = lambda: {}  # () -> dict of the base's results before training
    texts_per_row: int = 1  # 2 for a pair; for a prompt, the number of its completions
    loss: Callable | None = None  # see `fine_tuning`
    class_weights: np.ndarray | None = None  # (n_classes,), see `cross_entropy_forward`
    # (trained LoadedModel) -> the LoadedModel to test and to save, and dict of results
    finish: Callable = lambda model: (model, {})
    validation_f1: Callable | None = None  # (trained LoadedModel) -> macro-F1 on a classifier's validation set


@dataclass(frozen=True)
class Data:
    """The interface that every kind of training data implements for `finetune`.

    Each kind is a subclass with an attribute `task`, a key of DEFAULTS, and two more methods: `read(model, settings)`
    returns the Dataset for a LoadedModel and FinetuneSettings; `summary(results)` formats the result of `finetune` as
    lines of text.

    Parameters
    ----------
    data : path of a file
    """

    data: str | Path

    def __post_init__(self):
        check_text("data", self.data)

    def paths(self):
        """Return the paths of the files that are read."""
        return [self.data]


def refuse_unused(settings, task, **unused):
    """Raise ValueError if a setting that a task does not use is neither None nor its given, only possible value."""
    given = asdict(settings) | {"lora_dropout": settings.adapter.dropout if settings.adapter else 0.0}
    for name, value in unused.items():
        if given[name] not in (None, value):
            raise ValueError(f"{name}: got {given[name]}, but the task {task!r} does not use it")


def adapter_from(adapter, rank):
    """Return the AdapterConfig for the field `adapter` of FinetuneSettings; `rank` is the default rank.

    Raises ValueError if the field is invalid or describes an adapter that `finetune` cannot train or save.
    """
    if isinstance(adapter, AdapterConfig):
        config = adapter
    elif isinstance(adapter, dict | None):
        adapter = adapter or {}
        changes = {"variant": "lora", "targets": TARGETS, "r": rank, **adapter}
        for name in changes:
            one_of("adapter", name, ["variant", *(field.name for field in fields(AdapterConfig))])
        variant = one_of("variant", changes.pop("variant"), offered_variants())
        changes.setdefault("alpha", 2.0 * whole_number("r", changes["r"]))
        config = AdapterConfig(**changes)
        config = variant_config(variant, config) if "variant" in adapter else config
        if variant == "vera" and "alpha" in adapter:
            raise ValueError(f"alpha: got {config.alpha:g}, but vera has no alpha: its scale is trained")
    else:
        raise ValueError(f"adapter: got {quoted(adapter)}, expected an AdapterConfig or a dict of its fields")
    if config.init == "loftq":
        raise ValueError("init: got 'loftq', which needs a quantised base; expected another init")
    if config.kind != "vera" and abs(config.alpha) < SMALLEST * config.r:
        expected = f"expected a value such as {2 * config.r}, twice the rank"
        raise ValueError(f"alpha: got {config.alpha:g}, which makes LoRA's update zero; {expected}")
    if config.init in STARTS and config.kind != "lora":
        raise ValueError(f"init: {config.init!r} needs kind 'lora', got {config.kind!r}: see `for_original_base`")
    return config


def offered_variants():
    """Return the names of the variants, except "loftq", which needs a quantised base."""
    return [variant for variant in VARIANTS if variant != "loftq"]


def check_text(name, value):
    """Return the value; raise ValueError unless it is a Path or a str that is valid UTF-8 and not blank."""
    text = str(value) if isinstance(value, Path) else value
    if not isinstance(text, str) or not text.strip() or text != text.encode("utf-8", "replace").decode():
        raise ValueError(f"{name}: got {quoted(value)}, expected a string")
    return value


def default_epochs(settings, task, n_rows):
    """The default number of epochs for a number of rows; see EPOCHS."""
    lowest, highest, steps = EPOCHS.get(task) or EPOCHS[kind_of_base(settings.base)]
    return min(max(lowest, math.ceil(steps * settings.batch_size / n_rows)), highest)


def kind_of_base(base):
    """Return a base's kind, a key of RANKS: "encoder" or, for a language model, "small" or "large", by its file's size.

    A base that does not exist is "small"; `read_model` will reject it.
    """
    place = base_place(base)
    if is_encoder(place):
        return "encoder"
    file = weights_file(place)
    return "large" if file.is_file() and file.stat().st_size > LARGE else "small"


def defaults_for(task, kind):
    """Return a task's Defaults for a kind of base; if the task has none for an encoder, those for a large base."""
    return DEFAULTS[task].get(kind, DEFAULTS[task]["large"])


def base_place(base):
    """Return the folder or the GGUF file of a base; None means the included base."""
    return PRETRAINED if base is None else model_place(base)


def with_lengths(settings, task, config):
    """Return a copy of the settings with `max_tokens` and `overlap` filled in, for a task and a model's configuration.

    Raises ValueError if a model with this configuration cannot read `max_tokens` tokens, or `overlap` is too large.
    """
    most, overlap = settings.max_tokens, settings.overlap
    if most is None:
        most = min(config.n_positions, defaults_for(task, kind_of_base(settings.base)).max_tokens or config.n_positions)
        if task == "classifier" and overlap is None:
            overlap = min(OVERLAP, most // 4)
    whole_number("max_tokens", most, most=config.n_positions, why="the model's n_positions")
    if overlap is not None:
        if task != "classifier":
            raise ValueError(f"overlap: got task {task!r}, but only a classifier reads long texts in windows")
        whole_number("overlap", overlap, least=0, most=most // 2, why="half of max_tokens")
    return replace(settings, max_tokens=most, overlap=overlap)


def plain_values(data, settings):
    """Return all fields of the data and the settings as plain values, from which `read_run` recreates both objects."""
    values = {"task": data.task, **asdict(data), **asdict(settings)}
    if values["adapter"] is not None:
        del values["adapter"]["extra"]
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
