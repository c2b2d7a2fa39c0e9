"""Your own text: fine-tune a language model on it, and save the adapter."""

import math

from ..adapters import AdapterConfig
from ..data import encode, model_files, read_texts, token_stream
from ..formats import PRETRAINED, Task, save_task
from ..training import blas_threads, language_loss, language_training, train
from .resuming import resumable
from .start import announce, answers_of, end_training, load_base, silent, start_training, training_settings

METHODS = {"lora": (4e-3, AdapterConfig(targets=("all-linear",))), "full": (4e-4, None)}  # as in classifier.py
TRAIN, VALIDATION = 0.8, 0.1  # shares of a text file, from its start; the rest is the test part


def finetune_text(
    text_file,
    out,
    method="lora",
    adapter_config=None,
    learning_rate=None,
    epochs=4,
    batch_size=16,
    seed=0,
    base=PRETRAINED,
    dropout=0.0,
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
    adapter_config : AdapterConfig of LoRA or a variant; None: LoRA of rank 8 on all linear layers
    learning_rate, epochs, batch_size, seed, base, dropout, report : as in `finetune`

    Returns
    -------
    dict: tokens of each part, test perplexity before and after, trainable parameters
    """
    adapter_config, settings = training_settings(
        METHODS, method, learning_rate, adapter_config, epochs, batch_size, seed, out, (base, text_file)
    )
    params, config, tokenizer = load_base(base, dropout, adapter_config)
    if config.n_classes:
        raise ValueError(f"base: {base} is a classifier, expected a language model")
    tokens = token_stream(encode(tokenizer, read_texts(text_file)))
    ends = [0, int(TRAIN * len(tokens)), int((TRAIN + VALIDATION) * len(tokens)), len(tokens)]
    if ends[1] <= config.n_positions or ends[2] - ends[1] < 2:
        needed = math.ceil((config.n_positions + 1) / TRAIN)
        raise ValueError(f"text_file: {text_file} has {len(tokens)} tokens, expected at least {max(needed, 20)}")
    training, validation, test = (tokens[first:last] for first, last in zip(ends, ends[1:]))
    frozen, start = start_training(params, adapter_config, seed)
    given = language_training(frozen, config, start, training, validation, **settings)
    facts = {"method": method, "adapter": adapter_config, "model": config, **settings}
    announce(report, out, params, config, start, given, batch_size, config.n_positions)
    with blas_threads(1), answers_of(base):
        before = perplexity(language_loss(params, config, test))
    with resumable(out, given, base, [training, validation, test], facts, report) as more:
        state = train(**given, **more)
        model, adapter, trained = end_training(params, frozen, start, state)
        with blas_threads(1):
            after = perplexity(language_loss(model, config, test, adapter))
        result = {
            "method": method,
            "tokens": {"train": len(training), "validation": len(validation), "test": len(test)},
            "test_perplexity_before": before,
            "test_perplexity": after,
            "learning_rate": settings["learning_rate"],
            **trained,
        }
        save_task(out, Task(model, config, adapter, tokenizer, None, model_files(base)), base, result)
    return result


def perplexity(loss):
    """e to the loss in nats per token; FloatingPointError if no float can hold it."""
    if not loss < 700:
        raise FloatingPointError(f"the perplexity, e to the {loss:.4g}, is too large")
    return math.exp(loss)
