"""SentencePiece's vocabularies in GGUF files: ids as in llama.cpp, and the way back into such a file."""

import random
from pathlib import Path

import numpy as np
import pytest

from lora_np.data import gguf_tokenizer_files, gguf_vocabulary, load_reviews, load_tokenizer
from lora_np.data.gguf_tokenizer import SPACE

BYTES = [f"<0x{i:02X}>" for i in range(256)]
LETTERS = "abcdefghinorst é½"


def pieces(n=300, seed=0):
    """Metadata of a vocabulary whose pieces were joined from neighbours in real texts, in the order of their scores."""
    rng = random.Random(seed)
    text = (SPACE + SPACE.join(load_reviews("rotten_tomatoes").test.texts[:200]).replace(" ", SPACE))[:20000]
    known = sorted(set(text) | set(LETTERS.replace(" ", SPACE)))
    joined, parts = [], list(text)
    while len(joined) < n:
        i = rng.randrange(len(parts) - 1)
        piece = parts[i] + parts[i + 1]
        if piece not in joined:
            joined.append(piece)
        j, merged = 0, []
        while j < len(parts):
            pair = parts[j] + parts[j + 1] == piece if j + 1 < len(parts) else False
            merged.append(piece if pair else parts[j])
            j += 1 + pair
        parts = merged
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *joined, *known]
    scores = [0.0] * 259 + [-float(i) for i in range(n)] + [-1e6 - i for i in range(len(known))]
    fields = {"model": "llama", "tokens": tokens, "scores": np.array(scores, np.float32)}
    fields |= {"token_type": [2, 3, 3] + [6] * 256 + [1] * (n + len(known)), "bos_token_id": 1, "eos_token_id": 2}
    return {f"tokenizer.ggml.{name}": value for name, value in (fields | {"unknown_token_id": 0}).items()}


def load(fields):
    size = len(fields["tokenizer.ggml.tokens"])
    return load_tokenizer(Path("file.gguf"), {"vocab_size": size}, gguf_tokenizer_files(fields))


def joined_by_score(text, fields):
    """llama.cpp's rule: join the neighbours that form the token with the highest score; of equal ones, the first."""
    ids = {token: i for i, token in enumerate(fields["tokenizer.ggml.tokens"])}
    scores, parts = fields["tokenizer.ggml.scores"], list(SPACE + text.replace(" ", SPACE)) if text else []
    while True:
        pairs = [(scores[ids[a + b]], -i) for i, (a, b) in enumerate(zip(parts, parts[1:])) if a + b in ids]
        if not pairs:
            break
        i = -max(pairs)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    of_part = ([ids[part]] if part in ids else [ids[BYTES[b]] for b in part.encode()] for part in parts)
    return [1] + [i for of in of_part for i in of]


def random_texts(n=200):
    rng = random.Random(1)
    texts = ["", " ", "  a", "\n", "the film", "🙂 ½", *load_reviews("rotten_tomatoes").validation.texts[:20]]
    return texts + ["".join(rng.choices(LETTERS + "Z\n汉", k=rng.randrange(40))) for _ in range(n)]


def test_pieces_are_joined_as_in_llama_cpp():
    fields = pieces()
    tokenizer = load(fields)
    for text in random_texts():
        ids = tokenizer.encode(text).ids
        assert ids == joined_by_score(text, fields), text
        assert tokenizer.decode(ids) == text


def test_a_vocabulary_of_pieces_goes_into_a_gguf_file():
    """The scores may be others, but all texts have the same ids; also without the space before a text."""
    for changes in ({}, {"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_bos_token": False}):
        fields = pieces() | changes
        tokenizer, files = load(fields), gguf_tokenizer_files(fields)
        special = {"bos_token_id": 1, "eos_token_id": 2}
        written, is_plain = gguf_vocabulary(tokenizer, files, special, len(fields["tokenizer.ggml.tokens"]))
        again = load(written)
        assert is_plain and all(tokenizer.encode(text).ids == again.encode(text).ids for text in random_texts())
        assert (tokenizer.encode("the").ids[0] == 1) == (not changes)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"scores": [0.0]}, "scores has 1 entries, expected"),
        ({"scores": None}, "scores is missing"),
        ({"scores": ["x"]}, "scores has 'x' at 0, expected float"),
        ({"model": "t5"}, "model is 't5', expected 'gpt2' .byte-level BPE. or 'llama' .SentencePiece."),
    ],
)
def test_damaged_pieces_are_refused(changes, says):
    fields = pieces(5) | {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    with pytest.raises(ValueError, match=says):
        gguf_tokenizer_files({name: value for name, value in fields.items() if value is not None})
