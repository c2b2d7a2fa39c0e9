"""PEFT's adapters on Llamas: random ones give the same logits here in float64 or are refused, and ours there."""

import warnings

import numpy as np
import pytest

from lora_np.formats import load_peft, save_hf, save_peft
from lora_np.model import forward

from .comparison import OUTPUT, check

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from .llama_model import LLAMAS, Logits, hf_model, in_float64, llama_case  # noqa: E402
from .test_formats_hf import no_warnings  # noqa: E402

pytestmark = pytest.mark.oracle

LAYERS = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
REFUSED = {  # what PEFT can train and lora_np cannot -> part of the message
    "an embedding": ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens"),
    "the language model's head": ({"target_modules": ["q_proj", "lm_head"]}, "lm_head"),
    "an embedding, whole": ({"modules_to_save": ["embed_tokens"]}, "embed_tokens"),
    "the head, whole": ({"modules_to_save": ["lm_head"]}, "lm_head"),
    "a norm, whole": ({"modules_to_save": ["norm"]}, "norm"),
    "single tokens": ({"trainable_token_indices": [1, 3]}, "trainable_token_indices"),
    "biases": ({"bias": "lora_only"}, "bias is 'lora_only'"),
    "B's biases": ({"lora_bias": True}, "lora_bias"),
    "repeated layers": ({"layer_replication": [[0, 2], [0, 2]]}, "layer_replication"),
    "another start": ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
}


def random_settings(rng):
    """A LoraConfig's fields: any layers, ranks, alphas, kinds and exceptions, in any of the ways to say them."""
    some = sorted(rng.choice(LAYERS, rng.integers(1, 8), replace=False).tolist())
    whole = [f"model.layers.{i}.{'mlp' if n in LAYERS[4:] else 'self_attn'}.{n}" for n in some for i in (0, 1)]
    ways = [
        some,
        some,
        some,
        whole,
        "all-linear",
        f".*({'|'.join(some)})",
        None,
        ["self_attn." + LAYERS[rng.integers(4)]],
    ]
    settings = {
        "r": int(rng.integers(1, 6)),
        "lora_alpha": [1, 8, 3.5, -2][rng.integers(4)],
        "target_modules": ways[rng.integers(len(ways))],
        "use_rslora": bool(rng.random() < 0.3),
        "use_dora": bool(rng.random() < 0.3),
    }
    keys = [*some, r"layers\.1\.self_attn\.q_proj", "model.layers.0.mlp.up_proj", ".*o_proj"]
    for field, most in (("rank_pattern", 6), ("alpha_pattern", 20)):
        if rng.random() < 0.4:
            chosen = rng.choice(keys, rng.integers(1, 4), replace=False)
            settings[field] = {str(key): int(rng.integers(1, most)) for key in chosen}
    if rng.random() < 0.3:
        settings["exclude_modules"] = [LAYERS[:2], r".*layers\.0\.mlp.*", ["layers.1.mlp.down_proj"]][rng.integers(3)]
    if isinstance(settings["target_modules"], list) and rng.random() < 0.4:
        settings["layers_to_transform"] = [[0], 1, [0, 1]][rng.integers(3)]
        if rng.random() < 0.5:
            settings["layers_pattern"] = "layers"
    return settings


def made_by_peft(model, n_classes, settings, seed):
    """PEFT's model with random numbers in all that it trains; None if PEFT finds no layer for these settings."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(task_type="SEQ_CLS" if n_classes else "CAUSAL_LM", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rsLoRA with rank_pattern, of tied layers, and of what an exception misses
        try:
            model = peft.get_peft_model(model, config).double().eval()
        except ValueError as error:
            assert "target" in str(error).lower() or "exclud" in str(error).lower(), error
            return None
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = 0.3 * torch.randn_like(parameter)
                parameter.copy_(parameter * torch.exp(noise) if "magnitude" in name else noise)
    return model


def in_peft(model, folder):
    """The model with an adapter that PEFT reads. It warns of rsLoRA with ranks, and of patterns that fit no layer."""
    with no_warnings():
        warnings.filterwarnings("ignore", "Using Rank-Stabilized LoRA with rank_pattern|The following .*_pattern keys")
        return peft.PeftModel.from_pretrained(model, folder).double().eval()


@pytest.mark.parametrize("tenth", range(30))
def test_ten_random_adapters(tenth, tmp_path, monkeypatch):
    """Every second is also exported, loaded by PEFT without a warning, and compared there.

    PEFT sorts the patterns when it saves them, and the first that fits counts. So what it reads back may have other
    scales than what it saved, or ranks that do not fit. What it reads is the truth.
    """
    in_float64(monkeypatch)
    done = seed = 0
    while done < 10:
        seed += 1
        rng = np.random.default_rng([tenth, seed])
        n_classes = int(rng.choice([0, 0, 3]))
        _, config, params, batch = llama_case(list(LLAMAS)[rng.integers(len(LLAMAS))], n_classes, int(rng.integers(99)))
        ids, lengths = torch.tensor(batch.ids), torch.tensor(batch.lengths)
        made = made_by_peft(hf_model(params, config), n_classes, random_settings(rng), seed)
        if made is None:
            continue
        folder = tmp_path / str(done)
        made.save_pretrained(folder / "adapter")
        done += 1
        try:
            theirs = in_peft(hf_model(params, config), folder / "adapter")
        except RuntimeError as error:
            assert "size mismatch" in str(error)
            with pytest.raises(ValueError, match="but the configuration says"):
                load_peft(folder / "adapter", params)
            continue
        adapter = load_peft(folder / "adapter", params)
        logits, _ = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter)
        check("Llama, random adapters from PEFT", "logits", logits, Logits(theirs, n_classes)(ids, lengths), OUTPUT)
        if done % 2 == 0:
            save_hf(folder / "base", params, config)
            save_peft(folder / "again", adapter, params, config)
            auto = getattr(transformers, f"AutoModelFor{'SequenceClassification' if n_classes else 'CausalLM'}")
            with no_warnings():
                base = auto.from_pretrained(folder / "base", attn_implementation="eager", dtype=torch.float64)
            base.config.pad_token_id = 0
            theirs = Logits(in_peft(base, folder / "again"), n_classes)(ids, lengths)
            check("Llama, random adapters to PEFT", "logits", theirs.detach().numpy(), logits, OUTPUT)


@pytest.mark.parametrize("name", REFUSED)
def test_what_only_peft_has_is_refused_by_name(name, tmp_path):
    _, config, params, _ = llama_case("H/K = 3, tied", 0, 0)
    fields, says = REFUSED[name]
    made = made_by_peft(hf_model(params, config).float(), 0, {"target_modules": ["q_proj"], **fields}, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.save_pretrained(tmp_path)
    with pytest.raises(ValueError) as raised:
        load_peft(tmp_path, params)
    assert says in str(raised.value) and "\n" not in str(raised.value)
