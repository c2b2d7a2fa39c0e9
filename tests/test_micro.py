"""`micro.py` computes what the package computes: losses, gradients and AdamW steps, in full and with LoRA."""

import ast
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lora_np import micro
from lora_np.adapters import Adapter, AdapterConfig, init_adapter
from lora_np.model import forward, initial_params, loss_and_gradients
from lora_np.training import AdamW, adamw_update

from .tiny import copies, random_adapter, random_batch, random_params, same_bits, tiny_config

ROOT = Path(__file__).resolve().parents[1]
CONFIG = tiny_config()
R, ALPHA = 5, 8.0
SETTINGS = (CONFIG.n_layers, CONFIG.n_heads, ALPHA / R)


def close(got, expected):
    """The same names, and no element further away than 1e-12 of its array's largest."""
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].shape == array.shape, name
        assert np.abs(got[name] - array).max() <= 1e-12 * max(1.0, np.abs(array).max()), name


@pytest.fixture(params=[0, 1], ids="seed {}".format)
def case(request):
    """A model, a batch of full rows and an adapter on q and v, all random: B is not zero."""
    seed = request.param
    params = random_params(CONFIG, seed=seed)
    adapter = random_adapter(params, seed, r=R, alpha=ALPHA, targets=("q_proj", "v_proj"))
    batch = random_batch(CONFIG, T=CONFIG.n_positions, seed=seed, padded=False)
    return SimpleNamespace(params=params, adapter=adapter, batch=batch, seed=seed)


@pytest.mark.parametrize("way", ["full", "LoRA", "both", "base under LoRA"])
def test_losses_and_gradients_are_the_packages(case, way):
    adapter = case.adapter if way != "full" else None
    arrays = case.params | (adapter.weights if adapter else {})
    trained = {"LoRA": case.adapter.weights, "both": arrays}.get(way, case.params)
    ids, targets, before = case.batch.ids, case.batch.targets, copies(arrays)

    logits, _ = micro.forward(arrays, ids, *SETTINGS)
    loss, grads = micro.loss_and_gradients(arrays, ids, targets, trained, *SETTINGS)

    expected, _ = forward(case.params, ids, CONFIG, adapter=adapter)
    close({"logits": logits.reshape(expected.shape)}, {"logits": expected})
    objective = loss_and_gradients(case.params, case.batch, CONFIG, adapter, tuple(trained))
    assert abs(loss - objective.loss) <= 1e-12
    close(grads, objective.grads)
    assert same_bits(before, arrays)


def test_fresh_arrays_are_the_packages(case):
    """The same names and shapes; and from one seed the same A, and the same weights up to GPT-2's smaller ones."""
    params = micro.init_params(13, 7, 12, 20, 2, np.random.default_rng(case.seed))
    for name in params:  # of the layers that add to the residual stream; micro has no such factor
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            params[name] = params[name] / np.sqrt(2 * CONFIG.n_layers)
    close(params, initial_params(CONFIG, np.random.default_rng(case.seed), np.float64))
    config = AdapterConfig(r=R, targets=("q_proj", "v_proj"), train_head=False)
    expected = init_adapter(case.params, config, np.random.default_rng(case.seed)).weights
    close(micro.init_lora(case.params, R, np.random.default_rng(case.seed)), expected)


@pytest.mark.parametrize("way", ["full", "LoRA"])
def test_five_steps_of_training_are_the_packages(case, way):
    """From moments of zero, with weight decay on matrices alone."""
    arrays = case.params if way == "full" else case.adapter.weights
    start, trained = case.params | arrays, tuple(arrays)
    params, losses = micro.train(start, trained, case.batch.ids, case.batch.targets, SETTINGS, 5, 0.03)

    m = v = {name: np.zeros_like(array) for name, array in arrays.items()}
    for step in range(1, 6):
        base = case.params | (arrays if way == "full" else {})
        adapter = Adapter(case.adapter.config, arrays) if way == "LoRA" else None
        loss, _, grads = loss_and_gradients(base, case.batch, CONFIG, adapter, trained)
        assert abs(losses[step - 1] - loss) <= 1e-12
        arrays, m, v = adamw_update(arrays, grads, m, v, step, 0.03, AdamW())
    # The gradient of a key's bias is zero in theory and rounding noise in practice, which AdamW magnifies.
    compared = [name for name in trained if not name.endswith("k_proj.bias")]
    close({name: params[name] for name in compared}, {name: arrays[name] for name in compared})
    assert all(params[name] is start[name] for name in start.keys() - set(trained)), "a frozen array has changed"


def test_one_step_of_adamw_from_any_moments():
    rng = np.random.default_rng(0)
    shapes = {"matrix": (3, 5), "vector": (7,)}
    given = [{name: rng.random(shape) for name, shape in shapes.items()} for _ in range(4)]
    options = {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}
    got = micro.adamw(*given, 4, 0.1, **options, decay=0.2)
    for ours, theirs in zip(got, adamw_update(*given, 4, 0.1, AdamW(**options, weight_decay=0.2))):
        close(ours, theirs)


def test_the_file_is_short_runs_on_its_own_and_both_ways_learn():
    source = Path(micro.__file__).read_text("utf-8")
    assert len(source.splitlines()) <= 200
    imported = [n for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.Import, ast.ImportFrom))]
    assert [[alias.name for alias in node.names] for node in imported] == [["numpy"]]
    done = subprocess.run([sys.executable, "-m", "lora_np.micro"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    head, _, *rows, last = done.stdout.splitlines()
    assert 0 < float(head.partition("%")[0].split()[-1]) < 5
    steps, full, lora = np.array([row.split() for row in rows], dtype=float).T
    for losses in (full, lora):
        assert losses[-1] < 0.2 * losses[0] and all(np.diff(losses[:6]) < 0)
    assert steps[-1] == 100 and full[0] == lora[0], "LoRA starts at the base model"
    assert float(last.partition("base ")[2].partition(",")[0]) < 1.0  # of ln 27 before training
