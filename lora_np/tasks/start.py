"""What `finetune` and `finetune_text` share: checks, the model to start from, and the training."""

from dataclasses import replace

from ..adapters import AdapterConfig, on_given_base, start_adapter, trainable_report
from ..adapters.starts import STARTS
from ..checked import one_of, whole_number
from ..formats import check_folder, load_model, tokenizer_of
from ..training import attach, stream, train


def training_settings(rates, method, learning_rate, adapter_config, epochs, batch_size, seed, out, base):
    """Check the arguments of a fine-tuning before anything is read; return them for `train_and_report`.

    `rates` has the default learning rate of each method. The `adapter_config` of "full" becomes None.
    """
    one_of("method", method, rates)
    whole_number("epochs", epochs)
    whole_number("batch_size", batch_size)
    check_folder(out, "out", (base,))
    init, kind = adapter_config.init, adapter_config.kind
    if init == "loftq":
        raise ValueError("init: got 'loftq', which needs a quantised base; expected another init")
    if init in STARTS and kind != "lora":
        raise ValueError(f"init: {init!r} needs kind 'lora' here, got {kind!r}: see `on_given_base`")
    return {
        "method": method,
        "adapter_config": {"full": None, "head": AdapterConfig(targets=())}.get(method, adapter_config),
        "learning_rate": rates[method] if learning_rate is None else learning_rate,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
    }


def load_base(base, dropout):
    """The weights, configuration and tokenizer of the model to start from."""
    params, config = load_model(base)
    config = replace(config, dropout=dropout)
    return params, config, tokenizer_of(base, config)


def train_and_report(make_plan, params, config, *data, method, adapter_config, **settings):
    """Train a model, or an adapter of it, by `classifier_training` or `language_training` and their data.

    Returns
    -------
    params, adapter : the best weights, in a form that fits the unchanged base; the adapter may be None
    history : dict, see `train`
    facts : dict for the task's file
    """
    frozen, adapter = params, None
    if adapter_config is not None:
        frozen, adapter = start_adapter(params, adapter_config, stream(settings["seed"], "adapter"))
    state = train(**make_plan(frozen, config, adapter, *data, progress=f"fine-tuning ({method})", **settings))
    report = trainable_report(params, state.best)
    facts = {"learning_rate": settings["learning_rate"], "trainable": report.trainable, "percent": report.percent}
    trained, attached = attach(frozen, adapter, state.best)
    if adapter is not None:
        trained, attached = params, on_given_base(params, adapter, attached)
    return trained, attached, state.history, facts
