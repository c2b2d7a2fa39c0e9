"""Random models of Llama's family: logits, gradients, adapters and files, beside transformers, PEFT and llama.cpp."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from lora_np import ops
from lora_np.adapters import AdapterConfig, init_adapter
from lora_np.bench.llama_cpp import ask
from lora_np.compress import BlockWeight
from lora_np.compress.ggml import LAYOUTS
from lora_np.formats import load_hf, load_peft, read_model, save_hf, save_peft
from lora_np.formats.foreign_keys import values_in
from lora_np.formats.names import stored_tensors
from lora_np.formats.to_gguf import save_gguf, write_gguf
from lora_np.model import LlamaConfig, Qwen3Config, forward, generate, loss_and_gradients

from ..chat_templates import metadata
from ..tiny import random_batch, random_params
from .comparison import GRADIENT, LARGEST, OUTPUT, check, check_all
from .llama_cpp import log_probabilities, need_llama_cpp, our_log_probabilities

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from .hf_model import FAMILY, Logits, in_float64, our_name  # noqa: E402
from .torch_model import loss_of  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

N_MODELS = 60
CONFIGS = {
    "llama": transformers.LlamaConfig, "mistral": transformers.MistralConfig, "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config, "smollm3": transformers.SmolLM3Config,
}  # fmt: skip
ROPES = (
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 3.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 64},
)  # fmt: skip
TARGETS = (["q_proj", "v_proj"], ["k_proj", "o_proj", "down_proj"], "all-linear")


def random_fields(name, rng):
    """The fields of a random model's configuration, with sizes that differ from one another where they can."""
    heads, group = (int(n) for n in rng.integers(1, 4, 2))
    fields = {
        "vocab_size": int(rng.integers(7, 20)), "hidden_size": int(rng.choice([6, 10, 18])) * heads * group,
        "intermediate_size": int(rng.integers(5, 30)), "num_hidden_layers": int(rng.integers(1, 6)),
        "num_attention_heads": heads * group, "num_key_value_heads": heads,
        "max_position_embeddings": int(rng.integers(9, 15)), "rms_norm_eps": float(10 ** rng.uniform(-6, -1)),
        "tie_word_embeddings": bool(rng.integers(2)), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None,
        "rope_parameters": ROPES[rng.integers(3)] | {"rope_theta": float(10 ** rng.uniform(0.5, 5))},
    }  # fmt: skip
    more = {
        "llama": {"head_dim": 2 * int(rng.integers(1, 6)), "attention_bias": bool(rng.integers(2)),
                  "mlp_bias": bool(rng.integers(2))},
        "mistral": {"head_dim": 2 * int(rng.integers(1, 6)), "sliding_window": [None, 8, 4096][rng.integers(3)]},
        "qwen2": {},
        "qwen3": {"head_dim": 2 * int(rng.integers(1, 6)), "attention_bias": bool(rng.integers(2))},
        "smollm3": {"no_rope_layer_interval": int(rng.integers(2, 5)), "attention_bias": bool(rng.integers(2))},
    }  # fmt: skip
    return fields | more[name]


def random_model(name, seed, n_classes=0, **changes):
    """transformers' model with random weights, in float64."""
    rng = np.random.default_rng(seed)
    fields = random_fields(name, rng) | changes
    kind = transformers.AutoModelForSequenceClassification if n_classes else transformers.AutoModelForCausalLM
    config = CONFIGS[name](**fields, **({"num_labels": n_classes} if n_classes else {}))
    torch.manual_seed(seed)
    model = kind.from_config(config, attn_implementation="eager").double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            centre = float(parameter.ndim == 1 and bool((parameter == 1).all()))
            parameter.copy_(centre + 0.3 * torch.randn(parameter.shape, dtype=torch.float64))
    return model, rng


def loss_and_grads(model, batch, n_classes):
    logits = Logits(model, n_classes)(torch.tensor(batch.ids), torch.tensor(batch.lengths))
    loss = loss_of(logits, batch.targets)
    model.zero_grad()
    loss.backward()
    return logits, loss


@pytest.mark.parametrize("name", FAMILY)
def test_logits_and_gradients(name, tmp_path, monkeypatch):
    """Every third is a classifier; with a padding token, whose row of the embedding has no gradient in PyTorch."""
    in_float64(monkeypatch)
    seen = Counter()
    for seed in range(N_MODELS):
        n_classes = 3 * (seed % 3 == 2)
        model, rng = random_model(name, seed, n_classes, **({} if n_classes else {"pad_token_id": None}))
        model.save_pretrained(tmp_path / str(seed))
        ours = load_hf(tmp_path / str(seed), np.float64)
        seen.update([field for field in ("rope_divisors", "unrotated", "tied") if getattr(ours.config, field)])
        batch = random_batch(ours.config, 3, 8, seed)
        batch.ids[:] = np.where(np.arange(8) < batch.lengths[:, None], np.maximum(batch.ids, 1), 0)
        logits, loss = loss_and_grads(model, batch, n_classes)
        got = loss_and_gradients(ours.params, batch, ours.config, None, tuple(ours.params))
        check(name, "logits", forward(ours.params, batch.ids, ours.config, lengths=batch.lengths)[0], logits, OUTPUT)
        check(name, "loss", np.float64(got.loss), loss, OUTPUT)
        expected = {our_name(key): parameter.grad for key, parameter in model.named_parameters()}
        if n_classes:
            got.grads["tok_emb.weight"][0] = 0.0
        check_all(f"{name}, gradients", got.grads, expected, GRADIENT, zero=("k_proj.bias",))
    assert min(seen[field] for field in ("rope_divisors", "tied")) >= N_MODELS // 4
    assert (seen["unrotated"] > N_MODELS // 3) == (name == "smollm3")


@pytest.mark.parametrize("name", FAMILY)
def test_adapters_and_models_go_both_ways(name, tmp_path, monkeypatch):
    """PEFT's adapter in our model, ours in PEFT's, and our model in transformers."""
    in_float64(monkeypatch)
    for seed in range(0, N_MODELS, 3):
        folder = tmp_path / str(seed)
        model, rng = random_model(name, seed, pad_token_id=None)
        model.save_pretrained(folder / "base")
        ours = load_hf(folder / "base", np.float64)
        batch = random_batch(ours.config, 3, 8, seed)
        config = peft.LoraConfig(r=3, lora_alpha=5.0, target_modules=TARGETS[seed // 3 % 3], task_type="CAUSAL_LM")
        adapted = peft.get_peft_model(model, config)
        adapted.base_model.model.double()
        with torch.no_grad():
            for key, parameter in adapted.named_parameters():
                if "lora_" in key:
                    parameter.copy_(torch.tensor(0.4 * rng.standard_normal(parameter.shape)))
        adapted.save_pretrained(folder / "adapter")
        logits, _ = loss_and_grads(adapted, batch, 0)
        adapter = load_peft(folder / "adapter", ours.params, ours.config)
        got, _ = forward(ours.params, batch.ids, ours.config, adapter=adapter)
        check(f"{name}, PEFT's adapter", "logits", got, logits, OUTPUT)
        grads = loss_and_gradients(ours.params, batch, ours.config, adapter, tuple(adapter.weights)).grads
        expected = {
            our_name(key.removeprefix("base_model.model.")).replace(".default.weight", ""): parameter.grad
            for key, parameter in adapted.named_parameters()
            if "lora_" in key
        }
        check_all(f"{name}, adapter's gradients", grads, expected, GRADIENT)

        settings = AdapterConfig(r=2, alpha=3.0, targets=("all-linear",))
        own = init_adapter(ours.params, settings, rng)
        own = own._replace(weights={key: rng.standard_normal(a.shape) * 0.4 for key, a in own.weights.items()})
        save_hf(folder / "ours", ours.params, ours.config)
        save_peft(folder / "own", own, ours.params, ours.config)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            folder / "ours", dtype=torch.float64, attn_implementation="eager"
        ).eval()
        expected, _ = forward(ours.params, batch.ids, ours.config)
        check(
            f"{name}, exported",
            "logits",
            expected,
            Logits(theirs)(torch.tensor(batch.ids), torch.tensor(batch.lengths)),
            OUTPUT,
        )
        theirs = peft.PeftModel.from_pretrained(theirs, folder / "own").double()
        expected, _ = forward(ours.params, batch.ids, ours.config, adapter=own)
        check(
            f"{name}, our adapter",
            "logits",
            expected,
            Logits(theirs)(torch.tensor(batch.ids), torch.tensor(batch.lengths)),
            OUTPUT,
        )


@pytest.mark.parametrize("name", [name for name in FAMILY if name != "mistral"])
def test_llama_cpp_reads_our_files(name, tmp_path):
    """A model of each kind in F32, with the log-probabilities of llama.cpp, and read back as it was."""
    need_llama_cpp()
    tokens, most, clear = metadata(), 0.0, 0
    sizes = {
        "vocab_size": len(tokens["tokenizer.ggml.tokens"]),
        "max_position_embeddings": 64,
        "rms_norm_eps": 2.0**-10,
    }
    for seed in range(7):
        rope = ROPES[seed % (3 if name == "llama" else 2)] | {"rope_theta": 500.0}
        changes = {"rope_parameters": rope} | ({"no_rope_layer_interval": 4} if name == "smollm3" else {})
        if name in ("qwen3", "smollm3"):
            changes["attention_bias"] = seed == 6
        model, rng = random_model(name, seed, pad_token_id=None, **sizes, **changes)
        model.save_pretrained(tmp_path / str(seed))
        ours = load_hf(tmp_path / str(seed))
        file = tmp_path / f"{seed}.gguf"
        if changes.get("attention_bias"):
            with pytest.raises(ValueError, match=f"llama.cpp's {name} has no bias in attn_output"):
                save_gguf(file, ours.params, ours.config, tokens)
            continue
        save_gguf(file, ours.params, ours.config, tokens)
        back = read_model(file)
        assert replace(back.config, rope_divisors=()) == replace(ours.config, rope_divisors=())
        np.testing.assert_allclose(back.config.rope_divisors, ours.config.rope_divisors, rtol=1e-7)
        assert all(np.array_equal(back.params[key], array) for key, array in ours.params.items())
        rows = rng.integers(0, sizes["vocab_size"], (2, 40))
        for theirs, own in zip(log_probabilities(file, rows, tmp_path), our_log_probabilities(*back[:2], rows)):
            most = max(most, float(np.abs(theirs - own).max()))
        [answer] = ask(file, [{"do": "greedy", "prompt": rows[0].tolist(), "n": 16}])
        n_clear = next((i for i, margin in enumerate(answer["margins"]) if margin < 2e-3), 16)  # up to a tie
        text = generate(back.params, rows[:1], back.config, 16)[0, rows.shape[1] :]
        assert text[:n_clear].tolist() == answer["ids"][:n_clear]
        clear += n_clear
    LARGEST[f"llama.cpp, log-probabilities: {name}"] = (most, f"all; {clear} greedy tokens", 1e-3)
    assert most < 1e-3 and clear > 48


# ---------------------------------------------------------------- K-quants


def random_blocks(shape, format, rng):
    """A weight with random codes and a standard deviation of about 0.1."""
    layout = LAYOUTS[format]
    blocks = rng.integers(0, 256, (shape[0], shape[1] // 256, layout.bytes), dtype=np.uint8)
    head = {"q4_k": (4e-4, 3e-3), "q5_k": (2e-4, 3e-3), "q6_k": (5e-5,)}[format]
    blocks[..., layout.header] = np.array(head, "<f2").view(np.uint8)
    return BlockWeight(blocks.reshape(shape[0], -1), format)


def with_rounded_inputs(x, weight, bias=None, wanted=(), linear_forward=ops.linear_forward):
    """A linear layer as llama.cpp computes it: 256 inputs at a time become codes from -127 to 127 (Q8_K)."""
    groups = x.reshape(-1, 256)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=1, keepdims=True), axis=1)
    codes = np.minimum(127, np.rint(-127 / largest * groups))
    return linear_forward((codes * largest / -127).reshape(x.shape).astype(x.dtype), weight, bias, wanted)


@pytest.mark.parametrize("format", ["q4_k", "q5_k", "q6_k"])
@pytest.mark.parametrize("name, kind", [("llama", LlamaConfig), ("qwen3", Qwen3Config)])
def test_llama_cpp_reads_k_quants_as_we_do(name, kind, format, tmp_path, monkeypatch):
    """Its log-probabilities differ from ours by the rounding of its inputs; those of the same weights in F32 do not."""
    need_llama_cpp()
    tokens, rng = metadata(), np.random.default_rng(0)
    config = kind(len(tokens["tokenizer.ggml.tokens"]), 64, 256, 2, 4, 2, 64, 512, rms_norm_eps=2.0**-10)
    params = random_params(config, np.float32)
    params = {key: a if a.ndim == 1 else random_blocks(a.shape, format, rng) for key, a in params.items()}
    sizes = {f"{name}.{key}": value for key, value in values_in(f"GGUF of {name}", config).items()}
    fields = {**tokens, **sizes, "general.type": "model"}
    write_gguf(tmp_path / "k.gguf", name, fields, dict(stored_tensors(params, config, "gguf")))
    save_gguf(tmp_path / "f32.gguf", {key: np.asarray(a) for key, a in params.items()}, config, tokens)
    back = read_model(tmp_path / "k.gguf", weights="blocks")
    assert all(back.params[key].format == format for key, a in params.items() if isinstance(a, BlockWeight))
    rows = rng.integers(0, config.vocab_size, (3, 40))
    ours = list(our_log_probabilities(back.params, back.config, rows))
    theirs, dense = (log_probabilities(tmp_path / f"{file}.gguf", rows, tmp_path) for file in ("k", "f32"))
    monkeypatch.setattr("lora_np.model.operations.ops.linear_forward", with_rounded_inputs)
    rounded = list(our_log_probabilities(back.params, back.config, rows))

    def distance(first, second):
        return float(np.sqrt(np.mean([np.square(a - b).mean() for a, b in zip(first, second)])))

    got, of_rounding, unexplained = distance(theirs, ours), distance(rounded, ours), distance(theirs, rounded)
    LARGEST[f"llama.cpp, {format}, rms: {name}"] = (got, f"rounding: {of_rounding:.1e}, rest: {unexplained:.1e}", 0)
    assert distance(dense, ours) < 1e-4 and unexplained < 0.5 * got and got < 1.2 * of_rounding
