"""GPT-2 and Llamas against transformers', in float64: logits, the loss, all gradients, and greedy text.

The models are language models and classifiers, on right-padded batches. test_adapters_peft.py compares adapted models,
and test_reference_torch.py every activation and its gradient.
"""

import numpy as np
import pytest

from lora_np.adapters import merge
from lora_np.model import GPT2Config, backward, forward, generate, loss_and_gradients

from ..tiny import random_adapter
from .comparison import GRADIENT, OUTPUT, check, check_all

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch.func import functional_call  # noqa: E402

from .hf_model import Logits, hf_model, hf_weights, in_float64  # noqa: E402
from .torch_model import MODELS, loss_of, model_case  # noqa: E402

LENGTHS = {"T=5": (5, 2, 4, 1), "no padding": (4, 4, 4), "T=n_positions": (7, 1, 3), "T=1": (1, 1, 1)}
PATTERNS = {"rank_pattern": {"q_proj": 4, "blocks.1.mlp.*": 1}, "alpha_pattern": {"down_proj": 9.0}}

pytestmark = pytest.mark.oracle
NAMES = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def float64(monkeypatch):
    in_float64(monkeypatch)


def zero_in_theory(config, lengths):
    """Gradients that are rounding errors: a token that attends to itself alone has scores without a say.

    Nor has GPT-2's key bias. A Llama turns it by the position.
    """
    if max(lengths) == 1:
        return "q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias"
    return ("k_proj.bias",) if isinstance(config, GPT2Config) else ()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("n_classes", [0, 4], ids=["language model", "classifier"])
@NAMES
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_the_base_agrees_in_all_gradients(lengths, name, n_classes, seed):
    """Those of the loss, and those of a random gradient at every logit, padded positions among them."""
    rng, config, params, batch = model_case(name, n_classes, seed, lengths)
    zero, has_loss = zero_in_theory(config, lengths), n_classes or max(lengths) > 1
    weights = {key: torch.tensor(array, requires_grad=True) for key, array in params.items()}
    model = Logits(hf_model(params, config), n_classes)
    theirs = {f"model.{key}": weight for key, weight in hf_weights(weights, config).items()}
    expected = functional_call(model, theirs, (torch.tensor(batch.ids), torch.tensor(batch.lengths)))
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


@pytest.mark.parametrize("seed", [3, 5])
@NAMES
@pytest.mark.parametrize("adapted", [False, True], ids=["base", "adapter"])
def test_greedy_text_is_transformers(adapted, name, seed):
    """Up to the last position, with the cache of keys and values on both sides; of an adapter with the merged model."""
    rng, config, params, _ = model_case(name, 0, seed)
    adapter = random_adapter(params, rng, r=2, alpha=1.0, **PATTERNS) if adapted else None
    model = hf_model(merge(params, adapter) if adapted else params, config)
    for T in (1, 4):
        ids, n_new = rng.integers(1, config.vocab_size, (5, T)), config.n_positions - T
        given = {"attention_mask": torch.ones(ids.shape, dtype=torch.long), "do_sample": False, "use_cache": True}
        text = model.generate(torch.tensor(ids), max_new_tokens=n_new, pad_token_id=0, **given)
        ours = generate(params, ids, config, n_new, adapter)
        assert ours.tolist() == text.tolist()
        assert len(np.unique(ours[:, T:])) > 1
