"""The metadata of a GGUF file for a tokenizer: the inverse of `gguf_tokenizer.py`.

A GGUF file contains only the name of the pre-tokenizer. To find it, each of llama.cpp's names is tried on a text that
they split differently; the right name is the one that gives the tokenizer's own ids.
"""

import json
from pathlib import Path
from typing import NamedTuple

from ..checked import quoted
from .gguf_tokenizer import CONTROL, LLAMA3_LIKE, PATTERNS, PREFIX, USER_DEFINED, gguf_tokenizer_files
from .tokenizer import encode, normalise
from .tokenizer_files import SETTINGS, json_object, load_tokenizer

NORMAL, UNUSED = 1, 5  # types of tokens
OTHER_BPE = ("byte_fallback", "continuing_subword_prefix", "end_of_word_suffix")  # flags of BPE on characters
PROBE = """It's 1, 12, 123, 1234 and 12345 o'clock; I'LL say we're "done" (they'd not).
  Two   three    spaces,   4  5\n 6\n\n7, \ttabs\n\n\nand lines \r\n  x² + y³ = z¹⁰ $5.50 <tag> ~a|b^c
ÀÉÎ naïve café ſ's Straße 中文字符 русский العربية हिन्दी ไทย 🙂👍🏽 é (e\u0301)\u00a0_snake_case_
camelCase e.g. v1.2.3 !!!???..."""


class Vocabulary(NamedTuple):
    fields: dict  # of the GGUF file: name -> value
    is_plain: bool  # whether llama.cpp's ids agree for every text; False if the tokenizer normalises texts first


def gguf_vocabulary(tokenizer, files, special, vocab_size):
    """The `Vocabulary` of a tokenizer, with the fields ``tokenizer.ggml.*``.

    Parameters
    ----------
    tokenizer : Tokenizer
    files : dict of its files, see `model_files`
    special : dict with bos_token_id, eos_token_id (or a list of them) and pad_token_id, if the model has them
    vocab_size : int, the model's; ids without a token get a placeholder

    Raises
    ------
    ValueError
        If the tokenizer is not byte-level BPE, or llama.cpp does not have its pre-tokenizer.
    """
    content = json.loads(tokenizer.to_str())
    model = content["model"]
    if model["type"] != "BPE" or any(model.get(flag) for flag in OTHER_BPE):
        raise ValueError("tokenizer: only byte-level BPE, as of GPT-2 and SmolLM2, can be written to a GGUF file")
    tokens, types = [f"[PAD{i}]" for i in range(vocab_size)], [UNUSED] * vocab_size
    for token, i in model["vocab"].items():
        tokens[i], types[i] = token, NORMAL
    for token in content["added_tokens"]:
        tokens[token["id"]], types[token["id"]] = token["content"], CONTROL if token["special"] else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    ends = special.get("eos_token_id")
    ends = [*(ends if isinstance(ends, list) else [ends]), None]
    added = tokenizer.encode("").ids
    unknown = json_object(SETTINGS, files.get(SETTINGS)).get("unk_token")
    ids = {
        "bos": special.get("bos_token_id", added[0] if added else None),
        "eos": ends[0],
        "eot": ends[1],
        "unknown": tokenizer.token_to_id(unknown) if isinstance(unknown, str) else None,
        "padding": special.get("pad_token_id"),
    }
    fields = {"model": "gpt2", "pre": None, "tokens": tokens, "token_type": types, "merges": merges}
    fields |= {f"{name}_token_id": i for name, i in ids.items() if i is not None}
    fields |= {"add_bos_token": added[:1] == [ids["bos"]], "add_eos_token": len(added) > 1}
    fields = {PREFIX + name: value for name, value in fields.items()}
    expected = encode(tokenizer, [PROBE])[0].tolist()
    for pre in PATTERNS:
        if (pre in LLAMA3_LIKE) != bool(model.get("ignore_merges")):
            continue
        fields[f"{PREFIX}pre"] = pre
        candidate = load_tokenizer(Path("gguf"), {"vocab_size": vocab_size}, gguf_tokenizer_files(fields))
        for text in (PROBE, plain_text(tokenizer, PROBE)):
            if encode(candidate, [text])[0].tolist() == expected:
                return Vocabulary(fields, text == PROBE)
    splitter = quoted((content.get("pre_tokenizer") or {}).get("type"))
    raise ValueError(f"tokenizer: llama.cpp has no pre-tokenizer that splits texts as this one does ({splitter})")


def plain_text(tokenizer, text):
    """The text after the steps that llama.cpp does not have: normalised, and with a space in front."""
    text = normalise(tokenizer, text)
    is_spaced = tokenizer.encode("a").ids == tokenizer.encode(" a").ids
    return f" {text}" if is_spaced and not text.startswith(" ") else text
