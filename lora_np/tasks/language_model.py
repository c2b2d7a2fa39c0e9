"""A user's own text: teach a language model its dialect, and save the adapter."""

import math
from dataclasses import replace

from ..adapters import AdapterConfig, on_given_base, start_adapter, trainable_report
from ..data import encode, read_texts, token_stream
from ..formats import PRETRAINED, Task, load_model, save_task, tokenizer_of
from ..training import attach, blas_threads, language_loss, stream, train_language
from .classifier import check_settings, check_start

METHODS = ("lora", "full")
DEFAULT_LEARNING_RATE = {"lora": 4e-3, "full": 4e-4}
DEFAULT_ADAPTER = AdapterConfig(r=8, alpha=16.0, targets=("all-linear",))
TRAIN, VALIDATION = 0.8, 0.1  # shares of a text file, from its beginning; the rest is the test part


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
):
    """Teach a language model a user's own text, and save the adapter (or, in full, the model).

    The first eight tenths of the file are trained on, the next chooses the best weights, the last is the test.

    Parameters
    ----------
    text_file : path of a UTF-8 text; see `read_texts`
    out : folder to write
    method : "lora" or "full"
    adapter_config : AdapterConfig of LoRA or of a variant; None: LoRA of rank 8 on all linear layers. See `finetune`
    learning_rate : float; None: the method's default
    epochs, batch_size, seed : int
    base : folder of the language model to start from
    dropout : float, while training

    Returns
    -------
    dict: tokens of each part, test perplexity before and after, trainable parameters
    """
    check_settings(method, METHODS, epochs, batch_size, out, base)
    if method == "full":
        adapter_config = None
    else:
        adapter_config = adapter_config or DEFAULT_ADAPTER
        check_start(adapter_config)
    texts = read_texts(text_file)
    params, config = load_model(base)
    if config.n_classes:
        raise ValueError(f"base: {base} holds a classifier, expected a language model")
    config = replace(config, dropout=dropout)
    tokenizer = tokenizer_of(base, config)
    tokens = token_stream(encode(tokenizer, texts))
    ends = [0, int(TRAIN * len(tokens)), int((TRAIN + VALIDATION) * len(tokens)), len(tokens)]
    if ends[1] <= config.n_positions or ends[2] - ends[1] < 2:
        needed = math.ceil((config.n_positions + 1) / TRAIN)
        raise ValueError(f"text_file: {text_file} has {len(tokens)} tokens, expected at least {max(needed, 20)}")
    training, validation, test = (tokens[start:end] for start, end in zip(ends, ends[1:]))
    learning_rate = DEFAULT_LEARNING_RATE[method] if learning_rate is None else learning_rate
    base_params, start = params, None
    if adapter_config is not None:
        base_params, start = start_adapter(params, adapter_config, stream(seed, "adapter"))
    state = train_language(
        base_params,
        config,
        start,
        training,
        validation,
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        label=f"fine-tuning ({method})",
    )
    model, adapter = attach(base_params, start, state.best)
    if adapter is not None:
        model, adapter = params, on_given_base(params, start, adapter)
    report = trainable_report(params, state.best)
    with blas_threads(1):
        before, after = language_loss(params, config, test), language_loss(model, config, test, adapter)
    result = {
        "method": method,
        "tokens": {"train": len(training), "validation": len(validation), "test": len(test)},
        "test_perplexity_before": math.exp(before),
        "test_perplexity": math.exp(after),
        "learning_rate": learning_rate,
        "trainable": report.trainable,
        "percent": report.percent,
    }
    save_task(out, Task(model, config, adapter, tokenizer, None), base, result)
    return result
