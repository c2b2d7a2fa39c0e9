"""Llamas from Hugging Face's directories and GGUF files: names, orders, blocks, the commands, and what we do not have.

`oracles/` compares their numbers.
"""

import numpy as np
import pytest

from lora_np.cli import main
from lora_np.compress import BlockWeight, quantise_q4_1
from lora_np.formats import load_hf, load_task, read_model
from lora_np.formats.model import model_sha256
from lora_np.model import forward

from .llama_files import small_llama, write_gguf, write_hf, written_gguf
from .test_gguf import Q4_1
from .tiny import edit_tensors, random_params, same_bits

PROMPT = ("generate", "--prompt", "hello", "--tokens", 8, "--temperature", 0)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder with an untied language model `hf`, a classifier `classes`, and `file.gguf`. Not to be changed."""
    folder = tmp_path_factory.mktemp("llamas")
    config = small_llama()
    write_hf(folder / "hf", random_params(config, np.float32), config)
    config = small_llama(n_classes=3)
    write_hf(folder / "classes", random_params(config, np.float32, 1), config, id2label=dict(zip("012", "abc")))
    written_gguf(folder / "file.gguf", matrices=Q4_1)
    (folder / "text.txt").write_text("hello yes\n\n12 hello\n\n" * 60)
    return folder


def test_a_hugging_face_llama_is_imported(files, tmp_path, run):
    out = run("import", files / "hf", "--from", "hf", "--out", tmp_path / "ours")
    assert "d_model 96, 2 layers, 6 heads, 275 tokens" in out and "no tokenizer" not in out
    task, config = load_task(tmp_path / "ours"), small_llama()
    assert task.config == config and same_bits(task.params, random_params(config, np.float32))
    assert len(run(*PROMPT, "--base", tmp_path / "ours")) > len("hello\n")
    out = run("import", files / "classes", "--from", "hf", "--out", tmp_path / "classes")
    assert "labels: a, b, c" in out
    assert run("predict", "--model", tmp_path / "classes", "hello")[0] in "abc"


def test_a_gguf_file_is_imported_as_it_is(files, tmp_path, run):
    """Into a folder that is read as the file is."""
    source, ours = files / "file.gguf", tmp_path / "ours"
    assert "d_model 96" in run("import", source, "--from", "gguf", "--out", ours)
    assert (ours / "model.gguf").read_bytes() == source.read_bytes()
    assert sorted(path.name for path in ours.iterdir()) == ["model.gguf", "task.json"]
    for weights in ("dense", "blocks"):
        task, expected = load_task(ours, weights=weights), read_model(source, weights=weights)
        assert task.config == expected.config and task.files == expected.files and task.labels is None
        assert {type(w) for w in task.params.values()} == {type(w) for w in expected.params.values()}
        assert same_bits(*({n: np.asarray(w) for n, w in t.params.items()} for t in (task, expected)))
    assert run(*PROMPT, "--base", ours) == run(*PROMPT, "--base", source)
    run("import", ours / "model.gguf", "--from", "gguf", "--out", tmp_path / "again")
    assert model_sha256(tmp_path / "again") == model_sha256(source)


@pytest.mark.parametrize("base", ["hf", "gguf"])
def test_an_adapter_of_an_imported_llama_is_merged_and_exported(base, files, tmp_path, run):
    """A language model's own head is no part of it. What is exported comes back bit for bit."""
    run("import", files / {"hf": "hf", "gguf": "file.gguf"}[base], "--from", base, "--out", tmp_path / "ours")
    command = ["finetune", "--text-file", files / "text.txt", "--max-tokens", 8, "--epochs", 1, "--lr", 0.05]
    run(*command, "--base", tmp_path / "ours", "--out", tmp_path / "adapter")
    task = load_task(tmp_path / "adapter")
    assert not task.config.tied and "head.weight" not in task.adapter.weights
    assert len(task.adapter.weights) == 2 * 7 * 2  # of seven layers in two blocks
    run("merge", tmp_path / "adapter", "--out", tmp_path / "merged")
    texts = [run(*PROMPT, *which) for which in (
        ("--adapter", tmp_path / "adapter"), ("--base", tmp_path / "merged"), ("--base", tmp_path / "ours")
    )]  # fmt: skip
    assert texts[0] == texts[1] != texts[2]

    run("export", tmp_path / "adapter", "--to", "peft", "--out", tmp_path / "peft")
    run("import", tmp_path / "peft", "--from", "peft", "--base", tmp_path / "ours", "--out", tmp_path / "adapter2")
    assert same_bits(load_task(tmp_path / "adapter2").adapter.weights, task.adapter.weights)
    file, model = tmp_path / "adapter.gguf", ("--model", tmp_path / "ours")
    run("export", tmp_path / "adapter", "--to", "gguf", "--out", file)
    assert run("generate", *PROMPT[1:], *model, "--adapter", file) == texts[0]
    run("import", file, "--from", "gguf", "--base", tmp_path / "ours", "--out", tmp_path / "adapter3")
    assert same_bits(load_task(tmp_path / "adapter3").adapter.weights, task.adapter.weights)
    for to, again in (("merged", "merged"), ("hf", "ours")):
        run("export", tmp_path / "adapter", "--to", to, "--out", tmp_path / to / "theirs")
        run("import", tmp_path / to / "theirs", "--from", "hf", "--out", tmp_path / to / "again")
        theirs, ours = load_task(tmp_path / to / "again"), load_task(tmp_path / again)
        assert same_bits(theirs.params, ours.params) and theirs.config == ours.config


@pytest.mark.parametrize("changes", [{}, {"tied": True, "attention_bias": True, "mlp_bias": True}])
def test_a_gguf_file_becomes_the_model(changes, tmp_path):
    params, config = written_gguf(tmp_path / "file.gguf", rope_theta=777.0, rms_norm_eps=0.25, **changes)
    task = read_model(tmp_path / "file.gguf")
    assert task.config == config and same_bits(task.params, params)


def test_a_bias_that_a_gguf_file_lacks_is_zero(tmp_path):
    config = small_llama(attention_bias=True, rms_norm_eps=0.25)
    params = random_params(config, np.float32)
    lacking = {f"blk.{i}.attn_output.bias": None for i in range(config.n_layers)}
    task = read_model(write_gguf(tmp_path / "file.gguf", params, config, tensors=lacking))
    zeros = {name: np.zeros_like(array) for name, array in params.items() if name.endswith("o_proj.bias")}
    assert task.config == config and zeros and same_bits(task.params, params | zeros)


def test_matrices_that_cannot_stay_in_blocks_are_reported(files, tmp_path, capsys):
    written_gguf(tmp_path / "dense.gguf")
    for file, says in ((files / "file.gguf", "2 of 16 matrices"), (tmp_path / "dense.gguf", "16 of 16 matrices take ")):
        command = ["finetune", "--text-file", str(files / "text.txt"), "--max-tokens", "8", "--epochs", "1"]
        assert main([*command, "--weights", "blocks", "--base", str(file), "--out", str(tmp_path / "x")]) == 0
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1, error


def test_blocks_stay_blocks_and_compute_the_same(tmp_path):
    """Rows of q and k are put in order without expanding them."""
    params, config = written_gguf(tmp_path / "file.gguf", matrices=Q4_1, n_heads=16, n_kv_heads=8)  # whole blocks
    blocks, dense, double = (
        read_model(tmp_path / "file.gguf", dtype, weights).params
        for dtype, weights in ((np.float32, "blocks"), (np.float32, "dense"), (np.float64, "blocks"))
    )
    for name in [name for name, array in params.items() if array.ndim == 2]:
        assert isinstance(blocks[name], BlockWeight)
        np.testing.assert_array_equal(np.asarray(blocks[name]), np.asarray(quantise_q4_1(params[name])))
    ids = np.arange(10).reshape(2, 5)
    np.testing.assert_array_equal(forward(blocks, ids, config)[0], forward(dense, ids, config)[0])
    assert double["blocks.0.attn.q_proj.weight"].dtype == np.float64


REFUSED = [  # the form of the file, what is changed in its fields, and part of the message
    ("hf", {"model_type": "phi3"}, "model_type: got 'phi3', expected one of gpt2, bert, llama, qwen2, qwen3, smollm3"),
    ("hf", {"model_type": ["llama"]}, "model_type: got ['llama'], expected one of gpt2, bert, llama"),
    ("hf", {"model_type": "qwen3", "use_sliding_window": True}, "use_sliding_window is True, expected False"),
    ("hf", {"model_type": "mistral", "sliding_window": 0}, "sliding_window: got 0"),
    ("hf", {"model_type": "smollm3", "no_rope_layers": [1]}, "no_rope_layers is [1], expected a list with a 0 or 1"),
    ("hf", {"num_attention_heads": 0, "head_dim": None}, "n_heads: got 0"),
    ("hf", {"hidden_size": "96", "head_dim": None}, "d_model: got '96'"),
    ("hf", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "expected one of default, linear, llama3"),
    ("hf", {"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters: factor: got None"),
    ("hf", {"rope_parameters": {"rope_type": "linear", "factor": -1}}, "rope_parameters: factor: got -1"),
    ("hf", {"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_theta": 9.0}}, "has both rope_scaling and"),
    (
        "hf",
        {"rope_scaling": {"rope_type": "default", "type": "dynamic", "factor": 4.0}},
        "expected one of default, linear, llama3",
    ),
    (
        "gguf",
        {"split.count": 3, "split.no": 1},
        "split.count is 3, and this is part 1 (counting from 0); join",
    ),
    ("gguf", {"llama.embedding_length": "96"}, "got '96'"),
    ("gguf", {"general.architecture": "gpt3"}, "general.architecture: got 'gpt3', expected"),
    ("gguf", {"general.architecture": None}, "general.architecture: got None"),
    ("gguf", {"llama.block_count": None}, "llama.block_count is missing"),
    ("gguf", {"llama.block_count": 10**9}, "llama.block_count is 1000000000, but the model has only 21 tensors"),
    ("gguf", {"llama.attention.head_count": 0}, "n_heads: got 0"),
    ("gguf", {"llama.attention.head_count_kv": 3}, "blk.0.attn_k.weight has shape (12, 96)"),
    ("gguf", {"llama.attention.head_count_kv": 4}, "n_kv_heads: 4 does not divide n_heads = 6"),
    ("gguf", {"llama.attention.head_count": [6, 6]}, "n_heads: got"),
    ("gguf", {"llama.rope.dimension_count": 4}, "llama.rope.dimension_count is 4, expected the head size 6"),
    ("gguf", {"llama.rope.freq_base": float("nan")}, "rope_theta: got nan"),
    ("tensors", {"rope_freqs.weight": np.ones(4)}, "rope_freqs.weight has shape (4,), expected (3,)"),
    ("tensors", {"rope_freqs.weight": np.zeros(3)}, "rope_divisors: got 0.0"),
    ("tensors", {"token_embd.weight": None}, "token_embd.weight is missing"),
    ("tensors", {"token_embd.weight": np.ones(4)}, "token_embd.weight"),
    ("tensors", {"blk.1.ffn_up.weight": None}, "blk.1.ffn_up.weight is missing"),
    ("tensors", {"blk.1.ffn_up.weight": np.ones((64, 95))}, "has shape (64, 95), expected (64, 96)"),
    ("tensors", {"blk.2.ffn_up.weight": np.ones((64, 96))}, "unexpected tensor blk.2.ffn_up.weight"),
]


@pytest.mark.parametrize("form, changes, says", REFUSED)
def test_what_we_do_not_have_is_refused(form, changes, says, tmp_path, fails):
    config = small_llama()
    params = random_params(config, np.float32)
    if form == "hf":
        source = write_hf(tmp_path / "source", params, config, **changes)
    else:
        which = {"fields" if form == "gguf" else "tensors": changes}
        source = write_gguf(tmp_path / "file.gguf", params, config, **which)
    kind = "hf" if form == "hf" else "gguf"
    fails("import", source, "--from", kind, "--out", tmp_path / "out", says=[str(source), says])
    assert not (tmp_path / "out").exists()


def test_an_import_that_is_no_gguf_file(files, tmp_path, fails):
    command = ["import", "--from", "gguf", "--out", tmp_path / "out"]
    fails(*command, files / "hf", says=["hf: expected a file that ends in .gguf"])
    (tmp_path / "half.gguf").write_bytes((files / "file.gguf").read_bytes()[:-100])
    fails(*command, tmp_path / "half.gguf", says=["half.gguf: tensor ", "ends at byte"])
    fails(*command, files / "file.gguf", "--base", "x", says=["base: needs the source to be an adapter"])
    assert not (tmp_path / "out").exists()


def test_buffers_of_old_llama_directories_are_skipped(files, tmp_path):
    config = small_llama()
    folder = write_hf(tmp_path / "hf", random_params(config, np.float32), config)
    edit_tensors(folder / "model.safetensors", lambda t: t | {"model.rotary_emb.inv_freq": t["model.norm.weight"]})
    assert load_hf(folder).config == config
