"""Teaching a language model a domain: in full or with LoRA, from a token stream or from a user's own text file."""

import math
from dataclasses import replace
from pathlib import Path

from ..adapters import AdapterConfig, init_adapter, trainable_report
from ..data import encode, language_batches, read_texts, token_stream
from ..formats import PRETRAINED, Task, check_folder, load_model, save_task, tokenizer_of
from ..training import AdamW, TrainConfig, attach, blas_threads, evaluate, model_objective, stream, train
from .progress import progress_bar

METHODS = ("lora", "full")
DEFAULT_LEARNING_RATE = {"lora": 4e-3, "full": 4e-4}
DEFAULT_ADAPTER = AdapterConfig(r=8, alpha=16.0, targets=("all-linear",))
EVALUATION_BATCH = 16  # windows at once where nothing is trained
TRAIN, VALIDATION = 0.8, 0.1  # shares of a text file, from its beginning; the rest is the test part


def language_loss(params, config, tokens, adapter=None):
    """Mean loss over a token stream in nats per token, in windows of n_positions tokens; its exp is the perplexity."""
    batches = language_batches(tokens, EVALUATION_BATCH, config.n_positions)
    return evaluate(params, batches, config, adapter)["loss"]


def train_language(
    params,
    config,
    adapter_config,
    tokens,
    validation,
    *,
    learning_rate,
    epochs,
    batch_size=16,
    seed=0,
    also=None,
    on_step=None,
):
    """Train a language model, or an adapter of it, on a token stream.

    Parameters
    ----------
    params, config : the language model to start from
    adapter_config : AdapterConfig, or None to train the whole model
    tokens, validation : (N,) integers; the second chooses the best weights, twice an epoch
    learning_rate : float, the peak
    epochs, batch_size, seed : int; a batch is of windows of n_positions tokens
    also : function (params, adapter) -> dict of floats to note at each evaluation, or None
    on_step : see `train`

    Returns
    -------
    TrainState
    """
    trainable = params
    if adapter_config is not None:
        trainable = init_adapter(params, adapter_config, stream(seed, "adapter")).weights

    def epoch_batches(rng):
        return list(language_batches(tokens, batch_size, config.n_positions, rng))

    def scores(arrays):
        model, adapter = attach(params, adapter_config, arrays)
        more = also(model, adapter) if also is not None else {}
        return {"loss": language_loss(model, config, validation, adapter), **more}

    steps_per_epoch = len(epoch_batches(stream(seed, "shuffle", 0)))
    settings = TrainConfig(
        steps=epochs * steps_per_epoch,
        learning_rate=learning_rate,
        warmup_steps=steps_per_epoch // 4,
        optimiser=AdamW(weight_decay=0.01),
        eval_every=max(1, steps_per_epoch // 2),
        seed=seed,
    )
    with blas_threads(1):
        objective = model_objective(params, config, adapter_config)
        return train(trainable, objective, epoch_batches, settings, scores, on_step)


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
    adapter_config : AdapterConfig of LoRA; None: rank 8 on all linear layers
    learning_rate : float; None: the method's default
    epochs, batch_size, seed : int
    base : folder of the language model to start from
    dropout : float, while training

    Returns
    -------
    dict: tokens of each part, test perplexity before and after, trainable parameters
    """
    if method not in METHODS:
        raise ValueError(f"method: got {method!r}, expected one of {', '.join(METHODS)}")
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
    check_folder(out, "out")
    if Path(out).resolve() == Path(base).resolve():
        raise ValueError(f"out: {out} holds the base itself; expected another folder")
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
    if method == "full":
        adapter_config = None
    elif adapter_config is None:
        adapter_config = DEFAULT_ADAPTER
    steps = epochs * len(list(language_batches(training, batch_size, config.n_positions, stream(seed, "shuffle", 0))))
    learning_rate = DEFAULT_LEARNING_RATE[method] if learning_rate is None else learning_rate
    with progress_bar(steps, f"fine-tuning ({method})") as on_step:
        state = train_language(
            params,
            config,
            adapter_config,
            training,
            validation,
            learning_rate=learning_rate,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            on_step=on_step,
        )
    model, adapter = attach(params, adapter_config, state.best)
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
