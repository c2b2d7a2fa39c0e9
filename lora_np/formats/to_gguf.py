"""Write language models and LoRA adapters as GGUF, llama.cpp's file format.

Like this package, llama.cpp stores matrices as (out, in), even for GPT-2. For Llama models, it permutes the rows of q
and k, so the rows of their B matrices are permuted too (`gguf_rows`): for a permutation matrix P, P (B A) = (P B) A.

An adapter's file has a single alpha, and llama.cpp computes each layer's scale as alpha / r, where r comes from the
shape of B. If a layer has a different scale s, its B is multiplied by s r / alpha, which causes rounding errors unless
the factor is a power of two.
"""

import numpy as np

from ..adapters import HEAD, compact_pattern
from ..adapters.qalora import as_lora
from ..checked import errors_of, one_of
from ..compress import FORMATS, BlockWeight
from ..compress.ggml import BLOCK
from ..model import architecture
from .atomic import replacing
from .config_fields import file_format
from .foreign_keys import values_in
from .fused import joined_layers
from .gguf import read_gguf
from .names import gguf_rows, stored_tensors

TYPES = {"f32": 0, "f16": 1, "q4_1": 3, "q8_0": 7}  # format of a model -> general.file_type
TABLES = ("token_embd.weight", "output.weight")  # stored with more bits than the other matrices in a Q4_1 file
WHOLE = "position_embd.weight"  # kept in float32, because llama.cpp adds its rows to other vectors


def save_gguf(path, params, config, fields, format="f32"):
    """Write a language model as GGUF.

    Matrices are stored in the given format, with the same exceptions as in llama.cpp. In Q4_1 and Q8_0 files, a matrix
    whose row length is not a multiple of 32 is stored in float16. In Q4_1 files, the token embedding and the head are
    stored in Q8_0. Position embeddings stay in float32. Weights already in the chosen format are copied byte for byte.

    Parameters
    ----------
    path : file to write
    params : dict of the weights; BlockWeights are dequantised one at a time
    config : the model's configuration
    fields : dict of additional fields, such as those of the tokenizer or of the original file
    format : "f32", "f16", "q8_0" or "q4_1"

    Raises
    ------
    ValueError
        If the model is a classifier, or a weight is too large for the format.
    ImportError
        If the package gguf is not installed.
    """
    one_of("format", format, TYPES)
    check_language_model(config)
    tensors = {}
    for tensor, weight in stored_tensors(params, config, "gguf"):
        with errors_of(f"{path}: {tensor}"):
            tensors[tensor] = encoded(tensor, weight, format)
    name, (more, extra) = architecture(config).name, file_format(config).gguf_more(config)
    sizes = {f"{name}.{field}": value for field, value in values_in(f"GGUF of {name}", config).items()}
    more |= {"general.type": "model", "general.file_type": TYPES[format], "general.quantization_version": 2}
    write_gguf(path, name, {**fields, **sizes, **more}, tensors | extra)


def check_decoder(config):
    """Raise ValueError for an encoder."""
    if not architecture(config).writes:
        raise ValueError(f"{architecture(config).name} is an encoder, which cannot be written as GGUF; use --to merged")


def check_language_model(config):
    """Raise ValueError for a classifier or an encoder."""
    check_decoder(config)
    if config.n_classes:
        raise ValueError("got a classifier, expected a language model; train the classifier with --as-words")


def encoded(name, weight, format):
    """Convert a weight to an array of float32 or float16, or to a BlockWeight."""
    own = getattr(weight, "format", None)
    if len(weight.shape) == 1 or name == WHOLE:
        format = "f32"
    if format == "q4_1" and name in TABLES and own != format:
        format = "q8_0"
    if format in FORMATS and weight.shape[1] % BLOCK:
        format = "f16"
    if own == format:
        return weight
    dense = np.asarray(weight).astype(np.float32, copy=False)
    if format in FORMATS:
        return FORMATS[format](dense)
    with np.errstate(over="ignore"):
        array = dense.astype({"f32": np.float32, "f16": np.float16}[format], copy=False)
    if not np.isfinite(array).all():
        raise ValueError(f"has values that are too large for {format} or not finite")
    return array


def save_gguf_adapter(path, adapter, params, config, fields):
    """Write a LoRA adapter as GGUF, in float32; QA-LoRA is written as a LoRA adapter with the same update.

    Parameters
    ----------
    path : file to write
    adapter : Adapter
    params : dict of the base's weights
    config : LlamaConfig or GPT2Config of the base
    fields : dict of additional fields

    Raises
    ------
    ValueError
        If the adapter is of another kind, has a trained head, or adapts an encoder; llama.cpp supports none of these.
    ImportError
        If the package gguf is not installed.
    """
    check_decoder(config)
    adapter = as_lora(params, adapter)
    kind = adapter.config.kind
    if kind != "lora":
        remedy = "export it with --to gguf-merged, or convert it to LoRA with lora_np.adapters.compress"
        raise ValueError(f"adapter: got kind {kind!r}, expected 'lora' for llama.cpp; {remedy}")
    if HEAD in adapter.weights:
        remedy = "train the classifier with --as-words" if config.n_classes else "export it with --to gguf-merged"
        raise ValueError(f"adapter: has a trained head, which llama.cpp does not support; {remedy}")
    joined = joined_layers(params, adapter, config, "gguf")
    if not joined:
        raise ValueError("adapter: has no adapted layers, expected at least one")
    alphas = {layer: scale * len(own["lora_A"]) for layer, (own, scale, _) in joined.items()}
    alpha = compact_pattern({layer: a for layer, a in alphas.items() if a} or {"": 1.0})[0]
    tensors = {}
    for layer, (own, _, names) in joined.items():
        lora_B = gguf_rows(config, names[0], own["lora_B"])  # (out, r)
        lora_B = lora_B if alphas[layer] == alpha else alphas[layer] / alpha * lora_B
        pair = {"a": own["lora_A"], "b": lora_B}
        tensors |= {f"{layer}.weight.lora_{x}": array.astype(np.float32) for x, array in pair.items()}
    more = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": float(alpha)}
    write_gguf(path, architecture(config).name, {**fields, **more}, tensors)


def write_gguf(path, architecture, fields, tensors):
    """Write a GGUF file, and check it by reading it back before it replaces an existing file.

    Parameters
    ----------
    fields : dict, name -> str, bool, int (written as uint32), float (written as float32), or a list or array of these
    tensors : dict, name -> array of float32 or float16, or BlockWeight
    """
    from gguf import GGMLQuantizationType, GGUFWriter

    with replacing(path) as temporary:
        writer = GGUFWriter(temporary, architecture)
        for name, value in fields.items():
            if name != "general.architecture":
                add_field(writer, name, value)
        for name, weight in tensors.items():
            if isinstance(weight, BlockWeight):
                writer.add_tensor(name, weight.blocks, raw_dtype=GGMLQuantizationType[weight.format.upper()])
            else:
                writer.add_tensor(name, np.ascontiguousarray(weight))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        read_gguf(temporary)


def add_field(writer, name, value):
    """Add one field, with the type that llama.cpp expects."""
    from gguf import GGUFValueType

    if not isinstance(value, (list, np.ndarray)):
        types = {bool: GGUFValueType.BOOL, int: GGUFValueType.UINT32, float: GGUFValueType.FLOAT32}
        writer.add_key_value(name, value, types.get(type(value), GGUFValueType.STRING))
    elif len(value):
        is_text = isinstance(value[0], str)
        kind = "STRING" if is_text else getattr(value, "dtype", np.dtype(np.int32)).name.upper()
        items = value.tolist() if isinstance(value, np.ndarray) else value
        writer.add_key_value(name, items, GGUFValueType.ARRAY, sub_type=GGUFValueType[kind])
