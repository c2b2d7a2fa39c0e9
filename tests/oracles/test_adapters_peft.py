"""Adapters of every kind against PEFT's, in float64 and away from the start.

Names, scales, outputs, gradients, updates and merged weights; starts taken out of the base; AdaLoRA's allocation of
ranks. test_reference_torch.py compares training with learning rates as in LoRA+.
"""

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import KINDS, AdapterConfig, adapted_modules, init_adapter, layer_arrays, merge, qalora, vera
from lora_np.model import draw_masks, forward, loss_and_gradients
from lora_np.training import RankAllocation, allocating, budget_at

from ..tiny import random_adapter
from .comparison import GRADIENT, OUTPUT, check, check_all

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from peft.tuners._buffer_dict import BufferDict  # noqa: E402
from peft.tuners.lora.gptq import GPTQLoraLinear  # noqa: E402
from peft.tuners.vera.model import _kaiming_init as kaiming  # noqa: E402

from .hf_model import InFloat64  # noqa: E402
from .peft_model import LINEAR, load_trained, lora_config, our_name, trained_parameters  # noqa: E402
from .torch_model import LLAMAS, Mask, loss_of, model_case, set_masks, torch_model  # noqa: E402

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.parametrize("seed", [0, 1]),
    pytest.mark.filterwarnings("ignore:Using Rank-Stabilized LoRA with rank_pattern"),  # of converting a start back
]

MODELS = pytest.mark.parametrize("n_classes", [0, 4], ids=["language model", "classifier and head"])


def both(ours, theirs, n_classes, seed, dropout=0.0, name="GPT-2"):
    """One model, batch and adapter for lora_np, and the same for PEFT.

    theirs: PEFT's class of configurations, and a dict of its settings; None: by `lora_config`.
    """
    rng, config, params, batch = model_case(name, n_classes, seed, dropout=dropout)
    adapter = random_adapter(params, rng, **ours, dropout=dropout, train_head=bool(n_classes))
    if theirs is None:
        peft_config = lora_config(adapter.config, n_classes)
    else:
        peft_config = theirs[0](**theirs[1], modules_to_save=["head"] if n_classes else None)
    model = peft.get_peft_model(torch_model(params, config), peft_config)
    load_trained(model, adapter.weights)
    return params, config, batch, adapter, model


# ---------------------------------------------------------------- whole models

# PEFT's scale of AdaLoRA is α/(r + 1e-5), against a division by zero.
ADALORA = (
    dict(r=4, alpha=6.0 * 4 / (4 + 1e-5), kind="adalora", targets=("all-linear",)),
    (
        peft.AdaLoraConfig,
        dict(
            target_modules=LINEAR, lora_alpha=6.0, init_r=4, target_r=2,
            tinit=2, tfinal=6, deltaT=3, total_step=30, beta1=0.8, beta2=0.7,
        ),
    ),
)  # fmt: skip


# The same adapter in both libraries' words; None: `lora_config` finds PEFT's.
QV = {"r": 2, "alpha": 3.0, "targets": ("q_proj", "v_proj")}
RSLORA = {"r": 3, "alpha": 4.0, "targets": ("all-linear",), "rslora": True, "rank_pattern": {"k_proj": 6}}
PATTERNS = {  # up_proj of block 1 fits two keys: the first counts
    "r": 2,
    "alpha": 3.0,
    "targets": ("all-linear",),
    "rank_pattern": {"q_proj": 4, "blocks.1.mlp.*": 1, "up_proj": 6},
    "alpha_pattern": {"down_proj": 9.0, "blocks.0.attn.v_proj": 0.5},
}
CASES = {
    "q and v": (QV, None),
    "all linear": (dict(r=4, alpha=16.0, targets=("all-linear",)), None),
    "one layer, full rank": (dict(r=12, alpha=1.0, targets=("blocks.1.mlp.up_proj",)), None),
    "layers by pattern, rank 1": (dict(r=1, alpha=2.0, targets=("blocks.0.attn.*", "down_proj")), None),
    "rank and alpha patterns": (PATTERNS, None),
    "rsLoRA": (RSLORA, None),
    "DoRA, q and v": (QV | {"kind": "dora"}, None),
    "DoRA, rsLoRA": (RSLORA | {"kind": "dora"}, None),
    "VeRA": (
        dict(r=5, kind="vera", targets=("all-linear",), projection_seed=3),
        (peft.VeraConfig, dict(r=5, target_modules=LINEAR)),
    ),
    "AdaLoRA": ADALORA,
}


def share_projections(model, params, settings):
    """Our random factors in PEFT's place, a pair for each layer.

    PEFT cuts each layer's out of one pair, and scales A's numbers for the largest layer's `in`; ours are scaled for
    each layer's own.
    """
    for module in adapted_modules(settings, params):
        layer = model.base_model.model.get_submodule(module)
        pair = vera.projections(params[f"{module}.weight"].shape, settings.r, settings.projection_seed, np.float64)
        layer.vera_A, layer.vera_B = (BufferDict({"default": torch.tensor(factor)}) for factor in pair)


@pytest.mark.parametrize("dropout", [0.0, 0.4], ids=["", "dropout"])
@MODELS
@pytest.mark.parametrize("architecture", ["GPT-2", "Llama"])
@pytest.mark.parametrize("ours, theirs", CASES.values(), ids=CASES)
def test_a_whole_model_agrees_with_peft(ours, theirs, architecture, n_classes, dropout, seed):
    """Logits and all gradients; under dropout with our masks in PEFT's place; without it ΔW and the merged model.

    The gradients of DoRA hold the norm constant, as its paper, PEFT and our default do.
    """
    name = "GPT-2" if architecture == "GPT-2" else list(LLAMAS)[(seed + 2 * bool(n_classes)) % len(LLAMAS)]
    params, config, batch, adapter, model = both(ours, theirs, n_classes, seed, dropout, name)
    kind = adapter.config.kind
    if kind == "vera":
        share_projections(model, params, adapter.config)
    masks = draw_masks(config, batch.ids.shape, np.random.default_rng(seed), adapter, np.float64)
    places = 5 if architecture == "GPT-2" else 4
    assert len(masks) == (places + len(layer_arrays(adapter)) if dropout else 0), list(masks)
    set_masks(model.base_model.model, masks)
    expected = model.train()(torch.tensor(batch.ids), torch.tensor(batch.lengths))
    loss_of(expected, batch.targets).backward()

    logits, _ = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter, masks=masks)
    check(f"{kind}, outputs", "logits", logits, expected, OUTPUT)
    objective = loss_and_gradients(params, batch, config, adapter, tuple(adapter.weights), masks)
    grads = {name: p.grad.reshape(adapter.weights[name].shape) for name, p in trained_parameters(model).items()}
    check_all(f"{kind}, gradients", objective.grads, grads, GRADIENT)
    if masks:
        return
    if kind != "dora":  # PEFT's update of DoRA is s B A alone
        modules = {name.removeprefix("base_model.model."): module for name, module in model.named_modules()}
        updates = {f"{name}.weight": modules[name].get_delta_weight("default") for name in layer_arrays(adapter)}
        check_all(f"{kind}, updates ΔW", adapters.adapter_deltas(params, adapter), updates, OUTPUT)
    merged = merge(params, adapter)
    check_all(f"{kind}, merged weights", merged, model.merge_and_unload().state_dict(), OUTPUT)
    merged_logits, _ = forward(merged, batch.ids, config, lengths=batch.lengths)
    check(f"{kind}, outputs", "logits of the merged model", merged_logits, expected, OUTPUT)
    if kind != "dora":
        linear = [f"{name}.weight" for name in layer_arrays(adapter)]
        restored = adapters.unmerge(merged, adapter)
        check_all(f"{kind}, merged weights", *({n: p[n] for n in linear} for p in (restored, params)), OUTPUT)


# ---------------------------------------------------------------- single layers


def random_layer(with_mask, with_bias, seed, B=3, T=5, n_in=12, n_out=20, r=2):
    """Operands of a QA-LoRA layer with in ≠ out, a mask or None, and a gradient of the output; at rank 2, alpha 3."""
    rng = np.random.default_rng(seed)
    operands = {"x": rng.normal(size=(B, T, n_in)), "weight": rng.normal(size=(n_out, n_in))}
    if with_bias:
        operands["bias"] = rng.normal(size=n_out)
    operands |= {name: rng.normal(size=shape) for name, shape in KINDS["qalora"].shapes(n_out, n_in, r).items()}
    mask = rng.integers(0, 2, (B, T, n_in)) / 0.5 if with_mask else None
    return operands, mask, rng.normal(size=(B, T, n_out))


@pytest.mark.parametrize("with_mask", [False, True], ids=["", "dropout"])
@pytest.mark.parametrize("with_bias, rslora", [(True, False), (False, True)], ids=["bias", "no bias, rslora"])
@pytest.mark.parametrize("n_in, g", [(12, 4), (96, 32)])
def test_one_qalora_layer_agrees_with_peft(n_in, g, rslora, with_bias, with_mask, seed):
    """PEFT's layer for GPTQ, on a dense base. It cannot merge, so ΔW is read off its outputs for unit vectors."""
    operands, mask, dy = random_layer(with_mask, with_bias, seed, n_in=n_in)
    base = torch.nn.Linear(n_in, 20, bias=with_bias).double()
    base.load_state_dict({name: torch.tensor(operands[name]) for name in ("weight", "bias")[: 1 + with_bias]})
    settings = AdapterConfig(2, 3.0, rslora=rslora, kind="qalora")
    words = peft.LoraConfig(use_qalora=True, qalora_group_size=g, use_rslora=rslora)
    layer = GPTQLoraLinear(base, "default", words, r=2, lora_alpha=3.0)
    trained = {name: getattr(layer, name)["default"].weight for name in ("lora_A", "lora_B")}
    load_trained(layer, {name: operands[name] for name in trained}, trained)
    update = layer(torch.eye(n_in, dtype=torch.float64)) - base(torch.eye(n_in, dtype=torch.float64))
    change = qalora.delta(operands["weight"], {name: operands[name] for name in trained}, settings)
    check("qalora, updates ΔW", "ΔW", change, update.T, OUTPUT)
    if with_mask:
        layer.lora_dropout["default"] = Mask()
        layer.lora_dropout["default"].mask = torch.tensor(mask)
    x_tensor = torch.tensor(operands["x"], requires_grad=True)
    y_tensor = layer.train()(x_tensor)
    y_tensor.backward(torch.tensor(dy))
    expected = {"x": x_tensor.grad, **{name: parameter.grad for name, parameter in base.named_parameters()}}
    expected |= {name: parameter.grad for name, parameter in trained.items()}
    own = {name: operands[name] for name in trained}
    y, cache = qalora.forward(
        operands["x"], operands["weight"], operands.get("bias"), own, settings, tuple(expected), mask
    )
    check("qalora, outputs", "y", y, y_tensor, OUTPUT)
    dx, grads = qalora.backward(dy, cache)
    check_all("qalora, gradients", grads | {"x": dx}, expected, GRADIENT)


# ---------------------------------------------------------------- starts out of the base


@pytest.mark.parametrize("rslora", [False, True], ids=["", "rslora"])
@pytest.mark.parametrize("init", ["pissa", "olora"])
@MODELS
def test_starts_out_of_the_base(n_classes, init, rslora, seed, monkeypatch):
    """The frozen rest and s B A are PEFT's; A's rows and B's columns too, except for their common signs.

    PEFT computes these starts in float32 alone, which is made float64 here.
    """
    monkeypatch.setattr("peft.tuners.lora.layer.torch", InFloat64())
    rng, config, params, batch = model_case("GPT-2", n_classes, seed)
    settings = AdapterConfig(3, 4.0, ("all-linear",), {"v_proj": 1}, {"up_proj": 9.0}, rslora, init=init)
    base, adapter = adapters.start_adapter(params, settings, rng)
    peft_config = lora_config(settings, n_classes, init_lora_weights=init)
    model = peft.get_peft_model(torch_model(params, config), peft_config)
    name = {"pissa": "PiSSA", "olora": "OLoRA"}[init]

    theirs = {our_name(n): p for n, p in model.named_parameters()}
    rests = {f"{m}.weight": theirs[f"{m}.base_layer.weight"] for m in adapters.linear_layers(params)}
    check_all(f"{name}, frozen rest", {n: base[n] for n in rests}, rests, OUTPUT)
    trained = trained_parameters(model)
    assert set(trained) == set(adapter.weights)
    for module, arrays in layer_arrays(adapter).items():
        A, B = (trained[f"{module}.{leaf}"].detach().numpy() for leaf in ("lora_A", "lora_B"))
        signs = np.sign(np.sum(A * arrays["lora_A"], axis=1))
        check(f"{name}, factors", f"{module}.lora_A", arrays["lora_A"], signs[:, None] * A, OUTPUT)
        check(f"{name}, factors", f"{module}.lora_B", arrays["lora_B"], B * signs, OUTPUT)
        update = adapters.scaling(adapters.module_config(settings, module)) * arrays["lora_B"] @ arrays["lora_A"]
        layer = model.base_model.model.get_submodule(module)
        check(f"{name}, updates ΔW", module, update, layer.get_delta_weight("default"), OUTPUT)

    ids, lengths = torch.tensor(batch.ids), torch.tensor(batch.lengths)
    logits, _ = forward(base, batch.ids, config, lengths=batch.lengths, adapter=adapter)
    check(f"{name}, outputs", "logits at the start", logits, model(ids, lengths), OUTPUT)


# ---------------------------------------------------------------- VeRA


def test_veras_start(seed):
    """λ_d = 0.1 and λ_b = 0 in both, and random numbers of one distribution."""
    rng, config, params, _ = model_case("GPT-2", 0, seed)
    settings = AdapterConfig(5, kind="vera", targets=("up_proj",))
    ours = init_adapter(params, settings, rng).weights
    model = peft.get_peft_model(torch_model(params, config), peft.VeraConfig(r=5, target_modules=["up_proj"]))
    theirs = {n: p.detach().double() for n, p in trained_parameters(model).items()}
    check_all("VeRA, start", ours, theirs, 1e-7)  # PEFT's 0.1 is float32's
    generator = torch.Generator().manual_seed(seed)
    for got in vera.projections((3000, 2000), 8, seed, np.float64):
        expected = kaiming(got.shape, generator=generator).double().numpy()
        assert np.abs(got).max() == pytest.approx(np.abs(expected).max(), rel=1e-3)
        assert got.std() == pytest.approx(expected.std(), rel=0.02)


# ---------------------------------------------------------------- AdaLoRA


ALLOCATION = RankAllocation(target=0.5, first=2 / 30, last=6 / 30, every=3 / 30, beta1=0.8, beta2=0.7)


def test_adaloras_budget(seed):
    """PEFT cuts off what stands behind the point, we round: at most one apart, and the same at the ends."""
    allocator = both(*ADALORA, 0, seed)[-1].base_model.rankallocator
    n_values = 12 * 4
    assert (allocator.init_bgt, allocator.target_bgt) == (n_values, n_values // 2)
    for step in range(1, 31):
        ours, (theirs, _) = budget_at(step, 30, n_values, ALLOCATION), allocator.budget_schedule(step)
        assert 0 <= ours - theirs <= 1, step
        if step <= 2 or step >= 24:
            assert ours == theirs, step


def test_adaloras_allocation(seed):
    """The importances, and which singular values are set to zero, over a whole training with given gradients.

    PEFT no longer counts the step of the last choice itself: it is told to.
    """
    rng = np.random.default_rng(seed)
    params, _, _, adapter, model = both(*ADALORA, 0, seed)
    allocator, steps, n_values = model.base_model.rankallocator, 30, 12 * 4
    _, after_update = allocating(None, adapter, steps, ALLOCATION)
    schedule = allocator.budget_schedule
    allocator.budget_schedule = lambda step: (budget_at(step, steps, n_values, ALLOCATION), schedule(step)[1])
    trained, memory, chosen = trained_parameters(model), {}, []
    for step in range(1, steps + 1):
        weights = {name: array + 0.3 * rng.normal(size=array.shape) for name, array in adapter.weights.items()}
        grads = {name: np.exp(rng.normal(size=array.shape)) * array for name, array in adapter.weights.items()}
        load_trained(model, weights)
        for name, parameter in trained.items():
            parameter.grad = torch.tensor(grads[name]).reshape(parameter.shape)
        if step == steps - 6:
            allocator.update_ipt(model.base_model.model)
        after_update(step, weights, grads, memory)
        model.base_model.update_and_allocate(step)  # forgets its importances after the last choice
        for what, theirs in (("importance", allocator.exp_avg_ipt), ("uncertainty", allocator.exp_avg_unc)):
            expected = {our_name(name): array.reshape(weights[our_name(name)].shape) for name, array in theirs.items()}
            assert bool(expected) == (step < steps - 6)
            got = {name: memory[f"{name}.{what}"] for name in expected}
            check_all(f"AdaLoRA, {what}", got, expected, OUTPUT)
        values = {name: p.detach().reshape(-1) for name, p in trained.items() if name.endswith("lora_E")}
        check_all("AdaLoRA, singular values", {name: weights[name] for name in values}, values, OUTPUT)
        chosen.append(sum(int((array != 0).sum()) for array in values.values()))
    assert chosen[:2] == [48, 48] and chosen[-7:] == [24] * 7 and len(set(chosen)) > 5
