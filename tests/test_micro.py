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
from lora_np.model import ModelConfig, backward, forward, initial_params, loss_and_gradients
from lora_np.training import AdamW, adamw_update

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ModelConfig(vocab_size=13, n_positions=7, d_model=12, n_layers=2, n_heads=3, d_ff=20)
R, ALPHA = 5, 8.0


def close(got, expected):
    """The same names, and no element further away than 1e-12 of its array's largest."""
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].shape == array.shape, name
        assert np.abs(got[name] - array).max() <= 1e-12 * max(1.0, np.abs(array).max()), name


@pytest.fixture(params=[0, 1], ids="seed {}".format)
def case(request, random_params, random_batch, random_adapter):
    """A model, a batch of full rows and an adapter on q and v, all random: B is not zero."""
    seed = request.param
    params = random_params(CONFIG, seed=seed)
    adapter = random_adapter(params, seed, r=R, alpha=ALPHA, targets=("q_proj", "v_proj"))
    batch = random_batch(CONFIG, B=3, T=CONFIG.n_positions, seed=seed, padded=False)
    return SimpleNamespace(params=params, adapter=adapter, batch=batch, seed=seed)


@pytest.mark.parametrize("way", ["full", "LoRA", "both"])
def test_losses_and_gradients_are_the_packages(case, way):
    adapter = case.adapter if way != "full" else None
    weights = adapter.weights if adapter else {}
    trained = {"full": case.params, "LoRA": weights, "both": case.params | weights}[way]
    ids, targets, settings = case.batch.ids, case.batch.targets, (CONFIG.n_layers, CONFIG.n_heads, ALPHA / R)
    before = {name: a.copy() for name, a in (case.params | weights).items()}

    logits, _ = micro.forward(case.params | weights, ids, *settings)
    loss, grads = micro.loss_and_gradients(case.params | weights, ids, targets, trained, *settings)

    expected, cache = forward(case.params, ids, CONFIG, adapter=adapter, wanted=tuple(trained))
    close({"logits": logits.reshape(expected.shape)}, {"logits": expected})
    objective = loss_and_gradients(case.params, case.batch, CONFIG, adapter, tuple(trained))
    assert abs(loss - objective.loss) <= 1e-12
    close(grads, objective.grads)
    probs = micro.softmax(expected)
    dlogits = (probs - np.eye(CONFIG.vocab_size)[targets]) / targets.size
    close(grads, backward(dlogits, cache))
    assert all((before[name] == array).all() for name, array in (case.params | weights).items())


def test_an_adapter_that_is_not_trained_still_counts(case):
    settings = (CONFIG.n_layers, CONFIG.n_heads, ALPHA / R)
    everything = case.params | case.adapter.weights
    _, grads = micro.loss_and_gradients(everything, case.batch.ids, case.batch.targets, case.params, *settings)
    close(grads, loss_and_gradients(case.params, case.batch, CONFIG, case.adapter, tuple(case.params)).grads)


def test_fresh_arrays_are_the_packages(case):
    """The same names and shapes; and from one seed the same A, and the same weights up to GPT-2's smaller ones."""
    params = micro.init_params(13, 7, 12, 20, 2, np.random.default_rng(case.seed))
    expected = initial_params(CONFIG, np.random.default_rng(case.seed), np.float64)
    smaller = 1 / np.sqrt(
        2 * CONFIG.n_layers
    )  # of the layers that add to the residual stream; micro has no such factor
    for name in params:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            params[name] = params[name] * smaller
    close(params, expected)
    config = AdapterConfig(r=R, targets=("q_proj", "v_proj"), train_head=False)
    expected = init_adapter(case.params, config, np.random.default_rng(case.seed)).weights
    close(micro.init_lora(case.params, R, np.random.default_rng(case.seed)), expected)


@pytest.mark.parametrize("way", ["full", "LoRA"])
def test_five_steps_of_training_are_the_packages(case, way):
    """From moments of zero, with weight decay on matrices alone."""
    learning_rate, settings = 0.03, (CONFIG.n_layers, CONFIG.n_heads, ALPHA / R)
    start = case.params if way == "full" else case.params | case.adapter.weights
    trained = tuple(case.params if way == "full" else case.adapter.weights)
    ids, targets = case.batch.ids, case.batch.targets

    params, losses = micro.train(start, trained, ids, targets, settings, 5, learning_rate)

    arrays = {name: start[name] for name in trained}
    m = v = {name: np.zeros_like(array) for name, array in arrays.items()}
    for step in range(1, 6):
        base = case.params | (arrays if way == "full" else {})
        adapter = Adapter(case.adapter.config, arrays) if way == "LoRA" else None
        loss, _, grads = loss_and_gradients(base, case.batch, CONFIG, adapter, trained)
        assert abs(losses[step - 1] - loss) <= 1e-12
        arrays, m, v = adamw_update(arrays, grads, m, v, step, learning_rate, AdamW())
    # The gradient of a key's bias is zero in theory and rounding noise in practice, which AdamW magnifies.
    compared = [name for name in trained if not name.endswith("k_proj.bias")]
    close({name: params[name] for name in compared}, {name: arrays[name] for name in compared})
    assert all(params[name] is start[name] for name in start.keys() - set(trained)), "a frozen array has changed"


def test_one_step_of_adamw_from_any_moments():
    rng = np.random.default_rng(0)
    shapes = {"matrix": (3, 5), "vector": (7,)}
    params, grads, m, v = ({name: rng.random(shape) for name, shape in shapes.items()} for _ in range(4))
    options = {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}
    got = micro.adamw(params, grads, m, v, 4, 0.1, **options, decay=0.2)
    expected = adamw_update(params, grads, m, v, 4, 0.1, AdamW(**options, weight_decay=0.2))
    for ours, theirs in zip(got, expected):
        close(ours, theirs)


def test_both_ways_learn(capsys):
    base, full, lora, share = micro.main()
    for losses in (base, full, lora):
        assert losses[-1] < 0.2 * losses[0]
        assert all(later < earlier for earlier, later in zip(losses[:41:10], losses[10:51:10]))
    assert full[0] == lora[0], "LoRA starts at the base model"
    assert 0 < share < 0.05
    assert capsys.readouterr().out


def test_the_file_runs_on_its_own_and_is_short():
    source = Path(micro.__file__).read_text("utf-8")
    assert len(source.splitlines()) <= 200
    imported = [n for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.Import, ast.ImportFrom))]
    assert [[alias.name for alias in node.names] for node in imported] == [["numpy"]]
    done = subprocess.run([sys.executable, "-m", "lora_np.micro"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
