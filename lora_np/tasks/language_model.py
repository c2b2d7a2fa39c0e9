"""Your own text: fine-tune a language model on it, and save the adapter."""

import math

from ..adapters import AdapterConfig
from ..data import encode, read_texts, token_stream
from ..formats import PRETRAINED, model_place, save_task
from ..training import blas_threads, language_loss, language_training, train
from .resuming import resumable
from .start import (
    Defaults,
    announce,
    answers_of,
    computing,
    end_training,
    is_large,
    load_base,
    most_tokens,
    silent,
    start_training,
    training_settings,
)

ALL = ("all-linear",)
SMALL_BASE = Defaults({"lora": (4e-3, AdapterConfig(targets=ALL)), "full": (4e-4, None)}, 4, 16)
LARGE_BASE = Defaults({"lora": (5e-4, AdapterConfig(4, 8.0, targets=ALL)), "full": (5e-5, None)}, 1, 8)
WINDOW = 256  # tokens that a large model reads at a time, unless more are wanted
TRAIN, VALIDATION = 0.8, 0.1  # shares of a text file, from its start; the rest is the test part


def finetune_text(
    text_file,
    out,
    method="lora",
    adapter_config=None,
    learning_rate=None,
    epochs=None,
    batch_size=None,
    seed=0,
    base=PRETRAINED,
    dropout=0.0,
    weights="dense",
    recompute=False,
    threads=None,
    max_tokens=None,
    report=silent,
):
    """Fine-tune a language model on a text, and save the adapter or, for "full", the model.

    The first eight tenths of the file are the training part, the next tenth chooses the best weights, and the last
    tenth is the test part.

    Parameters
    ----------
    text_file : path of a UTF-8 text; see `read_texts`
    out : folder to write
    method : "lora" or "full"
    adapter_config : AdapterConfig of LoRA or a variant; None: LoRA on all linear layers, of rank 8, or of rank 4 for a
        large base
    max_tokens : int, of a window, the piece of text that is read at a time. None: n_positions, or for a large base 256
    learning_rate, epochs, batch_size, seed, base, dropout, weights, recompute, threads, report : as in `finetune`

    Returns
    -------
    dict: tokens of each part, test perplexity before and after, trainable parameters
    """
    base = model_place(base)
    defaults = LARGE_BASE if is_large(base) else SMALL_BASE
    adapter_config, settings = training_settings(
        defaults, method, learning_rate, adapter_config, epochs, batch_size, seed, out, (base, text_file)
    )
    model = load_base(base, dropout, adapter_config, weights)
    params, config = model.params, model.config
    if config.n_classes:
        raise ValueError(f"base: {base} is a classifier, expected a language model")
    length = most_tokens(config, base, WINDOW if max_tokens is None and is_large(base) else max_tokens)
    tokens = token_stream(encode(model.tokenizer, read_texts(text_file)))
    ends = [0, int(TRAIN * len(tokens)), int((TRAIN + VALIDATION) * len(tokens)), len(tokens)]
    if ends[1] <= length or ends[2] - ends[1] < 2:
        needed = math.ceil((length + 1) / TRAIN)
        raise ValueError(f"text_file: {text_file} has {len(tokens)} tokens, expected at least {max(needed, 20)}")
    training, validation, test = (tokens[first:last] for first, last in zip(ends, ends[1:]))
    settings |= computing(base, settings["batch_size"], length, threads, recompute)
    reading = {"length": length, "threads": settings["threads"]}
    with blas_threads(1), answers_of(base):
        before = perplexity(language_loss(params, config, test, **reading))
    frozen, start = start_training(params, adapter_config, seed)
    given = language_training(frozen, config, start, training, validation, length=length, **settings)
    facts = {"method": method, "adapter": adapter_config, "model": config, "weights": weights, **settings}
    announce(report, params, config, start, given, settings["batch_size"], length)
    with resumable(out, given, base, [training, validation, test], facts, report) as more:
        state = train(**given, **more)
        params, adapter, trained = end_training(params, frozen, start, state)
        with blas_threads(1):
            after = perplexity(language_loss(params, config, test, adapter, **reading))
        result = {
            "method": method,
            "tokens": {"train": len(training), "validation": len(validation), "test": len(test)},
            "test_perplexity_before": before,
            "test_perplexity": after,
            "learning_rate": settings["learning_rate"],
            **trained,
        }
        save_task(out, model._replace(params=params, adapter=adapter), base, result)
    return result


def perplexity(loss):
    """e to the loss in nats per token; FloatingPointError if no float can hold it."""
    if not loss < 700:
        raise FloatingPointError(f"the perplexity, e to the {loss:.4g}, is too large")
    return math.exp(loss)
