"""Convert a model's configuration to and from transformers' `config.json`, and read it from GGUF metadata."""

from collections.abc import Callable
from typing import NamedTuple

from ..checked import errors_of, quoted
from ..model import ARCHITECTURES, LlamaConfig, architecture
from .checkpoint import check_depth, warn_of_unknown
from .foreign_keys import check_keys, foreign_keys, keys_with, our_fields
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
    # (folder, fields, tensors) -> completed fields and tensors; and (configuration, tensors) -> tensors, more files
    beside: tuple[Callable, Callable] = (lambda folder, *both: both, lambda config, tensors: (tensors, {}))


def file_format(config):
    """The FileFormat of a configuration's architecture; raises ValueError if there is none."""
    name = architecture(config).name
    if name not in FILE_FORMATS:
        raise ValueError(f"config: got the architecture {name!r}, expected {' or '.join(FILE_FORMATS)}")
    return FILE_FORMATS[name]


def fields_in(file, config, *actions):
    """A configuration's values, keyed by field name in a "config.json" or "GGUF" file; see also `our_fields`."""
    file_format(config)  # raises ValueError for an architecture without such files
    names = our_fields(f"{file} of {architecture(config).name}", *actions)
    return {theirs: getattr(config, ours) for theirs, ours in names.items()}


def config_from_fields(name, path, fields, tensors):
    """Create our configuration from the fields of a `config.json`.

    Unused fields are kept and written back when the model is saved; a warning names those that are unknown.

    Parameters
    ----------
    name : name of the architecture
    path : the path of the `config.json`, for messages
    fields : dict of its fields
    tensors : dict, name -> array; a classifier's include its head
    """
    record, section = ARCHITECTURES[name], f"config.json of {name}"
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
    extra["model_type"] = name  # see `special_ids`
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
        **fields_in("config.json", config, "required"),
        "n_inner": config.d_ff,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": config.layer_norm_eps,
        "resid_pdrop": config.dropout,
        "tie_word_embeddings": True,
    }


# ---------------------------------------------------------------- Llama

DEFAULTS = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}  # transformers' defaults
ROPE = ("default", None)  # supported types of RoPE; both mean unscaled


def completed_llama(path, fields, tensors):
    """The fields of a Llama model (transformers 4 or 5), with defaults added, and whether the head is tied."""
    optional = our_fields("config.json of llama", "optional")
    fields = {name: value for name, value in fields.items() if name not in optional or value is not None}
    heads, width = fields.get("num_attention_heads"), fields.get("hidden_size")
    whole = isinstance(heads, int) and isinstance(width, int) and heads > 0
    fields = {**DEFAULTS, "num_key_value_heads": heads, "head_dim": width // heads if whole else 1, **fields}
    ropes = {name: fields.pop(name, None) for name in ("rope_scaling", "rope_parameters")}
    thetas = []
    for name, value in ropes.items():
        rope = value or {}
        kinds = [rope[key] for key in ("rope_type", "type") if key in rope] if isinstance(rope, dict) else [rope]
        if not isinstance(rope, dict) or any(kind not in ROPE for kind in kinds):
            raise ValueError(f"{path}: {name} is {quoted(value)}, expected 'default' (unscaled RoPE)")
        thetas += [rope.get("rope_theta", fields["rope_theta"])] * (value is not None)
    if len(thetas) == 2 and thetas[0] != thetas[1]:  # transformers 4 and 5 differ in which of them they read
        raise ValueError(f"{path}: has both rope_scaling and rope_parameters, with different values of rope_theta")
    fields["rope_theta"] = (thetas or [fields["rope_theta"]])[0]
    return fields, {"tied": fields.get("tie_word_embeddings", False)}


def llama_fields(config):
    """The fields of a Llama model's `config.json`; see `FileFormat`."""
    return NO_IDS, {
        "model_type": "llama",
        **fields_in("config.json", config),
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},  # for transformers 5
        "hidden_act": "silu",
        "tie_word_embeddings": config.tied,
    }


def llama_from_gguf(path, fields, tensors):
    """The configuration of a Llama model from a GGUF file's metadata."""
    check_keys(path, fields, foreign_keys()["GGUF of llama"], "llama.")
    if "rope_freqs.weight" in tensors:
        raise ValueError(f"{path} has rope_freqs.weight, for scaled RoPE, which is not supported")
    values = {}
    for name, ours in our_fields("GGUF of llama", "required").items():
        if f"llama.{name}" not in fields:
            raise ValueError(f"{path}: llama.{name} is missing")
        values[ours] = fields[f"llama.{name}"]
    check_depth(path, "llama.block_count", values["n_layers"], tensors)
    heads, width = values["n_heads"], values["d_model"]
    size = width // heads if isinstance(width, int) and isinstance(heads, int) and heads > 0 else 1
    values["n_kv_heads"] = fields.get("llama.attention.head_count_kv", heads)
    values["head_size"] = fields.get("llama.attention.key_length", size)
    for name in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if fields.get(name, values["head_size"]) != values["head_size"]:
            raise ValueError(f"{path}: {name} is {quoted(fields[name])}, expected the head size {values['head_size']}")
    table = tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        found = "missing" if table is None else f"of shape {table.shape}"
        raise ValueError(f"{path}: token_embd.weight is {found}, expected a matrix")
    with errors_of(path):
        return LlamaConfig(
            vocab_size=table.shape[0],
            **values,
            rope_theta=fields.get("llama.rope.freq_base", 10000.0),
            tied="output.weight" not in tensors,
            attention_bias=any(f"blk.0.attn_{name}.bias" in tensors for name in ("q", "k", "v", "output")),
            mlp_bias=any(f"blk.0.ffn_{name}.bias" in tensors for name in ("gate", "up", "down")),
            extra={"model_type": "llama"},
        )


# ---------------------------------------------------------------- BERT


def completed_bert(path, fields, tensors):
    """The fields of a BERT model's `config.json`, with transformers' default for type_vocab_size; see `FileFormat`."""
    fields = {"type_vocab_size": 2, **fields}
    return fields, {"pooling": fields.pop("pooling")}


def bert_fields(config):
    """The fields of a BERT model's `config.json`; see `FileFormat`."""
    return {"attention_probs_dropout_prob": 0.0}, {
        "model_type": "bert",
        **fields_in("config.json", config),
        "hidden_act": "gelu",
    }


FILE_FORMATS = {  # by the architecture's name
    "gpt2": FileFormat(
        hf_classes=("GPT2LMHeadModel", "GPT2ForSequenceClassification"),
        buffers=r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",  # the causal mask
        completed=completed_gpt2,
        fields_of=gpt2_fields,
    ),
    "llama": FileFormat(
        hf_classes=("LlamaForCausalLM", "LlamaForSequenceClassification"),
        buffers=r".*rotary_emb\.inv_freq",
        completed=completed_llama,
        fields_of=llama_fields,
        config_from_gguf=llama_from_gguf,
    ),
    "bert": FileFormat(
        hf_classes=("BertModel", "BertForSequenceClassification"),
        buffers=r"(bert\.)?(embeddings\.position_ids|pooler\..*)|cls\..*",  # `cls` is the masked-language-model head
        completed=completed_bert,
        fields_of=bert_fields,
        beside=(read_beside, write_beside),
    ),
}
