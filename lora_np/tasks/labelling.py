"""Apply a saved classifier to a file: label its texts, or compare the predictions with the file's labels.

A file is processed in windows of rows, so memory does not grow with the file. Within a window, texts of similar length
are batched together. `label_file` appends each finished window to a partial file next to the output; if it is
interrupted, the same call resumes from that file.
"""

import hashlib
import json
import os
import sys
import warnings
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np

from .. import __version__
from ..data import column_of, encode_labels, format_records, record_windows, table_suffix
from ..formats import check_file, read_json, task_places, write_json, write_text
from ..formats.atomic import naming, only_process, write_atomically
from ..formats.model import model_sha256
from ..formats.task import read_task
from ..formats.tensors import file_sha256
from .classifier import class_probabilities, load_classifier, probabilities_of, token_ids, warn_of_truncated
from .finetuning import naming_model
from .pictures import as_png, confusion_figure
from .report import class_report, text_keys

WINDOW = 8192  # rows
PARTIAL = ".partial", ".partial.json"  # suffixes of the partial file, and of the file that says how much of it is done


class LabelledFile:
    """A file of texts, and the classifier that labels them a window at a time.

    Parameters
    ----------
    model : folder of a classifier
    data : path of a CSV, TSV or JSONL file; an empty cell in the text column is an empty text
    text_column : str, or None for the column that the model was trained with
    quoting : bool, for a TSV file; see `read_records`
    base : the new folder of the model's base if the base has moved, or None
    suffix : the suffix of a file to which the rows will be written, or None

    Raises
    ------
    ValueError
        If the file is malformed or the rows cannot be written; this is checked before the model is read.
    """

    def __init__(self, model, data, text_column=None, quoting=False, base=None, suffix=None):
        self.model, self.data, self.quoting = model, data, quoting
        self.columns, self.n = [], 0
        for records in record_windows(data, quoting, WINDOW):
            self.columns = list(dict.fromkeys([*self.columns, *records.columns]))
            if suffix is not None:
                format_records(records.columns, records.rows, suffix, quoting, first=self.n)
            self.n += len(records.rows)
        if not self.n:
            raise ValueError(f"{data} has no rows; expected at least one")
        self.column = column_name(model, "text_column", text_column)
        self.classifier = load_classifier(model, base)
        self.n_longer, self.n_empty, self.first_empty = 0, 0, None

    def windows(self, first=0, progress=None):
        """Yield (Records, texts, probabilities (n, K)) for each window from the one that begins at row `first`.

        At the end, warnings report empty and truncated texts. `progress` is the label of the progress bar.
        """
        done = 0
        with bar_of(progress, first, self.n) as advance:
            for records in self.records():
                done += len(records.rows)
                if done <= first:
                    continue
                texts = column_of(records, self.column, "text_column", empty=True)
                self.n_empty += texts.count("")
                self.first_empty = self.first_empty or next((p for p, t in zip(records.places, texts) if not t), None)
                sequences, n_longer = token_ids(self.classifier, texts)
                self.n_longer += n_longer
                with naming_model(self.model):
                    probabilities = probabilities_of(self.classifier, sequences)
                advance(len(texts))
                yield records, texts, probabilities
        if self.n_empty:
            warnings.warn(f"{self.data}: empty texts: {self.n_empty}, the first in {self.first_empty}", stacklevel=2)
        warn_of_truncated(self.classifier, self.n_longer, self.n - first)

    def records(self):
        """Yield the file's rows as Records, one for each window, with all columns of the file."""
        windows = record_windows(self.data, self.quoting, WINDOW)
        while True:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the first reading has warned of rows that span lines
                records = next(windows, None)
            if records is None:
                return
            yield records._replace(columns=self.columns)


@contextmanager
def bar_of(label, done, total):
    """Yield a function (n) that advances a progress bar by n rows; without a terminal, it shows a line per minute."""
    bar = None
    if label is not None:
        with suppress(ImportError):
            from tqdm import tqdm

            pause = 0.1 if sys.stderr.isatty() else 60.0
            bar = tqdm(total=total, initial=done, desc=label, unit=" rows", leave=False, delay=2, mininterval=pause)
    with bar or nullcontext():
        yield bar.update if bar is not None else lambda n: None


def label_file(model, data, out, text_column=None, proba=False, quoting=False, base=None):
    """Label the texts of a file, and write its rows followed by the predictions to another file.

    Parameters
    ----------
    model, data, text_column, quoting, base : see `LabelledFile`
    out : path of a .csv, .tsv or .jsonl file to write
    proba : bool, whether to write the probability of every class, not just of the predicted one

    Returns
    -------
    int, the number of texts

    Raises
    ------
    ValueError
        If `out` has an unsupported suffix, is one of the input files, or has a format that cannot store the columns.
    """
    out, suffix = Path(out), table_suffix("out", out)
    check_file(out, "out", [data, *task_places(model, base)])
    file = LabelledFile(model, data, text_column, quoting, base, suffix)
    labels = file.classifier.labels
    columns = prediction_columns(file.columns, labels if proba else ())
    about = file_sha256(data), file.column, proba, quoting, suffix, __version__, read_task(model)[1], labels
    run = hashlib.sha256(json.dumps([*about, digest_of(model)], default=str).encode()).hexdigest()
    partial, state = (out.with_name(out.name + end) for end in PARTIAL)
    with only_process(out), naming(out):
        done, size = progress_in(partial, state, run)
        with partial.open("r+b" if size else "wb") as written:
            written.truncate(size)
            written.seek(size)
            for records, _, probabilities in file.windows(done, "predict"):
                rows = predicted_rows(records.rows, columns, labels, probabilities)
                text = format_records([*file.columns, *columns], rows, suffix, quoting, first=done)
                written.write(text.encode("utf-8"))
                written.flush()
                os.fsync(written.fileno())
                done += len(rows)
                if done < file.n:
                    write_json(state, {"run": run, "rows": done, "bytes": written.tell()})
        os.replace(partial, out)
        state.unlink()
    return file.n


def digest_of(model):
    """The SHA-256 of a full model's weights; None for an adapter, whose digests are in task.json."""
    folder, about = read_task(model)
    return None if "base" in about else model_sha256(folder)


def progress_in(partial, state, run):
    """Return how many rows and bytes of a run its partial file holds, or start the run and return 0, 0.

    Raises ValueError if either path is that of a file that `label_file` did not write and would overwrite.
    """
    begun = read_json(state) if state.is_file() else None
    is_ours = isinstance(begun, dict) and begun.keys() == {"run", "rows", "bytes"}
    if not is_ours and (partial.exists() or state.exists()):
        raise ValueError(f"out: {partial if partial.exists() else state} would be overwritten; move it elsewhere")
    if is_ours and begun["run"] == run and partial.is_file() and begun["bytes"] <= partial.stat().st_size:
        return begun["rows"], begun["bytes"]
    write_json(state, {"run": run, "rows": 0, "bytes": 0})
    return 0, 0


def predicted_rows(rows, columns, labels, probabilities):
    """Return rows with the prediction columns added: the label, its probability, and the probability of every class."""
    values = ([labels[p.argmax()], *(round(float(x), 6) for x in (p.max(), *p))] for p in probabilities)
    return [row | dict(zip(columns, of_row)) for row, of_row in zip(rows, values)]  # there may be two columns only


def label_texts(model, texts, out=None, proba=False, base=None):
    """Label texts in memory; `out`, `proba` and `base` are those of `label_file`.

    Returns the classifier's labels, a list of K str, and the probabilities (N, K).
    """
    if out is not None:
        suffix = table_suffix("out", out)
        check_file(out, "out", task_places(model, base))
    classifier = load_classifier(model, base)
    with naming_model(model):
        probabilities = class_probabilities(classifier, texts, progress="predict")
    if out is not None:
        columns = prediction_columns(["text"], classifier.labels if proba else ())
        rows = predicted_rows([{"text": text} for text in texts], columns, classifier.labels, probabilities)
        write_text(out, format_records(["text", *columns], rows, suffix))
    return classifier.labels, probabilities


def prediction_columns(taken, labels):
    """Return the names of the prediction columns: label, probability, and p_… for each label.

    A name that already exists is prefixed with "predicted_".
    """
    columns, taken = [], set(taken)
    for name in ("label", "probability", *(f"p_{label}" for label in labels)):
        while name in taken:
            name = f"predicted_{name}"
        columns.append(name)
    return columns


def judge_file(model, data, text_column=None, label_column=None, picture=None, quoting=False, base=None):
    """Compare the predictions of a saved classifier with the labels of a file.

    Parameters
    ----------
    model, data, text_column, quoting, base : see `LabelledFile`
    label_column : str, or None for the column that the model was trained with
    picture : path of the PNG to write the confusion matrix to, or None

    Returns
    -------
    dict from `class_report`

    Raises
    ------
    ValueError
        If the file has a label that the model was not trained on.
    """
    if picture is not None:
        check_file(picture, "out", [data, *task_places(model, base)])
    file = LabelledFile(model, data, text_column, quoting, base)
    labels, label_column = file.classifier.labels, column_name(model, "label_column", label_column)
    true = np.concatenate([encode_labels(labels_of(records, label_column), labels) for records in file.records()])
    probabilities, keys = np.empty((file.n, len(labels)), np.float32), np.empty(file.n, np.uint64)
    done = 0
    for _, texts, of_window in file.windows(progress="evaluate"):
        rows = slice(done, done := done + len(texts))
        probabilities[rows], keys[rows] = of_window, text_keys(texts)
    report = class_report(labels, true, probabilities, keys=keys)
    if picture is not None:
        write_atomically(picture, as_png(confusion_figure, report))
    return report


def labels_of(records, column):
    """Return the labels of a file's rows, stripped of white space."""
    return [label.strip() for label in column_of(records, column, "label_column")]


def labelled_texts(model, data, text_column=None, label_column=None, quoting=False):
    """Return the texts and the labels of a file; the parameters are those of `judge_file`."""
    columns = (column_name(model, *of) for of in (("text_column", text_column), ("label_column", label_column)))
    text_column, label_column = columns
    (records,) = record_windows(data, quoting)
    return column_of(records, text_column, "text_column", empty=True), labels_of(records, label_column)


def column_name(model, name, column=None):
    """Return the name of a file's text or label column; the default is the column that the model was trained on.

    Raises ValueError if `column` is None and the model's task.json names no column.
    """
    if column is not None:
        return column
    folder, about = read_task(model)
    if name not in about:
        raise ValueError(f"{name}: is missing, and {folder / 'task.json'} names no column; give the column's name")
    return about[name]
