"""The doctor: planted faults are named, with the right exit code; healthy adapters have none."""

import json

import numpy as np
import pytest

from lora_np.adapters import HEAD, Adapter, AdapterConfig
from lora_np.adapters.dora import MAGNITUDE, row_norms
from lora_np.cli import main
from lora_np.data import new_files
from lora_np.formats import load_adapter, read_tensors, save_adapter, save_gpt2, save_model, save_peft, save_task
from lora_np.formats.model import Task, fingerprint, read_model
from lora_np.model import forward
from lora_np.tasks.doctor import diagnose, read_base
from lora_np.tasks.doctor_table import format_diagnosis
from lora_np.tasks.exchange import export

from .adapter_files import (
    ALPHA,
    BASE,
    R,
    by_our_names,
    gguf_tensors,
    peft_tensors,
    random_factors,
    write_gguf_adapter,
    write_peft,
)
from .llama_files import write_hf, written_gguf
from .test_fuzz_formats import tiny_tokenizer
from .tiny import LLAMA, edit_fields, edit_tensors, random_adapter, random_params, tiny_config, tiny_llama

CONFIGS = {
    "gpt2": tiny_config(),
    "llama": tiny_llama(**LLAMA),
    "untied": tiny_llama(tied=False, **LLAMA),
    "gpt2 classifier": tiny_config(n_classes=4),
    "other": tiny_llama(**LLAMA),
}
PARAMS = {name: random_params(config, np.float32, seed) for seed, (name, config) in enumerate(CONFIGS.items())}
LAYER = "model.layers.0.self_attn.q_proj"
OURS = "blocks.0.attn.q_proj"
QV = ["q_proj", "v_proj"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folder -> tiny models of ours by name. Not to be changed."""
    folder = tmp_path_factory.mktemp("bases")
    for name, config in CONFIGS.items():
        save_model(folder / name, PARAMS[name], config)
    return folder


def examined(path, base, capsys):
    """The report, which the command has printed, and the command's exit code."""
    capsys.readouterr()
    code = main(["doctor", str(path), "--base", str(base)])
    printed = capsys.readouterr()
    assert printed.err == ""
    report = diagnose(path, base)
    assert printed.out == format_diagnosis(report) + "\n"
    assert code == bool(report["faults"])
    json.dumps(report, allow_nan=False)
    return report, code


# ---------------------------------------------------------------- planted faults


def renamed(old, new):
    return lambda tensors: {name.replace(old, new): array for name, array in tensors.items()}


def changed(end, change, layer=LAYER):
    """A change of the tensors of a layer whose name ends so; None takes them out."""

    def apply(tensors):
        new = {n: change(a) if layer in n and n.endswith(end) else a for n, a in tensors.items()}
        return {name: array for name, array in new.items() if array is not None}

    return apply


def with_more(**shapes):
    """Random tensors are added, by name after "base_model.model.", with "__" for its dots."""
    rng = np.random.default_rng(5)
    arrays = {name.replace("__", "."): rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}
    return lambda tensors: tensors | {BASE + name: array for name, array in arrays.items()}


def with_ones(**shapes):
    return lambda tensors: tensors | {name.replace("__", "."): np.ones(s, np.float32) for name, s in shapes.items()}


def exchanged(a, b):
    """A and B of the layers change places."""
    return lambda tensors: {n.replace(a, "?").replace(b, a).replace("?", b): array for n, array in tensors.items()}


def same(tensors):
    return tensors


def gone(array):
    return None


def to_nan(array):
    return array * np.nan


EMBED, M = "model.embed_tokens", "lora_magnitude_vector"
SEQ_CLS = {"task_type": "SEQ_CLS"}
LM_HEAD = with_more(lm_head__lora_A__weight=(R, 12), lm_head__lora_B__weight=(13, R))
NINTH = with_more(model__layers__9__self_attn__q_proj__lora_A__weight=(R, 12))
M_OF_LAYER = with_more(model__layers__0__self_attn__q_proj__lora_magnitude_vector=(36,))
PEFT_FAULTS = {  # name: (base, change of the tensors, fields, layer with the note, its status, note, exit code)
    "no second model.": ("llama", renamed("model.model.model", "model.model"), {}, "q_proj", "ignored",
        "begins with 'base_model.model.', expected 'base_model.model.model.'", 1),
    "no base_model.model.": ("llama", renamed(BASE, ""), {}, "q_proj", "ignored",
        "begins with 'model.', expected 'base_model.model.model.'", 1),
    "names of the bare GPT-2": ("gpt2", renamed("transformer.", ""), {}, "c_attn", "ignored",
        "expected 'base_model.model.transformer.'", 1),
    "names of GGUF": ("llama", renamed(LAYER, "blk.0.attn_q"), {}, "blk.0.attn_q", "ignored",
        "calls it 'base_model.model.model.layers.N.self_attn.q_proj'", 0),
    "our names": ("llama", renamed(BASE + LAYER, OURS), {}, OURS, "ignored", "the base calls it", 0),
    ".default.": ("llama", renamed(".weight", ".default.weight"), {}, LAYER, "applied", "'.default.' in the", 0),
    "another adapter's name": ("llama", renamed(".weight", ".mine.weight"), {}, "A.mine.weight", "ignored",
        "no tensor of this name", 1),
    "B zero": ("llama", changed("lora_B.weight", np.zeros_like, ""), {}, LAYER, "applied", "B is zero", 1),
    "A zero in a layer": ("llama", changed("lora_A.weight", np.zeros_like), {}, LAYER, "applied", "A is zero", 0),
    "NaN": ("llama", changed("lora_A.weight", to_nan), {}, LAYER, "applied", "NaN", 1),
    "infinite": ("llama", changed("lora_B.weight", lambda b: b / 0.0), {}, LAYER, "applied", "infinite", 1),
    "overflow": ("llama", changed("weight", lambda x: x * np.float32(1e30)), {}, LAYER, "applied", "larger than", 1),
    "transposed": ("llama", changed("weight", np.transpose), {}, LAYER, "refused", "transposed", 1),
    "exchanged": ("llama", exchanged("lora_A", "lora_B"), {}, LAYER, "refused", "exchanged", 1),
    "another rank": ("llama", same, {"r": 3}, LAYER, "refused", "have rank 4, but the configuration says 3", 1),
    "rank 0": ("llama", same, {"r": 0}, LAYER, "refused", "is 0, expected", 1),
    "another base": ("llama", changed("lora_A.weight", lambda a: a[:, :-1], ""), {}, LAYER, "refused",
        "wrong shape for this base", 1),
    "no such layer": ("llama", NINTH, {}, "layers.9.self_attn.q_proj", "ignored", "no such layer", 0),
    "no B": ("llama", changed("lora_B.weight", gone), {}, LAYER, "ignored", "lora_B is missing", 0),
    "no B anywhere": ("llama", changed("lora_B.weight", gone, ""), {}, LAYER, "ignored", "lora_B is missing", 1),
    "no A": ("llama", changed("lora_A.weight", gone), {}, LAYER, "applied", "draws it at random", 1),
    "not a target": ("llama", same, {"target_modules": ["v_proj"]}, LAYER, "ignored", "not a target", 0),
    "no tensors": ("llama", changed("weight", gone), {}, LAYER, "no tensors", "a target", 0),
    "no target": ("llama", same, {"target_modules": ["query"]}, LAYER, "ignored", "not a target", 1),
    "a norm as target": ("llama", same, {"target_modules": [*QV, "norm"]}, "model.norm", "refused", "no LoRA for", 1),
    "alpha 0": ("llama", same, {"lora_alpha": 0}, LAYER, "applied", "scale 0", 1),
    "large alpha": ("llama", same, {"lora_alpha": 5e3}, LAYER, "applied", "larger than the weight itself", 0),
    "tied head": ("llama", LM_HEAD, {"target_modules": [*QV, "lm_head"]}, "lm_head", "applied", "tied", 0),
    "tied embedding": ("llama", with_more(model__embed_tokens__weight=(13, 12)), {"modules_to_save": ["embed_tokens"]},
        EMBED, "applied", "tied", 0),
    "to be saved and missing": ("llama", same, {"modules_to_save": ["embed_tokens"]}, EMBED, "refused", "missing", 1),
    "head of no classifier": ("llama", with_more(score__weight=(3, 12)), {}, "score.weight", "ignored",
        "a head that is not read", 0),
    "head of another name": ("gpt2", with_more(classifier__weight=(3, 12)), SEQ_CLS, "classifier.weight", "ignored",
        "expected base_model.model.score.weight", 1),
    "no head": ("gpt2", same, SEQ_CLS, "score", "refused", "score.weight is missing", 1),
    "head of another width": ("gpt2", with_more(score__weight=(3, 11)), SEQ_CLS, "score", "refused",
        "(3, 11), expected (3, 12)", 1),
    "magnitudes without DoRA": ("llama", M_OF_LAYER, {}, LAYER, "applied", f"{M} is ignored", 0),
    "DoRA without magnitudes": ("llama", same, {"use_dora": True}, LAYER, "applied", f"{M} is missing", 0),
    "a list of layers": ("llama", same, {"layers_to_transform": [1], "target_modules": QV}, LAYER, "ignored",
        "not a target", 0),
}  # fmt: skip
FIRST = "blk.0.attn_q"
GGUF_FAULTS = {  # name: (change of the tensors, fields, layer, status, note, exit code)
    "no half": (changed("lora_b", gone, FIRST), {}, FIRST, "refused", "lora_b is missing", 1),
    "names of Hugging Face": (renamed(FIRST, LAYER), {}, LAYER, "refused", "calls it 'blk.N.attn_q'", 1),
    "no such layer": (renamed("blk.1", "blk.7"), {}, "blk.7.attn_q", "refused", "no such layer", 1),
    "shape": (changed("lora_a", lambda a: a[:, :-1], FIRST), {}, FIRST, "refused", "wrong shape", 1),
    "exchanged": (exchanged("lora_a", "lora_b"), {}, FIRST, "refused", "exchanged", 1),
    "head of a tied base": (with_ones(output__weight__lora_a=(R, 12), output__weight__lora_b=(13, R)), {}, "output",
        "refused", "tied", 1),
    "embedding of a tied base": (with_ones(token_embd__weight__lora_a=(13, R), token_embd__weight__lora_b=(12, R)), {},
        "token_embd", "refused", "tied", 1),
    "magnitudes": (with_ones(blk__0__attn_q__weight__lora_magnitude_vector=36), {}, M, "refused", "does not end in", 1),
    "a norm": (with_ones(blk__0__attn_norm__weight=12), {}, "attn_norm.weight", "ignored", "norms", 0),
    "NaN": (changed("lora_a", to_nan, FIRST), {}, FIRST, "applied", "NaN", 1),
    "B zero": (changed("lora_b", np.zeros_like, ""), {}, FIRST, "applied", "B is zero", 1),
    "large alpha": (same, {"adapter_lora_alpha": 5e3}, FIRST, "applied", "larger than the weight", 0),
}  # fmt: skip
REFUSED_GGUF = {
    "architecture": ({"general_architecture": "qwen2"}, "general.architecture is 'qwen2', expected 'llama'"),
    "type": ({"general_type": "model"}, "general.type is 'model'"),
    "kind": ({"adapter_type": None}, "adapter.type is None"),
}
OUR_FAULTS = {  # name: (change of the tensors, fields, layer, status, note)
    "no half": (changed("lora_B", gone, OURS), {}, OURS, "refused", "lora_B is missing"),
    "prefix": (renamed("blocks.", "model.blocks."), {}, f"model.{OURS}", "refused", "begins with 'model.'"),
    "not a target": (same, {"targets": ["v_proj"]}, OURS, "refused", "not a target"),
    "no tensors": (same, {"targets": ["all-linear"]}, "blocks.0.mlp.up_proj", "no tensors", "a target"),
    "NaN": (changed("lora_A", to_nan, OURS), {}, OURS, "applied", "NaN"),
    "another rank": (same, {"r": 3}, OURS, "refused", "have rank 4, but the configuration says 3"),
    "scale 0": (same, {"alpha": 0.0}, OURS, "applied", "scale 0"),
    "B zero": (changed("lora_B", np.zeros_like, ""), {}, OURS, "applied", "B is zero"),
    "a foreign tensor": (with_ones(x=3), {}, "x", "refused", "not a tensor"),
}


@pytest.mark.parametrize("name", PEFT_FAULTS)
def test_a_fault_of_a_peft_adapter_is_named(name, bases, tmp_path, capsys):
    base, change, fields, *expected = PEFT_FAULTS[name]
    factors = random_factors(PARAMS[base], ["c_attn"] if base == "gpt2" else QV)
    with np.errstate(all="ignore"):
        tensors = change(peft_tensors(factors))
    assert_noted(write_peft(tmp_path / "a", tensors, **fields), bases / base, capsys, *expected)


@pytest.mark.parametrize("name", GGUF_FAULTS)
def test_a_fault_of_a_gguf_adapter_is_named(name, bases, tmp_path, capsys):
    change, fields, *expected = GGUF_FAULTS[name]
    tensors = change(gguf_tensors(random_factors(PARAMS["llama"], ["attn_q", "attn_v"], file="gguf"), 6))
    assert_noted(write_gguf_adapter(tmp_path / "a.gguf", tensors, **fields), bases / "llama", capsys, *expected)


@pytest.mark.parametrize("name", OUR_FAULTS)
def test_a_fault_of_an_adapter_of_ours_is_named(name, bases, tmp_path, capsys):
    change, fields, *expected = OUR_FAULTS[name]
    save_adapter(tmp_path / "a", random_adapter(PARAMS["gpt2"], targets=QV, r=R, alpha=ALPHA))
    edit_tensors(tmp_path / "a" / "adapter.safetensors", change)
    edit_fields(tmp_path / "a" / "adapter.json", **fields)
    assert_noted(tmp_path / "a", bases / "gpt2", capsys, *expected, 1)


def assert_noted(path, base, capsys, layer, status, note, code):
    report, exit_code = examined(path, base, capsys)
    rows = [row for row in report["layers"] if row["layer"].endswith(layer)]
    assert any(row["status"] == status and any(note in text for text in row["notes"]) for row in rows), rows
    assert exit_code == code, report["faults"]


@pytest.mark.parametrize("fields, says", REFUSED_GGUF.values(), ids=REFUSED_GGUF)
def test_metadata_that_llama_cpp_refuses(fields, says, bases, tmp_path, capsys):
    tensors = gguf_tensors(random_factors(PARAMS["llama"], ["attn_q"], file="gguf"), 6)
    report, _ = examined(write_gguf_adapter(tmp_path / "a.gguf", tensors, **fields), bases / "llama", capsys)
    assert says in report["faults"][0]


# ---------------------------------------------------------------- healthy adapters

SETTINGS = {
    "LoRA": {},
    "rsLoRA": {"rslora": True, "targets": QV},
    "patterns": {"rank_pattern": {"o_proj": 2}, "alpha_pattern": {"blocks.0.*": 3.0}},
    "DoRA": {"kind": "dora"},
    "DoRA on q, v": {"kind": "dora", "targets": QV, "rslora": True},
}


def gentle(params, seed, **settings):
    """A random adapter whose updates are smaller than the weights."""
    adapter, rng = random_adapter(params, seed, **settings), np.random.default_rng(seed)
    weights = {name: array * np.float32(0.3) for name, array in adapter.weights.items()}
    for name in weights:
        layer, _, leaf = name.rpartition(".")
        if leaf == MAGNITUDE:
            norms = row_norms(params[f"{layer}.weight"])
            weights[name] = norms * rng.uniform(0.9, 1.1, len(norms)).astype(np.float32)
    return adapter._replace(weights=weights)


def peft_gpt2(name, base, folder, seed):
    save_peft(folder / "a", gentle(PARAMS[base], seed, **SETTINGS[name]), PARAMS[base], CONFIGS[base])
    return folder / "a"


def peft_llama(ends, base, folder, seed, r=R, dora=False, **fields):
    factors = random_factors(PARAMS[base], ends, seed, r=r, dora=dora)
    return write_peft(folder / "a", peft_tensors(factors), **{"r": r, "use_dora": dora, **fields})


def gguf(ends, base, folder, seed, **fields):
    tensors = gguf_tensors(random_factors(PARAMS[base], ends, seed, "gguf"), 6)
    return write_gguf_adapter(folder / "a.gguf", tensors, **fields)


def ours(name, base, folder, seed):
    params, config = PARAMS[base], CONFIGS[base]
    labels = list("abcd") if config.n_classes else None
    task = Task(params, config, gentle(params, seed, **SETTINGS[name]), None, labels)
    save_task(folder / "a", task, folder.parent / "base", {"method": "lora"})
    return folder / "a"


HEALTHY = [(peft_gpt2, name, base, 1) for name in SETTINGS for base in ("gpt2", "gpt2 classifier")]
HEALTHY += [(ours, name, base, 2) for name in SETTINGS for base in ("gpt2", "llama")]
HEALTHY += [(ours, "LoRA", "gpt2 classifier", seed) for seed in (3, 4)]
ALL = ["proj"]
PEFT_LLAMAS = [
    (QV, {}), (ALL, {"target_modules": "all-linear"}), (QV, {"r": 2, "use_rslora": True}), (QV, {"dora": True}),
    (["up_proj"], {"target_modules": r".*mlp\.up_proj"}), (["k_proj"], {"target_modules": ["k_proj"], "bias": "none"}),
    (["0.self_attn.q_proj"], {"target_modules": ["q_proj"], "layers_to_transform": [0]}),
]  # fmt: skip


@pytest.mark.parametrize("make, name, base, seed", HEALTHY)
def test_a_healthy_adapter_has_no_fault(make, name, base, seed, bases, tmp_path, capsys):
    folder = tmp_path / "x"
    folder.mkdir()
    save_model(tmp_path / "base", PARAMS[base], CONFIGS[base])
    assert_healthy(make(name, base, folder, seed), tmp_path / "base", capsys)


def test_a_head_alone_is_an_effect(bases, tmp_path, capsys):
    adapter = gentle(PARAMS["gpt2 classifier"], 1, targets=())
    save_peft(tmp_path / "a", adapter, PARAMS["gpt2 classifier"], CONFIGS["gpt2 classifier"])
    for base in ("gpt2", "gpt2 classifier"):
        report, code = examined(tmp_path / "a", bases / base, capsys)
        assert code == 0 and report["prompt"]["left_out"] == ["score"]
    edit_tensors(tmp_path / "a" / "adapter_model.safetensors", changed("score.weight", gone, ""))
    assert examined(tmp_path / "a", bases / "gpt2", capsys)[1] == 1


@pytest.mark.parametrize("base", ["llama", "untied"])
@pytest.mark.parametrize("ends, settings", PEFT_LLAMAS)
def test_a_healthy_peft_adapter_of_a_llama_has_no_fault(ends, settings, base, bases, tmp_path, capsys):
    assert_healthy(peft_llama(ends, base, tmp_path, 5, **settings), bases / base, capsys)


@pytest.mark.parametrize("ends", [["attn_q", "attn_v"], ["attn_output", "ffn_down"], ["attn_k"]])
@pytest.mark.parametrize("fields", [{}, {"adapter_lora_alpha": None}])
def test_a_healthy_gguf_adapter_has_no_fault(ends, fields, bases, tmp_path, capsys):
    assert_healthy(gguf(ends, "llama", tmp_path, 6, **fields), bases / "llama", capsys)


def assert_healthy(path, base, capsys):
    report, code = examined(path, base, capsys)
    assert code == 0 and report["prompt"]["change"] > 0 and set(report["prompt"]["left_out"]) <= {"score", "head"}
    assert all(row["status"] == "applied" and not row["notes"] for row in report["layers"]), report["layers"]


# ---------------------------------------------------------------- the numbers


def test_one_adapter_in_three_formats_changes_the_same(bases, tmp_path):
    params = PARAMS["llama"]
    factors = random_factors(params, ["attn_q", "attn_k", "ffn_down"], file="gguf")
    weights = by_our_names(params, factors, "gguf")
    adapter = Adapter(AdapterConfig(R, ALPHA, ("q_proj", "k_proj", "down_proj")), weights)
    save_adapter(tmp_path / "ours", adapter)
    hf = {n.replace("blocks", "model.layers").replace(".attn.", ".self_attn."): a for n, a in weights.items()}
    tensors = {f"{BASE}{n}.weight": a for n, a in hf.items()}
    write_peft(tmp_path / "peft", tensors, target_modules=["q_proj", "k_proj", "down_proj"])
    write_gguf_adapter(tmp_path / "a.gguf", gguf_tensors(factors, 6))
    ids = np.arange(7)[None]
    base, adapted = (forward(params, ids, CONFIGS["llama"], adapter=a)[0][0, -1] for a in (None, adapter))
    expected = np.abs(adapted - base).max() / np.sqrt(np.mean(base**2))
    for path in ("ours", "peft", "a.gguf"):
        report = diagnose(tmp_path / path, bases / "llama")
        assert report["prompt"]["change"] == pytest.approx(expected, rel=1e-4), path
        assert report["prompt"]["ids"] == list(range(7))
        row = report["layers"][0]
        A, B = weights[f"{OURS}.lora_A"], weights[f"{OURS}.lora_B"]
        size = np.linalg.norm(2 * B @ A) / np.linalg.norm(params[f"{OURS}.weight"])
        assert row["change"] == pytest.approx(size, rel=1e-5) and row["scale"] == 2


@pytest.mark.parametrize(
    "fields, source, scale",
    [
        ({"lora_alpha": 16, "r": 8}, "16/8", 2),
        ({"lora_alpha": 16, "r": 8, "use_rslora": True}, "16/√8", 16 / 8**0.5),
        ({"r": 8, "alpha_pattern": {"q_proj": 4}}, "alpha_pattern q_proj: 4/8", 0.5),
        ({"r": 2, "rank_pattern": {"q_proj": 8}}, "rank_pattern q_proj: 8/8", 1),
        ({"r": "absent", "lora_alpha": "absent"}, "default r, default lora_alpha: 8/8", 1),
    ],
)
def test_where_a_scale_comes_from(fields, source, scale, bases, tmp_path):
    factors = random_factors(PARAMS["llama"], ["q_proj"], r=8)
    write_peft(tmp_path / "a", peft_tensors(factors), target_modules=["q_proj"], **fields)
    row = diagnose(tmp_path / "a", bases / "llama")["layers"][0]
    assert row["scale_from"] == source and row["scale"] == pytest.approx(scale) and row["rank"] == 8


def test_the_change_of_dora_is_that_of_the_weight(bases, tmp_path):
    params = PARAMS["gpt2"]
    save_adapter(tmp_path / "a", random_adapter(params, kind="dora", targets=["q_proj"]))
    arrays = load_adapter(tmp_path / "a", params).weights
    W, A, B, m = params[f"{OURS}.weight"], *(arrays[f"{OURS}.{x}"] for x in ("lora_A", "lora_B", M))
    V = W + 2 * B @ A
    expected = m[:, None] * V / np.linalg.norm(V, axis=1, keepdims=True)
    row = diagnose(tmp_path / "a", bases / "gpt2")["layers"][0]
    assert row["change"] == pytest.approx(np.linalg.norm(expected - W) / np.linalg.norm(W), rel=1e-5)


def test_blocks_share_a_line_unless_one_has_a_fault(tmp_path):
    config = tiny_config(n_layers=25)
    params = random_params(config, np.float32)
    save_model(tmp_path / "base", params, config)
    tensors = peft_tensors(random_factors(params, ["c_attn", "c_fc"]))
    tensors = changed("lora_B.weight", np.zeros_like, "transformer.h.7.mlp.c_fc")(tensors)
    write_peft(tmp_path / "a", tensors, target_modules=["c_attn", "c_fc"])
    text = format_diagnosis(diagnose(tmp_path / "a", tmp_path / "base"))
    rows = [line.split() for line in text.splitlines()[3:6]]
    layers = ["transformer.h.{0…24}.attn.c_attn", "transformer.h.{0…6,", "transformer.h.7.mlp.c_fc"]
    assert [row[0] for row in rows] == layers
    assert [row[-1] == "[1]" for row in rows] == [False, False, True]
    assert "[1] B is zero" in text and max(map(len, text.splitlines())) < 120


# ---------------------------------------------------------------- the base


def test_the_fingerprint_does_not_depend_on_the_file(tmp_path):
    params, config = PARAMS["gpt2"], CONFIGS["gpt2"]
    save_gpt2(tmp_path / "hf", params, config)
    save_model(tmp_path / "ours", params, config)
    assert fingerprint(read_base(tmp_path / "hf").params) == fingerprint(params)
    assert fingerprint(read_base(tmp_path / "ours").params) == fingerprint(params)
    assert fingerprint({**params, HEAD: np.ones((2, 12), np.float32)}) == fingerprint(params)
    for name in params:
        other = {**params, name: params[name] + np.float32(1)}
        assert fingerprint(other) != fingerprint(params), name
    weights, llama = written_gguf(tmp_path / "model.gguf")
    write_hf(tmp_path / "llama", weights, llama)
    of_file = [fingerprint(read_model(tmp_path / "model.gguf", weights=kind).params) for kind in ("dense", "blocks")]
    assert of_file == [fingerprint(weights)] * 2 == [fingerprint(read_base(tmp_path / "llama").params)] * 2


def test_whether_the_base_is_the_same(bases, tmp_path):
    params = PARAMS["llama"]
    tensors = peft_tensors(random_factors(params, QV))
    write_peft(tmp_path / "peft", tensors, {"base_sha256": fingerprint(params)})
    write_peft(tmp_path / "unknown", tensors, base_model_name_or_path="some/llama")
    gguf = gguf_tensors(random_factors(params, ["attn_q"], file="gguf"), 6)
    content = write_gguf_adapter(tmp_path / "a.gguf", gguf, lora_np_base_sha256=fingerprint(params)).read_bytes()
    (tmp_path / "a.gguf").write_bytes(content.replace(b"lora.np.base.sha256", b"lora_np.base_sha256"))
    for name in ("peft", "a.gguf"):
        assert diagnose(tmp_path / name, bases / "llama")["base"]["same"] is True
        other = diagnose(tmp_path / name, bases / "other")
        assert other["base"]["same"] is False and not other["faults"]
    unknown = diagnose(tmp_path / "unknown", bases / "llama")
    assert unknown["base"] == {"same": None, "named": "some/llama"}
    assert "some/llama" in format_diagnosis(unknown)


@pytest.mark.parametrize("base", ["gpt2", "llama"])
@pytest.mark.parametrize(
    "kind, to, out", [("LoRA", "peft", "p"), ("DoRA", "peft", "p"), ("patterns", "gguf", "a.gguf")]
)
def test_exports_are_healthy_and_know_their_base(kind, to, out, base, tmp_path, capsys):
    save_model(tmp_path / "base", PARAMS[base], CONFIGS[base], beside=new_files(tiny_tokenizer()))
    (tmp_path / "x").mkdir()
    path = ours(kind, base, tmp_path / "x", 7)
    export(path, to, tmp_path / out)
    assert_healthy(tmp_path / out, tmp_path / "base", capsys)
    exported, original = diagnose(tmp_path / out, tmp_path / "base"), diagnose(path)
    assert exported["base"]["same"] is True
    assert exported["prompt"]["change"] == pytest.approx(original["prompt"]["change"], rel=1e-3)


def test_an_adapter_of_ours_is_refused_by_another_base(bases, tmp_path, capsys):
    save_model(tmp_path / "base", PARAMS["llama"], CONFIGS["llama"])
    (tmp_path / "x").mkdir()
    path = ours("LoRA", "llama", tmp_path / "x", 0)
    assert diagnose(path)["base"]["same"] is True
    report, code = examined(path, bases / "other", capsys)
    assert code == 1 and report["base"]["same"] is False and "trained on another base" in report["faults"][0]


def test_a_base_of_hugging_face_with_its_tokenizer(tmp_path, run):
    params, config = written_gguf(tmp_path / "model.gguf")
    write_hf(tmp_path / "hf", params, config)
    write_peft(tmp_path / "a", peft_tensors(random_factors(params, QV)))
    words = ["--prompt", "some words", "--json", tmp_path / "r.json"]
    out = run("doctor", tmp_path / "a", "--base", tmp_path / "hf", *words)
    assert 'after "some words": the logits change by up to' in out
    assert json.loads((tmp_path / "r.json").read_text("utf-8"))["prompt"]["text"] == "some words"
    assert "the logits change" in run("doctor", tmp_path / "a", "--base", tmp_path / "model.gguf")


# ---------------------------------------------------------------- a user's mistakes


def test_what_is_no_adapter_is_an_error_in_one_line(bases, tmp_path, fails):
    base, good = bases / "llama", peft_llama(QV, "llama", tmp_path, 0)
    fails("doctor", tmp_path / "none", "--base", base, says=["no such folder"])
    fails("doctor", good, says=["base: is missing"])
    fails("doctor", good, "--base", tmp_path / "none", says=["none: no such folder"])
    fails("doctor", base, says=["base: is missing"])
    fails("doctor", base, "--base", base, says=["not an adapter", "expected a folder with"])
    fails("doctor", good, "--base", base, "--prompt", "words", says=["prompt: the base has no tokenizer"])
    fails("doctor", good, "--base", base, "--json", good / "x.json", says=["also read from"])
    written_gguf(tmp_path / "model.gguf")
    fails("doctor", tmp_path / "model.gguf", "--base", base, says=["no tensor of LoRA"])
    save_adapter(tmp_path / "vera", random_adapter(PARAMS["llama"], kind="vera"))
    fails("doctor", tmp_path / "vera", "--base", base, says=["kind 'vera', expected lora or dora"])
    edit_fields(good / "adapter_config.json", peft_type="LOHA")
    fails("doctor", good, "--base", base, says=["peft_type is 'LOHA'"])
    (good / "adapter_model.safetensors").write_bytes(b"x")
    edit_fields(good / "adapter_config.json", peft_type="LORA")
    fails("doctor", good, "--base", base, says=["not a complete safetensors file"])


def test_names_from_a_file_are_printed_with_escapes(bases, tmp_path, capsys):
    bad = "\x1b[2J\r\n" + "a" * 1000
    tensors = peft_tensors(random_factors(PARAMS["llama"], QV)) | {bad: np.ones(2, np.float32)}
    report, _ = examined(write_peft(tmp_path / "a", tensors, base_model_name_or_path=bad), bases / "llama", capsys)
    text = format_diagnosis(report)
    assert "\x1b" not in text and "\r" not in text and max(map(len, text.splitlines())) < 1200
    assert read_tensors(tmp_path / "a" / "adapter_model.safetensors")[0].keys() == tensors.keys()
