"""The losses of GRPO and DPO beside TRL's. Those of the reference are beside PyTorch's in test_reference_torch.py."""

import importlib.machinery
import sys
from importlib.util import find_spec
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest

from lora_np.training import advantages, dpo, grpo

from .comparison import check

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.oracle

EXACT = 1e-12
# What TRL imports for its data, not for its losses.
ABSENT = ("datasets", "datasets.fingerprint", "pyarrow", "pyarrow.compute", "pyarrow.types", "pandas")


@pytest.fixture
def trl(monkeypatch):
    """TRL's two trainers, without the packages that only its data needs."""
    pytest.importorskip("trl", reason="install it with: pip install --no-deps trl==1.16.0")
    for name in [name for name in ABSENT if find_spec(name.partition(".")[0]) is None]:
        module = MagicMock(__spec__=importlib.machinery.ModuleSpec(name, None), __path__=[], __version__="4.0")
        monkeypatch.setitem(sys.modules, name, module)
    from trl.trainer import dpo_trainer, grpo_trainer

    return grpo_trainer.GRPOTrainer, dpo_trainer.DPOTrainer


def trainer(**settings):
    """A stand-in for a trainer, which needs no more than its settings to compute a loss."""
    self = MagicMock(**settings, aux_loss_enabled=False, current_gradient_accumulation_steps=1)
    self.accelerator.gather = self.accelerator.gather_for_metrics = lambda values: values
    return self


@pytest.fixture
def draw():
    """Log probabilities of 7 texts of up to 5 tokens, by three models, and advantages; some ratios are clipped."""
    rng = np.random.default_rng(0)
    log_probs, old, reference = (rng.normal(size=(7, 5)) * 0.4 - 1 for _ in range(3))
    real = np.arange(5) < rng.integers(1, 6, size=7)[:, None]
    return log_probs, old, reference, real, rng.normal(size=7)


def test_grpo_is_trls(draw, trl):
    """TRL 1.16.0, loss_type "grpo": the loss and its gradient, with clipping and the penalty; its advantages."""
    log_probs, old, reference, real, advantage = draw
    theirs = torch.tensor(log_probs, requires_grad=True)
    settings = {"top_entropy_quantile": 1.0, "off_policy_mask_threshold": None, "importance_sampling_level": "token"}
    settings |= {"beta": 0.3, "loss_type": "grpo", "epsilon_low": 0.2, "epsilon_high": 0.2, "use_vllm": False}
    self = trainer(
        **settings, _entropy_bonus_enabled=False, args=SimpleNamespace(delta=None, use_bias_correction_kl=False)
    )
    self._get_per_token_logps_and_entropies = lambda *_, **__: (theirs, torch.zeros(7, 5), None)
    inputs = {"prompt_ids": torch.zeros(7, 2).long(), "prompt_mask": torch.ones(7, 2)}
    inputs |= {"completion_ids": torch.zeros(7, 5).long(), "completion_mask": torch.tensor(real).double()}
    arrays = {"advantages": advantage, "old_per_token_logps": old, "ref_per_token_logps": reference}
    inputs |= {name: torch.tensor(array) for name, array in arrays.items()}
    expected = trl[0]._compute_loss(self, None, inputs)
    expected.backward()
    loss, slopes = grpo(log_probs, advantage, real, old, reference, beta=0.3)
    assert 0 < np.mean(np.abs(np.exp(log_probs - old) - 1)[real] > 0.2) < 1
    check("GRPO beside TRL", "loss", np.array(loss), expected.detach().numpy(), EXACT)
    check("GRPO beside TRL", "gradient", slopes, theirs.grad.numpy(), EXACT)


def test_advantages_are_trls():
    """As in TRL with scale_rewards="group": (rewards − mean) / (standard deviation + 1e-4)."""
    rewards = np.random.default_rng(0).normal(size=(4, 6))
    grouped = torch.tensor(rewards)
    expected = (grouped - grouped.mean(dim=1, keepdim=True)) / (grouped.std(dim=1, keepdim=True) + 1e-4)
    check("GRPO beside TRL", "advantages", advantages(rewards), expected.numpy(), EXACT)


def test_dpo_is_trls(draw, trl):
    """TRL 1.16.0, loss_type "sigmoid": three pairs, with the reference's log probabilities given."""
    log_probs, _, reference, real, _ = (array[:6] for array in draw)
    theirs = torch.tensor(np.pad(log_probs, ((0, 0), (1, 0))), requires_grad=True)
    mask = torch.tensor(np.pad(real, ((0, 0), (1, 0))))
    settings = {"ld_alpha": None, "precompute_ref_logps": True, "f_divergence_type": "reverse_kl", "beta": 0.7}
    self = trainer(**settings, loss_types=["sigmoid"], loss_weights=[1.0], use_weighting=False)
    kept = torch.cat([theirs[:, :1] * 0, theirs[:, 1:] * mask[:, 1:]], dim=1)
    texts = (reference * real).sum(axis=1)
    inputs = {"input_ids": torch.zeros(6, 6).long(), "completion_mask": mask.long()}
    inputs |= {"ref_chosen_logps": torch.tensor(texts[:3]), "ref_rejected_logps": torch.tensor(texts[3:])}
    inputs["attention_mask"] = torch.ones(6, 6)
    zeros = torch.zeros(6, 5)  # for what it logs
    outputs = SimpleNamespace(log_probs=kept, entropy=zeros, mean_logits=zeros, is_top1=zeros > 0)
    expected = trl[1]._compute_loss(self, lambda **_: outputs, inputs, False)
    expected.backward()
    texts, texts_before = ((array * real).sum(axis=1).reshape(2, 3).T for array in (log_probs, reference))  # (3, 2)
    loss, slopes = dpo(texts, texts_before, 0.7)
    check("DPO beside TRL", "loss", np.array(loss), expected.detach().numpy(), EXACT)
    check("DPO beside TRL", "gradient", slopes.T.reshape(6, 1) * real, theirs.grad.numpy()[:, 1:], EXACT)
