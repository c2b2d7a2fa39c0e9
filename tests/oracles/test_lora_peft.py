"""LoRA against PEFT, at B ≠ 0: names, scales, outputs, gradients, updates and merged weights."""

from collections import OrderedDict

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig, adapter_deltas, init_adapter, lora, merge, unmerge
from lora_np.model import draw_masks, forward, loss_and_gradients

from .comparison import GRADIENT, OUTPUT, check, check_all

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from .peft_model import load_adapter, peft_model, trained_parameters  # noqa: E402
from .torch_model import loss_of, random_batch, random_params, set_masks, tiny_config  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.parametrize("seed", [0, 1])]

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]

# The same adapter in both libraries' words. PEFT's patterns are regular expressions, ours shell patterns.
CASES = {
    "q and v": (
        dict(r=2, alpha=3.0, targets=("q_proj", "v_proj")),
        dict(r=2, lora_alpha=3.0, target_modules=["q_proj", "v_proj"]),
    ),
    "all linear": (
        dict(r=4, alpha=16.0, targets=("all-linear",)),
        dict(r=4, lora_alpha=16.0, target_modules=LINEAR),
    ),
    "one layer, full rank": (
        dict(r=12, alpha=1.0, targets=("blocks.1.mlp.up_proj",)),
        dict(r=12, lora_alpha=1.0, target_modules=r"blocks\.1\.mlp\.up_proj"),
    ),
    "layers by pattern, rank 1": (
        dict(r=1, alpha=2.0, targets=("blocks.0.attn.*", "down_proj")),
        dict(r=1, lora_alpha=2.0, target_modules=r".*(blocks\.0\.attn\.[qkvo]_proj|down_proj)"),
    ),
    "rank and alpha patterns": (  # up_proj of block 1 fits two keys: the first counts
        dict(
            r=2,
            alpha=3.0,
            targets=("all-linear",),
            rank_pattern={"q_proj": 4, "blocks.1.mlp.*": 1, "up_proj": 6},
            alpha_pattern={"down_proj": 9.0, "blocks.0.attn.v_proj": 0.5},
        ),
        dict(
            r=2,
            lora_alpha=3.0,
            target_modules=LINEAR,
            rank_pattern={"q_proj": 4, r"blocks\.1\.mlp\..*": 1, "up_proj": 6},
            alpha_pattern={"down_proj": 9.0, r"blocks\.0\.attn\.v_proj": 0.5},
        ),
    ),
    "rsLoRA": (
        dict(r=3, alpha=4.0, targets=("all-linear",), rslora=True, rank_pattern={"k_proj": 7}),
        dict(r=3, lora_alpha=4.0, target_modules=LINEAR, use_rslora=True, rank_pattern={"k_proj": 7}),
    ),
}

MODELS = pytest.mark.parametrize("n_classes", [0, 4], ids=["language model", "classifier and head"])
ADAPTERS = pytest.mark.parametrize("settings", CASES.values(), ids=CASES)


def both(settings, n_classes, seed, dropout=0.0):
    """One model, batch and adapter for lora_np, and the same for PEFT; B and the head have moved."""
    ours, theirs = settings
    rng, config = np.random.default_rng(seed), tiny_config(n_classes, dropout)
    params, batch = random_params(config, rng), random_batch(config, rng)
    adapter = init_adapter(params, AdapterConfig(**ours), rng)
    moved = {name: array + 0.3 * rng.normal(size=array.shape) for name, array in adapter.weights.items()}
    adapter = adapter._replace(weights=moved)
    head = dict(modules_to_save=["head"]) if n_classes else {}
    model = peft_model(params, config, peft.LoraConfig(**theirs, **head), adapter)
    return params, config, batch, adapter, model


def run_peft(model, batch):
    """PEFT's logits, and the gradients of its loss by our names."""
    logits = model(torch.tensor(batch.ids), torch.tensor(batch.lengths))
    loss_of(logits, batch.targets).backward()
    return logits, {name: parameter.grad for name, parameter in trained_parameters(model).items()}


@ADAPTERS
@MODELS
def test_logits_and_gradients(settings, n_classes, seed):
    params, config, batch, adapter, model = both(settings, n_classes, seed)
    expected, expected_grads = run_peft(model, batch)

    logits, _ = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter)
    check("LoRA, outputs", "logits", logits, expected, OUTPUT)
    objective = loss_and_gradients(params, batch, config, adapter, tuple(adapter.weights))
    check_all("LoRA, gradients", objective.grads, expected_grads, GRADIENT)


@ADAPTERS
@MODELS
def test_merged_weights(settings, n_classes, seed):
    params, config, batch, adapter, model = both(settings, n_classes, seed)
    logits, _ = run_peft(model, batch)
    deltas = {
        name.removeprefix("base_model.model.") + ".weight": module.get_delta_weight("default")
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    check_all("LoRA, updates ΔW", adapter_deltas(params, adapter), deltas, OUTPUT)

    merged = merge(params, adapter)
    check_all("LoRA, merged weights", merged, model.merge_and_unload().state_dict(), OUTPUT)
    merged_logits, _ = forward(merged, batch.ids, config, lengths=batch.lengths)
    check("LoRA, outputs", "logits of the merged model", merged_logits, logits, OUTPUT)
    check_all("LoRA, merged weights", unmerge(merged, adapter, params), params, OUTPUT)


@MODELS
def test_dropout_masks_as_data(n_classes, seed):
    """On the embeddings, the residual branches and every adapter's input: our masks in PEFT's place."""
    ours, theirs = CASES["all linear"]
    settings = (dict(ours, dropout=0.4), theirs)
    params, config, batch, adapter, model = both(settings, n_classes, seed, dropout=0.25)
    masks = draw_masks(config, batch.ids.shape, np.random.default_rng(seed), adapter, np.float64)
    assert len(masks) == 5 + 12, f"5 for the model and 12 for the adapted layers, got {list(masks)}"
    set_masks(model.base_model.model, masks)
    expected, expected_grads = run_peft(model, batch)

    logits, _ = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter, masks=masks)
    check("LoRA, outputs", "logits under dropout", logits, expected, OUTPUT)
    objective = loss_and_gradients(params, batch, config, adapter, tuple(adapter.weights), masks)
    check_all("LoRA, gradients", objective.grads, expected_grads, GRADIENT)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("with_mask", [False, True], ids=["", "dropout"])
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
def test_one_layer(with_bias, with_mask, rslora, seed):
    """Every operand's gradient, x and the frozen W and b among them, of a layer with in ≠ out."""
    B, T, n_in, n_out, r = 3, 5, 12, 20, 2
    rng = np.random.default_rng(seed)
    x, weight, dy = (rng.normal(size=shape) for shape in ((B, T, n_in), (n_out, n_in), (B, T, n_out)))
    bias = rng.normal(size=n_out) if with_bias else None
    mask = rng.integers(0, 2, x.shape) / 0.5 if with_mask else None
    adapter = {"lora_A": rng.normal(size=(r, n_in)), "lora_B": rng.normal(size=(n_out, r))}
    settings = AdapterConfig(r=r, alpha=3.0, rslora=rslora)

    layer = torch.nn.Linear(n_in, n_out, bias=with_bias).double()
    base = {"weight": weight, "bias": bias} if with_bias else {"weight": weight}
    layer.load_state_dict({name: torch.tensor(array) for name, array in base.items()})
    lora_config = peft.LoraConfig(r=r, lora_alpha=3.0, target_modules=["q_proj"], use_rslora=rslora)
    model = peft.get_peft_model(torch.nn.Sequential(OrderedDict(q_proj=layer)), lora_config)
    load_adapter(model, {f"q_proj.{name}": array for name, array in adapter.items()})
    model.requires_grad_(True)
    if with_mask:
        set_masks(model.base_model.model, {"q_proj.adapter": mask})
    x_tensor = torch.tensor(x, requires_grad=True)
    y_tensor = model(x_tensor)
    y_tensor.backward(torch.tensor(dy))
    trained = trained_parameters(model)
    expected = {"x": x_tensor.grad, **{name: getattr(layer, name).grad for name in base}}
    expected |= {name: trained[f"q_proj.{name}"].grad for name in adapter}

    names = tuple(expected)
    for wanted in (names, ("lora_A", "lora_B"), ("lora_A",), ("lora_B",), ("x",)):
        y, cache = lora.forward(x, weight, bias, adapter, settings, wanted, mask)
        check("LoRA, outputs", "y", y, y_tensor, OUTPUT)
        dx, grads = lora.backward(dy, cache)
        got = grads | ({} if dx is None else {"x": dx})
        check_all("LoRA, gradients", got, {name: expected[name] for name in wanted}, GRADIENT)
