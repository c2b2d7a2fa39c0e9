"""Variants of LoRA against PEFT's, in float64 and away from the start: DoRA, PiSSA, OLoRA, VeRA, AdaLoRA, LoRA+."""

from collections import OrderedDict

import numpy as np
import pytest

from lora_np.adapters import (
    AdapterConfig,
    adapted_modules,
    dora,
    init_adapter,
    layer_arrays,
    linear_layers,
    merge,
    module_config,
    scaling,
    start_adapter,
    vera,
)
from lora_np.model import draw_masks, forward, loss_and_gradients
from lora_np.training import (
    RankAllocation,
    TrainConfig,
    adapter_optimiser,
    allocating,
    budget_at,
    model_objective,
    train,
)

from .comparison import GRADIENT, OUTPUT, TRAINED, check, check_all

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from peft.tuners._buffer_dict import BufferDict  # noqa: E402
from peft.tuners.vera.model import _kaiming_init as kaiming  # noqa: E402

from .peft_model import our_name, trained_parameters  # noqa: E402
from .torch_model import (  # noqa: E402
    loss_of,
    random_batch,
    random_params,
    set_masks,
    tiny_config,
    torch_model,
)

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.parametrize("seed", [0, 1]),
    pytest.mark.filterwarnings("ignore:Using Rank-Stabilized LoRA with rank_pattern"),  # of converting a start back
]

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
MODELS = pytest.mark.parametrize("n_classes", [0, 4], ids=["language model", "classifier and head"])
DROPOUTS = pytest.mark.parametrize("dropout", [0.0, 0.4], ids=["", "dropout"])


def load_trained(model, weights):
    """Copy lora_np's arrays into what PEFT trains, which must be of the same names and sizes."""
    trained = trained_parameters(model)
    assert set(trained) == set(weights), f"PEFT trains others: {sorted(set(trained) ^ set(weights))}"
    with torch.no_grad():
        for name, parameter in trained.items():
            assert parameter.dtype == torch.float64
            parameter.copy_(torch.tensor(weights[name]).reshape(parameter.shape))  # AdaLoRA's E is a column there


def moved(adapter, rng):
    """Every array away from its start."""
    weights = {name: array + 0.3 * rng.normal(size=array.shape) for name, array in adapter.weights.items()}
    return adapter._replace(weights=weights)


def both(ours, theirs, n_classes, seed, dropout=0.0):
    """One model, batch and adapter for lora_np, and the same for PEFT; `theirs` makes its configuration."""
    rng, config = np.random.default_rng(seed), tiny_config(n_classes, dropout)
    params, batch = random_params(config, rng), random_batch(config, rng)
    adapter = moved(init_adapter(params, AdapterConfig(**ours, dropout=dropout), rng), rng)
    model = peft.get_peft_model(torch_model(params, config), theirs(modules_to_save=["head"] if n_classes else None))
    load_trained(model, adapter.weights)
    return params, config, batch, adapter, model


def check_model(group, params, config, batch, adapter, model, seed):
    """Logits and all gradients, under the same dropout masks where there are any; ΔW and the merged model."""
    masks = draw_masks(config, batch.ids.shape, np.random.default_rng(seed), adapter, np.float64)
    assert bool(masks) == bool(config.dropout)
    set_masks(model.base_model.model, masks)
    expected = model.train()(torch.tensor(batch.ids), torch.tensor(batch.lengths))
    loss_of(expected, batch.targets).backward()
    logits, _ = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter, masks=masks)
    check(f"{group}, outputs", "logits", logits, expected, OUTPUT)
    found = loss_and_gradients(params, batch, config, adapter, tuple(adapter.weights), masks)
    grads = {name: p.grad.reshape(adapter.weights[name].shape) for name, p in trained_parameters(model).items()}
    check_all(f"{group}, gradients", found.grads, grads, GRADIENT)
    if not masks:
        merged = model.merge_and_unload().state_dict()
        check_all(f"{group}, merged weights", merge(params, adapter), merged, OUTPUT)


# ---------------------------------------------------------------- DoRA

DORA = {
    "q and v": (
        dict(r=2, alpha=3.0, targets=("q_proj", "v_proj")),
        dict(r=2, lora_alpha=3.0, target_modules=["q_proj", "v_proj"]),
    ),
    "all linear, rsLoRA": (
        dict(r=3, alpha=4.0, targets=("all-linear",), rslora=True, rank_pattern={"k_proj": 7}),
        dict(r=3, lora_alpha=4.0, target_modules=LINEAR, use_rslora=True, rank_pattern={"k_proj": 7}),
    ),
}


@DROPOUTS
@MODELS
@pytest.mark.parametrize("ours, theirs", DORA.values(), ids=DORA)
def test_dora(ours, theirs, n_classes, dropout, seed):
    """PEFT holds the norm constant in the backward pass, as the paper and our default do."""

    def config(**head):
        return peft.LoraConfig(**theirs, use_dora=True, **head)

    parts = both(dict(ours, kind="dora"), config, n_classes, seed, dropout)
    check_model("DoRA", *parts, seed)


@pytest.mark.parametrize("with_mask", [False, True], ids=["", "dropout"])
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
def test_one_dora_layer(with_bias, with_mask, seed):
    """Every operand's gradient, x and the frozen W and b among them, asked for together and alone."""
    B, T, n_in, n_out, r = 3, 5, 12, 20, 2
    rng = np.random.default_rng(seed)
    x, weight, dy = (rng.normal(size=shape) for shape in ((B, T, n_in), (n_out, n_in), (B, T, n_out)))
    bias = rng.normal(size=n_out) if with_bias else None
    mask = rng.integers(0, 2, x.shape) / 0.5 if with_mask else None
    adapter = {"lora_A": rng.normal(size=(r, n_in)), "lora_B": rng.normal(size=(n_out, r))}
    adapter[dora.MAGNITUDE] = 1.0 + rng.random(n_out)

    layer = torch.nn.Linear(n_in, n_out, bias=with_bias).double()
    base = {"weight": weight, "bias": bias} if with_bias else {"weight": weight}
    layer.load_state_dict({name: torch.tensor(array) for name, array in base.items()})
    config = peft.LoraConfig(r=r, lora_alpha=3.0, target_modules=["q_proj"], use_dora=True)
    model = peft.get_peft_model(torch.nn.Sequential(OrderedDict(q_proj=layer)), config)
    load_trained(model, {f"q_proj.{name}": array for name, array in adapter.items()})
    trained = trained_parameters(model)
    model.requires_grad_(True)
    if with_mask:
        set_masks(model.base_model.model, {"q_proj.adapter": mask})
    x_tensor = torch.tensor(x, requires_grad=True)
    y_tensor = model.train()(x_tensor)
    y_tensor.backward(torch.tensor(dy))
    expected = {"x": x_tensor.grad, **{name: getattr(layer, name).grad for name in base}}
    expected |= {name: trained[f"q_proj.{name}"].grad for name in adapter}

    names = tuple(expected)
    for wanted in (names, *((name,) for name in names)):
        settings = AdapterConfig(r=r, alpha=3.0, kind="dora")
        y, cache = dora.forward(x, weight, bias, adapter, settings, wanted, mask)
        check("DoRA, outputs", "y", y, y_tensor, OUTPUT)
        dx, grads = dora.backward(dy, cache)
        got = grads | ({} if dx is None else {"x": dx})
        check_all("DoRA, gradients", got, {name: expected[name] for name in wanted}, GRADIENT)


@pytest.mark.parametrize("dropout", [0.0, 0.4], ids=["", "dropout"])
def test_doras_exact_gradient_is_autograds(dropout, seed):
    """With `norm_gradient`: PyTorch differentiates the layer's formula, norm and all."""
    rng, settings = np.random.default_rng(seed), AdapterConfig(r=2, alpha=3.0, kind="dora", norm_gradient=True)
    x, weight, bias = (rng.normal(size=shape) for shape in ((3, 5, 12), (20, 12), (20,)))
    adapter = {"lora_A": rng.normal(size=(2, 12)), "lora_B": rng.normal(size=(20, 2)), dora.MAGNITUDE: rng.random(20)}
    mask, dy = (rng.random(x.shape) > dropout) / (1.0 - dropout), rng.normal(size=(3, 5, 20))
    operands = {"x": x, "weight": weight, "bias": bias, **adapter}
    t = {name: torch.tensor(array, requires_grad=True) for name, array in operands.items()}
    V = t["weight"] + 1.5 * t["lora_B"] @ t["lora_A"]
    merged = t[dora.MAGNITUDE][:, None] * V / torch.linalg.norm(V, dim=1, keepdim=True)
    dropped = t["x"] * torch.tensor(mask)
    y_tensor = t["x"] @ t["weight"].T + t["bias"] + dropped @ (merged - t["weight"]).T
    y_tensor.backward(torch.tensor(dy))

    y, cache = dora.forward(x, weight, bias, adapter, settings, tuple(t), mask if dropout else None)
    check("DoRA, outputs", "y", y, y_tensor, OUTPUT)
    dx, grads = dora.backward(dy, cache)
    check_all("DoRA, exact gradients", {"x": dx, **grads}, {name: tensor.grad for name, tensor in t.items()}, GRADIENT)


# ---------------------------------------------------------------- starts out of the base


class InFloat64:
    """PyTorch with another float32: PEFT makes these starts in float32 alone, so we tell it that this is one."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.mark.parametrize("rslora", [False, True], ids=["", "rslora"])
@pytest.mark.parametrize("init", ["pissa", "olora"])
@MODELS
def test_starts_out_of_the_base(n_classes, init, rslora, seed, monkeypatch):
    """The frozen rest and s B A are PEFT's; A's rows and B's columns too, but for their common signs."""
    monkeypatch.setattr("peft.tuners.lora.layer.torch", InFloat64())
    rng, config = np.random.default_rng(seed), tiny_config(n_classes)
    params, batch = random_params(config, rng), random_batch(config, rng)
    settings = AdapterConfig(3, 4.0, ("all-linear",), {"v_proj": 1}, {"up_proj": 9.0}, rslora, init=init)
    base, adapter = start_adapter(params, settings, rng)
    lora_config = peft.LoraConfig(
        r=3, lora_alpha=4.0, target_modules=LINEAR, rank_pattern={"v_proj": 1}, alpha_pattern={"up_proj": 9.0},
        use_rslora=rslora, init_lora_weights=init, modules_to_save=["head"] if n_classes else None,
    )  # fmt: skip
    model = peft.get_peft_model(torch_model(params, config), lora_config)
    name = {"pissa": "PiSSA", "olora": "OLoRA"}[init]

    theirs = {our_name(n): p for n, p in model.named_parameters()}
    rests = {f"{m}.weight": theirs[f"{m}.base_layer.weight"] for m in linear_layers(params)}
    check_all(f"{name}, frozen rest", {n: base[n] for n in rests}, rests, OUTPUT)
    trained = trained_parameters(model)
    assert set(trained) == set(adapter.weights)
    for module, parts in layer_arrays(adapter).items():
        A, B = (trained[f"{module}.{leaf}"].detach().numpy() for leaf in ("lora_A", "lora_B"))
        signs = np.sign(np.sum(A * parts["lora_A"], axis=1))
        check(f"{name}, factors", f"{module}.lora_A", parts["lora_A"], signs[:, None] * A, OUTPUT)
        check(f"{name}, factors", f"{module}.lora_B", parts["lora_B"], B * signs, OUTPUT)
        update = {f"{module}.weight": scaling(module_config(settings, module)) * parts["lora_B"] @ parts["lora_A"]}
        layer = model.base_model.model.get_submodule(module)
        check_all(f"{name}, updates ΔW", update, {f"{module}.weight": layer.get_delta_weight("default")}, OUTPUT)

    ids, lengths = torch.tensor(batch.ids), torch.tensor(batch.lengths)
    logits, _ = forward(base, batch.ids, config, lengths=batch.lengths, adapter=adapter)
    check(f"{name}, outputs", "logits at the start", logits, model(ids, lengths), OUTPUT)
    # From there both go the same way: PEFT with our factors, moved, on its own rest.
    adapter = moved(adapter, rng)
    load_trained(model, adapter.weights)
    expected = model(ids, lengths)
    loss_of(expected, batch.targets).backward()
    logits, _ = forward(base, batch.ids, config, lengths=batch.lengths, adapter=adapter)
    check(f"{name}, outputs", "logits, moved", logits, expected, OUTPUT)
    grads = loss_and_gradients(base, batch, config, adapter, tuple(adapter.weights)).grads
    check_all(f"{name}, gradients", grads, {n: p.grad for n, p in trained_parameters(model).items()}, GRADIENT)


# ---------------------------------------------------------------- VeRA


def share_projections(model, params, settings):
    """Our random factors in PEFT's place.

    PEFT cuts each layer's out of one pair, and scales A's numbers for the largest layer's `in`; ours are scaled for
    each layer's own. Where all layers have one `in` they fit into PEFT's pair, which it cuts itself; else each layer
    gets a pair of its own.
    """
    vera_model, shapes = model.base_model, {m: params[f"{m}.weight"].shape for m in adapted_modules(settings, params)}

    def put(holder, shape):
        pair = vera.projections(shape, settings.r, settings.projection_seed, np.float64)
        for factors, factor in zip((holder.vera_A, holder.vera_B), pair):
            factors["default"] = torch.tensor(factor)

    if len({n_in for _, n_in in shapes.values()}) == 1:
        largest = tuple(np.max(list(shapes.values()), axis=0).tolist())
        before = vera_model.vera_A["default"].shape, vera_model.vera_B["default"].shape
        put(vera_model, largest)
        assert before == (vera_model.vera_A["default"].shape, vera_model.vera_B["default"].shape)
        return
    for module, shape in shapes.items():
        layer = vera_model.model.get_submodule(module)
        layer.vera_A, layer.vera_B = BufferDict({}), BufferDict({})
        put(layer, shape)


@DROPOUTS
@MODELS
@pytest.mark.parametrize("targets", [["q_proj", "v_proj", "up_proj"], LINEAR], ids=["one in", "all linear"])
def test_vera(targets, n_classes, dropout, seed):
    settings = dict(r=5, kind="vera", targets=tuple(targets), projection_seed=3 + seed)

    def config(**head):
        return peft.VeraConfig(r=5, target_modules=targets, **head)

    params, config, batch, adapter, model = both(settings, config, n_classes, seed, dropout)
    share_projections(model, params, adapter.config)
    check_model("VeRA", params, config, batch, adapter, model, seed)


def test_veras_start(seed):
    """λ_d = 0.1 and λ_b = 0 in both, and random numbers of one distribution."""
    rng, config = np.random.default_rng(seed), tiny_config()
    params, settings = random_params(config, rng), AdapterConfig(5, kind="vera", targets=("up_proj",))
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


def adalora_config(**more):
    settings = dict(init_r=4, target_r=2, tinit=2, tfinal=6, deltaT=3, total_step=30, beta1=0.8, beta2=0.7)
    return peft.AdaLoraConfig(target_modules=LINEAR, lora_alpha=6.0, **settings, **more)


# PEFT's scale is α/(r + 1e-5), against a division by zero.
ADALORA = dict(r=4, alpha=6.0 * 4 / (4 + 1e-5), kind="adalora", targets=("all-linear",))
ALLOCATION = RankAllocation(target=0.5, first=2 / 30, last=6 / 30, every=3 / 30, beta1=0.8, beta2=0.7)


@DROPOUTS
@MODELS
def test_adalora(n_classes, dropout, seed):
    check_model("AdaLoRA", *both(ADALORA, adalora_config, n_classes, seed, dropout), seed)


def test_adaloras_budget(seed):
    """PEFT cuts off what stands behind the point, we round: at most one apart, and the same at the ends."""
    allocator = both(ADALORA, adalora_config, 0, seed)[-1].base_model.rankallocator
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
    params, _, _, adapter, model = both(ADALORA, adalora_config, 0, seed)
    allocator, steps, n_values = model.base_model.rankallocator, 30, 12 * 4
    _, adjust = allocating(None, adapter, steps, ALLOCATION)
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
        adjust(step, weights, grads, memory)
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


# ---------------------------------------------------------------- LoRA+


@MODELS
def test_loraplus(n_classes, seed):
    """PEFT's groups of an optimiser, B with 16 times the learning rate, over 20 steps with weight decay."""
    optimizers = pytest.importorskip("peft.optimizers")
    ours = dict(r=2, alpha=3.0, targets=("all-linear",), rate_factors={"lora_B": 16.0})

    def config(**head):
        return peft.LoraConfig(r=2, lora_alpha=3.0, target_modules=LINEAR, **head)

    params, config, batch, adapter, model = both(ours, config, n_classes, seed)
    optimizer = optimizers.create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0, loraplus_weight_decay=0.1
    )
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = loss_of(model(torch.tensor(batch.ids), torch.tensor(batch.lengths)), batch.targets)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()

    settings = TrainConfig(20, 1e-3, "constant", optimiser=adapter_optimiser(adapter, 0.1), clip_norm=None)
    state = train(adapter.weights, model_objective(params, config, adapter), lambda rng: [batch], settings)
    check("LoRA+, 20 steps", "losses", state.history["loss"], np.array(losses), TRAINED)
    check_all("LoRA+, 20 steps", state.trainable, trained_parameters(model), TRAINED)
    assert losses[-1] < 0.9 * losses[0]
