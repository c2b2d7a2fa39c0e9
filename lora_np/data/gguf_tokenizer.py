"""Convert the tokenizer in a GGUF file's metadata to tokenizer files, and back.

The metadata contains the tokens, merges and flags. For the pre-tokenizer, which splits a text before merges are
applied, it contains only a name (``tokenizer.ggml.pre``); llama.cpp defines what each name means. With the converted
files, a text gets the same ids as in llama.cpp, with one exception: llama.cpp drops a byte that is not in the
vocabulary, but here such a byte becomes the unknown token, if there is one. SmolLM2's vocabulary lacks 21 bytes; 13 of
them do not occur in UTF-8.

SentencePiece's vocabularies (Llama 2, TinyLlama, Mistral) have a score for each token instead of merges. Of all pairs
of neighbours that form a token, llama.cpp joins the one with the highest score. This is BPE whose merges are all splits
of a token into two tokens, in the order of the tokens' scores.

In the other direction, `gguf_vocabulary` tries several of llama.cpp's pre-tokenizers on a test text that each of them
splits differently, and chooses the one that gives the same ids as the original tokenizer.
"""

import json
import re
from pathlib import Path

import numpy as np

from ..checked import quoted, whole_number
from .tokenizer import encode, normalise
from .tokenizer_files import GENERATION, SETTINGS, TEMPLATE, TOKENIZER, WHOLE_FILE, json_object, load_tokenizer

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Llama 3's pattern; Qwen 2's differs only in the number of digits. The contractions are spelled out, because (?i:'s)
# also matches 'ſ.
LLAMA3 = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Mistral's, as llama.cpp approximates it: letters other than a to z, then letters other than A to Z.
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?(?:(?=\p{L})[^a-z])*(?:(?=\p{L})[^A-Z])+"
    r"|[^\r\n\p{L}\p{N}]?(?:(?=\p{L})[^a-z])+(?:(?=\p{L})[^A-Z])*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {  # tokenizer.ggml.pre -> regular expressions that split a text, applied in turn
    "default": (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    "gpt-2": (GPT2,),
    "smollm": (r"\p{N}", GPT2),
    "llama-bpe": (LLAMA3,),
    "qwen2": (LLAMA3.replace("{1,3}", ""),),
    "tekken": (TEKKEN,),
}
PATTERNS |= {"llama3": PATTERNS["llama-bpe"], "llama-v3": PATTERNS["llama-bpe"], "deepseek-r1-qwen": PATTERNS["qwen2"]}
# In llama.cpp, these tokens end a text, and are matched before a text is split, whatever the metadata says about them.
ENDS = """<|im_end|> <|eot_id|> <|end|> <end_of_turn> <|endoftext|> <|end_of_text|> <EOT> _<EOT> [EOT] <eos> [EOS]
<｜end▁of▁sentence｜> <end_of_utterance> <|eom_id|> <|return|> <|call|> <|flush|> <|calls|> <|tool_response> <turn|>
[e~[ <|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>
<|file_sep|>""".split()
END_FIELDS = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")  # of ids that end a text
# A word that is a token needs no merging, and the first token of a text is added by default.
LLAMA3_LIKE = ("llama-bpe", "llama3", "llama-v3", "tekken")
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of tokens
SPACE = "\u2581"  # stands for a space in SentencePiece's tokens
PREFIX = "tokenizer.ggml."
REMEDY = "import the model's Hugging Face folder instead, which has a tokenizer.json"
OTHER_BPE = ("continuing_subword_prefix", "end_of_word_suffix")  # flags of other kinds of BPE
PROBE = """It's 1, 12, 123, 1234 and 12345 o'clock; I'LL say we're "done" (they'd not).
  Two   three    spaces,   4  5\n 6\n\n7, \ttabs\n\n\nand lines \r\n  x² + y³ = z¹⁰ $5.50 <tag> ~a|b^c
ÀÉÎ naïve café ſ's Straße 中文字符 русский العربية हिन्दी ไทย 🙂👍🏽 é (e\u0301)\u00a0_snake_case_
camelCase e.g. v1.2.3 !!!???..."""


def gguf_tokenizer_files(fields):
    """Return the files from which `load_tokenizer` and transformers can load a GGUF file's tokenizer.

    Parameters
    ----------
    fields : dict, the GGUF file's metadata: key -> str, bool, int, float or a sequence of them

    Returns
    -------
    dict, name -> bytes: ``tokenizer.json``, ``tokenizer_config.json``, ``generation_config.json``, and
    ``chat_template.jinja`` if the file has a template

    Raises
    ------
    ValueError
        If the tokenizer is neither byte-level BPE with a known pre-tokenizer nor SentencePiece's BPE, or its metadata
        is damaged.
    """
    kind = typed_field(fields, "model", str)
    if kind not in ("gpt2", "llama"):
        expected = "'gpt2' (byte-level BPE) or 'llama' (SentencePiece)"
        raise ValueError(f"{PREFIX}model is {quoted(kind)}, expected {expected}; {REMEDY}")
    pre, is_pieces = typed_field(fields, "pre", str, "default" if kind == "llama" else None), kind == "llama"
    if not is_pieces and pre not in PATTERNS:
        raise ValueError(f"{PREFIX}pre is {quoted(pre)}, expected one of {', '.join(PATTERNS)}; {REMEDY}")
    tokens = list_field(fields, "tokens", str)
    types = list_field(fields, "token_type", int)
    if len(types) != len(tokens):
        raise ValueError(f"{PREFIX}token_type has {len(types)} entries, expected {len(tokens)}, one for each token")
    types = [CONTROL if t in ENDS and kind == NORMAL else kind for t, kind in zip(tokens, types)]
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) < len(tokens):
        i = next(i for i, token in enumerate(tokens) if vocab[token] != i)
        raise ValueError(f"{PREFIX}tokens has {quoted(tokens[i])} twice, at {i} and {vocab[tokens[i]]}")
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    ids = {ours: token_id(fields, f"{name}_token_id", len(tokens)) for ours, name in names.items()}
    ends = [token_id(fields, f"{name}_token_id", len(tokens)) for name in END_FIELDS]
    ends = list(dict.fromkeys(i for i in [*ends, *map(vocab.get, ENDS)] if i is not None))
    special = {name: tokens[i] for name, i in ids.items() if i is not None}
    added = []  # the tokens before each text, and those after it
    for name, default in (("bos", is_pieces or pre in LLAMA3_LIKE), ("eos", False)):
        is_added = typed_field(fields, f"add_{name}_token", bool, default)
        if is_added and name not in special:
            raise ValueError(f"{PREFIX}add_{name}_token is true, but there is no {name}_token_id")
        added.append([special[name]] if is_added else [])

    content = {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": token, "special": types[i] != USER_DEFINED}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for i, token in enumerate(tokens)
            if types[i] in (UNKNOWN, CONTROL, USER_DEFINED)  # these are matched before a text is split
        ],
        "post_processor": template(*added, vocab) if any(added) else None,
        **(pieces(fields, tokens, types, vocab) if is_pieces else bytes_merged(fields, pre, vocab)),
    }
    content["model"] |= {"type": "BPE", "unk_token": special.get("unk"), "vocab": vocab}
    settings = {f"{name}_token": token for name, token in special.items()}
    generation = {f"{name}_token_id": ids[name] for name in ("bos", "pad")}
    generation["eos_token_id"] = ends if len(ends) > 1 else ends[0] if ends else None
    generation["suppress_tokens"] = list_field(fields, "suppress_tokens", int, []) or None
    files = {
        TOKENIZER: as_json(content),
        SETTINGS: as_json({"tokenizer_class": WHOLE_FILE[0], "clean_up_tokenization_spaces": False, **settings}),
        GENERATION: as_json({name: i for name, i in generation.items() if i is not None}),
    }
    chat_template = fields.get("tokenizer.chat_template")
    if chat_template is not None and not isinstance(chat_template, str):
        raise ValueError(f"tokenizer.chat_template is a {type(chat_template).__name__}, expected a string")
    return files | ({TEMPLATE: chat_template.encode("utf-8")} if chat_template else {})


def bytes_merged(fields, pre, vocab):
    """The steps of byte-level BPE in a ``tokenizer.json``."""
    pairs = [merge.partition(" ")[::2] for merge in dict.fromkeys(list_field(fields, "merges", str))]  # each once
    for first, second in pairs:
        if not (first in vocab and second in vocab and first + second in vocab):
            merge = quoted(f"{first} {second}")
            raise ValueError(f"{PREFIX}merges has {merge}, but {PREFIX}tokens lacks one of its parts or its result")
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in PATTERNS[pre]
    ]
    return {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level(False)]},
        "decoder": byte_level(True),
        "model": {"fuse_unk": False, "ignore_merges": pre in LLAMA3_LIKE, "merges": pairs},
    }


def pieces(fields, tokens, types, vocab):
    """The steps of SentencePiece's BPE in a ``tokenizer.json``: spaces become ▁, and unknown letters their bytes."""
    scores = list_field(fields, "scores", float)
    if len(scores) != len(tokens):
        raise ValueError(f"{PREFIX}scores has {len(scores)} entries, expected {len(tokens)}, one for each token")
    is_piece = {token for token, kind in zip(tokens, types) if kind in (NORMAL, USER_DEFINED)}
    merges = [
        (-scores[vocab[token]], -i, -len(token), token[:i], token[i:])
        for token in is_piece
        for i in range(1, len(token))
        if token[:i] in is_piece and token[i:] in is_piece
    ]
    spaced = typed_field(fields, "add_space_prefix", bool, True)
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    first = {"type": "Strip", "content": " ", "start": int(spaced), "stop": 0}
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": SPACE}] * spaced + [replaced],
        },
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, first]},
        "model": {"fuse_unk": True, "byte_fallback": True, "merges": [merge[3:] for merge in sorted(merges)]},
    }


def byte_level(trim_offsets):
    """The JSON of a ByteLevel step, which maps bytes to characters in a pre-tokenizer, and back in a decoder."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": trim_offsets, "use_regex": False}


def template(first, last, vocab):
    """The post-processor that adds the tokens `first` before a text and the tokens `last` after it."""
    before, after = ([{"SpecialToken": {"id": token, "type_id": 0}} for token in side] for side in (first, last))
    text, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [*before, text, *after],
        "pair": [*before, text, *after, *before, second, *after],
        "special_tokens": {t: {"id": t, "ids": [vocab[t]], "tokens": [t]} for t in {*first, *last}},
    }


def typed_field(fields, name, kind, default=None):
    """Return a field of the tokenizer, or its default; raise ValueError if the type of the value is not `kind`."""
    value = fields.get(PREFIX + name, default)
    if type(value) is not kind:
        raise wrong_type(name, value, kind.__name__)
    return value


def list_field(fields, name, kind, default=None):
    """Return a field as a list; raise ValueError unless all its values have the type `kind`."""
    values = fields.get(PREFIX + name, default)
    values = values.tolist() if hasattr(values, "tolist") else values  # an array
    if not isinstance(values, (list, tuple)):
        raise wrong_type(name, values, f"a list of {kind.__name__}")
    for i, value in enumerate(values):
        if type(value) is not kind:
            raise ValueError(f"{PREFIX}{name} has {quoted(value)} at {i}, expected {kind.__name__}; {REMEDY}")
    return list(values)


def wrong_type(name, value, expected):
    got = "missing" if value is None else quoted(value)
    return ValueError(f"{PREFIX}{name} is {got}, expected {expected}; {REMEDY}")


def token_id(fields, name, n_tokens):
    """The id of a special token, or None if the field is missing."""
    if PREFIX + name not in fields:
        return None
    return whole_number(PREFIX + name, fields[PREFIX + name], least=0, most=n_tokens - 1)


def as_json(content):
    return json.dumps(content, ensure_ascii=False).encode("utf-8")


def gguf_vocabulary(tokenizer, files, special, vocab_size):
    """Return the fields ``tokenizer.ggml.*`` that describe a tokenizer in a GGUF file.

    Parameters
    ----------
    tokenizer : Tokenizer
    files : dict of the tokenizer's files, see `model_files`
    special : dict with bos_token_id, eos_token_id (or a list of them) and pad_token_id, if the model has them
    vocab_size : int, the model's vocabulary size; ids without a token get a placeholder

    Returns
    -------
    fields : dict, name -> value
    is_plain : bool, whether llama.cpp gives the same ids for every text; False if the tokenizer normalises texts

    Raises
    ------
    ValueError
        If the tokenizer is neither byte-level BPE nor SentencePiece's, or llama.cpp has no equivalent pre-tokenizer.
    """
    content = json.loads(tokenizer.to_str())
    model = content["model"]
    if model["type"] != "BPE" or any(model.get(flag) for flag in OTHER_BPE):
        text = (
            "only byte-level BPE, as in GPT-2 and Llama 3, and SentencePiece's BPE, as in Llama 2, can be written to a"
        )
        raise ValueError(f"tokenizer: {text} GGUF file")
    is_pieces = bool(model.get("byte_fallback"))
    tokens, types = [f"[PAD{i}]" for i in range(vocab_size)], [UNUSED] * vocab_size
    for token, i in model["vocab"].items():
        tokens[i], types[i] = token, BYTE if is_pieces and re.fullmatch("<0x[0-9A-F]{2}>", token) else NORMAL
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
        "eot": next((i for i in ends[1:] if i is not None and tokens[i] not in ENDS), None),
        "unknown": tokenizer.token_to_id(unknown) if isinstance(unknown, str) else None,
        "padding": special.get("pad_token_id"),
    }
    fields = {"model": "llama" if is_pieces else "gpt2", "pre": "default", "tokens": tokens, "token_type": types}
    if is_pieces:
        ranks = {merge.replace(" ", ""): -rank for rank, merge in reversed(list(enumerate(merges)))}
        fields["scores"] = np.array([ranks.get(token, 0) for token in tokens], np.float32)
        fields["add_space_prefix"] = tokenizer.encode("a", add_special_tokens=False).tokens[0].startswith(SPACE)
    else:
        fields["merges"] = merges
    fields |= {f"{name}_token_id": i for name, i in ids.items() if i is not None}
    fields |= {"add_bos_token": added[:1] == [ids["bos"]], "add_eos_token": len(added) > 1}
    fields = {PREFIX + name: value for name, value in fields.items()}
    if added and added[0] not in (ids["bos"], ids["eos"]):
        fault = f"adds the token {added[0]} before each text, but bos_token_id is {ids['bos']}"
        raise ValueError(f"tokenizer: {fault}; in a GGUF file, the two ids must be equal")
    expected = encode(tokenizer, [PROBE])[0].tolist()
    for pre in ("default",) if is_pieces else PATTERNS:
        if (pre in LLAMA3_LIKE) != bool(model.get("ignore_merges")):
            continue
        fields[f"{PREFIX}pre"] = pre
        candidate = load_tokenizer(Path("gguf"), {"vocab_size": vocab_size}, gguf_tokenizer_files(fields))
        for text in (PROBE, plain_text(tokenizer, PROBE)):
            if encode(candidate, [text])[0].tolist() == expected:
                return fields, text == PROBE
    splitter = quoted((content.get("pre_tokenizer") or {}).get("type"))
    raise ValueError(f"tokenizer: llama.cpp has no pre-tokenizer that is equivalent to this one ({splitter})")


def plain_text(tokenizer, text):
    """Normalise a text, and add a leading space if the tokenizer adds one, because llama.cpp does neither."""
    text = normalise(tokenizer, text)
    is_spaced = tokenizer.encode("a").ids == tokenizer.encode(" a").ids
    return f" {text}" if is_spaced and not text.startswith(" ") else text
