"""Load a model from one of our folders, from a GGUF file, or by name from an installed Python package."""

import difflib
import hashlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..adapters import head_arrays
from ..checked import errors_of, one_of, quoted
from ..compress import BlockWeight
from ..data import gguf_tokenizer_files, load_tokenizer, model_files
from ..data.texts import kind_of
from ..data.tokenizer_files import TOKENIZER, VOCABULARY, WORDS
from ..model import ARCHITECTURES
from .atomic import of_one_version
from .checkpoint import check_shapes, is_hf, load_model, read_object
from .config_fields import FILE_FORMATS
from .foreign_keys import check_keys, foreign_keys
from .gguf import read_gguf
from .hugging_face import load_hf
from .loaded import LoadedModel
from .names import gguf_rows, layout
from .packaged import PACKAGED, packaged_model
from .paths import PRETRAINED, is_in
from .tensors import file_sha256

WEIGHTS = ("dense", "blocks")
FINGERPRINT = "base_sha256"  # field of an exported adapter: the fingerprint of its base
cached_sha256 = lru_cache(maxsize=4)(lambda file, *changes: file_sha256(file))  # `changes`: the file's mtime and size
THREADS = 2  # for dequantising, which is limited by memory bandwidth


def model_place(name):
    """The path of a model's folder or GGUF file, given a path or a name; "pretrained" is our own small base."""
    if is_included(name, ["pretrained"]):
        return PRETRAINED
    if is_packaged(name):
        return packaged_model(str(name))
    near = difflib.get_close_matches(str(name).lower(), [*PACKAGED, "pretrained"], n=1)
    if near and str(name) == Path(name).name and not Path(name).exists():  # a word, not the path of a moved model
        raise FileNotFoundError(f"{name}: no such file or folder; did you mean {near[0]}?")
    return Path(name)


def is_packaged(name):
    """Whether a name refers to a packaged model rather than to an existing file or folder."""
    return is_included(name, PACKAGED)


def is_included(name, names):
    """Whether `name` refers to one of the included models or adapters, `names`, rather than to an existing path.

    A file or folder with the same name takes precedence, with a warning; "./critics" always means a path.
    """
    if str(name) not in names:
        return False
    if Path(name).exists() and isinstance(name, str) and not is_in(name, PRETRAINED):
        here = f"the current folder has {kind_of(name)} with this name, which is used instead of the included one"
        warnings.warn(f"{name}: {here}; to avoid this, write ./{name} or rename your file or folder", stacklevel=2)
    return not Path(name).exists()


def is_encoder(place):
    """Whether a folder contains an encoder, which cannot generate text; False if it has no `config.json`."""
    path = Path(place) / "config.json"
    fields = read_object(path) if path.is_file() else {}
    record = ARCHITECTURES.get(str(fields.get("model_type", fields.get("architecture"))))
    return record is not None and not record.writes


def weights_file(place):
    """The file with a model's weights: `place` itself if it is a GGUF file, otherwise a file in the folder `place`."""
    place = Path(place)
    if place.suffix == ".gguf":
        return place
    gguf = place / "model.gguf"
    return gguf if gguf.is_file() else place / "model.safetensors"


@of_one_version
def read_model(name, dtype=np.float32, weights="dense", needs_tokenizer=True):
    """Read a model with its tokenizer.

    Parameters
    ----------
    name : one of our folders, a GGUF file, or the name of a packaged model such as "smollm2"
    dtype : np.float32 or np.float64
    weights : for a GGUF file: "dense" dequantises all matrices once; "blocks" keeps the codes, as views into the file,
        and dequantises each matrix whenever it is used
    needs_tokenizer : whether a folder without a tokenizer is an error; if False, such a model's tokenizer is None

    Returns
    -------
    LoadedModel, without an adapter; only a Hugging Face classifier has labels
    """
    one_of("weights", weights, WEIGHTS)
    place = model_place(name)
    file = weights_file(place)
    if file.suffix != ".gguf":
        if is_hf(place):
            loaded = load_hf(place, dtype)
        else:
            loaded = LoadedModel(*load_model(place, dtype), None, None, None)
        files = model_files(place)
        has_tokenizer = needs_tokenizer or files.keys() & {TOKENIZER, VOCABULARY, WORDS}
        return loaded._replace(tokenizer=tokenizer_of(place, loaded.config) if has_tokenizer else None, files=files)
    fields, tensors = read_gguf(file)
    params, config = model_from_gguf(file, fields, tensors, dtype)
    with errors_of(file):
        files = gguf_tokenizer_files(fields)
    task = LoadedModel(params, config, None, tokenizer_of(file, config, files), None, files)
    return task if weights == "blocks" else task._replace(params=expanded(params))


def model_from_gguf(path, fields, tensors, dtype=np.float32):
    """The weights and configuration of a model in a GGUF file.

    Parameters
    ----------
    path : the file's path, for error messages
    fields, tensors : from `read_gguf`; BlockWeights are not dequantised
    dtype : np.float32 or np.float64, for arrays and for blocks when they are dequantised

    Returns
    -------
    params : dict, in execution order
    config : the model's configuration

    Raises
    ------
    ValueError
        If the architecture or a setting is not supported, a field or tensor is missing, or a tensor's shape is wrong.
    """
    if fields.get("general.type") == "adapter":
        raise ValueError(f"{path}: got an adapter, expected a model; use `doctor` to inspect the adapter")
    count = fields.get("split.count")
    if isinstance(count, int) and count > 1:
        part, remedy = quoted(fields.get("split.no", 0)), "join the parts with: llama-gguf-split --merge"
        raise ValueError(f"{path}: split.count is {count}, and this is part {part} (counting from 0); {remedy}")
    check_keys(path, fields, foreign_keys()["GGUF"])
    known = {name: of_files for name, of_files in FILE_FORMATS.items() if of_files.config_from_gguf}
    name = one_of(f"{path}: general.architecture", fields.get("general.architecture"), known)
    config = known[name].config_from_gguf(path, fields, tensors)
    rows = list(layout(config, "gguf"))
    for theirs, _, shape, _ in rows:  # in llama.cpp, each bias of a layer is optional
        if theirs.endswith(".bias"):
            tensors.setdefault(theirs, np.zeros(shape, np.float32))
    check_shapes(path, tensors, {theirs: shape for theirs, _, shape, _ in rows})
    params = {}
    for theirs, (ours,), *_ in rows:
        weight = gguf_rows(config, ours.rpartition(".")[0], tensors[theirs], back=True)
        is_block = isinstance(weight, BlockWeight)
        params[ours] = replace(weight, dtype=np.dtype(dtype)) if is_block else weight.astype(dtype, copy=False)
    return params, config


def expanded(params):
    """Return the weights with each BlockWeight dequantised to an array."""
    blocks = {name: weight for name, weight in params.items() if isinstance(weight, BlockWeight)}
    with ThreadPoolExecutor(THREADS) as pool:
        return {**params, **dict(zip(blocks, pool.map(np.asarray, blocks.values())))}


def load_pretrained(name=PRETRAINED, dtype=np.float32, weights="dense"):
    """Load the small model included in this package, or a model from another installed package.

    Parameters
    ----------
    name : "smollm2" for SmolLM2-135M-Instruct; the default is the small language model trained on IMDb reviews
    dtype, weights : see `read_model`

    Returns
    -------
    params, config : as in `load_model`
    """
    task = read_model(name, dtype, weights)
    return task.params, task.config


def tokenizer_of(path, config, files=None):
    """Load a model's tokenizer. Raises ValueError if the tokenizer has ids outside the model's vocabulary.

    `path` is the model's folder or file; `files` contains the tokenizer's files if they are not in the folder.
    """
    return load_tokenizer(path, {**config.extra, "vocab_size": config.vocab_size}, files)


def fingerprint(params):
    """The SHA-256 of all weights except the head's (names, shapes, float32 values), whatever the file format."""
    digest = hashlib.sha256()
    for name in sorted(params.keys() - head_arrays(params)):
        weight = np.ascontiguousarray(params[name], "<f4")
        digest.update(f"{name} {weight.shape} ".encode())
        digest.update(weight.data)
    return digest.hexdigest()


def model_sha256(place):
    """The SHA-256 of the file that contains a base's weights."""
    file = weights_file(place)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    status = file.stat()
    return cached_sha256(file, status.st_mtime_ns, status.st_size) if file.suffix == ".gguf" else file_sha256(file)
