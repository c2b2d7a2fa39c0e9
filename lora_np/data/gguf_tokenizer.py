"""The files of a tokenizer from the metadata of a GGUF file.

The tokens, merges and flags are in the file; how a text is split before the merges is only named there
(``tokenizer.ggml.pre``), and what the names mean is written in llama.cpp. The files give llama.cpp's ids, with one
difference: where the vocabulary lacks a byte, llama.cpp drops it, and here it becomes the unknown token, if there is
one. SmolLM2 lacks 21 bytes; 13 of them are in no text in UTF-8.
"""

import json

from ..checked import quoted
from .tokenizer_files import GENERATION, SETTINGS, TEMPLATE, TOKENIZER, WHOLE_FILE

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Llama 3's, and with another number of digits Qwen 2's. (?i:'s) is spelt out because it would match ſ, a long s, too.
LLAMA3 = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {  # tokenizer.ggml.pre -> regular expressions that split a text, one after the other
    "default": (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    "gpt-2": (GPT2,),
    "smollm": (r"\p{N}", GPT2),
    "llama-bpe": (LLAMA3,),
    "qwen2": (LLAMA3.replace("{1,3}", ""),),
}
LLAMA3_HABITS = ("llama-bpe",)  # a word that is a token needs no merges, and <|begin_of_text|> is the default
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # types of tokens that are matched in a text before it is split
PREFIX = "tokenizer.ggml."
REMEDY = "import the model's Hugging Face folder instead, which has a tokenizer.json"


def gguf_tokenizer_files(fields):
    """The files that `load_tokenizer` and transformers read as the tokenizer of a GGUF file.

    Parameters
    ----------
    fields : dict, the file's metadata: key -> str, bool, int, float or a sequence of them

    Returns
    -------
    dict, name -> bytes: ``tokenizer.json``, ``tokenizer_config.json``, ``generation_config.json``, and
    ``chat_template.jinja`` if the file has a template

    Raises
    ------
    ValueError
        If the tokenizer is not byte-level BPE with a splitting that we have, or its metadata are damaged.
    """
    kind, pre = (of_type(fields, name, str) for name in ("model", "pre"))
    if kind != "gpt2":
        raise ValueError(f"{PREFIX}model is {quoted(kind)}, expected 'gpt2', which is byte-level BPE; {REMEDY}")
    if pre not in PATTERNS:
        raise ValueError(f"{PREFIX}pre is {quoted(pre)}, expected one of {', '.join(PATTERNS)}; {REMEDY}")
    tokens, merges = (sequence(fields, name, str) for name in ("tokens", "merges"))
    types = sequence(fields, "token_type", int)
    if len(types) != len(tokens):
        raise ValueError(f"{PREFIX}token_type has {len(types)} entries, expected {len(tokens)}, one for each token")
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) < len(tokens):
        i = next(i for i, token in enumerate(tokens) if vocab[token] != i)
        raise ValueError(f"{PREFIX}tokens has {quoted(tokens[i])} twice, at {i} and {vocab[tokens[i]]}")
    pairs = [merge.partition(" ")[::2] for merge in dict.fromkeys(merges)]  # of a repeated merge, the first counts
    for first, second in pairs:
        if not (first in vocab and second in vocab and first + second in vocab):
            merge = quoted(f"{first} {second}")
            raise ValueError(f"{PREFIX}merges has {merge}, whose parts or whole are not in {PREFIX}tokens")

    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    ids = {ours: token_id(fields, f"{name}_token_id", len(tokens)) for ours, name in names.items()}
    ends = [ids["eos"], *(token_id(fields, f"{name}_token_id", len(tokens)) for name in ("eot", "eom"))]
    ends = list(dict.fromkeys(i for i in ends if i is not None))
    special = {name: tokens[i] for name, i in ids.items() if i is not None}
    around = []  # the tokens before and after each text
    for name, default in (("bos", pre in LLAMA3_HABITS), ("eos", False)):
        adds = of_type(fields, f"add_{name}_token", bool, default)
        if adds and name not in special:
            raise ValueError(f"{PREFIX}add_{name}_token is true, expected a {name}_token_id beside it")
        around.append([special[name]] if adds else [])

    content = {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": token, "special": types[i] != USER_DEFINED}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for i, token in enumerate(tokens)
            if types[i] in (UNKNOWN, CONTROL, USER_DEFINED)
        ],
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
                for pattern in PATTERNS[pre]
            ]
            + [byte_level(False)],
        },
        "post_processor": surround(*around, vocab) if any(around) else None,
        "decoder": byte_level(True),
        "model": {
            "type": "BPE",
            "unk_token": special.get("unk"),
            "fuse_unk": False,
            "ignore_merges": pre in LLAMA3_HABITS,
            "vocab": vocab,
            "merges": pairs,
        },
    }
    settings = {f"{name}_token": token for name, token in special.items()}
    generation = {f"{name}_token_id": ids[name] for name in ("bos", "pad")}
    generation["eos_token_id"] = ends if len(ends) > 1 else ends[0] if ends else None
    files = {
        TOKENIZER: as_json(content),
        SETTINGS: as_json({"tokenizer_class": WHOLE_FILE[0], "clean_up_tokenization_spaces": False, **settings}),
        GENERATION: as_json({name: i for name, i in generation.items() if i is not None}),
    }
    template = fields.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise ValueError(f"tokenizer.chat_template is a {type(template).__name__}, expected a string")
    return files | ({TEMPLATE: template.encode("utf-8")} if template else {})


def byte_level(trim_offsets):
    """The step that writes each byte as a letter, and as a decoder the step back."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": trim_offsets, "use_regex": False}


def surround(first, last, vocab):
    """The step that puts the tokens `first` and `last` around a text."""
    before, after = ([{"SpecialToken": {"id": token, "type_id": 0}} for token in side] for side in (first, last))
    text, more = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [*before, text, *after],
        "pair": [*before, text, *after, *before, more, *after],
        "special_tokens": {t: {"id": t, "ids": [vocab[t]], "tokens": [t]} for t in {*first, *last}},
    }


def of_type(fields, name, kind, default=None):
    """A field of the tokenizer; without a default it has to be there."""
    value = fields.get(PREFIX + name, default)
    if type(value) is not kind:
        found = "missing" if value is None else quoted(value)
        raise ValueError(f"{PREFIX}{name} is {found}, expected {kind.__name__}; {REMEDY}")
    return value


def sequence(fields, name, kind):
    """A field that has many values, as a list."""
    values = fields.get(PREFIX + name)
    if hasattr(values, "tolist"):  # an array
        values = values.tolist()
    if not isinstance(values, (list, tuple)):
        found = "missing" if values is None else quoted(values)
        raise ValueError(f"{PREFIX}{name} is {found}, expected a list of {kind.__name__}; {REMEDY}")
    for i, value in enumerate(values):
        if type(value) is not kind:
            raise ValueError(f"{PREFIX}{name} has {quoted(value)} at {i}, expected {kind.__name__}; {REMEDY}")
    return list(values)


def token_id(fields, name, n_tokens):
    """The id of a special token, or None."""
    if PREFIX + name not in fields:
        return None
    i = of_type(fields, name, int)
    if not 0 <= i < n_tokens:
        raise ValueError(f"{PREFIX}{name} is {i}, expected an id below {n_tokens}, the number of tokens")
    return i


def as_json(content):
    return json.dumps(content, ensure_ascii=False).encode("utf-8")
