"""SmolLM2 in llama.cpp itself."""

import json
from pathlib import Path

import numpy as np
import pytest

from lora_np.formats import read_model
from lora_np.formats.smollm2 import packaged_model

from .llama_cpp import ask, log_probabilities, need_llama_cpp

pytestmark = [pytest.mark.oracle, pytest.mark.real]

IDS = Path(__file__).parent.parent / "llama_cpp_ids.json"
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def file():
    """The packaged model, where there is also a llama.cpp to run it."""
    need_llama_cpp()
    try:
        return packaged_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def tokenizer(file):
    return read_model(file, weights="blocks").tokenizer


def test_the_same_tokens(file, tokenizer):
    texts = [row["text"] for row in json.loads(IDS.read_text("utf-8"))["texts"]]
    answers = ask(file, [{"do": "tokenize", "text": text, "special": True} for text in texts])
    assert len(texts) > 20
    for text, answer in zip(texts, answers):
        assert answer["ids"] == tokenizer.encode(text).ids, text


def test_the_packaged_file_continues_a_text(file, tokenizer, tmp_path):
    ids = tokenizer.encode(PROMPT).ids
    [first] = ask(file, [{"do": "greedy", "prompt": ids, "n": 1}])
    assert ask(file, [{"do": "detokenize", "ids": first["ids"]}]) == [{"text": " Paris"}]
    [rows] = log_probabilities(file, [ids], tmp_path)
    assert rows.shape == (len(ids), tokenizer.get_vocab_size())
    assert np.abs(np.exp(rows.astype(np.float64)).sum(axis=1) - 1).max() < 1e-6
    second, best = np.sort(rows[-1])[-2:]
    assert [rows[-1].argmax()] == first["ids"] and abs(best - second - first["margins"][0]) < 1e-5


def test_errors_come_with_the_words_of_llama_cpp(file, tokenizer):
    with pytest.raises(RuntimeError, match="expect general.type to be 'adapter', but got: model"):
        ask(file, [], adapters=[(file, 1.0)])
    with pytest.raises(RuntimeError, match="more tokens than a context of 256 holds"):
        ask(file, [{"do": "greedy", "prompt": tokenizer.encode(PROMPT).ids * 60, "n": 1}], context=256)
