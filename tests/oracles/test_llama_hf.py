"""Our Llama against transformers' and PEFT's, in float64: logits, gradients, training, and generated tokens.

`llama_model.py` lists what is patched. test_llama_files_hf.py compares files, and SmolLM2 itself.
"""

from dataclasses import replace

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig, init_adapter, merge
from lora_np.model import backward, forward, generate, loss_and_gradients
from lora_np.training import AdamW, TrainConfig, model_objective, train

from .comparison import GRADIENT, OUTPUT, TRAINED, check, check_all

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from .llama_model import LLAMAS, Logits, hf_model, hf_name, hf_trained, in_float64, llama_case  # noqa: E402
from .peft_model import load_trained, lora_config  # noqa: E402
from .test_training_torch import torch_train  # noqa: E402
from .torch_model import loss_of, random_batch  # noqa: E402

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore:Using Rank-Stabilized LoRA with rank_pattern"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),  # of PEFT's calls
]

SEEDS = pytest.mark.parametrize("seed", [0, 1])
HEADS = pytest.mark.parametrize("n_classes", [0, 4], ids=["language model", "classifier"])
SIZES = pytest.mark.parametrize("name", LLAMAS)


@pytest.fixture(autouse=True)
def float64(monkeypatch):
    in_float64(monkeypatch)


def gradients(parameters):
    grads = {name: parameter.grad for name, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = None
    return grads


@SEEDS
@HEADS
@SIZES
def test_the_base_agrees_in_all_gradients(name, n_classes, seed):
    """Those of the loss, and those of a random gradient at every logit, padded positions among them."""
    rng, config, params, batch = llama_case(name, n_classes, seed)
    model = hf_model(params, config)
    trained = hf_trained(model)
    expected = Logits(model, n_classes)(torch.tensor(batch.ids), torch.tensor(batch.lengths))
    dlogits = rng.normal(size=expected.shape)
    expected.backward(torch.tensor(dlogits), retain_graph=True)
    of_dlogits = gradients(trained)
    loss = loss_of(expected, batch.targets)
    loss.backward()
    of_loss = gradients(trained)
    for recompute in (False, True):
        given = {"wanted": tuple(params), "recompute": recompute}
        logits, cache = forward(params, batch.ids, config, lengths=batch.lengths, **given)
        check("Llama, logits and loss", "logits", logits, expected, OUTPUT)
        check_all("Llama, all gradients", backward(dlogits, cache), of_dlogits, GRADIENT)
        objective = loss_and_gradients(params, batch, config, **given)
        check("Llama, logits and loss", "loss", objective.loss, loss, OUTPUT)
        check_all("Llama, all gradients", objective.grads, of_loss, GRADIENT)


QV = {"r": 2, "alpha": 3.0, "targets": ("q_proj", "v_proj")}
PATTERNS = {  # up_proj of block 1 fits two keys: the first counts
    "r": 2,
    "alpha": 3.0,
    "targets": ("all-linear",),
    "rank_pattern": {"q_proj": 4, "blocks.1.mlp.*": 1, "up_proj": 6, "gate_proj": 5},
    "alpha_pattern": {"down_proj": 9.0, "blocks.0.attn.v_proj": 0.5},
}
ADAPTERS = {
    "q and v": QV,
    "all seven": {"r": 4, "alpha": 16.0, "targets": ("all-linear",)},
    "gate and up of one block": {"r": 3, "alpha": 2.0, "targets": ("blocks.1.mlp.gate_proj", "blocks.1.mlp.up_proj")},
    "patterns": PATTERNS,
    "rsLoRA": PATTERNS | {"rslora": True},
}


def adapted(settings, name, n_classes, seed, start=False):
    """rng, config, params, batch, our adapter away from its start (or at it), and PEFT's model with it."""
    rng, config, params, batch = llama_case(name, n_classes, seed)
    adapter = init_adapter(params, AdapterConfig(**settings, train_head=bool(n_classes)), rng)
    if not start:
        moved = {key: array + 0.3 * rng.normal(size=array.shape) for key, array in adapter.weights.items()}
        adapter = adapter._replace(weights=moved)
    theirs = {field: {hf_name(key): value for key, value in getattr(adapter.config, field).items()}
              for field in ("rank_pattern", "alpha_pattern")}  # fmt: skip
    theirs = replace(adapter.config, targets=tuple(map(hf_name, adapter.config.targets)), **theirs)
    model = peft.get_peft_model(hf_model(params, config), lora_config(theirs, n_classes, head="score"))
    load_trained(model, adapter.weights, hf_trained(model))
    return rng, config, params, batch, adapter, model


@SEEDS
@HEADS
@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("settings", ADAPTERS.values(), ids=ADAPTERS)
def test_adapters_agree_with_peft(settings, kind, n_classes, seed):
    """Logits, all gradients, and the merged model."""
    name = list(LLAMAS)[(seed + 2 * bool(n_classes)) % len(LLAMAS)]
    _, config, params, batch, adapter, model = adapted(settings | {"kind": kind}, name, n_classes, seed)
    expected = Logits(model.train(), n_classes)(torch.tensor(batch.ids), torch.tensor(batch.lengths))
    loss_of(expected, batch.targets).backward()
    logits, _ = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter)
    check(f"Llama with {kind}, logits", "logits", logits, expected, OUTPUT)
    base, _ = forward(params, batch.ids, config, lengths=batch.lengths)
    assert np.abs(logits - base).max() > 1e-3
    expected = gradients(hf_trained(model))
    for recompute in (False, True):
        objective = loss_and_gradients(params, batch, config, adapter, tuple(adapter.weights), recompute=recompute)
        check_all(f"Llama with {kind}, gradients", objective.grads, expected, GRADIENT)
    merged = {hf_name(n, n_classes): array for n, array in merge(params, adapter).items()}
    theirs = model.merge_and_unload().state_dict()
    check_all(f"Llama with {kind}, merged weights", merged, {n: theirs[n] for n in merged}, OUTPUT)


RUNS = {  # name -> (classes, adapter, sizes, recompute, clip_norm: near the middle of the run's norms)
    "full, language model, tied": (0, None, "H/K = 3, tied", False, 1.5),
    "full, language model, untied": (0, None, "H/K = 2, untied", True, 1.5),
    "full, classifier, biases": (4, None, "H/K = 1, square, biases", False, 0.3),
    "LoRA, all seven, language model": (0, ADAPTERS["all seven"], "H/K = 3, tied", True, 1.6),
    "LoRA, q and v, and head": (4, QV, "one key, untied, attention's biases", True, 1.0),
    "DoRA, all seven, language model": (0, ADAPTERS["all seven"] | {"kind": "dora"}, "H/K = 2, untied", False, 3.0),
}


@SEEDS
@pytest.mark.parametrize("n_classes, settings, name, recompute, clip_norm", RUNS.values(), ids=RUNS)
def test_100_steps(n_classes, settings, name, recompute, clip_norm, seed):
    """Clipped, scheduled, decayed and accumulated; PyTorch sees each batch whole."""
    if settings is None:
        rng, config, params, _ = llama_case(name, n_classes, seed)
        start, trainable, model = None, params, hf_model(params, config)
    else:
        rng, config, params, _, start, model = adapted(settings, name, n_classes, seed, start=True)
        trainable = start.weights
    batches = [random_batch(config, rng, rng.integers(2, 6, size=8)) for _ in range(3)]
    options = dict(schedule="cosine", warmup_steps=10, final_share=0.1, optimiser=AdamW(weight_decay=0.1))
    run = TrainConfig(100, 0.01, **options, clip_norm=clip_norm, shards=2, seed=seed)
    expected, m, v, history = torch_train(Logits(model, n_classes), hf_trained(model), batches, run, lambda *_: {})
    state = train(trainable, model_objective(params, config, start, recompute=recompute), lambda rng: batches, run)

    clipped = (history["grad_norm"] > clip_norm).mean()
    assert 0.1 < clipped < 0.9, f"{clipped:.0%} of the steps are clipped: no test of both ways"
    assert history["loss"][-10:].mean() < 0.8 * history["loss"][:10].mean(), "learns something"
    group = f"Llama, 100 steps {'in full' if start is None else 'of LoRA and DoRA'}"
    check_all(f"{group}, parameters", state.trainable, expected, TRAINED)
    check_all(f"{group}, AdamW's m", state.m, m, TRAINED)
    check_all(f"{group}, AdamW's v", state.v, v, TRAINED)
    check_all(f"{group}, losses, rates and norms", state.history, history, TRAINED)


@pytest.mark.parametrize("seed", [3, 4])
@SIZES
@pytest.mark.parametrize("adapter", [None, PATTERNS], ids=["base", "adapter"])
def test_greedy_text_is_transformers(adapter, name, seed):
    """Up to the last position, with the cache of keys and values on both sides."""
    if adapter is None:
        rng, config, params, _ = llama_case(name, 0, seed)
        model = hf_model(params, config)
    else:
        rng, config, params, _, adapter, model = adapted(adapter, name, 0, seed)
        model = model.merge_and_unload()
    for T in (1, 4):
        ids, n_new = rng.integers(1, config.vocab_size, (5, T)), config.n_positions - T
        given = {"attention_mask": torch.ones(ids.shape, dtype=torch.long), "do_sample": False, "use_cache": True}
        text = model.generate(torch.tensor(ids), max_new_tokens=n_new, **given)
        ours = generate(params, ids, config, n_new, adapter)
        assert ours.tolist() == text.tolist()
        assert len(np.unique(ours[:, T:])) > 1
