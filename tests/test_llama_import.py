"""Llamas from Hugging Face's directories and GGUF files, through the commands; `oracles/` compares their numbers."""

import numpy as np
import pytest

from lora_np.formats import load_hf, load_task, read_model
from lora_np.formats.model import model_sha256

from .llama_files import small_llama, write_gguf, write_hf, written_gguf
from .test_gguf import Q4_1
from .tiny import edit_fields, edit_tensors, random_params, same_bits

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
    for to, again in (("merged", "merged"), ("hf", "ours")):
        run("export", tmp_path / "adapter", "--to", to, "--out", tmp_path / to / "theirs")
        run("import", tmp_path / to / "theirs", "--from", "hf", "--out", tmp_path / to / "again")
        theirs, ours = load_task(tmp_path / to / "again"), load_task(tmp_path / again)
        assert same_bits(theirs.params, ours.params) and theirs.config == ours.config


REFUSED = {  # what is imported, with which options -> part of the message
    "a model of another type": ("hf", {"model_type": "mistral"}, "model_type is 'mistral', expected gpt2 or llama"),
    "a type that is no text": ("hf", {"model_type": ["llama"]}, "model_type is ['llama'], expected gpt2 or llama"),
    "without heads": ("hf", {"num_attention_heads": 0, "head_dim": None}, "n_heads: got 0"),
    "a width that is no number": ("hf", {"hidden_size": "96", "head_dim": None}, "d_model: got '96'"),
    "scaled positions": ("hf", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "expected unscaled rotary"),
    "scaled, in new words": ("hf", {"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters is {'rope_type'"),
    "a window": ("hf", {"sliding_window": 4}, "sliding_window is 4, expected None"),
    "a GGUF file with heads that do not fit": ("gguf", {"n_kv_heads": 3}, "blk.0.attn_k.weight has shape (12, 96)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_we_do_not_have_is_refused(name, files, tmp_path, fails):
    kind, changes, says = REFUSED[name]
    config = small_llama()
    params = random_params(config, np.float32)
    if kind == "hf":
        source = write_hf(tmp_path / "source", params, config, **changes)
    else:
        source = write_gguf(tmp_path / "file.gguf", params, small_llama(**changes))
    fails("import", source, "--from", kind, "--out", tmp_path / "out", says=[str(source), says])
    assert not (tmp_path / "out").exists()


def test_an_import_that_is_no_gguf_file(files, tmp_path, fails):
    command = ["import", "--from", "gguf", "--out", tmp_path / "out"]
    fails(*command, files / "hf", says=["hf: expected a file that ends in .gguf"])
    fails(*command, files / "none.gguf", says=["none.gguf: there is no such file"])
    (tmp_path / "half.gguf").write_bytes((files / "file.gguf").read_bytes()[:-100])
    fails(*command, tmp_path / "half.gguf", says=["half.gguf: tensor ", "ends at byte"])
    fails(*command, files / "file.gguf", "--tokenizer", "x", says=["tokenizer: needs --from hf"])
    fails(*command, files / "file.gguf", "--base", "x", says=["base: needs --from peft"])
    assert not (tmp_path / "out").exists()


def test_a_llama_directory_without_a_model_type(files, tmp_path):
    config = small_llama()
    folder = write_hf(tmp_path / "hf", random_params(config, np.float32), config)
    edit_fields(folder / "config.json", model_type="absent")
    assert load_hf(folder).config == config
    edit_tensors(folder / "model.safetensors", lambda t: t | {"model.rotary_emb.inv_freq": t["model.norm.weight"]})
    assert load_hf(folder).config == config
