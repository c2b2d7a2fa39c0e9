"""Models, batches, adapters and commands that the tests share; `tiny.py` makes them."""

import os
import sys
from functools import cache

# Before NumPy is imported: products this small only wait for one another on several threads.
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# jsonschema, which nbformat needs, checks web addresses with this if it is there: its import takes four seconds.
sys.modules.setdefault("rfc3987_syntax", None)

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from lora_np import cli  # noqa: E402
from lora_np.data import model_files  # noqa: E402
from lora_np.formats import PRETRAINED, save_model  # noqa: E402
from lora_np.model import GPT2Config, initial_params  # noqa: E402

from . import tiny  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def little_waiting():
    """The parser of commands is built once, which takes 10 ms, and files are not flushed to the disk.

    They outlive a test, and on a busy disk each flush takes 10 ms or more. Trainers that are killed run in processes of
    their own and do flush; tests of flushing put back their own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "build_parser", cache(cli.build_parser))
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def language():
    """Configuration of a language model: V = 13, C = 12, two blocks of 3 heads, F = 20, 7 positions."""
    return tiny.tiny_config()


@pytest.fixture(scope="session")
def classifier():
    """The same with a head of 4 classes."""
    return tiny.tiny_config(n_classes=4)


def each(names):
    """A fixture of the tiny configurations of these names, one after the other."""
    return pytest.fixture(params=names)(lambda request: tiny.CONFIGS[request.param])


config = each(tiny.CONFIGS)  # a language model and a classifier of each architecture
either_language, either_classifier = each(tiny.LANGUAGES), each(tiny.CLASSIFIERS)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """The folder of a tiny language model with the shipped tokenizer: as fast as it is clueless. Not to be changed."""
    folder = tmp_path_factory.mktemp("base")
    config = GPT2Config(8000, 24, 16, 1, 2, 32)
    save_model(folder, initial_params(config, np.random.default_rng(0)), config)
    for name, content in model_files(PRETRAINED).items():
        (folder / name).write_bytes(content)
    return folder


def given(function):
    """A fixture that is a function of `tiny.py`."""
    return pytest.fixture(scope="session")(lambda: function)


random_params = given(tiny.random_params)  # (config, dtype=float64, seed=0) -> parameters, every one of them random
random_batch = given(tiny.random_batch)  # (config, B=3, T=6, seed=0, padded=True) -> Batch
random_adapter = given(tiny.random_adapter)  # (params, seed=0, **settings of AdapterConfig) -> Adapter with B ≠ 0


@pytest.fixture
def run(capsys):
    """Function (*arguments) -> what a command printed; it must succeed and write nothing to stderr."""

    def call(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert (code, said.err) == (0, "")
        return said.out

    return call


@pytest.fixture
def fails(capsys):
    """Function (*arguments, says=()) -> the one line that a command wrote to stderr.

    The command must fail without a traceback, and the line must contain each part of `says`.
    """

    def call(*arguments, says=()):
        code = cli.main([str(argument) for argument in arguments])
        error = capsys.readouterr().err
        assert code == 2 and error.startswith("error: ") and error.count("\n") == 1, error
        for part in says:
            assert part in error, f"{part!r} is not in {error!r}"
        return error

    return call
