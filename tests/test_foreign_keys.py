"""The inventory of other programs' keys is true: a key with another value does what it says."""

import json
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from lora_np.cli import main
from lora_np.data.tokenizer_files import GENERATION
from lora_np.formats import load_hf, load_peft, read_model, save_hf
from lora_np.formats.foreign_keys import foreign_keys
from lora_np.model import BertConfig, LlamaConfig, Qwen2Config, Qwen3Config, Sampling, SmolLM3Config
from lora_np.tasks.writing import continuation, end_ids

from .adapter_files import peft_tensors, random_factors, write_peft
from .llama_files import small_llama, write_gguf, write_hf
from .tiny import edit_fields, random_params, same_bits, tiny_config

HF = {"config.json": "llama", "config.json of gpt2": "gpt2", "config.json of llama": "llama"}
BESIDE = ("sentence_bert_config.json", "1_Pooling/config.json", "2_Dense/config.json")
HF |= {f"config.json of {name}": name for name in ("mistral", "qwen2", "qwen3", "smollm3", "bert")} | dict.fromkeys(
    BESIDE, "mean"
)
GGUF = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config, "smollm3": SmolLM3Config}
PREFIX = {"GGUF": "", "GGUF tokenizer.ggml": "tokenizer.ggml.", **{f"GGUF of {name}": f"{name}." for name in GGUF}}
LABELS = [f"LABEL_{k}" for k in range(3)]  # transformers' names
VALUES = {"tie_word_embeddings": False, "id2label": dict(zip("012", LABELS)), "label2id": dict(zip(LABELS, range(3)))}
OTHERS = ("x", 7, 0.5, True, False, [1])  # values that a key may not have
# Where several keys say the same, or one only matters beside another, or only the value that is there is valid.
UNCHANGED = {"head_dim", "rope.dimension_count", "general.alignment", "unknown_token_id", "padding_token_id"}
UNCHANGED |= {"scores", "add_space_prefix"}  # these files are byte-level; see test_sentencepiece.py
UNCHANGED |= {"tokenizer_class", "hidden_size", "num_attention_heads", "general.type", "task_type"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Section -> the files that a case changes and restores."""
    root, folders = tmp_path_factory.mktemp("sections"), {}
    for section in dict(CASES):
        folder = folders[section] = root / section
        configs = {"gpt2": tiny_config(n_classes=3), "bert": BertConfig(13, 8, 6, 2, 3, 8, pooling="cls", n_classes=3)}
        configs["mean"] = replace(configs["bert"], pooling="mean")
        kind = GGUF.get(HF.get(section), LlamaConfig)
        config = configs.get(HF.get(section), small_llama(kind, n_classes=3 * (section in HF)))
        params = random_params(config, np.float32)
        if section == "adapter_config.json":
            factors = random_factors(params, ("q_proj", "v_proj"))
            write_peft(folder, peft_tensors(factors), target_modules=["q_proj", "v_proj"])
        elif section in HF:
            if HF[section] in configs:
                save_hf(folder, params, config)
            else:
                write_hf(folder, params, config, **{"model_type": "mistral"} if HF[section] == "mistral" else {})
    return folders


def read(section, folder, changes):
    """Read the files of a section with changed fields: arrays, and plain values."""
    params = random_params(config := small_llama(GGUF.get(section.rpartition(" ")[2], LlamaConfig)), np.float32)
    if section in PREFIX:
        folder.mkdir(exist_ok=True)
        (folder / "x.gguf").unlink(missing_ok=True)  # arrays of an earlier one are views of the file
        write_gguf(folder / "x.gguf", params, config, fields={PREFIX[section] + key: v for key, v in changes.items()})
        loaded = read_model(folder / "x.gguf")
        return loaded.params, loaded.config, loaded.files
    path = folder / ("config.json" if section in HF and section not in BESIDE else section)
    text = path.read_text()
    try:
        edit_fields(path, **changes)
        if section in HF:
            loaded = load_hf(folder)
            return loaded.params, loaded.config, loaded.labels
        adapter = load_peft(folder, params, config)
        return adapter.weights, adapter.config
    finally:
        path.write_text(text)


def same(first, second):
    return same_bits(first[0], second[0]) and first[1:] == second[1:]


# `test_settings_of_other_programs…` and the doctor's tests read the first two, and no command reads the third.
ELSEWHERE = (GENERATION, "GGUF adapter", "GGUF of gpt2")
CASES = [(section, key) for section, keys in foreign_keys().items() if section not in ELSEWHERE for key in keys]


@pytest.mark.parametrize("section, key", CASES, ids=[f"{section}: {key}" for section, key in CASES])
def test_a_key_does_what_the_inventory_says(section, key, folders):
    action, folder = foreign_keys()[section][key], folders[section]
    plain = read(section, folder, {})
    if isinstance(action, tuple):
        for value in action:
            assert section == "adapter_config.json" or same(read(section, folder, {key: value}), plain), value
        wrong = [v for v in OTHERS if not any(v == one and type(v) is type(one) for one in action) and v != action[0]]
        for value in wrong:
            with pytest.raises(ValueError, match=key.replace(".", r"\.")):
                read(section, folder, {key: value})
    elif action in ("read", "required", "optional"):
        differences = 0
        for value in (5, 1.5, "x", True, [2], *[{"q_proj": 3}] * (section not in PREFIX)):
            try:
                differences += not same(read(section, folder, {key: value}), plain)
            except (ValueError, TypeError) as error:
                assert key in str(error) or type(error) is ValueError, error
                differences += 1
        assert differences or key in UNCHANGED
    else:
        assert same(read(section, folder, {key: VALUES.get(key, 3)}), plain)


def test_texts_end_as_in_llama_cpp(tmp_path):
    """At the ids of six fields and at tokens that are known by name; an id to suppress is never written."""
    config = small_llama()
    params = random_params(config, np.float32)
    changes = {"eot_token_id": 9, "eom_token_id": 10, "fim_pad_token_id": 11, "fim_rep_token_id": 12}
    changes |= {"fim_sep_token_id": 13, "suppress_tokens": [40, 41]}
    fields = {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    task = read_model(write_gguf(tmp_path / "x.gguf", params, config, fields=fields))
    assert end_ids(task) == (2, 9, 10, 11, 12, 13, 4)  # the last is <|im_end|>
    own = {"eos_token_id": None, "suppress_tokens": list(range(0, config.vocab_size, 2))}
    task = task._replace(files={**task.files, GENERATION: json.dumps(own).encode()})
    wrong = task._replace(files={GENERATION: b'{"suppress_tokens": "abc"}'})
    with pytest.raises(ValueError, match="suppress_tokens is 'abc', expected a list of ids"):
        continuation(wrong, np.array([5]), 1, None, Sampling(), None)
    with mock.patch("lora_np.tasks.writing.pieces", lambda tokenizer, text, new, shown: new):
        new = continuation(task, np.array([5]), 200, None, Sampling(temperature=5.0), np.random.default_rng(0))
    ids = [int(token[0]) for token in new]
    assert len(ids) == 200 and all(i % 2 for i in ids)


def test_settings_of_other_programs_are_reported_once(tmp_path, capsys):
    config = small_llama()
    folder = write_hf(tmp_path / "hf", random_params(config, np.float32), config)
    (folder / GENERATION).write_text('{"eos_token_id": 2, "top_k": 5, "num_beams": 4, "top_p": 1.0}')
    assert main(["import", str(folder), "--from", "hf", "--out", str(tmp_path / "own")]) == 0
    assert main(["generate", "--model", str(tmp_path / "own"), "--prompt", "hello", "--tokens", "2"]) == 0
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "ignoring top_k = 5, num_beams = 4;" in error, error
