"""Load a model's tokenizer from its files, as transformers does.

``tokenizer.json`` and a few fields of other files determine a text's token ids. For GPT-2 and Llama models,
`load_tokenizer` matches ``AutoTokenizer.from_pretrained(folder)`` in transformers 5. Not every tokenizer class reads
the entire ``tokenizer.json``: ``GPT2Tokenizer``, the default for GPT-2 models, reads only the vocabulary, merges and
post-processor. ``PreTrainedTokenizerFast``, the usual class for Llama models, reads the entire file. ``LlamaTokenizer``
reads the entire file if the tokenizer is byte-level; otherwise it reads the same parts as ``GPT2Tokenizer``.
"""

import json
import os
import threading
from contextlib import contextmanager
from pathlib import Path

from ..checked import errors_of, quoted, shown
from .normalizers import check_growth, check_steps
from .texts import existing_file, parsed_json, small_file

END_OF_TEXT = "<|endoftext|>"  # GPT-2's only special token, which our own tokenizer also uses
PAD = "<|pad|>"  # our own tokenizer's padding token

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"  # the older equivalent of tokenizer.json
WORDS = "vocab.txt"  # BERT's older equivalent: one token per line
NAMES, ADDED = "special_tokens_map.json", "added_tokens.json"  # older files; their content is now in SETTINGS
GENERATION = "generation_config.json"  # contains the id at which transformers' `generate` stops
TEMPLATE = "chat_template.jinja"
FILES = (TOKENIZER, SETTINGS, NAMES, ADDED, VOCABULARY, MERGES, WORDS, TEMPLATE, GENERATION)

WHOLE_FILE = ("PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend")  # values of tokenizer_class
GPT2_CLASS = ("GPT2Tokenizer", "GPT2TokenizerFast")
LLAMA_CLASS = ("LlamaTokenizer", "LlamaTokenizerFast")
BERT_CLASS = ("BertTokenizer", "BertTokenizerFast")
# More fields of SETTINGS that change ids, with the supported values.
SUPPORTED = {"truncation_side": (None, "right"), "fast_tokenizer_files": (None,)}
TOKEN = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")  # the fields of an AddedToken
SPECIAL_FIELDS = [f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]
DEFAULTS = {  # the tokens that a class adds to every vocabulary
    WHOLE_FILE: {},
    GPT2_CLASS: dict.fromkeys(SPECIAL_FIELDS[:3], END_OF_TEXT),
    LLAMA_CLASS: dict(zip(SPECIAL_FIELDS, ("<s>", "</s>", "<unk>"))),
    BERT_CLASS: dict(zip(SPECIAL_FIELDS[2:], ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"))),
}
SPACE = "\u2581"  # sentencepiece's character for a space

LARGEST = 2**31  # the library aborts when it writes a tokenizer with an id this large
STDERR = 2
stderr_lock = threading.RLock()


def load_tokenizer(path, fields=None, files=None):
    """Load a tokenizer as transformers does.

    The tokenizer neither pads nor truncates. The padding and truncation settings in ``tokenizer.json`` are ignored,
    because they merely record what transformers last used.

    Parameters
    ----------
    path : a folder with ``tokenizer.json``, or with ``vocab.json`` and ``merges.txt``; or a ``tokenizer.json``, which
        is read together with the other files in its folder; or a file of that format with another name, which is read
        alone
    fields : dict, the model's configuration, of which ``vocab_size``, ``model_type`` and ``tokenizer_class`` are used;
        None to read them from ``config.json`` in the same folder
    files : dict, name -> bytes, to be read instead of the files at `path`, which then appears only in messages

    Returns
    -------
    Tokenizer

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If a file is damaged, an id is not below ``vocab_size``, or a setting that changes ids is not supported.
    """
    from tokenizers import Tokenizer

    path = Path(path)
    files = model_files(path if path.is_dir() else existing_file(path)) if files is None else files
    name = next((name for name in (TOKENIZER, WORDS) if name in files), VOCABULARY)
    if name == VOCABULARY and not files.keys() >= {VOCABULARY, MERGES}:
        raise FileNotFoundError(f"{path}: no {TOKENIZER}, no {WORDS}, and no {VOCABULARY} with {MERGES}")
    where = path / name if path.is_dir() else path
    if fields is None:
        fields = model_fields(where.parent / "config.json") if where.name == name else {}
    vocab_size = min(fields.get("vocab_size", LARGEST), LARGEST)
    settings = json_object(where.parent / SETTINGS, files.get(SETTINGS))
    reader = tokenizer_class(where, settings, fields, files[name])
    if name == WORDS:
        with errors_of(where):
            tokens = files[WORDS].decode("utf-8").replace("\r\n", "\n").removesuffix("\n").split("\n")
        content = {"model": {"type": "WordPiece", "vocab": {token: i for i, token in enumerate(tokens)}}}
    else:
        content = json_object(where, files[name])
    with errors_of(where), library("cannot be used"):
        check_steps(content)
    if name == VOCABULARY:
        lines = files[MERGES].decode("utf-8", "replace").split("\n")
        merges = [line.removesuffix("\r") for line in lines if line and not line.startswith("#version")]
        content = {"model": {"type": "BPE", "vocab": content, "merges": merges}}
    problem = f"path: got {str(where)!r}, which is not a tokenizer file"
    with library(problem):
        ids = ids_in(content)
    check_ids(where, ids, vocab_size)
    with library(problem):
        is_whole = reader == WHOLE_FILE
        tokenizer = Tokenizer.from_buffer(files[name]) if is_whole else rebuilt(content, settings, reader)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        add_special_tokens(tokenizer, content, settings, files, vocab_size, DEFAULTS[reader])
        tokenizer.encode_special_tokens = bool(settings.get("split_special_tokens"))
        ids = [*tokenizer.get_vocab().values(), *tokenizer.encode("").ids]
    check_ids(where, ids, vocab_size)
    return tokenizer


def model_files(path):
    """The files that a tokenizer and `generate` need, as a dict, name -> bytes; `path` is as in `load_tokenizer`."""
    path = Path(path)
    if not path.is_dir() and path.name != TOKENIZER:
        return {TOKENIZER: small_file(path)}
    folder = path if path.is_dir() else path.parent
    return {name: small_file(folder / name) for name in FILES if (folder / name).exists()}


def new_files(tokenizer):
    """The files from which transformers and `load_tokenizer` load this tokenizer, as a dict, name -> bytes."""
    return {TOKENIZER: tokenizer.to_str(pretty=True).encode("utf-8"), SETTINGS: new_settings(tokenizer)}


def new_settings(tokenizer):
    """The bytes of a ``tokenizer_config.json`` that makes transformers read the entire ``tokenizer.json``."""
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    names = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": PAD}
    settings = {"tokenizer_class": WHOLE_FILE[0], "split_special_tokens": tokenizer.encode_special_tokens}
    settings |= {name: text for name, text in names.items() if text in added}
    return (json.dumps(settings, indent=2) + "\n").encode("utf-8")


def model_fields(path):
    """The fields of a `config.json` from transformers or from this package, which stores some of them in `extra`."""
    fields = json_object(path, small_file(path) if path.is_file() else None)
    extra = fields.get("extra")
    fields = {**(extra if isinstance(extra, dict) else {}), **fields}
    if not isinstance(fields.get("vocab_size", 0), int):
        raise ValueError(f"{path}: vocab_size is {quoted(fields['vocab_size'])}, expected an integer")
    return fields


def tokenizer_class(where, settings, fields, data):
    """The names (such as GPT2_CLASS) of the class that reads the files; raises ValueError for unsupported settings."""
    for field, values in SUPPORTED.items():
        if settings.get(field) not in values:
            raise ValueError(f"{where}: {SETTINGS} has {field} = {quoted(settings[field])}, expected {values[-1]!r}")
    of_old = {VOCABULARY: GPT2_CLASS, WORDS: BERT_CLASS}.get(where.name)
    of_model = {"gpt2": GPT2_CLASS, "bert": BERT_CLASS}.get(str(fields.get("model_type")), WHOLE_FILE)
    kind = settings.get("tokenizer_class") or fields.get("tokenizer_class") or (of_old or of_model)[0]
    supported = (of_old,) if of_old else (GPT2_CLASS, LLAMA_CLASS, BERT_CLASS, WHOLE_FILE)
    for names in supported:
        if kind in names:
            return WHOLE_FILE if names == LLAMA_CLASS and b'"ByteLevel"' in data else names
    raise ValueError(f"{where}: tokenizer_class is {quoted(kind)}, expected one of {', '.join(sum(supported, ()))}")


def rebuilt(content, settings, reader):
    """Build the same Tokenizer as a transformers class that reads only parts of ``tokenizer.json``."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    model, prefix = content["model"], settings.get("add_prefix_space")
    kind = "WordPiece" if reader == BERT_CLASS else "BPE"
    if model.get("type", kind) != kind:
        raise ValueError(f"its model is {quoted(model['type'])}, expected {kind!r} for tokenizer_class {reader[0]}")
    if reader == BERT_CLASS:
        return word_piece(model["vocab"], settings)
    model = {"type": "BPE", "vocab": model["vocab"], "merges": model["merges"]}
    if reader == LLAMA_CLASS:
        model |= {"fuse_unk": True, "byte_fallback": True}
    tokenizer = Tokenizer.from_str(json.dumps({"model": model, "post_processor": content.get("post_processor")}))
    if reader == GPT2_CLASS:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(prefix))
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer
    prefix = prefix is None or prefix
    scheme = ("always" if settings.get("legacy") else "first") if prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, scheme, split=False)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return tokenizer


def word_piece(vocab, settings):
    """Build the Tokenizer as BertTokenizer does."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    named = {name: as_token(settings.get(name) or text).content for name, text in DEFAULTS[BERT_CLASS].items()}
    if missing := [named[name] for name in ("unk_token", "cls_token", "sep_token") if named[name] not in vocab]:
        raise ValueError(f"its vocabulary has no {quoted(missing[0])}")
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=named["unk_token"]))
    is_split, accents = settings.get("tokenize_chinese_chars", True), settings.get("strip_accents")
    tokenizer.normalizer = normalizers.BertNormalizer(True, is_split, accents, settings.get("do_lower_case", True))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece("##")
    ends = named["cls_token"], named["sep_token"]
    template, ids = [ends[0], "$A", ends[1]], [(text, vocab[text]) for text in ends]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return tokenizer


def add_special_tokens(tokenizer, content, settings, files, vocab_size, defaults):
    """Add the special tokens that the tokenizer lacks, in transformers' order, which determines their ids.

    `defaults` are the class's own special tokens, which the files may override.
    """
    from tokenizers import processors

    is_old = "added_tokens_decoder" not in settings
    if is_old:
        settings = {**settings, **json_object(NAMES, files.get(NAMES))}
    if content.get("padding"):
        settings = {"pad_token": content["padding"]["pad_token"], **settings}
    more = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    if isinstance(more, dict):
        settings, more = {**settings, **more}, []
    named = dict.fromkeys(SPECIAL_FIELDS) | defaults
    named |= {name: value for name, value in settings.items() if name.endswith("_token")}
    special = [as_token(value, special=True) for value in [*named.values(), *more] if isinstance(value, (str, dict))]
    texts = {token.content for token in special}
    if is_old:
        plain = json_object(ADDED, files.get(ADDED)).items()
        declared = {i: as_token(text, special=text in texts, normalized=text not in texts) for text, i in plain}
        declared |= {token["id"]: as_token(token) for token in content.get("added_tokens") or ()}
    else:
        declared = {int(i): as_token(token) for i, token in settings["added_tokens_decoder"].items()}
    present = tokenizer.get_added_tokens_decoder().values()
    present, known = {token.content for token in present}, set(map(repr, present))
    new = [token for _, token in sorted(declared.items()) if repr(token) not in known]
    present |= {token.content for token in new}
    by_default = set(defaults.values()) - present
    for token in special:
        if token.content not in present:
            present.add(token.content)
            new.append(token)
    for token in new:
        token.special = token.special or token.content in texts
        is_new = tokenizer.token_to_id(token.content) is None
        next_id = max(tokenizer.get_vocab_size(False) - 1, *tokenizer.get_added_tokens_decoder(), -1) + 1
        # If the model's embedding has no row for a class's default token, transformers cannot use the token either.
        if not (token.content in by_default and is_new and next_id >= vocab_size):
            check_growth(tokenizer.normalizer, [token.content])
            tokenizer.add_tokens([token])
    if VOCABULARY in files and TOKENIZER not in files:
        added = [settings.get(f"add_{name}") and named[name] for name in ("bos_token", "eos_token")]
        first, last = ([as_token(value).content] if value else [] for value in added)
        ids = [(text, tokenizer.token_to_id(text)) for text in {*first, *last}]
        tokenizer.post_processor = processors.TemplateProcessing(single=[*first, "$A", *last], special_tokens=ids)


def as_token(value, **more):
    """Make an AddedToken from its text or from a dict of its fields."""
    from tokenizers import AddedToken

    fields = {"content": value} if isinstance(value, str) else {name: value[name] for name in TOKEN if name in value}
    return AddedToken(**{**fields, **more})


def ids_in(content):
    """The integer ids in a ``tokenizer.json``; the library itself rejects ids that are not integers."""
    vocab, added = content["model"].get("vocab"), content.get("added_tokens") or ()
    ids = [*(vocab.values() if isinstance(vocab, dict) else ()), *(token["id"] for token in added)]
    return [i for i in ids if isinstance(i, int)]


def check_ids(where, ids, vocab_size):
    """Raise ValueError for an id that is not below the model's `vocab_size`."""
    if max(ids, default=0) >= vocab_size:
        expected = vocab_size if vocab_size == LARGEST else f"the model's vocab_size = {vocab_size}"
        raise ValueError(f"{where} has a token with id {max(ids)}, expected ids below {expected}")


def json_object(path, data):
    """The fields of a JSON file, given its content `data` (bytes); an empty dict if `data` is None."""
    try:
        fields = {} if data is None else parsed_json(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({shown(str(error))})") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: got a JSON {type(fields).__name__}, expected an object")
    return fields


@contextmanager
def library(problem):
    """Turn any error of the tokenizers library, or of zipfile, into a ValueError whose message begins with `problem`.

    The library may also panic, for example if a regular expression takes too many steps. Rust then prints a report to
    the standard error stream, even if Python catches the exception; this report is discarded.
    """
    try:
        with stderr_lock, quiet_stderr():
            yield
    except BaseException as error:  # a panic is not a subclass of Exception
        is_library_error = isinstance(error, Exception) and not isinstance(error, MemoryError)
        if not is_library_error and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{problem}: {shown(str(error))}") from None


@contextmanager
def quiet_stderr():
    """Discard what the process writes to its standard error stream; a closed stream is not reopened."""
    try:
        saved = os.dup(STDERR)
    except OSError:
        yield
        return
    with open(os.devnull, "wb") as devnull:
        os.dup2(devnull.fileno(), STDERR)
    try:
        yield
    finally:
        os.dup2(saved, STDERR)
        os.close(saved)
