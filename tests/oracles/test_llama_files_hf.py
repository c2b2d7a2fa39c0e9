"""Files of Llamas that transformers and the `gguf` package wrote; and SmolLM2 itself beside transformers."""

import json

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig, init_adapter
from lora_np.compress import BlockWeight
from lora_np.formats import load_hf, read_model
from lora_np.formats.smollm2 import packaged_model
from lora_np.model import forward, generate, loss_and_gradients

from ..chat_templates import metadata
from ..tiny import edit_fields, random_params, tiny_llama
from .comparison import LARGEST, OUTPUT, check, check_all

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

from .llama_model import LLAMAS, Logits, hf_model, in_float64, llama_case, odd_llama, our_name  # noqa: E402
from .test_formats_hf import agree, hf_logits, no_warnings  # noqa: E402
from .torch_model import random_batch  # noqa: E402

pytestmark = pytest.mark.oracle

HEADS = pytest.mark.parametrize("n_classes", [0, 4], ids=["language model", "classifier"])


# ---------------------------------------------------------------- Hugging Face's directories


def old_fields(folder):
    """Say it in the words of transformers 4."""
    fields = json.loads((folder / "config.json").read_text("utf-8"))
    theta = fields["rope_parameters"]["rope_theta"]
    edit_fields(folder / "config.json", rope_parameters="absent", rope_theta=theta, rope_scaling=None)


@HEADS
@pytest.mark.parametrize("form", ["one file", "shards", "old fields"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LLAMAS)
def test_any_llama_directory(name, dtype, form, n_classes, tmp_path, monkeypatch):
    """The same configuration and numbers, whatever the files are like; in float64 also the same logits."""
    in_float64(monkeypatch)
    _, config, params, batch = llama_case(name, n_classes, 0)
    labels = {"id2label": dict(enumerate("wxyz"))} if n_classes else {}
    hf_model(params, config, **labels).to(dtype).save_pretrained(
        tmp_path, max_shard_size="3KB" if form == "shards" else "1GB"
    )
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (form == "shards")
    if form == "old fields":
        old_fields(tmp_path)
    ours = load_hf(tmp_path, np.float64)
    assert ours.config == config and ours.labels == (list("wxyz") if n_classes else None)
    rounded = {key: torch.tensor(array).to(dtype).double() for key, array in params.items()}
    check_all("Llama imported, weights", ours.params, rounded, 0.0)
    with no_warnings():
        kind = "SequenceClassification" if n_classes else "CausalLM"
        model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(tmp_path, attn_implementation="eager")
    expected = Logits(model.double(), n_classes)(torch.tensor(batch.ids), torch.tensor(batch.lengths))
    logits, _ = forward(ours.params, batch.ids, ours.config, lengths=batch.lengths)
    check("Llama imported, logits", "logits", logits, expected, OUTPUT)


def test_a_llama_without_a_head(tmp_path):
    """LlamaModel has no `model.` in its names; with a tied head, it is a language model."""
    _, config, params, _ = llama_case("H/K = 3, tied", 0, 0)
    hf_model(params, config).model.save_pretrained(tmp_path)
    ours = load_hf(tmp_path, np.float64)
    assert ours.config == config
    check_all("Llama imported, weights", ours.params, params, 0.0)


OTHER_MODELS = [  # fields with which transformers computes something else, and which we refuse
    {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
    {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 4.0}},
    {"rope_parameters": "absent", "rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
    {"hidden_act": "gelu"}, {"model_type": "mistral"}, {"model_type": "qwen2"}, {"tie_word_embeddings": False},
    {"num_key_value_heads": 3}, {"num_hidden_layers": 1}, {"attention_bias": True}, {"head_dim": "absent"},
]  # fmt: skip
OTHER_NUMBERS = [  # fields with which both compute something else
    {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}, {"rms_norm_eps": 0.5},
    {"rope_parameters": "absent"},  # then the base is 10,000
    {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 12},
]  # fmt: skip
THIS_MODEL = [  # and fields that change nothing
    {"num_key_value_heads": 2}, {"use_cache": True}, {"pretraining_tp": 2}, {"initializer_range": 0.5},
    {"rope_scaling": None}, {"attention_dropout": 0.5}, {"max_position_embeddings": 100}, {"is_decoder": False},
    {"rope_parameters": "absent", "rope_theta": 500.0}, {"rope_parameters": {"rope_theta": 500.0}},
    {"rope_parameters": "absent", "rope_theta": 500.0, "rope_scaling": {"rope_type": "default"}},
    {"layer_types": ["full_attention"] * 2}, {"attention_bias": "absent"},
]  # fmt: skip


@pytest.mark.parametrize("changes", OTHER_MODELS + OTHER_NUMBERS + THIS_MODEL, ids=str)
def test_fields_that_change_what_a_llama_computes(changes, tmp_path, monkeypatch):
    in_float64(monkeypatch)
    config = odd_llama("H/K = 3, tied")
    params = random_params(config)
    hf_model(params, config).save_pretrained(tmp_path)
    ids = np.random.default_rng(0).integers(1, 17, (2, 9))
    first, _ = forward(params, ids, config)
    edit_fields(tmp_path / "config.json", **changes)
    if changes in OTHER_MODELS:
        with pytest.raises(ValueError, match="expected|missing|unexpected") as refusal:
            load_hf(tmp_path)
        assert "\n" not in str(refusal.value)
        return
    theirs = hf_logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path), ids)
    ours = load_hf(tmp_path, np.float64)
    logits, _ = forward(ours.params, ids, ours.config)
    check("Llama imported, logits", "logits", logits, theirs, OUTPUT)
    assert np.array_equal(logits, first) == (changes in THIS_MODEL)


# ---------------------------------------------------------------- GGUF


def permuted(array, n_heads):
    """As llama.cpp's converter permutes q and k (`conversion/llama.py`)."""
    return (
        array.reshape(n_heads, 2, array.shape[0] // n_heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
    )


GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "model.layers": "blk",
}  # fmt: skip


def write_gguf(path, model, kind):
    """Write transformers' Llama with the package's writer.

    Matrices are of a type, if it fits their rows, or else F16.

    Returns the weights as they are in the file, under our names.
    """
    config, weights = model.config, {}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    for name, value in metadata().items():
        if isinstance(value, list):
            writer.add_array(name, value)
        else:
            (writer.add_string if isinstance(value, str) else writer.add_uint32)(name, value)
    for name, parameter in model.named_parameters():
        array, ours = parameter.detach().numpy(), our_name(name)
        heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
        part = name.split("_proj")[0][-1]
        stored = permuted(array, heads[part]) if "_proj" in name and part in heads else array
        for theirs, short in GGUF_NAMES.items():
            name = name.replace(theirs, short)
        its = gguf.GGMLQuantizationType[kind if array.ndim == 2 else "F32"]
        if array.shape[-1] % gguf.GGML_QUANT_SIZES[its][0]:
            its = gguf.GGMLQuantizationType.F16
        data = gguf.quants.quantize(stored, its)
        writer.add_tensor(name, data, raw_dtype=its)
        # Blocks are in a row, so rows can be permuted before or after.
        weights[ours] = gguf.quants.dequantize(gguf.quants.quantize(array, its), its).astype(np.float64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


GGUF_LLAMAS = {  # rows of 96 and 64, except o_proj's of 36 or 96
    "H/K = 3, tied": dict(n_heads=6, n_kv_heads=2, rope_theta=500.0),
    "H/K = 3, untied, biases": dict(n_heads=48, n_kv_heads=16, tied=False, attention_bias=True, mlp_bias=True),
}


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
@pytest.mark.parametrize("sizes", GGUF_LLAMAS.values(), ids=GGUF_LLAMAS)
def test_any_llama_in_gguf(sizes, kind, tmp_path, monkeypatch):
    """The weights, bit for bit, the logits, and the gradients of an adapter, from blocks as from arrays."""
    in_float64(monkeypatch)
    sizes = {"vocab_size": len(metadata()["tokenizer.ggml.tokens"]), "d_model": 96, "d_ff": 64} | sizes
    config = tiny_llama(**sizes, rms_norm_eps=2.0**-10)  # a float32 in the file
    params = random_params(config, np.float32)
    theirs = write_gguf(tmp_path / "file.gguf", hf_model(params, config), kind)
    assert kind != "F32" or all(np.array_equal(theirs[name], params[name]) for name in params)
    model = hf_model(theirs, config)
    dense, blocks = (read_model(tmp_path / "file.gguf", np.float64, weights) for weights in ("dense", "blocks"))
    assert dense.config == config
    rng = np.random.default_rng(0)
    batch = random_batch(config, rng)
    expected = Logits(model)(torch.tensor(batch.ids), torch.tensor(batch.lengths))
    adapter = init_adapter(dense.params, AdapterConfig(3, 6.0, ("all-linear",), train_head=False), rng)
    adapter = adapter._replace(weights={n: a + 0.1 * rng.normal(size=a.shape) for n, a in adapter.weights.items()})
    grads = []
    for task in (dense, blocks):
        weights = {name: np.asarray(weight) for name, weight in task.params.items()}
        check_all("GGUF, weights", weights, theirs, 0.0)
        is_block = {name: isinstance(weight, BlockWeight) for name, weight in task.params.items()}
        assert any(is_block.values()) == (task is blocks and kind.startswith("Q"))
        check("GGUF, logits", "logits", forward(task.params, batch.ids, config)[0], expected, OUTPUT)
        for recompute in (False, True):
            given = adapter, tuple(adapter.weights)
            grads.append(loss_and_gradients(task.params, batch, config, *given, recompute=recompute).grads)
    for other in grads[1:]:
        check_all("GGUF, gradients from blocks and from arrays", other, grads[0], 0.0)


# ---------------------------------------------------------------- SmolLM2

TEXTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    if n < 2:\n",
    "To be, or not to be, that is the question:",
    "Water boils at 100 °C at sea level, and at 71 °C on Mount Everest.",
    "import numpy as np\n\nx = np.linspace(0, 1, 11)",
    "The film is a mess, but",
    "1, 1, 2, 3, 5, 8, 13,",
    "Q: What is 17 + 25?\nA:",
    "naïve café, Ærøskøbing, Straße, 日本語, Привет",
    "🙂🙂 and 👩‍👩‍👧",
    "A",
    "\n\n\n",
    "   indented\ttabs",
    "e" * 200,
    "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n",
    "In 1905, Albert Einstein published four papers.",
    "Dear Sir or Madam,\n\nI am writing to complain about",
    "Roses are red,\nViolets are blue,\n",
    "Low-rank adaptation freezes the weights of a pretrained model and trains two thin matrices beside each. " * 8,
]
PROMPTS = [
    "The capital of France is",
    "Once upon a time",
    "The three primary colours are",
    "Photosynthesis is",
    "def add(a, b):",
    "Dear Sir or Madam,",
    "The best way to learn a language is",
    "In the year 2050,",
    "<|im_start|>user\nWhat is gravity?<|im_end|>\n<|im_start|>assistant\n",
    "Q: What is 17 + 25?\nA:",
]
LARGEST_LOGIT = 1e-4  # difference, over the rms of a text's logits
TIE = 1e-3  # between our two best logits, from which on a greedy text may be another


@pytest.fixture(scope="module")
def smollm2():
    """The Task, and transformers' model with the same dequantised weights, in float32."""
    try:
        packaged_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    task = read_model("smollm2")
    assert len(TEXTS) == 20 and len(PROMPTS) == 10
    return task, hf_model(task.params, task.config)


@pytest.mark.real
def test_smollm2_has_transformers_logits(smollm2):
    task, model = smollm2
    for text in TEXTS:
        ids = np.array([task.tokenizer.encode(text).ids])
        agree("SmolLM2", forward(task.params, ids, task.config)[0], hf_logits(model, ids), LARGEST_LOGIT)


@pytest.mark.real
def test_smollm2_writes_transformers_text(smollm2):
    """64 tokens, greedily, or up to a tie: each is the best one by transformers, too, after those before it."""
    task, model = smollm2
    n_new, n_equal = 64, []
    for prompt in PROMPTS:
        ids = np.array([task.tokenizer.encode(prompt).ids])
        text = generate(task.params, ids, task.config, n_new)
        new, best = text[0, ids.shape[1] :], hf_logits(model, text)[0, ids.shape[1] - 1 : -1].argmax(-1)
        n_equal.append(n_new if (new == best).all() else int((new != best).argmax()))
        if n_equal[-1] < n_new:
            logits, _ = forward(task.params, text[:, : ids.shape[1] + n_equal[-1]], task.config)
            second, first = np.sort(logits[0, -1])[-2:]
            assert first - second < TIE, f"{prompt!r}: token {n_equal[-1]} is another, by {first - second:.1e}"
    LARGEST["SmolLM2, greedy tokens that differ"] = (n_new * len(PROMPTS) - sum(n_equal), str(n_equal), 0)
