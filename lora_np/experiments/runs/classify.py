"""A training run of the sentiment classifier, which labels Rotten Tomatoes snippets as positive or negative."""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from ...adapters import AdapterConfig, linear_layers, start_adapter, trainable_report
from ...checked import one_of
from ...compress import prune_magnitude, prune_n_of_m, quantise, weight_bytes
from ...data import Batch, Splits, Table, class_batches, encode, load_reviews, pad_id
from ...model import add_head, predict_logits
from ...ops import cross_entropy_forward
from ...training import attach, blas_threads, fine_tuning, settled_from, stream, train
from . import BASES, load_base

WEIGHTS = ("dense", "nf4", "int8", "pruned 50 %", "pruned 2:4")
FOLDS = 8  # parts of the training and test snippets, each of which is the test set of some seeds
BATCH_SIZE = 32
TRAINING = ("learning_rate", "epochs", "seed", "evaluations")  # fields of a run that are arguments of `fine_tuning`
MAX_LENGTH = 128  # tokens; the longest snippet has 95
LOSS_POINTS = 50  # the training loss is recorded as means over this many parts of the run


class Encoded(NamedTuple):
    """A split of the snippets as token ids."""

    sequences: list[np.ndarray]
    labels: np.ndarray  # (N,) int64


class Snippets(NamedTuple):
    """The sentiment data set: snippets of film reviews, labelled as positive (1) or negative (0)."""

    train: Encoded
    validation: Encoded
    test: Encoded
    pad_id: int

    def epoch_batches(self, rng):
        """The training batches of one epoch, shuffled with `rng`."""
        return class_batches(*self.train, BATCH_SIZE, self.pad_id, rng)

    def evaluation_batches(self, split) -> list[Batch]:
        """The batches of "validation" or "test", in a fixed order."""
        return class_batches(*getattr(self, split), BATCH_SIZE, self.pad_id)


@lru_cache(maxsize=2)
def load_snippets(limit=None, base="pretrained", fold=None):
    """Load the splits of `split_reviews`, at most `limit` snippets of each, and encode them with a base's tokenizer."""
    tokenizer = load_base(base).tokenizer
    splits = []
    for texts, labels in split_reviews(fold):
        splits.append(Encoded(encode(tokenizer, texts[:limit], MAX_LENGTH), labels[:limit]))
    return Snippets(*splits, pad_id=pad_id(tokenizer))


def split_reviews(fold=None):
    """The training, validation and test snippets, as Splits of Tables.

    Without a `fold`, the splits are those of `load_reviews`. Otherwise, the training and the test snippets are pooled
    and divided at random into FOLDS parts; part number `fold` is the test set, and the other parts are the training
    set. The validation snippets are always the same.
    """
    train, validation, test = splits = load_reviews("rotten_tomatoes")
    if fold is None:
        return splits
    texts, labels = train.texts + test.texts, np.concatenate([train.labels, test.labels])
    parts = np.array_split(np.random.default_rng(0).permutation(len(texts)), FOLDS)
    rows = np.concatenate(parts[:fold] + parts[fold + 1 :]), parts[fold]
    train, test = (Table([texts[i] for i in of_split], labels[of_split]) for of_split in rows)
    return Splits(train, validation, test)


@dataclass(frozen=True)
class ClassifyRun:
    """The settings of a training run of the classifier."""

    adapter: AdapterConfig | None  # None to train the whole model
    seed: int  # the batches and the initial head depend only on the seed, so they are the same for every method
    learning_rate: float  # the peak learning rate
    epochs: int = 1
    batch_size: int = BATCH_SIZE
    examples: int | None = None  # number of training snippets, which are drawn at random with the seed; None: all
    base: str = "pretrained"  # one of BASES
    weights: str = "dense"  # one of WEIGHTS: how the base's linear layers are compressed before training
    folds: bool = False  # whether the test set is the fold with the index seed mod FOLDS, not the fixed test split
    evaluations: int | None = None  # approximate number of evaluations during training; None: two per epoch
    test: bool = True  # whether to test the checkpoint with the lowest validation loss; False for tuning
    keep: bool = False  # whether the result includes the trained arrays
    limit: int | None = None  # maximum number of snippets of each split, for a shortened run; None: all

    def __post_init__(self):
        one_of("base", self.base, BASES)
        one_of("weights", self.weights, WEIGHTS)

    def snippets(self):
        """The run's snippets."""
        return load_snippets(self.limit, self.base, self.seed % FOLDS if self.folds else None)

    def carry_out(self):
        """Carry out the run and return its numbers and arrays; losses are in nats per snippet."""
        snippets = self.snippets()
        params, config, adapter = starting_point(self)
        rows = training_rows(self, len(snippets.train.labels))
        texts = [snippets.train.sequences[row] for row in rows], snippets.train.labels[rows]
        epoch_batches = partial(class_batches, *texts, self.batch_size, snippets.pad_id)
        settings = {name: getattr(self, name) for name in TRAINING}
        validation = snippets.evaluation_batches("validation")
        state = train(**fine_tuning(params, config, adapter, epoch_batches, validation, **settings))
        history, report = state.history, trainable_report(params, state.best)
        may_be_best = history["eval_step"] >= settled_from(adapter, state.step)
        numbers = {
            "trainable": report.trainable,
            "percent": report.percent,
            "steps": state.step,
            "base_bytes": weight_bytes(params),
            "validation_loss": float(history["eval_loss"][may_be_best].min()),
            "loss": [round(float(chunk.mean()), 5) for chunk in chunks(history["loss"])],
            "grad_norm": [round(float(chunk.mean()), 6) for chunk in chunks(history["grad_norm"])],
            "evaluations": {
                name: np.round(history[f"eval_{name}"], 6).tolist() for name in ("step", "loss", "accuracy")
            },
        }
        if self.test:
            model, attached = attach(params, adapter, state.best)
            with blas_threads(1):
                scores = score(model, attached, config, snippets, "test")
            numbers |= {"test_accuracy": scores["accuracy"], "test_loss": scores["loss"]}
            numbers["test_right"] = np.packbits(scores["right"]).tobytes().hex()  # one bit per snippet
        return numbers, dict(state.best) if self.keep else {}


def compressed(params, weights):
    """The parameters with quantised or pruned linear layers; `weights` is one of WEIGHTS."""
    names = [f"{module}.weight" for module in linear_layers(params)]
    if weights in ("nf4", "int8"):
        return quantise(params, names, weights)
    if weights == "pruned 50 %":
        return {**params, **{name: prune_magnitude(params[name], 0.5) for name in names}}
    if weights == "pruned 2:4":
        return {**params, **{name: prune_n_of_m(params[name]) for name in names}}
    return params


def starting_point(run):
    """The classifier's weights and configuration before the first step, and its Adapter (None: all weights train)."""
    params, config, *_ = load_base(run.base)
    params = compressed(params, run.weights)
    params, config = add_head(params, config, 2, stream(run.seed, "head"))
    if run.adapter is None:
        return params, config, None
    params, adapter = start_adapter(params, run.adapter, stream(run.seed, "adapter"))
    return params, config, adapter


def score(params, adapter, config, snippets, split, run=map):
    """Return a model's "loss" and "accuracy" on a split, and "right" (N,): which snippets are classified correctly.

    `run` is as in `predict_logits`.
    """
    batches, labels = snippets.evaluation_batches(split), getattr(snippets, split).labels
    logits = np.empty((len(labels), config.n_classes), np.float32)
    answers = predict_logits(params, batches, config, adapter, run)
    for batch, (of_batch, _) in zip(batches, answers):
        logits[batch.rows] = of_batch
    right = logits.argmax(axis=1) == labels
    loss, _ = cross_entropy_forward(logits, labels, wanted=())
    return {"loss": float(loss), "accuracy": float(right.mean()), "right": right}


def training_rows(run, n):
    """The indices of a run's training snippets among all n snippets of the split."""
    if run.examples is None:
        return np.arange(n)
    if run.examples > n:
        raise ValueError(f"examples: got {run.examples}, expected at most {n}")
    return stream(run.seed, "sample").permutation(n)[: run.examples]


def chunks(values):
    """Split a series into at most LOSS_POINTS chunks of nearly equal length."""
    return np.array_split(values, min(LOSS_POINTS, len(values)))
