"""A user's own classification task: train on a table, save the result, apply it to new texts."""

from dataclasses import replace

import numpy as np

from ..adapters import AdapterConfig, on_given_base, start_adapter, trainable_report
from ..adapters.starts import STARTS
from ..data import (
    Table,
    class_batches,
    encode,
    encode_labels,
    label_names,
    pad_id,
    read_table,
    split_table,
    text_digest,
)
from ..formats import PRETRAINED, Task, check_folder, load_model, load_task, save_task, tokenizer_of
from ..model import add_head, predict_logits
from ..ops import softmax_forward
from ..training import attach, blas_threads, evaluate, stream, train_classifier

METHODS = ("lora", "full", "head")
DEFAULT_LEARNING_RATE = {"lora": 3e-3, "full": 5e-4, "head": 1e-2}
EVALUATION_BATCH = 32  # rows at once where nothing is trained; small arrays stay in the processor's cache
FRACTIONS = (0.8, 0.1, 0.1)  # training, validation, test
FRACTIONS_WITHOUT_TEST = (0.9, 0.1, 0.0)  # where the test part is a file of its own


def finetune(
    data,
    text_column,
    label_column,
    out,
    method="lora",
    adapter_config=None,
    learning_rate=None,
    epochs=4,
    batch_size=32,
    seed=0,
    base=PRETRAINED,
    dropout=0.0,
    test_data=None,
):
    """Train a classifier on a table of texts and labels, and save it.

    The rows are split into training, validation (which chooses the best weights) and test parts. For
    LoRA and head the folder holds the adapter alone, some kilobytes; for full the whole model. A text is
    read up to the base's n_positions tokens.

    Parameters
    ----------
    data : path of a CSV, TSV or JSONL file
    text_column, label_column : str
    out : folder to write
    method : "lora", "full" or "head"
    adapter_config : AdapterConfig of LoRA or of a variant; None: LoRA of rank 8 on q and v. What began with "pissa"
        or "olora" is saved as LoRA of twice the rank, which fits the base as it is
    learning_rate : float; None: the method's default
    epochs, batch_size, seed : int
    base : folder of the model to start from
    dropout : float, while training
    test_data : path of a file with the same columns to test on; rows of `data` with the same text as one of
        its are left out. None: a tenth of `data` is kept for testing.

    Returns
    -------
    dict: labels, rows of each part, how many texts are longer than n_positions tokens, validation and test
    accuracy, share of the commonest label in the test part, trainable parameters
    """
    check_settings(method, METHODS, epochs, batch_size, out, base)
    if method == "full":
        adapter_config = None
    else:
        adapter_config = AdapterConfig(targets=()) if method == "head" else adapter_config or AdapterConfig()
        check_start(adapter_config)
    table = read_table(data, text_column, label_column)
    n_rows = len(table.texts)
    if test_data is None:
        parts = split_table(table, FRACTIONS, seed)
    else:
        test = read_table(test_data, text_column, label_column)
        table = without_texts(table, test.texts)
        if not table.texts:
            raise ValueError(f"test_data: every text of {data} is in {test_data} too; nothing is left to train on")
        parts = split_table(table, FRACTIONS_WITHOUT_TEST, seed)._replace(test=test)
    labels = label_names(parts.train.labels)
    params, config = load_model(base)
    config = replace(config, dropout=dropout)
    tokenizer = tokenizer_of(base, config)
    pad = pad_id(tokenizer)
    longer, encoded = 0, []
    for part in parts:
        sequences = encode(tokenizer, part.texts, config.n_positions + 1)
        longer += sum(len(ids) > config.n_positions for ids in sequences)
        encoded.append(([ids[: config.n_positions] for ids in sequences], encode_labels(part.labels, labels)))
    (train_ids, train_labels), validation, test = encoded
    params, config = add_head(params, config, len(labels), stream(seed, "head"))
    base_params, start = params, None
    if adapter_config is not None:
        base_params, start = start_adapter(params, adapter_config, stream(seed, "adapter"))
    learning_rate = DEFAULT_LEARNING_RATE[method] if learning_rate is None else learning_rate
    state = train_classifier(
        base_params,
        config,
        start,
        (train_ids, train_labels),
        class_batches(*validation, EVALUATION_BATCH, pad),
        pad,
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        label=f"fine-tuning ({method})",
    )
    model, adapter = attach(base_params, start, state.best)
    test_score = evaluate(model, class_batches(*test, EVALUATION_BATCH, pad), config, adapter)
    report = trainable_report(params, state.best)
    test_labels = encode_labels(parts.test.labels, labels)
    result = {
        "method": method,
        "labels": labels,
        "rows": {
            **{name: len(part.texts) for name, part in zip(parts._fields, parts)},
            "left_out": n_rows - len(table.texts),
        },
        "longer_texts": longer,
        "n_positions": config.n_positions,
        # of the weights that are kept, which are those of the lowest validation loss
        "validation_accuracy": float(state.history["eval_accuracy"][state.history["eval_loss"].argmin()]),
        "test_accuracy": test_score["accuracy"],
        "commonest_label_share": float(np.bincount(test_labels).max() / len(test_labels)),
        "learning_rate": learning_rate,
        "trainable": report.trainable,
        "percent": report.percent,
    }
    if adapter is not None:
        model, adapter = params, on_given_base(params, start, adapter)
    save_task(out, Task(model, config, adapter, tokenizer, labels), base, result)
    return result


def check_settings(method, methods, epochs, batch_size, out, base):
    """Refuse before anything is read what a fine-tuning could not do."""
    if method not in methods:
        raise ValueError(f"method: got {method!r}, expected one of {', '.join(methods)}")
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
    check_folder(out, "out", (base,))


def check_start(adapter_config):
    """Refuse before the training a start whose adapter could not be saved as one for the base that was given."""
    init, kind = adapter_config.init, adapter_config.kind
    if init == "loftq":
        raise ValueError("init: got 'loftq', whose adapter goes with a quantised base; expected another start")
    if init in STARTS and kind != "lora":
        raise ValueError(f"init: {init!r} goes with kind 'lora' here, got {kind!r}: see `on_given_base`")


def without_texts(table, texts):
    """The rows of a table whose text is not one of these, whatever their case and spacing."""
    seen = {text_digest(text) for text in texts}
    kept = [row for row in zip(*table) if text_digest(row[0]) not in seen]
    return Table([text for text, _ in kept], [label for _, label in kept])


def load_classifier(folder):
    """Read what `finetune` saved, or `import` or `merge` made of a classifier.

    Parameters
    ----------
    folder : the task's folder

    Returns
    -------
    Task with labels

    Raises
    ------
    FileNotFoundError, ValueError
        See `load_task`; and for a language model.
    """
    task = load_task(folder)
    if task.labels is None:
        raise ValueError(f"{folder}: holds a language model, expected a classifier; `generate` writes with it")
    return task


def predict(classifier, texts):
    """The label of each text and how probable the model finds it.

    Parameters
    ----------
    classifier : Task with labels
    texts : list of str; each is read up to the model's n_positions tokens

    Returns
    -------
    list of (label, probability), in the order of the texts
    """
    params, config, adapter, tokenizer, labels = classifier
    sequences = encode(tokenizer, texts, config.n_positions)
    no_labels = np.zeros(len(texts), dtype=np.int64)
    batches = class_batches(sequences, no_labels, EVALUATION_BATCH, pad_id(tokenizer))
    found = [None] * len(texts)
    with blas_threads(1):
        for batch, (logits, _) in zip(batches, predict_logits(params, batches, config, adapter)):
            probs, _ = softmax_forward(logits)  # (B, n_classes)
            for row, p in zip(batch.rows, probs):
                found[row] = (labels[p.argmax()], float(p.max()))
    return found
