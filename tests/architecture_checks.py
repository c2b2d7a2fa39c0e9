"""What an architecture can do from its record alone, checked on ones that tests define."""

from dataclasses import replace
from functools import partial

import numpy as np

from lora_np.adapters import AdapterConfig, adapter_deltas
from lora_np.analysis import step_bytes, step_flops
from lora_np.cli import main
from lora_np.data import model_files
from lora_np.formats import PRETRAINED, load_model, load_peft, load_task, save_model
from lora_np.model import forward, initial_params, loss_and_gradients
from lora_np.ops.numerical_gradient import numerical_gradient, relative_error

from .tiny import random_adapter, random_batch, random_params, same_bits

KINDS = (None, "lora", "dora")  # of adapters; None trains the whole model


def check_gradients(config, seed):
    """Every gradient of the model, of LoRA and of DoRA against central differences, with and without recomputing."""
    params, batch = random_params(config, seed=seed), random_batch(config, T=4, seed=seed)
    loss_and_grads = partial(loss_and_gradients, batch=batch, config=config)
    for kind in KINDS:
        settings = {"kind": kind, "train_head": False, "norm_gradient": kind == "dora"}
        adapter = None if kind is None else random_adapter(params, seed, **settings)
        objective = model_objective(loss_and_grads, params, adapter)
        trained = params if adapter is None else adapter.weights
        grads = [objective(trained, wanted=tuple(trained), recompute=recompute).grads for recompute in (False, True)]
        assert same_bits(*grads) and grads[0].keys() == trained.keys()
        measured = {n: numerical_gradient(partial(loss_with, objective, trained, n), a) for n, a in trained.items()}
        got, expected = (np.concatenate([each[name].ravel() for name in trained]) for each in (grads[0], measured))
        assert relative_error(got, expected) < 1e-7


def model_objective(loss_and_grads, params, adapter):
    """The loss and gradients as a function of the trained arrays."""
    if adapter is None:
        return loss_and_grads
    return lambda trained, **settings: loss_and_grads(params, adapter=adapter._replace(weights=trained), **settings)


def loss_with(objective, trained, name, array):
    return objective({**trained, name: array}).loss


def check_padding(config):
    """Neither the ids of padding nor the other rows change a classifier's answer."""
    params, batch = random_params(config), random_batch(config, T=5)
    logits, _ = forward(params, batch.ids, config, lengths=batch.lengths)
    for row, (ids, n) in enumerate(zip(batch.ids, batch.lengths)):
        alone, _ = forward(params, ids[None, :n], config)
        np.testing.assert_allclose(logits[row], alone[0], rtol=0, atol=1e-12)


def check_costs(config):
    """FLOPs and bytes are counted; LoRA saves some of both."""
    lora = AdapterConfig(r=1, targets=("all-linear",))
    full, part = (sum(step_flops(config, 2, 5, adapter).values()) for adapter in (None, lora))
    assert 0 < part < full
    assert step_bytes(config, 2, 5, lora).gradients < step_bytes(config, 2, 5).gradients


def check_own_data(config, folder):
    """`finetune` in full, with LoRA and DoRA; then `predict`, `doctor`, and PEFT's format and back."""
    config, base, table = (
        replace(config, vocab_size=8000, n_positions=24, n_classes=0),
        folder / "base",
        folder / "t.csv",
    )
    params = initial_params(config, np.random.default_rng(0))
    save_model(base, params, config)
    again, its_config = load_model(base)
    assert same_bits(params, again) and its_config == config
    for name, content in model_files(PRETRAINED).items():
        (base / name).write_bytes(content)
    rows = [f"a {word} film of {i} hours,{word}" for i in range(40) for word in ("good", "bad")]
    table.write_text("\n".join(["text,label", *rows]))
    options = ["--data", table, "--text", "text", "--label", "label", "--base", base, "--lr", "1e-2", "--epochs", "2"]
    for kind in KINDS:
        out, method = folder / str(kind), ["--method", "full"] if kind is None else ["--variant", kind, "--rank", 3]
        command(["finetune", *options, *method, "--out", out])
        command(["predict", "--model", out, "a good film"])
    for kind in KINDS[1:]:
        task = load_task(folder / kind)
        command(["doctor", folder / kind])
        command(["export", folder / kind, "--to", "peft", "--out", folder / f"{kind}_peft"])
        back = load_peft(folder / f"{kind}_peft", task.params, task.config)
        deltas = adapter_deltas(task.params, task.adapter)
        assert deltas and all(delta.any() for delta in deltas.values())
        for name, delta in adapter_deltas(task.params, back).items():
            np.testing.assert_allclose(delta, deltas[name], rtol=0, atol=1e-6 * np.abs(deltas[name]).max())


def command(arguments, code=0):
    assert main([str(argument) for argument in arguments]) == code, arguments
