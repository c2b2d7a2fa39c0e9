"""Apply a saved classifier to a file: label its texts, or compare the predictions with the file's labels."""

import warnings

from ..data import Records, column_of, encode_labels, format_records, read_records, table_suffix
from ..formats import check_file, task_places, write_text
from ..formats.atomic import write_atomically
from ..formats.task import read_task
from .classifier import class_probabilities, load_classifier
from .finetuning import naming_model
from .report import class_report, confusion_picture

TEXT_COLUMN, NO_FILE = "text", "TEXT"  # the column and the path for texts that are not from a file


def text_records(texts):
    """Return Records of texts that are not from a file."""
    places = [f"text {i}" for i in range(len(texts))]
    return Records(NO_FILE, [TEXT_COLUMN], [{TEXT_COLUMN: text} for text in texts], places)


def label_records(model, records, text_column, out=None, proba=False, quoting=False, base=None):
    """Label the texts of a file.

    Parameters
    ----------
    model : folder of a classifier
    records : Records of the file; an empty cell in the text column is an empty text
    text_column : str, or None for the column that the model was trained with
    out : path of a .csv, .tsv or .jsonl file to write, with all columns of `records` followed by the predictions; or
        None
    proba : bool, whether to write the probability of every class, not just of the predicted one
    quoting : bool, for a TSV file; see `format_records`
    base : the new folder of the model's base if the base has moved, or None

    Returns
    -------
    texts : list of N str
    labels : list of K str
    probabilities : (N, K)

    Raises
    ------
    ValueError
        If `out` has an unsupported suffix, is one of the input files, or has a format that cannot store the columns.
        This is checked before the model is read.
    """
    if out is not None:
        suffix = table_suffix("out", out)
        check_file(out, "out", [records.path, *task_places(model, base)])
        format_records(records.columns, records.rows, suffix, quoting)  # raises if the format cannot store the columns
    texts = column_for(model, records, "text_column", text_column)
    classifier = load_classifier(model, base)
    with naming_model(model):
        probabilities = class_probabilities(classifier, texts, progress="predict")
    if out is not None:
        columns = prediction_columns(records.columns, classifier.labels if proba else ())
        rows = []
        for row, p in zip(records.rows, probabilities):
            values = [classifier.labels[p.argmax()], *(round(float(x), 6) for x in (p.max(), *p))]
            rows.append(row | dict(zip(columns, values)))  # without `proba` there are two columns
        write_text(out, format_records([*records.columns, *columns], rows, suffix, quoting))
    return texts, classifier.labels, probabilities


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
    model, quoting, base : see `label_records`
    data : path of a CSV, TSV or JSONL file
    text_column, label_column : str, or None for the columns that the model was trained with
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
    texts, labels = labelled_texts(model, data, text_column, label_column, quoting)
    classifier = load_classifier(model, base)
    true = encode_labels(labels, classifier.labels)
    with naming_model(model):
        predicted = class_probabilities(classifier, texts, progress="evaluate").argmax(axis=1)
    report = class_report(classifier.labels, true, predicted, texts=texts)
    if picture is not None:
        write_atomically(picture, confusion_picture(report))
    return report


def labelled_texts(model, data, text_column=None, label_column=None, quoting=False):
    """Return the texts and the labels of a file; the parameters are those of `judge_file`."""
    records = read_records(data, quoting)
    texts = column_for(model, records, "text_column", text_column)
    return texts, [label.strip() for label in column_for(model, records, "label_column", label_column)]


def column_for(model, records, name, column=None):
    """Return a file's texts or labels, by default from the column that the model was trained with.

    Texts may be empty; a warning reports the number of empty texts. Raises ValueError if there is no such column, or if
    `column` is None and the model's task.json names no column.
    """
    if column is None:
        folder, about = read_task(model)
        if name not in about:
            raise ValueError(f"{name}: is missing, and {folder / 'task.json'} names no column; give the column's name")
        column = about[name]
    values = column_of(records, column, name, empty=name == "text_column")
    if "" in values and records.path != NO_FILE:
        place = records.places[values.index("")]
        warnings.warn(f"{records.path}: empty texts: {values.count('')}, the first in {place}", stacklevel=2)
    return values
