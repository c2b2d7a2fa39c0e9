"""The whole model against an independent PyTorch transformer and against transformers' GPT-2.

Logits, the loss, the gradient of every parameter, and every activation with its gradient: for the language model with
its tied head and for the classifier on a right-padded batch. test_adapters_peft.py does the same for adapted models.
"""

import numpy as np
import pytest

from lora_np.model import backward, draw_masks, forward, loss_and_gradients
from lora_np.ops import cross_entropy_backward, cross_entropy_forward

from .comparison import GRADIENT, OUTPUT, check, check_all

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.func import functional_call  # noqa: E402

from .torch_model import (  # noqa: E402
    TorchModel,
    gpt2_weights,
    loss_of,
    random_batch,
    random_params,
    record_activations,
    set_masks,
    tiny_config,
    torch_model,
)

ZERO = ("k_proj.bias",)
LENGTHS = {"T=5": (5, 2, 4), "no padding": (4, 4, 4), "T=n_positions": (7, 1, 3), "T=1": (1, 1, 1)}

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.parametrize("seed", [0, 1]),
    pytest.mark.parametrize("n_classes", [0, 4], ids=["language model", "classifier"]),
]


def run_torch(weights, batch, config):
    """Logits of TorchModel with the given weights (dict of tensors)."""
    ids, lengths = torch.tensor(batch.ids), torch.tensor(batch.lengths)
    return functional_call(TorchModel(config).double(), weights, (ids, lengths))


def run_gpt2(weights, batch, config):
    """Logits of GPT-2 with the given weights (dict of tensors under lora_np's names)."""
    kind = transformers.GPT2ForSequenceClassification if config.n_classes else transformers.GPT2LMHeadModel
    model = kind(
        transformers.GPT2Config(
            vocab_size=config.vocab_size, n_positions=config.n_positions, n_embd=config.d_model,
            n_layer=config.n_layers, n_head=config.n_heads, n_inner=config.d_ff,
            num_labels=config.n_classes or 2, activation_function="gelu_new",
            layer_norm_epsilon=config.layer_norm_eps, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            pad_token_id=0, bos_token_id=0, eos_token_id=0, use_cache=False,
        )
    ).double()  # fmt: skip
    ids = torch.tensor(batch.ids)
    # A classifier's padding is masked too; a language model's is not, so that all T positions compare.
    real = (torch.arange(ids.shape[1]) < torch.tensor(batch.lengths)[:, None]).long()
    options = {"attention_mask": real} if config.n_classes else {}
    return functional_call(model, gpt2_weights(weights, config), (), {"input_ids": ids, **options}).logits


ORACLES = pytest.mark.parametrize("oracle", [run_torch, run_gpt2], ids=["torch", "gpt2"])


def leaves(arrays):
    return {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}


def gradients(tensors):
    return {name: tensor.grad for name, tensor in tensors.items()}


@ORACLES
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_the_base_agrees_in_all_gradients(oracle, lengths, n_classes, seed):
    """Those of the loss, and those of a random gradient at every logit, padded positions among them."""
    rng, config = np.random.default_rng(seed), tiny_config(n_classes)
    params, batch = random_params(config, rng), random_batch(config, rng, lengths)
    # Where T = 1 a token attends to itself alone, so the scores have no say.
    zero = ZERO if max(lengths) > 1 else ("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias")
    weights = leaves(params)
    expected = oracle(weights, batch, config)
    dlogits = rng.normal(size=expected.shape)
    expected.backward(torch.tensor(dlogits), retain_graph=True)
    logits, cache = forward(params, batch.ids, config, lengths=batch.lengths, wanted=tuple(params))
    check("model, logits and loss", "logits", logits, expected, OUTPUT)
    check_all("model, all gradients", backward(dlogits, cache), gradients(weights), GRADIENT, zero)
    if n_classes or max(lengths) > 1:  # a language model's only token has none to predict
        for tensor in weights.values():
            tensor.grad = None
        loss = loss_of(expected, batch.targets)
        loss.backward()
        objective = loss_and_gradients(params, batch, config, wanted=tuple(params))
        check("model, logits and loss", "loss", objective.loss, loss, OUTPUT)
        check_all("model, all gradients", objective.grads, gradients(weights), GRADIENT, zero)


def test_every_activation_and_its_gradient(n_classes, seed):
    """With dropout, whose masks both sides are given."""
    rng, config = np.random.default_rng(seed), tiny_config(n_classes, dropout=0.25)
    params, batch = random_params(config, rng), random_batch(config, rng)
    masks = draw_masks(config, batch.ids.shape, rng, dtype=np.float64)
    assert len(masks) == 5, f"a mask for the embeddings and two for each block, got {list(masks)}"
    model = torch_model(params, config)
    set_masks(model, masks)
    seen = record_activations(model)
    logits = model(torch.tensor(batch.ids), torch.tensor(batch.lengths))
    loss_of(logits, batch.targets).backward()
    seen.pop("head", None)  # the logits once more

    activations, dactivations, evaluated = {}, {}, {}
    given = dict(lengths=batch.lengths, masks=masks)
    logits, cache = forward(params, batch.ids, config, **given, wanted=tuple(params), record=activations)
    loss, loss_cache = cross_entropy_forward(logits, batch.targets)
    grads = backward(cross_entropy_backward(1.0, loss_cache).dlogits, cache, record=dactivations)

    assert list(activations) == list(dactivations)[::-1], "gradients are not in reverse order"
    expected, dexpected = ({}, {})
    for name, tensor in seen.items():
        expected[name], dexpected[name] = tensor.detach().numpy(), tensor.grad.numpy()
        if activations[name].shape != expected[name].shape:  # a classifier computes it at the last real token alone
            last = (batch.lengths - 1).reshape(-1, *[1] * (tensor.ndim - 1))
            expected[name] = np.take_along_axis(expected[name], last, axis=-2)
            elsewhere = dexpected[name].copy()
            np.put_along_axis(elsewhere, last, 0.0, axis=-2)
            assert not elsewhere.any(), f"{name}: PyTorch has a gradient at a position that lora_np does not compute"
            dexpected[name] = np.take_along_axis(dexpected[name], last, axis=-2)
    check_all("model, gradients of activations", dactivations, dexpected, GRADIENT)
    for name in [name for name in activations if name.endswith(".scores")]:
        masked = np.isneginf(expected[name])
        assert np.array_equal(np.isneginf(activations[name]), masked), f"{name}: another mask"
        activations[name], expected[name] = (np.where(masked, 0.0, x[name]) for x in (activations, expected))
    check_all("model, activations", activations, expected, OUTPUT)
    forward(params, batch.ids, config, **given, record=evaluated)
    assert list(evaluated) == list(activations), "a record holds every activation, gradients wanted or not"
    check_all("model, all gradients", grads, gradients(dict(model.named_parameters())), GRADIENT, ZERO)
