"""A scikit-learn estimator that fine-tunes as the command `finetune` does."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from ..checked import quoted, seed_number, whole_number
from ..data import Table, split_table
from ..formats import save_task
from ..formats.task import read_task
from .classifier import class_probabilities, load_classifier
from .finetuning import about_run, best_of_search, carried_out, prepared
from .settings import FinetuneSettings, base_place
from .table import LabelledTable

ADAPTER = {"rank": "r", "alpha": "alpha", "targets": "targets", "variant": "variant"}  # parameter -> field
RESULTS = ("learning_rate", "trainable", "percent", "settings")  # of `about_run`
SETTINGS = "base method learning_rate epochs batch_size dropout threads max_tokens overlap patience".split()
WITHOUT_TEST = (0.9, 0.1, 0.0)  # of the texts for training, validation and testing


class LabelledTexts(LabelledTable):
    """Labelled texts in memory: nine tenths for training, one tenth for validation, and none for testing."""

    def __init__(self, texts, labels, class_weights, calibrate):
        super().__init__("texts in memory", "text", "label", class_weights=class_weights, calibrate=calibrate)
        object.__setattr__(self, "labelled", Table(texts, labels))

    def split(self, seed):
        return split_table(self.labelled, WITHOUT_TEST, seed), 0


class TextClassifier(ClassifierMixin, BaseEstimator):
    """Classify texts with a model that is fine-tuned in full, with LoRA, or by training only its head.

    The same settings give the same model as `python -m lora_np finetune --data train.csv --test test.csv`. A tenth of
    the texts is held out for validation, and the weights with the lowest validation loss are used. None selects the
    defaults.

    Parameters
    ----------
    base : str or None, "minilm", "smollm2", "pretrained" or a path; None: MiniLM if it is installed
    method : "lora", "head" or "full"
    rank, alpha, targets, variant : of LoRA, as the command's options
    learning_rate, epochs, batch_size, dropout, threads, max_tokens, overlap, patience : see `FinetuneSettings`
    minutes : float, the time to spend on a search around these settings, as `--minutes`; None: no search
    class_weight : None or "balanced"; calibrate : bool; as the command's options
    random_state : int, the seed

    Attributes
    ----------
    classes_ : array (K,), the labels, sorted
    model_ : LoadedModel, the fine-tuned model
    results_ : dict, the number of trainable parameters, and all settings that were used

    Examples
    --------
    >>> from lora_np import TextClassifier
    >>> classifier = TextClassifier(rank=4, epochs=2).fit(texts, labels)
    >>> classifier.predict(["Where is my parcel?"])
    >>> classifier.save("my_task")  # python -m lora_np predict --model my_task "Where is my parcel?"
    """

    def __init__(
        self,
        base=None,
        method="lora",
        rank=None,
        alpha=None,
        targets=None,
        variant=None,
        learning_rate=None,
        epochs=None,
        batch_size=None,
        dropout=0.0,
        class_weight=None,
        calibrate=False,
        max_tokens=None,
        overlap=None,
        patience=None,
        minutes=None,
        threads=None,
        random_state=0,
    ):
        self.base = base
        self.method = method
        self.rank = rank
        self.alpha = alpha
        self.targets = targets
        self.variant = variant
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.dropout = dropout
        self.class_weight = class_weight
        self.calibrate = calibrate
        self.max_tokens = max_tokens
        self.overlap = overlap
        self.patience = patience
        self.minutes = minutes
        self.threads = threads
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.one_d_array, tags.input_tags.two_d_array = True, True, False
        return tags

    def fit(self, X, y):
        """Fine-tune on texts X, N str or a table with one column, with labels y (N,); return the estimator."""
        texts, y = checked_texts(X), column_or_1d(y, warn=True)
        if len(texts) != len(y):
            raise ValueError(f"y: got {len(y)} labels for {len(texts)} texts")
        check_classification_targets(y)
        classes, of_rows = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y: got 1 class, {quoted(str(classes[0]))}, expected at least two classes")
        names = label_texts(classes)
        data = LabelledTexts(texts, [names[k] for k in of_rows], self.class_weight or "none", self.calibrate)
        adapter = {field: getattr(self, name) for name, field in ADAPTER.items() if getattr(self, name) is not None}
        if self.rank is not None:
            whole_number("rank", self.rank)
        settings = {name: getattr(self, name) for name in SETTINGS} | {"adapter": adapter or None}
        settings, more = FinetuneSettings(**settings, seed=seed_number("random_state", self.random_state)), {}
        if self.minutes is None:
            run = prepared(data, settings.with_defaults(data.task))
            self.model_, finished, state = carried_out(run)
        else:
            best, more["search"] = best_of_search(data, settings, self.minutes)
            data, run, self.model_, finished, state = best
        self.classes_ = classes
        self.results_ = {"method": self.method, **more, **finished, **about_run(run, data, state)}
        return self

    def predict_proba(self, X):
        """Return the probabilities (N, K) of the classes, in the order of `classes_`, for N texts."""
        check_is_fitted(self)
        probabilities, labels = class_probabilities(self.model_, checked_texts(X)), self.model_.labels
        # A class whose texts all occur earlier with another label is unknown to the model.
        columns = [labels.index(name) if name in labels else None for name in label_texts(self.classes_)]
        zeros = np.zeros(len(probabilities))
        return np.stack([zeros if k is None else probabilities[:, k] for k in columns], axis=1)

    def predict(self, X):
        """Return the most probable label of each text."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def save(self, folder):
        """Write the folder that the command `finetune` would write; other commands and `load` read it."""
        check_is_fitted(self)
        about = self.results_ | {"estimator": self.get_params(), "classes": self.classes_.tolist()}
        about |= {"text_column": "text", "label_column": "label"}
        save_task(folder, self.model_, base_place(self.results_["settings"]["base"]), about)

    @classmethod
    def load(cls, folder, base=None):
        """Read a classifier that `save` or the command `finetune` wrote; `base` is the base's new path if it has moved.

        If the command wrote the folder, labels are str, and a variant is not restored as a parameter of the estimator.
        """
        about, model = read_task(folder)[1], load_classifier(folder, base)
        settings = about.get("settings", {})
        adapter = settings.get("adapter") or {}
        values = {name: settings[name] for name in SETTINGS if name in settings}
        values |= {name: adapter[field] for name, field in ADAPTER.items() if field in adapter}
        estimator = cls(**about.get("estimator", values))
        estimator.model_, estimator.classes_ = model, np.array(about.get("classes", model.labels))
        estimator.results_ = {name: about[name] for name in ("method", *RESULTS) if name in about}
        return estimator


def checked_texts(X):
    """Return texts as a list of str; raise ValueError for anything else, naming the first entry that is not a str."""
    if getattr(X, "ndim", 1) == 2 and X.shape[1] == 1:
        X = np.asarray(X)[:, 0]  # a table's only column
    if isinstance(X, str) or getattr(X, "ndim", 1) != 1:
        got = quoted(X) if isinstance(X, str) else f"shape {X.shape}"
        raise ValueError(f"X: got {got}, expected a list of texts or another one-dimensional sequence of them")
    texts = list(X)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"X: entry {i} is {quoted(text)}, expected a string")
    if not texts:
        raise ValueError("X: got no texts, expected at least one")
    return [str(text) for text in texts]  # NumPy's str_ is a str, but the tokenizer wants no subclass


def label_texts(classes):
    """Return the classes as str, as in the model's files; raise ValueError unless they are distinct and not blank."""
    names = [str(label) for label in classes]
    if len({*names}) < len(names) or not all(name.strip() for name in names):
        raise ValueError(f"y: got the labels {', '.join(map(quoted, names[:10]))}, expected distinct, non-blank labels")
    return names
