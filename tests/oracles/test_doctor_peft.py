"""The doctor says what PEFT does: PEFT's logits change as much as it says, and PEFT fails where it says so."""

import numpy as np
import pytest

from lora_np.formats import load_hf
from lora_np.tasks.doctor import compare, diagnose, examine

from ..adapter_faults import PEFT_FAULTS, QV
from ..adapter_files import peft_tensors, random_factors, write_peft

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.oracle

DEPENDS = (".default.",)  # on PEFT's version
NOT_COMPARED = ("no A", "NaN", "infinite", "overflow")  # because of random or infinite numbers
HEALTHY = {  # as in PEFT_FAULTS
    "Llama": ("llama", dict, {}),
    "GPT-2": ("gpt2", dict, {"use_rslora": True}),
    "Llama, DoRA": ("llama", dict, {"use_dora": True}),
    "GPT-2, DoRA": ("gpt2", dict, {"use_dora": True, "alpha_pattern": {"h.1.attn.c_attn": 3}}),
}
GPT2 = {"n_embd": 12, "n_layer": 2, "n_head": 3, "n_inner": 20}
LLAMA = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 6}
LLAMA |= {"num_key_value_heads": 2, "head_dim": 6, "tie_word_embeddings": True}
SIZES = {"vocab_size": 13, "max_position_embeddings": 7, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of random models in transformers' format, with weights large enough that an adapter shows."""
    folder = tmp_path_factory.mktemp("models")
    configs = {"gpt2": transformers.GPT2Config(**GPT2, **SIZES), "llama": transformers.LlamaConfig(**LLAMA, **SIZES)}
    for name, config in configs.items():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        model.save_pretrained(folder / name)
    return folder


def logits_of(model):
    with torch.no_grad():
        logits = model(torch.arange(7)[None]).logits.numpy()[0]
    return logits[-1] if logits.ndim == 2 else logits


def logits_in_peft(model, adapter):
    """The logits with the adapter attached, or None if PEFT refuses it."""
    try:
        return logits_of(peft.PeftModel.from_pretrained(model, adapter).eval())
    except (RuntimeError, ValueError, KeyError):
        return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*HEALTHY, *(name for name in PEFT_FAULTS if name not in DEPENDS)])
def test_peft_applies_ignores_and_refuses_as_the_doctor_says(name, models, tmp_path):
    base, change, fields, *_ = PEFT_FAULTS.get(name) or HEALTHY[name]
    factors = random_factors(
        load_hf(models / base).params,
        ["c_attn"] if base == "gpt2" else QV,
        dora=name in HEALTHY and "use_dora" in fields,
    )
    with np.errstate(all="ignore"):
        write_peft(tmp_path / "a", change(peft_tensors(factors)), **fields)
    kind = transformers.AutoModelForCausalLM
    if fields.get("task_type") == "SEQ_CLS":
        kind = transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(models / base).eval()
    before = logits_of(model)
    after = logits_in_peft(model, tmp_path / "a")
    report = diagnose(tmp_path / "a", models / base)
    is_refused = any(fault.startswith("PEFT refuses") for fault in report["faults"])
    assert is_refused == (after is None), report["faults"]
    if is_refused:
        return
    if name in NOT_COMPARED:
        assert report["faults"]
        return
    changed = np.abs(after - before).max() / np.sqrt(np.mean(before**2))
    if report["prompt"] is None or report["prompt"]["left_out"]:
        assert (changed == 0) == bool(report["faults"])
    else:
        task, treatment, _ = examine(tmp_path / "a", models / base)
        assert compare(task, treatment)["change"] == pytest.approx(changed, rel=1e-3, abs=1e-6)
