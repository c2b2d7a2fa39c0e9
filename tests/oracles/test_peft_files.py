"""PEFT's adapters on GPT-2 and Llama: random ones give the same logits here in float64, or are refused; ours there."""

import json
import warnings

import numpy as np
import pytest

from lora_np.formats import load_peft, save_hf, save_peft
from lora_np.model import forward

from .comparison import OUTPUT, check

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from .hf_model import Logits, hf_model, in_float64  # noqa: E402
from .test_formats_hf import file_bytes, in_transformers, no_warnings  # noqa: E402
from .torch_model import LLAMAS, model_case  # noqa: E402

pytestmark = pytest.mark.oracle

LAYERS = {
    "GPT-2": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
    "Llama": [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")],
}
BLOCKS = {"GPT-2": "transformer.h", "Llama": "model.layers"}
ALL = ["c_attn", "c_proj", "c_fc"]
LISTED = [  # settings on GPT-2 that are not drawn
    {"target_modules": r".*\.(0|1)\.attn\.c_attn|.*c_fc"},
    {"target_modules": r"(transformer\.)?h\.(\d)\.(attn|mlp)\.(c_(attn|fc))"},
    {"target_modules": r".*\.h\.(?!0)\d\.(?:attn|mlp)\.c_(?=attn|proj).*"},
    {"target_modules": "(?i).*C_ATTN", "exclude_modules": r".*(1)\.attn\..*"},
    {"target_modules": r".*\.c_(.)(.)\2.*"},
    {
        "target_modules": ALL,
        "rank_pattern": {r"(attn|mlp)\.c_proj": 1, r"h\.(0|7)\.(?:\w+\.)+c_\w+": 3},  # PEFT saves them sorted
        "alpha_pattern": {r"(?!transformer).*c_fc": 9, r"c_[a-f]{1,4}t+n": 5},
    },
    {"target_modules": ["c_fc"], "layers_to_transform": [1], "layers_pattern": ["x|y", "(h)+"]},
    {"target_modules": ["c_attn", "c_proj"], "modules_to_save": [r"mlp\.c_proj"]},
    {"target_modules": ALL, "exclude_modules": "lm_head"},
    {"target_modules": ["c_attn", "c_proj"], "exclude_modules": r".*1\.mlp.*"},
    {"target_modules": ["c_attn"], "task_type": None},
    {"target_modules": ["c_attn", "c_proj"], "init_lora_weights": "gaussian"},
]
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


def random_settings(rng, kind):
    """A LoraConfig's fields: any layers, ranks, alphas, kinds and exceptions, in any of the ways to say them."""
    layers = LAYERS[kind]
    short = sorted({layer.rpartition(".")[2] for layer in layers})
    some = sorted(rng.choice(short, rng.integers(1, len(short) + 1), replace=False).tolist())
    whole = [f"{BLOCKS[kind]}.{i}.{layer}" for layer in layers if layer.endswith(tuple(some)) for i in (0, 1)]
    ways = [some, some, some, whole, "all-linear", f".*({'|'.join(some)})", None, [layers[rng.integers(4)]]]
    settings = {
        "r": int(rng.integers(1, 6)),
        "lora_alpha": [1, 8, 3.5, -2][rng.integers(4)],
        "target_modules": ways[rng.integers(len(ways))],
        "use_rslora": bool(rng.random() < 0.3),
        "use_dora": bool(rng.random() < 0.3),
    }
    keys = [*some, rf"\.1\.{layers[0]}", f"{BLOCKS[kind]}.0.{layers[-2]}", f".*{short[-1]}"]
    for field, most in (("rank_pattern", 6), ("alpha_pattern", 20)):
        if rng.random() < 0.4:
            chosen = rng.choice(keys, rng.integers(1, 4), replace=False)
            settings[field] = {str(key): int(rng.integers(1, most)) for key in chosen}
    if rng.random() < 0.3:
        settings["exclude_modules"] = [short[:2], r".*\.0\.mlp.*", [f"1.{layers[-1]}"]][rng.integers(3)]
    if isinstance(settings["target_modules"], list) and rng.random() < 0.4:
        settings["layers_to_transform"] = [[0], 1, [0, 1]][rng.integers(3)]
        if rng.random() < 0.5:
            settings["layers_pattern"] = BLOCKS[kind].rpartition(".")[2]
    return settings


def made_by_peft(model, config, settings, seed):
    """PEFT's model with random numbers in all that it trains; None if PEFT finds no layer for these settings."""
    torch.manual_seed(seed)
    usual = {
        "task_type": "SEQ_CLS" if config.n_classes else "CAUSAL_LM",
        "fan_in_fan_out": hasattr(config, "layer_norm_eps"),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rsLoRA with rank_pattern, of tied layers, and of what an exception misses
        try:
            model = peft.get_peft_model(model, peft.LoraConfig(**usual | settings)).double().eval()
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


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("tenth", range(10))
def test_ten_random_adapters(tenth, kind, tmp_path, monkeypatch):
    """Each is saved again, with the same bytes; many are then loaded by PEFT without a warning, and compared.

    PEFT sorts the patterns when it saves them, and the first that fits counts. So what it reads back may have other
    scales than what it saved, or ranks that do not fit. What it reads is the truth.
    """
    in_float64(monkeypatch)
    done = seed = 0
    while done < 10:
        seed += 1
        rng = np.random.default_rng([tenth, seed])
        n_classes = int(rng.choice([0, 0, 3]))
        name = kind if kind == "GPT-2" else list(LLAMAS)[rng.integers(len(LLAMAS))]
        _, config, params, batch = model_case(name, n_classes, int(rng.integers(99)))
        ids, lengths = torch.tensor(batch.ids), torch.tensor(batch.lengths)
        settings = random_settings(rng, kind)
        if kind == "GPT-2" and done % 2:
            settings = {"r": 2, "use_dora": bool(tenth % 2)} | LISTED[(5 * tenth + done // 2) % len(LISTED)]
        made = made_by_peft(hf_model(params, config), config, settings, seed)
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
                load_peft(folder / "adapter", params, config)
            continue
        adapter = load_peft(folder / "adapter", params, config)
        has_head = n_classes and settings.get("task_type", "") is not None
        assert ("head.weight" in adapter.weights) == bool(has_head)
        logits, _ = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter)
        check(f"{kind}, random adapters from PEFT", "logits", logits, Logits(theirs, n_classes)(ids, lengths), OUTPUT)
        save_peft(folder / "again", adapter, params, config)
        first, again = file_bytes(folder / "adapter"), file_bytes(folder / "again")
        assert first == {key: again[key] for key in first}
        assert set(again) == set(first) or not has_head, "a head is written also where PEFT left it out"
        fields = json.loads((folder / "again" / "adapter_config.json").read_text())
        assert fields["peft_version"] == peft.__version__, "what means nothing here is saved again"
        assert list(fields) == sorted(fields)
        if (done % 2 == 0 or kind == "GPT-2") and has_head == bool(n_classes):
            save_hf(folder / "base", params, config)
            base = in_transformers(folder / "base", config, attn_implementation="eager", dtype=torch.float64)
            theirs = Logits(in_peft(base, folder / "again"), n_classes)(ids, lengths)
            check(f"{kind}, random adapters to PEFT", "logits", theirs.detach().numpy(), logits, OUTPUT)


@pytest.mark.parametrize("name", REFUSED)
def test_what_only_peft_has_is_refused_by_name(name, tmp_path):
    _, config, params, _ = model_case("H/K = 3, tied", 0, 0)
    fields, says = REFUSED[name]
    made = made_by_peft(hf_model(params, config).float(), config, {"target_modules": ["q_proj"], **fields}, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.save_pretrained(tmp_path)
    with pytest.raises(ValueError) as raised:
        load_peft(tmp_path, params, config)
    assert says in str(raised.value) and "\n" not in str(raised.value)


def test_an_adapter_of_a_bare_model(tmp_path):
    """GPT2Model has no `transformer.` in its names; ours writes it, for a model with a head."""
    _, config, params, batch = model_case("GPT-2", 0, 0)
    settings = {"target_modules": ["c_attn", "c_fc"], "task_type": None}
    model = made_by_peft(hf_model(params, config).transformer, config, settings, 0)
    model.save_pretrained(tmp_path)
    h = model(torch.tensor(batch.ids)).last_hidden_state.detach().numpy()
    logits, _ = forward(params, batch.ids, config, adapter=load_peft(tmp_path, params, config))
    check("GPT-2, random adapters from PEFT", "logits", logits, h @ params["tok_emb.weight"].T, OUTPUT)
