"""The inventory of keys, against the programs that read them: it is complete, and what is ignored has no effect."""

import json
import os
import shutil
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_np.bench.llama_cpp import VARIABLE
from lora_np.formats.foreign_keys import foreign_keys, keys_with
from lora_np.formats.to_gguf import save_gguf
from lora_np.model import LlamaConfig, Qwen2Config, Qwen3Config, SmolLM3Config

from ..chat_templates import metadata
from ..tiny import random_params
from .llama_cpp import log_probabilities, need_llama_cpp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "gpt2": {"n_embd": 24, "n_layer": 2, "n_head": 2, "n_positions": 16},
    "llama": {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
}
FAMILY = {"mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "smollm3": "SmolLM3"}
SIZES |= {name: SIZES["llama"] | {"num_key_value_heads": 2} for name in FAMILY} | {"bert": SIZES["llama"]}
CONFIGS = {"gpt2": transformers.GPT2Config, "llama": transformers.LlamaConfig, "bert": transformers.BertConfig}
CONFIGS |= {name: getattr(transformers, f"{title}Config") for name, title in FAMILY.items()}
VALUES = {  # of ignored keys, other than their defaults
    "attention_dropout": 0.5, "attn_pdrop": 0.5, "embd_pdrop": 0.5, "initializer_range": 0.5, "use_cache": False,
    "gradient_checkpointing": True, "pretraining_tp": 2, "chunk_size_feed_forward": 3, "output_attentions": True,
    "output_hidden_states": True, "output_past": False, "is_decoder": True, "is_llama_config": False,
    "rope_interleaved": True, "reorder_and_upcast_attn": True, "task_specific_params": {"x": {"max_length": 3}},
    "transformers.js_config": {"x": 1}, "summary_activation": "tanh", "summary_first_dropout": 0.5,
    "summary_proj_to_labels": False, "summary_type": "mean", "summary_use_proj": False,
    "tokenizer_class": "GPT2Tokenizer", "unk_token_id": 3, "transformers_version": "4.0.0", "_name_or_path": "x",
    "architectures": ["X"], "n_ctx": 5, "bos_token_id": 3, "eos_token_id": 3, "pad_token_id": 3, "num_labels": 2,
    "_num_labels": 2, "attention_probs_dropout_prob": 0.5, "classifier_dropout": 0.5, "finetuning_task": "x",
    "sentence_transformers": {"normalize": True}, "directionality": "uni", "sliding_window": 3, "max_window_layers": 1,
    **{f"pooler_{name}": 3 for name in ("fc_size", "num_attention_heads", "num_fc_layers", "size_per_head", "type")},
}  # fmt: skip
# `return_dict` changes the type of what transformers returns; the others are checked before they are written anew.
UNTRIED = {"return_dict", "dtype", "torch_dtype", "id2label", "label2id", "tie_word_embeddings"}
GGUF = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config, "smollm3": SmolLM3Config}
TRACE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
int64_t gguf_find_key(const void *file, const char *key) {
    void *library = dlopen(getenv("GGUF_LIBRARY"), RTLD_LAZY);
    int64_t (*find)(const void *, const char *) = dlsym(library, "gguf_find_key");
    FILE *trace = fopen(getenv("GGUF_TRACE"), "a");
    fprintf(trace, "%s\n", key);
    fclose(trace);
    return find(file, key);
}
"""


def listed(name):
    """What is done with each field of an architecture's config.json."""
    return foreign_keys()["config.json"] | foreign_keys()[f"config.json of {name}"]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_of_a_configuration_is_listed(name):
    assert CONFIGS[name]().to_dict().keys() <= listed(name).keys()


def test_every_field_of_an_adapter_and_of_generation_is_listed():
    peft = pytest.importorskip("peft")
    assert peft.LoraConfig().to_dict().keys() <= foreign_keys()["adapter_config.json"].keys()
    assert transformers.GenerationConfig().to_dict().keys() <= foreign_keys()["generation_config.json"].keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_ignored_has_no_effect_in_transformers(name, tmp_path):
    torch.manual_seed(0)
    kind = transformers.AutoModelForSequenceClassification if name == "bert" else transformers.AutoModelForCausalLM
    model = kind.from_config(CONFIGS[name](vocab_size=20, pad_token_id=None, **SIZES[name]))
    model.save_pretrained(tmp_path)
    path, ids = tmp_path / "config.json", torch.arange(12).reshape(2, 6)
    fields = json.loads(path.read_text())

    def logits(**changes):
        path.write_text(json.dumps(fields | changes))
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return kind.from_pretrained(tmp_path).eval()(ids).logits.numpy()

    expected, keys = logits(), keys_with(listed(name), "ignored", "written")
    assert keys and set(keys) <= VALUES.keys() | UNTRIED
    for key in set(keys) - UNTRIED:
        np.testing.assert_array_equal(logits(**{key: VALUES[key]}), expected, err_msg=key)


def test_every_field_of_sentence_transformers_is_listed():
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    for section, kind in {"1_Pooling": modules.Pooling, "2_Dense": modules.Dense}.items():
        names = set(kind.config_keys) | set(getattr(kind, "config_key_renames", ()))
        assert names <= foreign_keys()[f"{section}/config.json"].keys()
    assert set(modules.Transformer.config_keys) <= foreign_keys()["sentence_bert_config.json"].keys()


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
@pytest.mark.parametrize("name", GGUF)
def test_every_key_that_llama_cpp_looks_up_is_listed(name, tmp_path, monkeypatch):
    """The lookups of a model with a byte-level BPE tokenizer, in the function through which all of them go."""
    need_llama_cpp()
    (tmp_path / "trace.c").write_text(TRACE)
    command = ["gcc", "-shared", "-fPIC", "-o", tmp_path / "trace.so", tmp_path / "trace.c", "-ldl"]
    subprocess.run(command, check=True)
    library = next(Path(os.environ[VARIABLE]).glob("node_modules/@node-llama-cpp/*/bins/*/libggml-base.so"))
    config = GGUF[name](len(metadata()["tokenizer.ggml.tokens"]), 64, 96, 4, 6, 2, 16, 64)
    config = replace(config, unrotated=(3,) if name == "smollm3" else ())
    save_gguf(tmp_path / "x.gguf", random_params(config, np.float32), config, metadata())
    monkeypatch.setenv("GGUF_LIBRARY", str(library))
    monkeypatch.setenv("GGUF_TRACE", str(tmp_path / "keys"))
    monkeypatch.setenv("LD_PRELOAD", str(tmp_path / "trace.so"))
    log_probabilities(tmp_path / "x.gguf", [[1, 5, 6]], tmp_path)
    found = set((tmp_path / "keys").read_text().split())
    prefixes = {"GGUF": "", f"GGUF of {name}": f"{name}.", "GGUF tokenizer.ggml": "tokenizer.ggml."}
    known = {prefix + key for section, prefix in prefixes.items() for key in foreign_keys()[section]}
    assert len(found) > 50 and found <= known, sorted(found - known)
