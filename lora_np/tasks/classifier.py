"""Your own classification task: train on a table, save the result, and apply it to new texts."""

import numpy as np

from ..adapters import AdapterConfig
from ..checked import one_of, quoted
from ..data import (
    class_batches,
    encode,
    encode_labels,
    label_names,
    pad_id,
    read_table,
    split_table,
    text_digest,
    truncate,
)
from ..formats import PRETRAINED, Task, load_task, model_place, save_task
from ..model import add_head, predict_logits
from ..ops import softmax_forward
from ..training import (
    answer_training,
    blas_threads,
    classifier_training,
    shard_threads,
    stream,
    train,
    worthwhile_threads,
)
from .baseline import word_classifier
from .report import class_report, confusion_picture
from .resuming import resumable
from .start import (
    Defaults,
    announce,
    computing,
    end_training,
    is_large,
    load_base,
    most_tokens,
    passes,
    silent,
    start_training,
    training_settings,
)
from .words import answer_ids, answer_probabilities, answer_rows, prompt_ids
from .writing import end_ids

ALL, HEAD_ALONE = ("all-linear",), AdapterConfig(targets=())
SMALL_BASE = Defaults(
    {"lora": (2e-3, AdapterConfig(targets=ALL)), "full": (5e-4, None), "head": (1e-2, HEAD_ALONE)}, 4, 32
)
LARGE_BASE = Defaults(
    {"lora": (1e-3, AdapterConfig(4, 8.0, targets=ALL)), "full": (1e-4, None), "head": (4e-3, HEAD_ALONE)}, 1, 16
)
CLASS_WEIGHTS = ("none", "balanced")
WORD = r"\w+|[^\w\s]"  # a word or a mark, so that no text is without one
EVALUATION_BATCH = 32  # rows at once when nothing is trained; small arrays stay in the processor's cache
FRACTIONS = (0.8, 0.1, 0.1)  # training, validation, test
FRACTIONS_WITHOUT_TEST = (0.9, 0.1, 0.0)  # if the test part is a file of its own


def finetune(
    data,
    text_column,
    label_column,
    out,
    method="lora",
    adapter_config=None,
    learning_rate=None,
    epochs=None,
    batch_size=None,
    seed=0,
    base=PRETRAINED,
    dropout=0.0,
    test_data=None,
    class_weights="none",
    quoting=False,
    as_words=None,
    weights="dense",
    recompute=False,
    threads=None,
    max_tokens=None,
    report=silent,
):
    """Train a classifier on a table of texts and labels, and save it.

    The rows are split into a training, a validation (which chooses the best weights) and a test part. "lora" and
    "head" save only the adapter, a few kilobytes; "full" saves the whole model. Beside it are `task.json`, with
    all that is returned, and `confusion.png`.

    Parameters
    ----------
    data : path of a CSV, TSV or JSONL file
    text_column, label_column : str
    out : folder to write
    method : "lora", "full" or "head"
    adapter_config : AdapterConfig of LoRA or a variant; None: LoRA on all linear layers, of rank 8, or of rank 4 for a
        large base. PiSSA and OLoRA are saved as LoRA of twice the rank, which fits the unchanged base
    learning_rate, epochs, batch_size : float, int, int; None: the method's and the base's defaults
    seed : int
    base : the model to start from, see `lora_np.formats.read_model`
    dropout : float, during training
    test_data : path of a file with the same columns to test on; rows of `data` whose text is also in it are left
        out. None: test on a tenth of `data`
    class_weights : "none", or "balanced": a training or validation text of class c counts n / (n_classes n_c) in the
        loss, with the n_c of n training texts that have its class, so that all classes count the same. So the best
        weights are those with the lowest balanced loss
    quoting : bool, of a TSV; see `read_records`
    as_words : str, a question such as "\\nLabel:". The language model's own head is trained to answer it after each
        text with the label, and there is no new head. None: a new head
    weights : "dense", or "blocks" to leave a GGUF file's weights in their blocks; see `lora_np.formats.read_model`
    recompute : bool, less memory for more time; see `lora_np.model.forward`
    threads : int; None: one, or for a large base all cores
    max_tokens : int, of a text; longer ones are cut. None: n_positions, or for a large base at most 512
    report : function of a line of text about the training, called before it

    Returns
    -------
    dict: labels, rows of each part, number of texts longer than max_tokens, trainable parameters, "validation"
        (step, loss and accuracy of every evaluation), validation and test accuracy, share of the commonest label in
        the test part, and "test", a `class_report`, in which "tf-idf" is logistic regression on words, trained on the
        same rows (absent without scikit-learn)
    """
    one_of("class_weights", class_weights, CLASS_WEIGHTS)
    if as_words is not None and (class_weights != "none" or method == "head" or not as_words.strip()):
        raise ValueError("as_words: expected a question, and no class weights and no method 'head', which need a head")
    base = model_place(base)
    sources = [path for path in (base, data, test_data) if path is not None]
    defaults = LARGE_BASE if is_large(base) else SMALL_BASE
    adapter_config, settings = training_settings(
        defaults, method, learning_rate, adapter_config, epochs, batch_size, seed, out, sources
    )
    model = load_base(base, dropout, adapter_config, weights)
    config, tokenizer, longest = model.config, model.tokenizer, most_tokens(model.config, base, max_tokens)
    table = read_table(data, text_column, label_column, quoting)
    n_rows = len(table.texts)
    if test_data is None:
        splits = split_table(table, FRACTIONS, seed)
    else:
        test = read_table(test_data, text_column, label_column, quoting)
        table = without_texts(table, test.texts)
        if not table.texts:
            raise ValueError(f"test_data: every text of {data} is also in {test_data}; nothing is left to train on")
        splits = split_table(table, FRACTIONS_WITHOUT_TEST, seed)._replace(test=test)
    labels = label_names(splits.train.labels)
    pad, longer, encoded = pad_id(tokenizer), 0, []
    for split in splits:
        longer += sum(len(ids) > longest for ids in encode(tokenizer, split.texts))
        cut = sequences_of(model._replace(max_tokens=longest, question=as_words), split.texts)
        encoded.append((cut, encode_labels(split.labels, labels)))
    training, validation, test = encoded
    params = model.params
    if as_words is None:
        params, config = add_head(params, config, len(labels), stream(seed, "head"))
    elif config.n_classes:
        raise ValueError(f"base: {base} is a classifier, expected a language model, which can answer in words")
    frozen, start = start_training(params, config, adapter_config, seed)
    settings |= passes(base, epochs, settings["batch_size"], len(training[0]))
    settings |= computing(base, settings["batch_size"], max(map(len, training[0])), threads, recompute)
    if as_words is None:
        balance = balanced_weights(training[1]) if class_weights == "balanced" else None
        batches = class_batches(*validation, EVALUATION_BATCH, pad)
        given = classifier_training(frozen, config, start, training, batches, pad, class_weights=balance, **settings)
    else:
        answers = answer_ids(tokenizer, labels, end_ids(model))
        rows = [answer_rows(*part, answers) for part in (training, validation)]
        given = answer_training(frozen, config, start, *rows, pad, **settings)
    facts = {"method": method, "adapter": adapter_config, "model": config, "class_weights": class_weights, **settings}
    facts |= {"weights": weights, "question": as_words}
    data = [array for split in encoded for array in split]
    announce(report, params, config, start, given, settings["batch_size"], max(map(len, training[0])))
    with resumable(out, given, base, data, facts, report) as more:
        state = train(**given, **more)
        params, adapter, trained = end_training(params, frozen, start, state)
        task = Task(params, config, adapter, tokenizer, labels, model.files, longest, as_words)
        others = word_answers(splits, training[1], validation[1], class_weights)
        test_report = class_report(labels, test[1], class_probabilities(task, splits.test.texts).argmax(axis=1), others)
        rows = {name: len(split.texts) for name, split in zip(splits._fields, splits)}
        measures = [name for name in ("step", "loss", "accuracy") if f"eval_{name}" in state.history]
        result = {
            "method": method,
            "labels": labels,
            "text_column": text_column,
            "label_column": label_column,
            "rows": {**rows, "left_out": n_rows - len(table.texts)},
            "longer_texts": longer,
            "max_tokens": longest,
            "question": as_words,
            # of the saved weights, which have the lowest validation loss
            "validation_accuracy": accuracy_of(task, state.history, splits.validation.texts, validation[1]),
            "test_accuracy": test_report["accuracy"],
            "commonest_label_share": test_report["commonest_share"],
            "learning_rate": settings["learning_rate"],
            "class_weights": class_weights,
            **trained,
            "validation": {name: state.history[f"eval_{name}"].tolist() for name in measures},
            "test": test_report,
        }
        try:
            pictures = {"confusion.png": confusion_picture(test_report)}
        except ModuleNotFoundError:  # without matplotlib
            pictures = {}
        save_task(out, task, base, result, beside=pictures)
    return result


def accuracy_of(task, history, texts, classes):
    """The accuracy on the validation part of the weights with the lowest loss on it."""
    if "eval_accuracy" in history:
        return float(history["eval_accuracy"][history["eval_loss"].argmin()])
    return float(np.mean(class_probabilities(task, texts).argmax(axis=1) == classes))


def sequences_of(classifier, texts):
    """The ids of each text as a classifier reads it, at most max_tokens: with the question behind, if it has one."""
    tokenizer, longest = classifier.tokenizer, classifier.max_tokens or classifier.config.n_positions
    if classifier.question is not None:
        return prompt_ids(tokenizer, texts, classifier.question, longest)
    return without_padding(truncate(tokenizer, encode_whole(tokenizer, texts), longest), classifier.config)


def without_padding(sequences, config):
    """The ids of each text up to the last one that is not `pad_token_id`, if an imported model has such a field.

    A classifier answers at the last token, and for transformers every token with that id at the end is padding.
    """
    pad = config.extra.get("pad_token_id")
    if pad is None:
        return sequences
    return [ids[: np.append(0, np.flatnonzero(ids != pad))[-1] + 1] for ids in sequences]


def balanced_weights(classes):
    """The weight n / (K n_c) of each of K classes, (K,), by how many n_c of n texts have it; as scikit-learn's."""
    counts = np.bincount(classes)
    return len(classes) / (len(counts) * counts)


def word_answers(splits, training, validation, class_weights):
    """What logistic regression on tf-idf weights answers to the test part: {"tf-idf": classes}.

    `splits` are those of `finetune`; training and validation are the classes of the first two. Without scikit-learn
    the dict is empty.
    """
    train, tuning = (splits.train.texts, training), (splits.validation.texts, validation)
    class_weight = None if class_weights == "none" else class_weights
    try:
        with blas_threads(1):
            words = word_classifier(train, tuning, WORD, (True,), (1, 10, 100), class_weight)
    except ModuleNotFoundError:
        return {}
    return {"tf-idf": words.predict(splits.test.texts)}


def without_texts(table, texts):
    """The rows of a table whose text is not one of these, ignoring case and spacing."""
    seen = {text_digest(text) for text in texts}
    rows = [row for row in zip(*table) if text_digest(row[0]) not in seen]
    return table._replace(texts=[text for text, _ in rows], labels=[label for _, label in rows])


def encode_whole(tokenizer, texts):
    """Token ids of each text, at least one: a classifier reads a text's last token.

    An empty text has one if the tokenizer puts a token around each text. Where it does not, we invent none:
    transformers fails there too.
    """
    sequences = encode(tokenizer, texts)
    for row, (text, ids) in enumerate(zip(texts, sequences)):
        if not len(ids):
            reason = "has no tokens, and this model's tokenizer puts none around a text"
            raise ValueError(f"text {row}: got {quoted(text, 100)}, which {reason}; leave the text out")
    return sequences


def load_classifier(folder, base=None):
    """Read a classifier that `finetune`, `import` or `merge` saved; see `load_task`.

    Raises ValueError for a language model.
    """
    task = load_task(folder, base)
    if task.labels is None:
        raise ValueError(f"{folder}: got a language model, expected a classifier; use `generate` to write with it")
    return task


def predict(classifier, texts):
    """The most probable label of each text, and its probability.

    Parameters
    ----------
    classifier : Task with labels
    texts : list of str; each is cut after the most tokens that the model was trained on

    Returns
    -------
    list of (label, probability), in the order of the texts

    Raises
    ------
    FloatingPointError
        If the model's logits are not finite.
    """
    return [(classifier.labels[p.argmax()], float(p.max())) for p in class_probabilities(classifier, texts)]


def class_probabilities(classifier, texts):
    """The probability of each class for each of N texts, (N, K); see `predict`."""
    params, config, adapter, tokenizer, labels, *_ = classifier
    sequences = sequences_of(classifier, texts)
    no_labels = np.zeros(len(texts), dtype=np.int64)
    batches = class_batches(sequences, no_labels, EVALUATION_BATCH, pad_id(tokenizer))
    probabilities = np.empty((len(sequences), len(labels)))
    with blas_threads(1), shard_threads(worthwhile_threads(params)) as run:
        if classifier.question is None:
            answers = (
                softmax_forward(logits)[0] for logits, _ in predict_logits(params, batches, config, adapter, run)
            )
        else:
            words = answer_ids(tokenizer, labels)
            answers = answer_probabilities(params, batches, config, adapter, words, run)
        for batch, of_batch in zip(batches, answers):
            probabilities[batch.rows] = of_batch  # (B, K)
    return probabilities
