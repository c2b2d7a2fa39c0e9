"""GPT-2 and Llamas against independent ones in PyTorch, and against transformers', in float64.

Logits, the loss, the gradient of every parameter, every activation with its gradient, and greedy text: for language
models and for classifiers on a right-padded batch. test_adapters_peft.py does the same for adapted models.
"""

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig, init_adapter, merge
from lora_np.model import GPT2Config, backward, draw_masks, forward, generate, loss_and_gradients
from lora_np.ops import cross_entropy_backward, cross_entropy_forward

from .comparison import GRADIENT, OUTPUT, check, check_all

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch.func import functional_call  # noqa: E402

from .hf_model import Logits, hf_model, hf_weights, in_float64  # noqa: E402
from .torch_model import MODELS, loss_of, model_case, record_activations, set_masks, torch_model  # noqa: E402

LENGTHS = {"T=5": (5, 2, 4, 1), "no padding": (4, 4, 4), "T=n_positions": (7, 1, 3), "T=1": (1, 1, 1)}
PATTERNS = {"rank_pattern": {"q_proj": 4, "blocks.1.mlp.*": 1}, "alpha_pattern": {"down_proj": 9.0}}

pytestmark = pytest.mark.oracle
SEEDS = pytest.mark.parametrize("seed", [0, 1])
HEADS = pytest.mark.parametrize("n_classes", [0, 4], ids=["language model", "classifier"])
NAMES = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def float64(monkeypatch):
    in_float64(monkeypatch)


def run_torch(weights, batch, params, config):
    """Logits of TorchModel with the given weights (dict of tensors)."""
    ids, lengths = torch.tensor(batch.ids), torch.tensor(batch.lengths)
    return functional_call(torch_model(params, config), weights, (ids, lengths))


def run_transformers(weights, batch, params, config):
    """Logits of transformers' model with the given weights (dict of tensors under lora_np's names)."""
    model = Logits(hf_model(params, config), config.n_classes)
    theirs = {f"model.{name}": weight for name, weight in hf_weights(weights, config).items()}
    return functional_call(model, theirs, (torch.tensor(batch.ids), torch.tensor(batch.lengths)))


def zero_in_theory(config, lengths):
    """Gradients that are rounding errors: a token that attends to itself alone has scores without a say.

    Nor has GPT-2's key bias. A Llama turns it by the position.
    """
    if max(lengths) == 1:
        return "q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias"
    return ("k_proj.bias",) if isinstance(config, GPT2Config) else ()


@SEEDS
@HEADS
@NAMES
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("oracle", [run_torch, run_transformers])
def test_the_base_agrees_in_all_gradients(oracle, lengths, name, n_classes, seed):
    """Those of the loss, and those of a random gradient at every logit, padded positions among them."""
    rng, config, params, batch = model_case(name, n_classes, seed, lengths)
    zero, has_loss = zero_in_theory(config, lengths), n_classes or max(lengths) > 1
    weights = {key: torch.tensor(array, requires_grad=True) for key, array in params.items()}
    expected = oracle(weights, batch, params, config)
    dlogits = rng.normal(size=expected.shape)
    of_dlogits = torch.autograd.grad(expected, weights.values(), torch.tensor(dlogits), retain_graph=True)
    if has_loss:  # a language model's only token has none to predict
        loss = loss_of(expected, batch.targets)
        of_loss = torch.autograd.grad(loss, weights.values())
    for recompute in (False, True):
        given = {"wanted": tuple(params), "recompute": recompute}
        logits, cache = forward(params, batch.ids, config, lengths=batch.lengths, **given)
        check("model, logits and loss", "logits", logits, expected, OUTPUT)
        check_all("model, all gradients", backward(dlogits, cache), dict(zip(params, of_dlogits)), GRADIENT, zero)
        if has_loss:
            objective = loss_and_gradients(params, batch, config, **given)
            check("model, logits and loss", "loss", objective.loss, loss, OUTPUT)
            check_all("model, all gradients", objective.grads, dict(zip(params, of_loss)), GRADIENT, zero)


@SEEDS
@HEADS
@NAMES
def test_every_activation_and_its_gradient(name, n_classes, seed):
    """With dropout, whose masks both sides are given."""
    rng, config, params, batch = model_case(name, n_classes, seed, dropout=0.25)
    masks = draw_masks(config, batch.ids.shape, rng, dtype=np.float64)
    assert len(masks) == 4 + ("embed" in masks), f"two masks for each block, got {list(masks)}"
    model = torch_model(params, config)
    set_masks(model, masks)
    seen = record_activations(model)
    logits = model(torch.tensor(batch.ids), torch.tensor(batch.lengths))
    loss_of(logits, batch.targets).backward()

    activations, dactivations, evaluated = {}, {}, {}
    given = dict(lengths=batch.lengths, masks=masks)
    logits, cache = forward(params, batch.ids, config, **given, wanted=tuple(params), record=activations)
    loss, loss_cache = cross_entropy_forward(logits, batch.targets)
    grads = backward(cross_entropy_backward(1.0, loss_cache).dlogits, cache, record=dactivations)

    assert list(activations) == list(dactivations)[::-1], "gradients are not in reverse order"
    expected, dexpected = ({}, {})
    for key, tensor in seen.items():
        expected[key], dexpected[key] = tensor.detach().numpy(), tensor.grad.numpy()
        if activations[key].shape != expected[key].shape:  # a classifier computes it at the last real token alone
            last = (batch.lengths - 1).reshape(-1, *[1] * (tensor.ndim - 1))
            expected[key] = np.take_along_axis(expected[key], last, axis=-2)
            elsewhere = dexpected[key].copy()
            np.put_along_axis(elsewhere, last, 0.0, axis=-2)
            assert not elsewhere.any(), f"{key}: PyTorch has a gradient at a position that lora_np does not compute"
            dexpected[key] = np.take_along_axis(dexpected[key], last, axis=-2)
    check_all("model, gradients of activations", dactivations, dexpected, GRADIENT)
    for key in [key for key in activations if key.endswith(".scores")]:
        masked = np.isneginf(expected[key])
        assert np.array_equal(np.isneginf(activations[key]), masked), f"{key}: another mask"
        activations[key], expected[key] = (np.where(masked, 0.0, x[key]) for x in (activations, expected))
    check_all("model, activations", activations, expected, OUTPUT)
    forward(params, batch.ids, config, **given, record=evaluated)
    assert list(evaluated) == list(activations), "a record holds every activation, gradients wanted or not"
    expected = {key: parameter.grad for key, parameter in model.named_parameters()}
    check_all("model, all gradients", grads, expected, GRADIENT, zero_in_theory(config, batch.lengths))


@pytest.mark.parametrize("seed", [3, 5])
@NAMES
@pytest.mark.parametrize("adapted", [False, True], ids=["base", "adapter"])
def test_greedy_text_is_transformers(adapted, name, seed):
    """Up to the last position, with the cache of keys and values on both sides; of an adapter with the merged model."""
    rng, config, params, _ = model_case(name, 0, seed)
    adapter = None
    if adapted:
        start = init_adapter(params, AdapterConfig(2, 3.0, ("all-linear",), **PATTERNS), rng)
        moved = {key: array + 0.3 * rng.normal(size=array.shape) for key, array in start.weights.items()}
        adapter = start._replace(weights=moved)
    model = hf_model(merge(params, adapter) if adapted else params, config)
    for T in (1, 4):
        ids, n_new = rng.integers(1, config.vocab_size, (5, T)), config.n_positions - T
        given = {"attention_mask": torch.ones(ids.shape, dtype=torch.long), "do_sample": False, "use_cache": True}
        text = model.generate(torch.tensor(ids), max_new_tokens=n_new, pad_token_id=0, **given)
        ours = generate(params, ids, config, n_new, adapter)
        assert ours.tolist() == text.tolist()
        assert len(np.unique(ours[:, T:])) > 1
