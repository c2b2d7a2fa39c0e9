"""Labelled tables for training a classifier with a new head, or a language model that answers with the label."""

import warnings
from collections import Counter
from copy import copy
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..checked import check_fields, instance_of, one_of, quoted, shown
from ..data import (
    Table,
    class_batches,
    encode_labels,
    format_records,
    label_names,
    pad_id,
    read_table,
    split_table,
    text_digest,
)
from ..data.records import listed
from ..model import add_head, check_writes
from ..training import CLASSIFIER_BATCH, LANGUAGE_BATCH, blas_threads, stream
from .baseline import word_classifier
from .calibration import best_temperature, scaled_head
from .classifier import probabilities_of, read_pieces, token_ids, warn_if_split
from .label_words import QUESTION, label_ids, label_rows
from .pictures import as_png, calibration_figure, confusion_figure
from .report import MISTAKE, class_report, format_report, macro_f1, mistakes, text_keys
from .settings import Data, Dataset, check_text
from .writing import end_ids

CLASS_WEIGHTS = ("none", "balanced")
FRACTIONS = (0.8, 0.1, 0.1)  # of training, validation and test rows; a file replaces one of the tenths
WORD = r"\w+|[^\w\s]"  # a word or a punctuation mark, so that every non-blank text has a match
STRENGTHS = (1, 10, 100)  # the values of C that word_classifier tries
MOST_WINDOWS = 4  # windows of a long text that are used in training
ADVICE = "  More texts of such a class help most; --class-weights balanced makes them count more."


@dataclass(frozen=True)
class LabelledTable(Data):
    """A table of texts and labels for training a classifier with a new head.

    Parameters
    ----------
    data : path of a CSV, TSV or JSONL file
    text_column, label_column : str
    test_data : path of a test file with the same columns; rows of `data` whose text is also in this file are left out.
        None: test on a tenth of `data`
    quoting : bool, for a TSV file; see `read_records`
    validation_data : path of a validation file with the same columns, or None: a tenth of `data`. Rows of `data` whose
        text is also in this file are left out
    calibrate : bool, whether to divide the head's logits by the temperature that fits the validation set best, so that
        probabilities are closer to the fractions of correct predictions (Guo et al. 2017); no prediction changes
    class_weights : "none", or "balanced": a training or validation text of class c has the weight n / (n_classes n_c)
        in the loss, where n_c of the n training texts have this class (of a long text, each window counts); this gives
        all classes the same total weight. The model weights with the lowest weighted validation loss are selected
    """

    text_column: str
    label_column: str
    test_data: str | Path | None = None
    quoting: bool = False
    class_weights: str = "none"
    validation_data: str | Path | None = None
    calibrate: bool = False
    task = "classifier"

    def __post_init__(self):
        check_fields(self, check_text, "data", "text_column", "label_column")
        for name in ("test_data", "validation_data"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
        check_fields(self, one_of, "class_weights", choices=CLASS_WEIGHTS)
        check_fields(self, instance_of, "quoting", "calibrate", type_=bool, expected="True or False")

    def balanced(self):
        """Return a copy with balanced class weights."""
        copied = copy(self)
        object.__setattr__(copied, "class_weights", "balanced")
        return copied

    def paths(self):
        return [path for path in (self.data, self.validation_data, self.test_data) if path is not None]

    def read(self, model, settings):
        splits, n_left_out = self.split(settings.seed)
        labels, pad = label_names(splits.train.labels), pad_id(model.tokenizer)
        if rare := sorted(label for label, n in Counter(splits.train.labels).items() if n == 1):
            warnings.warn(f"labels with only one training text: {listed(rare)}", stacklevel=2)
        first = {}
        unclear = {text for part in splits for text, label in zip(*part) if first.setdefault(text, label) != label}
        if unclear:
            example = quoted(min(unclear), 60)
            warnings.warn(f"labels: {len(unclear)} texts have several labels, for example {example}", stacklevel=2)
        reading = {"max_tokens": settings.max_tokens, "overlap": settings.overlap}
        model = self.labelling(model._replace(labels=labels, **reading), settings.seed)
        warn_if_split(model, splits.train.texts)
        sequences, longer = zip(*(token_ids(model, split.texts) for split in splits))
        encoded = [(ids, encode_labels(split.labels, labels)) for ids, split in zip(sequences, splits)]
        train, validation = (self.rows(model, *part) for part in encoded[:2])

        def finish(trained):
            if not self.calibrate:
                return trained, {}
            temperature = best_temperature(probabilities_of(trained, encoded[1][0]), encoded[1][1])
            return scaled_head(trained, temperature), {"temperature": temperature}

        def validation_f1(trained):
            predicted = probabilities_of(trained, encoded[1][0]).argmax(axis=1)
            return float(macro_f1(encoded[1][1], predicted, np.ones(len(predicted))))

        def test(trained, history):
            others, (sequences, true), texts = self.word_answers(splits, encoded), encoded[2], splits.test.texts
            probabilities = probabilities_of(trained, sequences)
            report = class_report(labels, true, probabilities, others, text_keys(texts))
            rows_of_mistakes = mistakes(labels, true, probabilities, texts)
            rows = {name: len(split.texts) for name, split in zip(splits._fields, splits)}
            measures = [name for name in ("step", "loss", "accuracy") if f"eval_{name}" in history]
            results = {"labels": labels, "text_column": self.text_column, "label_column": self.label_column}
            results |= {"rows": {**rows, "left_out": n_left_out}, "longer_texts": sum(longer)}
            results |= {**reading, "question": model.question}
            results["class_weights"] = self.class_weights
            if "accuracy" in measures and len(validation[0]) == len(encoded[1][0]):  # that of texts, not windows
                accuracy = history["eval_accuracy"][history["eval_loss"].argmin()]
            else:
                predicted = probabilities_of(trained, encoded[1][0]).argmax(axis=1)
                accuracy = np.mean(predicted == encoded[1][1])
            results |= {"validation_accuracy": float(accuracy), "test_accuracy": report["accuracy"]}
            results["commonest_label_share"] = report["commonest_share"]
            results["validation"] = {name: history[f"eval_{name}"].tolist() for name in measures}
            return results | {"test": report}, files(report, rows_of_mistakes)

        epoch_batches = partial(class_batches, *train, settings.batch_size, pad)
        batch_size = CLASSIFIER_BATCH if model.config.n_classes else LANGUAGE_BATCH
        validation_batches = class_batches(*validation, batch_size, pad)
        weights, longest = None, max(map(len, train[0]))
        if self.class_weights == "balanced":
            weights = balanced_weights(train[1])
        more = {"class_weights": weights, "finish": finish, "validation_f1": validation_f1}
        return Dataset(model, epoch_batches, validation_batches, len(train[0]), longest, test, **more)

    def labelling(self, model, seed):
        """Return the model with a new classification head for `model.labels`."""
        params, config = add_head(model.params, model.config, len(model.labels), stream(seed, "head"))
        return model._replace(params=params, config=config)

    def rows(self, model, sequences, classes):
        """Return the token ids and the targets to train on; each window of a long text has the text's class."""
        pieces, rows = read_pieces(model, sequences, MOST_WINDOWS)
        return pieces, classes[rows]

    def split(self, seed):
        """Return the Splits, and the number of rows left out because their text is in the validation or test file.

        A text that is in both the validation and the test file is used only for testing.
        """
        tables = {"data": self.data, "validation_data": self.validation_data, "test_data": self.test_data}
        tables = {name: self.table(path) for name, path in tables.items() if path is not None}
        seen, n_left_out = set(), 0
        for name in reversed(tables):
            # The digest ignores case, spacing and punctuation, so that near copies are not in two parts.
            rest = [row for row in zip(*tables[name]) if text_digest(row[0]) not in seen]
            if not rest:
                others = list(tables)[list(tables).index(name) + 1 :]
                raise ValueError(f"{name}: every text is also in {' or '.join(others)}; nothing is left")
            n_left_out += len(tables[name].texts) - len(rest)
            tables[name] = Table(*map(list, zip(*rest)))
            seen |= set(map(text_digest, tables[name].texts))
        held_out = dict(zip(("validation_data", "test_data"), FRACTIONS[1:]))
        tenths = [0.0 if name in tables else tenth for name, tenth in held_out.items()]
        splits = split_table(tables["data"], (1 - sum(tenths), *tenths), seed)
        given = {"validation": tables.get("validation_data"), "test": tables.get("test_data")}
        return splits._replace(**{name: table for name, table in given.items() if table}), n_left_out

    def table(self, path):
        """Read a file as a Table."""
        return read_table(path, self.text_column, self.label_column, self.quoting)

    def word_answers(self, splits, encoded):
        """Return {"tf-idf": (N,)}, the classes that logistic regression on tf-idf weights predicts for the test set.

        The regression is trained on the same training set as the model. Without scikit-learn, the dict is empty.
        """
        train, validation = ((split.texts, classes) for split, (_, classes) in zip(splits[:2], encoded))
        class_weight = None if self.class_weights == "none" else self.class_weights
        try:
            with blas_threads(1):
                words = word_classifier(train, validation, WORD, (True,), STRENGTHS, class_weight)
        except ModuleNotFoundError:
            return {}
        return {"tf-idf": words.predict(splits.test.texts)}

    def summary(self, results):
        n, longer = results["rows"], results["longer_texts"]
        lines = [f"labels: {', '.join(map(shown, results['labels']))}"]
        lines.append(f"rows: {n['train']} for training, {n['validation']} for validation, {n['test']} for testing")
        accuracy = f"validation accuracy {100 * results['validation_accuracy']:.1f} %"
        lines.append(f"      {accuracy}; training ended after {results['steps']:,} steps")
        if "temperature" in results:
            lines.append(f"      the head's logits are divided by {results['temperature']:.2f}")
        if n["left_out"]:
            files = " or ".join(map(str, self.paths()[1:]))
            lines.append(f"      {n['left_out']} left out, because their texts are also in {files}")
        if longer:
            most, overlap = results["max_tokens"], results["overlap"]
            fate = "truncated" if overlap is None else f"read in windows that overlap by {overlap}"
            lines.append(f"      {longer} texts have more than {most} tokens and are {fate}")
        lines.append("")
        if "tf-idf" not in results["test"]["others"]:
            lines.append("tf-idf is left out of the comparison, because scikit-learn is not installed")
        if find_spec("matplotlib") is None:
            lines.append("there are no pictures, because matplotlib is not installed")
        advice = ADVICE if results["class_weights"] == "none" else ""
        return [*lines, format_report(results["test"], advice), ""]


@dataclass(frozen=True)
class QuestionTable(LabelledTable):
    """A table of texts and labels for training a language model to answer a question with the label's name.

    Parameters
    ----------
    data, text_column, label_column, test_data, quoting : see `LabelledTable`; class weights are not supported
    question : str, appended to each text
    """

    question: str = QUESTION
    task = "question"

    def __post_init__(self):
        super().__post_init__()
        check_fields(self, check_text, "question")
        for name, value in (("class_weights", "none"), ("calibrate", False)):
            if getattr(self, name) != value:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, which needs a classification head")

    def labelling(self, model, seed):
        check_writes(model.config, "base")
        return model._replace(question=self.question)

    def rows(self, model, sequences, classes):
        return label_rows(sequences, classes, label_ids(model.tokenizer, model.labels, end_ids(model)[:1]))


def files(report, rows_of_mistakes):
    """Return the files to save beside a classifier, as a dict: name -> bytes."""
    content = format_records(list(MISTAKE), rows_of_mistakes, ".csv")
    try:
        pictures = {"confusion.png": confusion_figure, "calibration.png": calibration_figure}
        drawn = {name: as_png(draw, report) for name, draw in pictures.items()}
    except ModuleNotFoundError:  # matplotlib is not installed
        drawn = {}
    return drawn | {"mistakes.csv": content.encode("utf-8")}


def balanced_weights(classes):
    """Return the weights n / (K n_c) of K classes, (K,), where n_c of the n texts have class c, as in scikit-learn."""
    counts = np.bincount(classes)
    return len(classes) / (len(counts) * counts)
