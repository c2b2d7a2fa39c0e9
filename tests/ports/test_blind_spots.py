"""Mistakes that once passed all reference cases, and some in a Llama and its files: each, planted in a port, fails.

Those that `mistakes.py` lists are planted by test_reference.py.
"""

import sys
from typing import NamedTuple

import pytest

from lora_np.reference import check, exit_code

from .test_ports import ENTRIES, GCC, NODE, files, needs_gcc, needs_node, planted, run

pytestmark = pytest.mark.slow


class BlindSpot(NamedTuple):
    what: str
    first: dict  # case -> the first tensor that diverges; None: another size, or the port stops
    javascript: tuple  # a text that occurs once, what comes in its place, and so on
    c: tuple


IN_TRAINING = "step, rates[step - 1], options.optimiser);"


def in_training(fields):
    return IN_TRAINING, f"step, rates[step - 1], {{ ...options.optimiser, {fields} }});"


SPOTS = [
    BlindSpot("≤ at a midpoint", {"nf4-midpoints": "codes"}, ("middle < w / (most || 1)", "middle <= w / (most || 1)"),
        ("/ 2) < share", "/ 2) <= share")),
    BlindSpot("midpoints in float32", {"nf4-midpoints": "codes"},
        ("=> (NF4[i] + point) / 2)", "=> Math.fround((NF4[i] + point) / 2))"),
        ("(REAL)(((double)q[j]", "(float)(((double)q[j]")),
    BlindSpot("no max(…, 0)", {"nf4-double-negative": "scales"},
        ("Math.max(Math.fround(mean + Math.fround(size * code)), 0)", "Math.fround(mean + Math.fround(size * code))"),
        ("fmax(mean + step * code, 0.0f)", "mean + step * code")),
    BlindSpot("no guard of step 0", {"nf4-double-equal": ("scales", "scale_codes")},
        ("steps.data[Math.floor(i / 256)] || 1", "steps.data[Math.floor(i / 256)]"),
        ("(step == 0 ? 1 : step)", "step")),
    BlindSpot("N is not at least 1", {"cross-entropy-none-real": "loss"},
        ("Math.max(1, sumAll(real)); // N", "sumAll(real); // N"), ("(REAL)-1 / fmax(1, real)", "(REAL)-1 / real")),
    BlindSpot("the model's ε is 1e-5", {"model-classifier": "blocks.0.ln1", "generate-lora": "step.0.logits"},
        ("n_classes, layer_norm_eps: eps } = settings;", "n_classes } = settings;\n  const eps = 1e-5;"),
        ('number(model, "layer_norm_eps")', "1e-5")),
    BlindSpot("the betas are 0.9 and 0.999", {"train-full": "step.10.loss"}, in_training("beta1: 0.9, beta2: 0.999"),
        ('number(s, "beta1"), beta2 = number(s, "beta2")', "0.9, beta2 = 0.999")),
    BlindSpot("AdamW's ε is 1e-8", {"train-full": "step.1.after.tok_emb.weight"}, in_training("eps: 1e-8"),
        ('scalar(number(s, "eps"))', "scalar(1e-8)")),
    BlindSpot("AdamW's decay is 0.1", {"train-full": "step.1.after.tok_emb.weight"}, in_training("weight_decay: 0.1"),
        ('rate * number(s, "weight_decay")', "rate * 0.1")),
    BlindSpot("rate factors are not used in training", {"train-lora": "step.1.after.blocks.0.attn.q_proj.lora_A"},
        in_training("rate_factors: {}"), ("if (factor) rate", "if (0) rate")),
    BlindSpot("H is 3", {"generate-lora": "step.0.logits", "train-lora": "step.1.loss"},
        ("call(attention, { q, k, v, positions }, { n_heads });",
        "call(attention, { q, k, v, positions }, { n_heads: 3 });",
        "forward({ q, k, v, positions }, { n_heads }) {", "forward({ q, k, v, positions }, { n_heads = 3 }) {"),
        ('whole(model ? model : settings, "n_heads")', "3")),
    BlindSpot("final_share is for the cosine alone", {"schedule-linear": "learning_rate", "train-lora": "step.10.loss"},
        ("f + (1 - f) * c);", "(kind === 'linear' ? c : f + (1 - f) * c));"),
        ("peak * (f + (1 - f) * c)", 'peak * (*schedule == \'l\' ? c : f + (1 - f) * c)')),
    BlindSpot("use_rslora ignored", {"peft-read-rslora": "delta.blocks.0.attn.q_proj.weight"},
        ("{ r, alpha, rslora }), names", "{ r, alpha }), names"), ('is_true(config, "use_rslora")', "false")),
    BlindSpot("PEFT's name of o_proj", {"peft-write-scales": "adapter_model.safetensors"},
        ("arrays[`${PEFT}${theirs}.lora_A.weight`]",
        "arrays[`${PEFT}${theirs.replace('attn.c_proj', 'attn.o_proj')}.lora_A.weight`]"),
        ('{"attn.o_proj", "attn.c_proj"}', '{"attn.o_proj", "attn.o_proj"}')),
    BlindSpot("PEFT's name of up_proj", {"peft-write-scales": "adapter_model.safetensors"},
        ("arrays[`${PEFT}${theirs}.lora_A.weight`]",
        "arrays[`${PEFT}${theirs.replace('c_fc', 'fc_1')}.lora_A.weight`]"), ('"c_fc"}', '"fc_1"}')),
    BlindSpot("one scale for q, k and v", {"peft-write-scales": "adapter_model.safetensors"},
        ("scaleOf(layer) / scaleOf(adapted[0])", "1"), ("own / first", "own / own")),
    BlindSpot("the prefix is insisted on", {"gpt2-read-bare": None},
        ("names.includes('wte.weight') ? '' : 'transformer.'", "'transformer.'"),
        ("renamed(bare ? bare : theirs, true)", 'renamed(bare ? bare : "unknown", true)')),
    BlindSpot("h.2 before h.10", {"gpt2-write": "model.safetensors"}, ("Object.keys(tensors).sort()",
        "Object.keys(tensors).sort(new Intl.Collator('en', { numeric: true }).compare)"),
        ("static List *scope;", "static List *scope;\nint strverscmp(Text, Text);",
        "strcmp((*e)->name, name) < 0", "strverscmp((*e)->name, name) < 0")),
    BlindSpot("the token after the drawn one", {"sample": "tokens"},
        (".filter((total) => total <= uniform", ".filter((total) => total <= 0.1 + uniform"),
        ("* all;", "* all + 0.1;")),
    # Llama
    BlindSpot("turned the other way", {"rope": "y", "llama-tied": "blocks.0.attn.q_rotated"},
        ("(isFirst ? -x.data[i + half] : x.data[i - half])", "(isFirst ? x.data[i + half] : -x.data[i - half])"),
        ("first ? -s->f[at] : s->f[at]", "first ? s->f[at] : -s->f[at]")),
    BlindSpot("θ is 10000", {"llama-tied": "blocks.0.attn.q_rotated", "llama-generate": "step.0.logits"},
        ("theta: scalar(settings.rope_theta)", "theta: scalar(10000)"), ('number(model, "rope_theta")', "10000.0")),
    BlindSpot("query head h reads key head h mod K", {"attention-grouped": "scores"},
        ("reshape(x, [...x.shape.slice(0, 2), width / D, x.shape[2] / width, D]);",
        "einsum('bigkd,->bikgd', reshape(x, [...x.shape.slice(0, 2), x.shape[2] / width, width / D, D]));"),
        ('"bkhij=bikhd,bjkd"', '"bkhij=bihkd,bjkd"', "{B, n, K, H / K, D}", "{B, n, H / K, K, D}",
        '"bikhd=bkhij,bjkd"', '"bihkd=bkhij,bjkd"')),
    BlindSpot("gate and up exchanged", {"llama-tied": "blocks.0.mlp.swiglu", "llama-generate": "step.0.logits"},
        ("swiglu, { gate, up })", "swiglu, { gate: up, up: gate })"), ("? swiglu(gate, up)", "? swiglu(up, gate)")),
    BlindSpot("an untied head ignored", {"llama-generate-dora": "step.0.logits"}, (" || settings.tied === false", ""),
        (' || (llama() && !is_true(model, "tied"))', "")),
    BlindSpot("RMS norm's ε is 1e-5", {"llama-untied": "blocks.0.norm1", "llama-train-dora": "step.1.loss"},
        ("eps: settings.rms_norm_eps", "eps: 1e-5"), ('number(model, "rms_norm_eps")', "1e-5")),
    BlindSpot("each new token at position 0", {"llama-generate": "step.1.logits"},
        ("=> before + (i % T));", "=> i % T);"), ("rope(layer_of(name), x, places, earlier,",
        "rope(layer_of(name), x, places, 0 * earlier,")),
    BlindSpot("the last query turned by another position", {"llama-classifier": "blocks.0.attn.q_rotated"},
        ("attn.q_rotated`, q, positions);", "attn.q_rotated`, q);"),
        ("ends ? ends->i[k] % T : k % T", "ends ? 0 : k % T")),
    # llama.cpp's blocks and files
    BlindSpot("sums in the place of means", {"qalora": "pooled"}, ("rowMean(asRows(dropout.", "rowSum(asRows(dropout."),
        ("shaped(mean(shaped(masked", "shaped(sum(shaped(masked")),
    BlindSpot("QA-LoRA without L", {"qalora": "y"},
        ("}).y, scaling(settings) * lora_A.shape[1]);", "}).y, scaling(settings));"),
        ("scale(linear(p, A), l.s * n)", "scale(linear(p, A), l.s)")),
    BlindSpot("the update of each offset not divided by 32", {"qalora": "delta"},
        ("inputs.lora_A.shape[1] / BLOCK), // of", "inputs.lora_A.shape[1]), // of"), ("l.s * n / BLOCK", "l.s * n")),
    BlindSpot("an offset cut and not rounded", {"qalora": "merged"},
        ("roundEven(Math.abs(x) / 2 ** (e - 10))", "Math.floor(Math.abs(x) / 2 ** (e - 10))"),
        ("(int)rint(ldexp", "(int)floor(ldexp")),
    BlindSpot("rows of q and k in GGUF's order", {"gguf-read": "blocks.0.attn.q_proj.weight"},
        ("isTurned(name) ? ourOrder(array, fields['llama.attention.key_length']) : array]", "array]"),
        ("is_turned(all[k].name) ? in_order(t, D, false) : t", "t")),
    BlindSpot("B's rows of q and k in our order", {"gguf-adapter": "adapter.gguf"},
        ("isTurned(`${layer.ours}.`) ? ggufOrder(B, model.head_size) : B", "B"),
        ("k % 2 && is_turned(name) ? in_order", "0 ? in_order")),
    BlindSpot("32 zeros where none are needed", {"gguf-adapter": None},
        ("(32 - (b.length % 32)) % 32)", "32 - (b.length % 32))"),
        ("output->size += -output->size & 31;", "output->size += 32 - output->size % 32;")),
    BlindSpot("a repetition penalty that divides negative logits", {"sample-penalty": "probs"},
        ("(value > 0 ? value / penalty : value * penalty)", "value / penalty"),
        ("logits[k] > 0 ? logits[k] / penalty : logits[k] * penalty", "logits[k] / penalty")),
    BlindSpot("the largest logit is at least 0", {"generate-dora": ("step.1.logits", "step.0.margin")},
        ("data.indexOf(Math.max(...data)));", "Math.max(0, data.indexOf(Math.max(0, ...data))));"),
        ("best = row[k] > row[best] ? k : best;", "best = row[k] > fmax(row[best], 0) ? k : best;")),
    BlindSpot("α in llama.cpp's file, which is s r", {"gguf-adapter": "adapter.gguf"},
        ("scaling(settingsOf(adapter, ours)) * adapter.layers[ours].r;", "adapter.layers[ours].alpha;"),
        ("layer_of(name).s * arrays[2 * k]->shape[0], layers++;",
        "layer_of(name).s * sqrt(arrays[2 * k]->shape[0]), layers++;")),
    BlindSpot("the first layer's alpha", {"gguf-adapter": "adapter.gguf"},
        ("(count(x) > count(most) ? x : most)", "most"),
        ("if (same > most) most = same,", "if (same && !most) most = same,")),
    BlindSpot("one alpha for layers with other scales", {"gguf-adapter": "adapter.gguf"},
        ("alphaOf(layer) / alpha", "1"), ("products[k / 2] / alpha", "1")),
    # BERT
    BlindSpot("the tanh GELU in an encoder", {"bert-classifier": "blocks.0.mlp.gelu"},
        ("bert ? geluErf : gelu", "gelu"), ("bert() ? gelu_erf : gelu", "gelu")),
    BlindSpot("padding in the mean", {"mean-pool": "y", "bert-classifier": "pooled"},
        ("(t < n ? 1 / n : 0)", "1 / x.shape[1]"), ("k % T < lengths->i[k / T] ? (REAL)1 / lengths->i[k / T] : 0",
        "(REAL)1 / T")),
    BlindSpot("a causal encoder", {"encoder-attention": "scores", "bert-classifier": "blocks.0.attn.scores"},
        ("vector(Array(q.shape[1]).fill(n - 1))", "vector(range(q.shape[1]))"), ("lengths->i[k / n] - 1", "k % n")),
]  # fmt: skip


@pytest.mark.parametrize("port", [pytest.param(0, marks=needs_node), pytest.param(1, marks=needs_gcc)], ids=["js", "c"])
@pytest.mark.parametrize("spot", SPOTS, ids=lambda spot: spot.what)
def test_it_is_seen_in_both_ports(spot, port, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[check.__module__], "DERIVED", 0)  # the cause is of no matter here
    name, changes = (("port.mjs", spot.javascript), ("port.c", spot.c))[port]
    (tmp_path / name).write_text(planted(name, changes), "utf-8")
    (tmp_path / "out").mkdir()
    command = [NODE, tmp_path / name]
    if port == 1:
        command = [tmp_path / "port"]
        built = run(GCC, "-std=c11", "-ffp-contract=off", "-o", command[0], tmp_path / name, "-lm")
        assert built.returncode == 0, built.stderr
    for id, first in spot.first.items():
        done = run(*command, tmp_path / "out", *files("float64", [id]))
        if done.returncode and first is None:
            continue
        assert done.returncode == 0, done.stderr
        results, complaints = check(tmp_path / "out", [id])
        assert exit_code(results, complaints) > 0, f"{id} agrees"
        expected = first[port] if isinstance(first, tuple) else first
        assert results[0].complaints or results[0].divergence.tensor == expected, results[0]


def test_sizes_differ_within_a_tensor():
    """Where two axes are of one size, a mistake can hide: only scores and square weights may have such."""
    for id, entry in ENTRIES.items():
        for record in entry["tensors"]:
            shape = [size for size in record["float64"]["shape"] if size > 1]
            last = record["name"].removeprefix("grad.").removesuffix(".weight")
            square = last.endswith(("_proj", "scores", "probs")) or entry["kind"] in ("spectrum", "gpt2_read")
            assert square or len(set(shape)) == len(shape) or "edge" in entry["flags"], (id, record["name"], shape)
