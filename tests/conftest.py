"""Tiny models, batches and adapters that the tests share.

All dimensions differ from one another, and no array is zero or one throughout as it would be in a fresh
model: a swapped axis, a forgotten bias or a forgotten layer-norm weight then changes a number.
"""

import os
import shutil

# Before NumPy is imported: products this small only wait for one another on several threads.
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from lora_np.adapters import Adapter, AdapterConfig, init_adapter  # noqa: E402
from lora_np.cli import main  # noqa: E402
from lora_np.data import Batch  # noqa: E402
from lora_np.formats import PRETRAINED, save_model  # noqa: E402
from lora_np.model import ModelConfig, initial_params, parameter_shapes  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """Files are not flushed to the disk: it outlives a test, and on a busy one each flush takes 10 ms or more.

    Trainers that are killed run in processes of their own and do flush; tests of flushing put back their own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def language():
    """Configuration of a language model: V = 13, C = 12, two blocks of 3 heads, F = 20, 7 positions."""
    return ModelConfig(vocab_size=13, n_positions=7, d_model=12, n_layers=2, n_heads=3, d_ff=20)


@pytest.fixture(scope="session")
def classifier():
    """The same with a head of 4 classes."""
    return ModelConfig(vocab_size=13, n_positions=7, d_model=12, n_layers=2, n_heads=3, d_ff=20, n_classes=4)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """The folder of a tiny language model with the shipped tokenizer: as fast as it is clueless. Not to be changed."""
    folder = tmp_path_factory.mktemp("base")
    config = ModelConfig(8000, 24, 16, 1, 2, 32)
    save_model(folder, initial_params(config, np.random.default_rng(0)), config)
    shutil.copy(PRETRAINED / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="session")
def random_params():
    """Function (config, dtype=float64, seed=0) -> parameters, every one of them random."""

    def make(config, dtype=np.float64, seed=0):
        rng = np.random.default_rng(seed)
        params = {}
        for name, shape in parameter_shapes(config).items():
            centre = 1.0 if name.endswith(("ln1.weight", "ln2.weight", "ln_f.weight")) else 0.0
            params[name] = (centre + 0.3 * rng.standard_normal(shape)).astype(dtype)
        return params

    return make


@pytest.fixture(scope="session")
def random_batch():
    """Function (config, B=3, T=6, seed=0, padded=True) -> Batch, right-padded, as lora_np.data makes it."""

    def make(config, B=3, T=6, seed=0, padded=True):
        rng = np.random.default_rng(seed)
        ids = rng.integers(0, config.vocab_size, (B, T))
        lengths = np.full(B, T)
        if padded:
            lengths[1:] = rng.integers(2, T, B - 1)  # the first row fills its T positions
        targets = rng.integers(0, config.n_classes or config.vocab_size, B if config.n_classes else (B, T))
        if not config.n_classes:
            targets[np.arange(T) >= lengths[:, None]] = -100
        return Batch(ids, targets, lengths, np.arange(B))

    return make


@pytest.fixture(scope="session")
def random_adapter():
    """Function (params, seed=0, **settings of AdapterConfig) -> Adapter with every array random, B ≠ 0.

    Without settings: rank 3, alpha 6, every linear layer.
    """

    def make(params, seed=0, **settings):
        config = AdapterConfig(**{"r": 3, "alpha": 6.0, "targets": ("all-linear",), **settings})
        rng = np.random.default_rng(seed)
        fresh = init_adapter(params, config, rng).weights
        return Adapter(config, {n: (0.3 * rng.standard_normal(a.shape)).astype(a.dtype) for n, a in fresh.items()})

    return make


@pytest.fixture
def run(capsys):
    """Function (*arguments) -> what a command printed; it must succeed and write nothing to stderr."""

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert code == 0 and said.err == ""
        return said.out

    return call


@pytest.fixture
def fails(capsys):
    """Function (*arguments, says=()) -> the one line that a command wrote to stderr.

    The command must fail without a traceback, and the line must contain each part of `says`.
    """

    def call(*arguments, says=()):
        code = main([str(argument) for argument in arguments])
        error = capsys.readouterr().err
        assert code == 2 and error.startswith("error: ") and error.count("\n") == 1, error
        for part in says:
            assert part in error, f"{part!r} is not in {error!r}"
        return error

    return call
