"""The metadata of a GGUF file for a tokenizer: the way back from `gguf_tokenizer.py`.

How a text is split before the merges is only named in such a file. Which of llama.cpp's names fits is found out by
trying: it is the one with which a text that has something for each of them gets the tokenizer's ids.
"""

import json
from pathlib import Path
from typing import NamedTuple

from ..checked import quoted
from .gguf_tokenizer import CONTROL, LLAMA3_HABITS, PATTERNS, PREFIX, USER_DEFINED, gguf_tokenizer_files
from .tokenizer import encode, normalise
from .tokenizer_files import SETTINGS, json_object, load_tokenizer

NORMAL, UNUSED = 1, 5  # types of tokens
FLAGS = ("byte_fallback", "continuing_subword_prefix", "end_of_word_suffix")  # of BPE models that are not byte-level
PROBE = """It's 1, 12, 123, 1234 and 12345 o'clock; I'LL say we're "done" (they'd not).
  Two   three    spaces,   4  5\n 6\n\n7, \ttabs\n\n\nand lines \r\n  x² + y³ = z¹⁰ $5.50 <tag> ~a|b^c
ÀÉÎ naïve café ſ's Straße 中文字符 русский العربية हिन्दी ไทย 🙂👍🏽 é (e\u0301)\u00a0_snake_case_
camelCase e.g. v1.2.3 !!!???..."""


class Vocabulary(NamedTuple):
    fields: dict  # of the GGUF file: name -> value
    is_plain: bool  # whether llama.cpp reads any text as the tokenizer does, which first changes some texts if False


def gguf_vocabulary(tokenizer, files, special, vocab_size):
    """The fields ``tokenizer.ggml.*`` for a tokenizer.

    Parameters
    ----------
    tokenizer : Tokenizer
    files : dict of its files, see `model_files`
    special : dict of bos_token_id, eos_token_id (or a list of them) and pad_token_id, as far as there are any
    vocab_size : int, the model's; ids without a token are filled up

    Raises
    ------
    ValueError
        If it is not byte-level BPE, or llama.cpp has no such way to split a text.
    """
    content = json.loads(tokenizer.to_str())
    model = content["model"]
    if model["type"] != "BPE" or any(model.get(flag) for flag in FLAGS):
        raise ValueError("tokenizer: GGUF files are written for byte-level BPE alone, which GPT-2 and SmolLM2 have")
    tokens, types = [f"[PAD{i}]" for i in range(vocab_size)], [UNUSED] * vocab_size
    for token, i in model["vocab"].items():
        tokens[i], types[i] = token, NORMAL
    for token in content["added_tokens"]:
        tokens[token["id"]], types[token["id"]] = token["content"], CONTROL if token["special"] else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    ends = special.get("eos_token_id")
    ends = [*(ends if isinstance(ends, list) else [ends]), None]
    around = tokenizer.encode("").ids
    named = json_object(SETTINGS, files.get(SETTINGS)).get("unk_token")
    ids = {
        "bos": special.get("bos_token_id", around[0] if around else None),
        "eos": ends[0],
        "eot": ends[1],
        "unknown": tokenizer.token_to_id(named) if isinstance(named, str) else None,
        "padding": special.get("pad_token_id"),
    }
    fields = {"model": "gpt2", "pre": None, "tokens": tokens, "token_type": types, "merges": merges}
    fields |= {f"{name}_token_id": i for name, i in ids.items() if i is not None}
    fields |= {"add_bos_token": around[:1] == [ids["bos"]], "add_eos_token": len(around) > 1}
    fields = {PREFIX + name: value for name, value in fields.items()}
    expected = encode(tokenizer, [PROBE])[0].tolist()
    for pre in PATTERNS:
        if (pre in LLAMA3_HABITS) != bool(model.get("ignore_merges")):
            continue
        fields[f"{PREFIX}pre"] = pre
        theirs = load_tokenizer(Path("gguf"), {"vocab_size": vocab_size}, gguf_tokenizer_files(fields))
        for text in (PROBE, plain_text(tokenizer, PROBE)):
            if encode(theirs, [text])[0].tolist() == expected:
                return Vocabulary(fields, text == PROBE)
    splitting = quoted((content.get("pre_tokenizer") or {}).get("type"))
    raise ValueError(f"tokenizer: llama.cpp splits texts in none of the ways of this one ({splitting})")


def plain_text(tokenizer, text):
    """The text as it is after the changes that llama.cpp does not make: normalised, and with a space in front."""
    text = normalise(tokenizer, text)
    is_spaced = tokenizer.encode("a").ids == tokenizer.encode(" a").ids
    return f" {text}" if is_spaced and not text.startswith(" ") else text
