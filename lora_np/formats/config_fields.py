"""Convert a model's configuration to and from transformers' `config.json`, and read it from GGUF metadata.

`llama_fields.py` does this for Llama and its relatives.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ..checked import errors_of, quoted
from ..model import ARCHITECTURES, architecture
from .checkpoint import check_depth, warn_of_unknown
from .foreign_keys import check_keys, foreign_keys, keys_with, our_fields, values_in
from .llama_fields import completed_llama, config_from_gguf, gguf_rope, llama_fields
from .names import head_name
from .sentence_transformers import read_beside, write_beside

NO_IDS = {"bos_token_id": None, "eos_token_id": None}  # replaced by those of the tokenizer or of an imported model


class FileFormat(NamedTuple):
    """How to read and write an architecture's files; `foreign_keys.txt` has the names of their fields."""

    hf_classes: tuple[str, str]  # transformers' classes for the language model and the classifier
    buffers: str  # pattern for the names of tensors that are ignored unless the configuration has them
    completed: Callable  # (path, fields of config.json, tensors) -> completed fields, and additional fields of ours
    fields_of: Callable  # configuration -> two dicts of fields: defaults, and fields that replace imported ones
    config_from_gguf: Callable | None = None  # (path, fields, tensors) -> our configuration; None: cannot be read
    gguf_more: Callable = lambda config: ({}, {})  # configuration -> further fields and tensors of a GGUF file
    # (folder, fields, tensors) -> completed fields and tensors; and (configuration, tensors) -> tensors, more files
    beside: tuple[Callable, Callable] = (lambda folder, *both: both, lambda config, tensors: (tensors, {}))


def file_format(config):
    """The FileFormat of a configuration's architecture; raises ValueError if there is none."""
    name = architecture(config).name
    if name not in FILE_FORMATS:
        raise ValueError(f"config: got the architecture {name!r}, expected {' or '.join(FILE_FORMATS)}")
    return FILE_FORMATS[name]


def config_from_fields(name, path, fields, tensors):
    """Create our configuration from the fields of a `config.json`.

    Unused fields are kept and written back when the model is saved; a warning names those that are unknown.

    Parameters
    ----------
    name : its model_type
    path : the path of the `config.json`, for messages
    fields : dict of its fields
    tensors : dict, name -> array; a classifier's include its head
    """
    record, section = ARCHITECTURES[READ_AS.get(name, name)], f"config.json of {name}"
    keys, names = foreign_keys()["config.json"] | foreign_keys()[section], our_fields(section)
    check_keys(path, fields, keys)
    layers = fields.get("layer_types") or ()
    if not isinstance(layers, (list, tuple)) or any(layer != "full_attention" for layer in layers):
        raise ValueError(f"{path}: layer_types is {quoted(layers)}, expected 'full_attention' in every layer")
    fields, more = FILE_FORMATS[name].completed(path, fields, tensors)
    head_of_file = f"{head_name(record)}.weight"
    head = tensors.get(head_of_file)
    if head is not None and (head.ndim != 2 or len(head) == 1):  # one output means regression
        raise ValueError(f"{path}: {head_of_file} has shape {head.shape}, expected (n_classes ≥ 2, d_model)")
    for key in our_fields(section, "required"):
        if key not in fields:
            raise ValueError(f"{path}: {key} is missing")
    values = {ours: fields[key] for key, ours in names.items() if key in fields}
    check_depth(path, next(key for key in names if names[key] == "n_layers"), values["n_layers"], tensors)
    computed = {*names, *keys_with(keys, tuple, "written")}
    extra = {key: value for key, value in fields.items() if key not in computed}
    warn_of_unknown(path, [key for key in extra if key not in keys])
    extra["model_type"] = record.name  # see `special_ids`
    with errors_of(path):
        return record.config_class(**values, **more, n_classes=0 if head is None else len(head), extra=extra)


# ---------------------------------------------------------------- GPT-2

ALIASES = {  # transformers' GPT2Config.attribute_map: aliases of the sizes, which take precedence
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}


def completed_gpt2(path, fields, tensors):
    """A GPT-2 configuration's fields, with aliases resolved and d_ff added; see `FileFormat`."""
    for alias, name in ALIASES.items():
        first, second = fields.get(alias), fields.get(name)
        if alias in fields and name in fields and first != second:
            raise ValueError(f"{path}: {alias} is {quoted(first)}, but {name} is {quoted(second)}; they must be equal")
    fields = {ALIASES.get(name, name): value for name, value in fields.items()}
    d_ff, C = fields.pop("n_inner", None), fields.get("n_embd")
    if d_ff is None:
        d_ff = 4 * C if isinstance(C, int) else C
    if not (fields.get("tie_word_embeddings", True) or "score.weight" in tensors or "lm_head.weight" in tensors):
        raise ValueError(f"{path}: tie_word_embeddings is false, but lm_head.weight is missing")
    return fields, {"d_ff": d_ff}


def gpt2_fields(config):
    """The fields of a GPT-2 model's `config.json`; see `FileFormat`."""
    defaults = {"attn_pdrop": 0.0, **NO_IDS, "embd_pdrop": config.dropout}  # we have no dropout inside attention
    return defaults, {
        "model_type": "gpt2",
        **values_in("config.json of gpt2", config, "required"),
        "n_inner": config.d_ff,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": config.layer_norm_eps,
        "resid_pdrop": config.dropout,
        "tie_word_embeddings": True,
    }


# ---------------------------------------------------------------- BERT


def completed_bert(path, fields, tensors):
    """The fields of a BERT model's `config.json`, with transformers' default for type_vocab_size; see `FileFormat`."""
    fields = {"type_vocab_size": 2, **fields}
    return fields, {"pooling": fields.pop("pooling")}


def bert_fields(config):
    """The fields of a BERT model's `config.json`; see `FileFormat`."""
    return {"attention_probs_dropout_prob": 0.0}, {
        "model_type": "bert",
        **values_in("config.json of bert", config),
        "hidden_act": "gelu",
    }


FILE_FORMATS = {  # by the architecture's name
    "gpt2": FileFormat(
        hf_classes=("GPT2LMHeadModel", "GPT2ForSequenceClassification"),
        buffers=r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",  # the causal mask
        completed=completed_gpt2,
        fields_of=gpt2_fields,
    ),
    "bert": FileFormat(
        hf_classes=("BertModel", "BertForSequenceClassification"),
        buffers=r"(bert\.)?(embeddings\.position_ids|pooler\..*)|cls\..*",  # `cls` is the masked-language-model head
        completed=completed_bert,
        fields_of=bert_fields,
        beside=(read_beside, write_beside),
    ),
}
LLAMA_CLASSES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "smollm3": "SmolLM3"}  # in transformers
FILE_FORMATS |= {
    name: FileFormat(
        hf_classes=(f"{prefix}ForCausalLM", f"{prefix}ForSequenceClassification"),
        buffers=r".*rotary_emb\.inv_freq",
        completed=partial(completed_llama, name),
        fields_of=llama_fields,
        config_from_gguf=partial(config_from_gguf, name),
        gguf_more=gguf_rope,
    )
    for name, prefix in LLAMA_CLASSES.items()
}
READ_AS = {"mistral": "llama"}  # model_type -> the architecture as which such a model is read, and written
FILE_FORMATS["mistral"] = FILE_FORMATS["llama"]._replace(
    completed=partial(completed_llama, "mistral"), config_from_gguf=None
)
