"""Files of Llamas that the `gguf` package wrote; and SmolLM2 itself beside transformers."""

import json
from pathlib import Path

import numpy as np
import pytest

from lora_np.compress import BlockWeight
from lora_np.formats import read_model
from lora_np.formats.packaged import packaged_model
from lora_np.model import forward, generate, loss_and_gradients

from ..chat_templates import metadata
from ..llama_files import in_gguf_order, theirs
from ..tiny import random_adapter, random_params, tiny_llama
from .comparison import LARGEST, OUTPUT, check, check_all

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

from .hf_model import Logits, hf_model, in_float64, our_name  # noqa: E402
from .test_formats_hf import agree, hf_logits  # noqa: E402
from .torch_model import random_batch  # noqa: E402

pytestmark = pytest.mark.oracle

# ---------------------------------------------------------------- GGUF


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
        ours, array = our_name(name), parameter.detach().numpy()
        stored, name = in_gguf_order(ours, array, config.head_dim), theirs(ours, "gguf")
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
    written = write_gguf(tmp_path / "file.gguf", hf_model(params, config), kind)
    assert kind != "F32" or all(np.array_equal(written[name], params[name]) for name in params)
    model = hf_model(written, config)
    dense, blocks = (read_model(tmp_path / "file.gguf", np.float64, weights) for weights in ("dense", "blocks"))
    assert dense.config == config
    batch = random_batch(config, np.random.default_rng(0))
    expected = Logits(model)(torch.tensor(batch.ids), torch.tensor(batch.lengths))
    adapter = random_adapter(dense.params, train_head=False)
    grads = []
    for task in (dense, blocks):
        weights = {name: np.asarray(weight) for name, weight in task.params.items()}
        check_all("GGUF, weights", weights, written, 0.0)
        is_block = {name: isinstance(weight, BlockWeight) for name, weight in task.params.items()}
        assert any(is_block.values()) == (task is blocks and kind.startswith("Q"))
        check("GGUF, logits", "logits", forward(task.params, batch.ids, config)[0], expected, OUTPUT)
        for recompute in (False, True):
            given = adapter, tuple(adapter.weights)
            grads.append(loss_and_gradients(task.params, batch, config, *given, recompute=recompute).grads)
    for other in grads[1:]:
        check_all("GGUF, gradients from blocks and from arrays", other, grads[0], 0.0)


# ---------------------------------------------------------------- SmolLM2

IDS = Path(__file__).parent.parent / "llama_cpp_ids.json"
TEXTS = [row["text"] for row in json.loads(IDS.read_text("utf-8"))["texts"] if row["text"]][::3]
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
TIE = 1e-3  # between our two best logits, from which on a greedy text may be another


@pytest.fixture(scope="module")
def smollm2():
    """The LoadedModel, and transformers' model with the same dequantised weights, in float32."""
    try:
        packaged_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    task = read_model("smollm2")
    assert len(TEXTS) >= 20 and len(PROMPTS) == 10
    return task, hf_model(task.params, task.config)


def equal_tokens(task, text, theirs, adapter=None):
    """The number of greedy tokens before the first that is not the other program's: our two best logits tie there.

    text : (1, T) of ours, whose last tokens are compared with `theirs`
    """
    start = text.shape[1] - len(theirs)
    differ = np.flatnonzero(text[0, start:] != theirs)
    if not len(differ):
        return len(theirs)
    logits, _ = forward(task.params, text[:, : start + differ[0]], task.config, adapter=adapter)
    second, first = np.sort(logits[0, -1])[-2:]
    assert first - second < TIE, f"{text[0, :start]}: token {differ[0]} is another, by {first - second:.1e}"
    return int(differ[0])


@pytest.mark.real
def test_smollm2_has_transformers_logits(smollm2, monkeypatch):
    """In float64, because the rounding of large activations puts 1e-4 between two correct programs in float32."""
    in_float64(monkeypatch)
    task = read_model("smollm2", np.float64)
    model = hf_model(task.params, task.config)
    for text in TEXTS[::2]:
        ids = np.array([task.tokenizer.encode(text).ids])
        agree("SmolLM2", forward(task.params, ids, task.config)[0], hf_logits(model, ids))


@pytest.mark.real
@pytest.mark.nightly
def test_smollm2_writes_transformers_text(smollm2):
    """64 tokens, greedily, or up to a tie: each is the best one by transformers, too, after those before it."""
    task, model = smollm2
    n_new, n_equal = 64, []
    for prompt in PROMPTS:
        ids = np.array([task.tokenizer.encode(prompt).ids])
        text = generate(task.params, ids, task.config, n_new)
        n_equal.append(equal_tokens(task, text, hf_logits(model, text)[0, ids.shape[1] - 1 : -1].argmax(-1)))
    LARGEST["SmolLM2, greedy tokens that differ"] = (n_new * len(PROMPTS) - sum(n_equal), str(n_equal), 0)
