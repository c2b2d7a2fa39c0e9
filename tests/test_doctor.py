"""The doctor: planted faults are named, with the right exit code; healthy adapters have none."""

import json
import re

import numpy as np
import pytest

from lora_np.adapters import HEAD, adapter_deltas, whole_weights
from lora_np.adapters.dora import MAGNITUDE, row_norms
from lora_np.cli import main
from lora_np.data import new_files
from lora_np.formats import load_task, save_adapter, save_hf, save_model, save_peft, save_task
from lora_np.formats.model import LoadedModel, fingerprint, read_model
from lora_np.model import forward
from lora_np.tasks.doctor import diagnose, format_diagnosis
from lora_np.tasks.exchange import export

from .adapter_faults import GGUF_FAULTS, OUR_FAULTS, PEFT_FAULTS, QV, REFUSED_GGUF, M, changed, gone, peft_ones
from .adapter_files import ALPHA, R, gguf_tensors, peft_tensors, random_factors, write_gguf_adapter, write_peft
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

FAULTS = {"PEFT": PEFT_FAULTS, "GGUF": GGUF_FAULTS, "ours": OUR_FAULTS}


def planted(path, form, name):
    """An adapter with a fault: its path, the name of its base, and the layer, status, note and exit code to expect."""
    if form == "PEFT":
        base, change, fields, *expected = PEFT_FAULTS[name]
        with np.errstate(all="ignore"):
            tensors = change(peft_tensors(random_factors(PARAMS[base], ["c_attn"] if base == "gpt2" else QV)))
        return write_peft(path, tensors, **fields), base, *expected
    change, fields, *expected = FAULTS[form][name]
    if form == "GGUF":
        tensors = change(gguf_tensors(random_factors(PARAMS["llama"], ["attn_q", "attn_v"], file="gguf"), 6))
        return write_gguf_adapter(path.with_suffix(".gguf"), tensors, **fields), "llama", *expected
    save_adapter(path, random_adapter(PARAMS["gpt2"], targets=QV, r=R, alpha=ALPHA))
    edit_tensors(path / "adapter.safetensors", change)
    edit_fields(path / "adapter.json", **fields)
    return path, "gpt2", *expected, 1


@pytest.mark.parametrize("form, name", [(form, name) for form, faults in FAULTS.items() for name in faults])
def test_a_fault_is_named(form, name, bases, tmp_path, capsys):
    path, base, layer, status, note, code = planted(tmp_path / "a", form, name)
    report, exit_code = examined(path, bases / base, capsys)
    rows = [row for row in report["layers"] if row["layer"].endswith(layer)]
    assert any(row["status"] == status and any(note in text for text in row["notes"]) for row in rows), rows
    assert exit_code == code, report["faults"]
    assert name != "DoRA without magnitudes" or rows[0]["change"] > 0 < report["prompt"]["change"]


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


def ours(path, base, name):
    """A task on a folder with one of the tiny models, in a folder whose path it returns."""
    params, config = PARAMS[base.name], CONFIGS[base.name]
    labels = list("abcd") if config.n_classes else None
    model = LoadedModel(params, config, gentle(params, 2, **SETTINGS[name]), None, labels)
    save_task(path, model, base, {"method": "lora"})
    return path


def peft(path, base, ends, r=R, dora=False, **fields):
    factors = random_factors(PARAMS[base.name], ends, 5, r=r, dora=dora)
    return write_peft(path, peft_tensors(factors), **{"r": r, "use_dora": dora, **fields})


def gguf(path, base, ends, **fields):
    tensors = gguf_tensors(random_factors(PARAMS[base.name], ends, 6, "gguf"), 6)
    return write_gguf_adapter(path.with_suffix(".gguf"), tensors, **fields)


PEFTS = [
    (QV, {}), (["proj"], {"target_modules": "all-linear"}), (QV, {"r": 2, "use_rslora": True}), (QV, {"dora": True}),
    (["up_proj"], {"target_modules": r".*mlp\.up_proj"}), (["k_proj"], {"target_modules": ["k_proj"], "bias": "none"}),
    (["0.self_attn.q_proj"], {"target_modules": ["q_proj"], "layers_to_transform": [0]}),
]  # fmt: skip
GGUFS = [["attn_q", "attn_v"], ["attn_output", "ffn_down"], ["attn_k"]]
NOTES = r"adapter\.lora\.alpha is missing: the scale is 1|B's rows are read in .*? cannot be checked| "  # are no faults
HEALTHY = [(peft, ends, fields, base) for ends, fields in PEFTS for base in ("llama", "untied")]
HEALTHY += [(gguf, ends, fields, "llama") for ends in GGUFS for fields in ({}, {"adapter_lora_alpha": None})]


@pytest.mark.parametrize("make, what, fields, base", HEALTHY)
def test_a_healthy_adapter_has_no_fault(make, what, fields, base, bases, tmp_path, capsys):
    report = assert_healthy(make(tmp_path / "a", bases / base, what, **fields), bases / base, capsys)
    assert report["prompt"]["ids"] == list(range(7))


def assert_healthy(path, base, capsys):
    report, code = examined(path, base, capsys)
    assert code == 0 and report["prompt"]["change"] > 0 and set(report["prompt"]["left_out"]) <= {"score", "head"}
    notes = " ".join(note for row in report["layers"] for note in row["notes"])
    assert all(row["status"] == "applied" for row in report["layers"])
    assert not re.sub(NOTES, "", notes), notes
    return report


def test_a_head_alone_is_an_effect(bases, tmp_path, capsys):
    adapter = gentle(PARAMS["gpt2 classifier"], 1, targets=())
    save_peft(tmp_path / "a", adapter, PARAMS["gpt2 classifier"], CONFIGS["gpt2 classifier"])
    for base in ("gpt2", "gpt2 classifier"):
        report, code = examined(tmp_path / "a", bases / base, capsys)
        assert code == 0 and report["prompt"]["left_out"] == ["score"]
    edit_tensors(tmp_path / "a" / "adapter_model.safetensors", changed("score.weight", gone, ""))
    assert examined(tmp_path / "a", bases / "gpt2", capsys)[1] == 1


def test_dora_of_an_embedding_is_not_a_fault(bases, tmp_path, capsys):
    tensors = peft_tensors(random_factors(PARAMS["untied"], QV, dora=True))
    shapes = {"lora_embedding_A": (R, 13), "lora_embedding_B": (12, R), M: (12,)}
    tensors = peft_ones(**{f"model__embed_tokens__{leaf}": shape for leaf, shape in shapes.items()})(tensors)
    write_peft(tmp_path / "a", tensors, use_dora=True, target_modules=[*QV, "embed_tokens"])
    report, code = examined(tmp_path / "a", bases / "untied", capsys)
    assert code == 0 and report["prompt"]["left_out"] == ["model.embed_tokens"]


@pytest.mark.parametrize("shape, code", [((), 1), ((12,), 1), ((0, 12), 0), ((1, 12), 0)])
def test_heads_of_strange_shapes(shape, code, bases, tmp_path, capsys):
    tensors = peft_ones(score__weight=shape)(peft_tensors(random_factors(PARAMS["untied"], QV)))
    report, exit_code = examined(write_peft(tmp_path / "a", tensors, task_type="SEQ_CLS"), bases / "untied", capsys)
    assert exit_code == code and report["layers"][-1]["layer"] == "score"


# ---------------------------------------------------------------- the numbers


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
    save_hf(tmp_path / "hf", params, config)
    save_model(tmp_path / "ours", params, config)
    for name in ("hf", "ours"):
        assert fingerprint(read_model(tmp_path / name, needs_tokenizer=False).params) == fingerprint(params), name
    assert fingerprint({**params, HEAD: np.ones((2, 12), np.float32)}) == fingerprint(params)
    for name in params:
        other = {**params, name: params[name] + np.float32(1)}
        assert fingerprint(other) != fingerprint(params), name
    weights, llama = written_gguf(tmp_path / "model.gguf")
    write_hf(tmp_path / "llama", weights, llama)
    of_file = [fingerprint(read_model(tmp_path / "model.gguf", weights=kind).params) for kind in ("dense", "blocks")]
    of_folder = fingerprint(read_model(tmp_path / "llama", needs_tokenizer=False).params)
    assert of_file == [fingerprint(weights)] * 2 == [of_folder] * 2


def test_whether_the_base_is_the_same(bases, tmp_path):
    tensors = peft_tensors(random_factors(PARAMS["llama"], QV))
    write_peft(tmp_path / "known", tensors, {"base_sha256": fingerprint(PARAMS["llama"])})
    write_peft(tmp_path / "unknown", tensors, base_model_name_or_path="some/llama")
    other, unknown = diagnose(tmp_path / "known", bases / "other"), diagnose(tmp_path / "unknown", bases / "llama")
    assert other["base"]["same"] is False and not other["faults"]
    foreign = diagnose(ours(tmp_path / "ours", bases / "llama", "LoRA"), bases / "other")
    assert foreign["base"]["same"] is False and foreign["faults"]
    assert unknown["base"] == {"same": None, "named": "some/llama"}
    assert "some/llama" in format_diagnosis(unknown)


EXPORTS = [(name, "peft", base) for name in SETTINGS for base in ("gpt2", "gpt2 classifier", "llama")]
EXPORTS += [("patterns", "gguf", "gpt2"), ("patterns", "gguf", "llama")]


@pytest.mark.parametrize("kind, to, base", EXPORTS)
def test_adapters_of_ours_and_exports_are_healthy_and_know_their_base(kind, to, base, tmp_path, capsys):
    """And the sizes of the changes, of weights and of logits, are those that the adapter makes."""
    save_model(tmp_path / base, PARAMS[base], CONFIGS[base], beside=new_files(tiny_tokenizer()))
    path, out = ours(tmp_path / "a", tmp_path / base, kind), tmp_path / f"out.{to}"
    export(path, to, out)
    task, expected = load_task(path), {}
    for name, delta in adapter_deltas(task.params, task.adapter).items():
        expected[name.removesuffix(".weight")] = np.linalg.norm(delta) / np.linalg.norm(task.params[name])
    params = {**task.params, **whole_weights(task.adapter)}
    for adapter in (out, path):
        report = assert_healthy(adapter, tmp_path / base, capsys)
        assert report["base"]["same"] is True
        ids = np.array([report["prompt"]["ids"]])
        before, after = (forward(params, ids, task.config, adapter=a)[0][0] for a in (None, task.adapter))
        before, after = (before, after) if task.config.n_classes else (before[-1], after[-1])
        change = np.abs(after - before).max() / np.sqrt(np.mean(before**2))
        assert report["prompt"]["change"] == pytest.approx(change, rel=1e-4)
        changes = {row["layer"]: row["change"] for row in report["layers"]}
        if adapter == path:
            changes.pop(HEAD.removesuffix(".weight"), None)
            assert changes == pytest.approx(expected, rel=1e-5)
        elif base == "llama":  # where no layers are fused
            assert sorted(changes.values()) == pytest.approx(sorted(expected.values()), rel=1e-5)


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
    base, good = bases / "llama", peft(tmp_path / "a", bases / "llama", QV)
    fails("doctor", good, says=["base: is missing"])
    fails("doctor", base, says=["base: is missing"])
    fails("doctor", base, "--base", base, says=["not an adapter", "expected a folder with"])
    fails("doctor", good, "--base", base, "--prompt", "words", says=["but the base has no tokenizer"])
    written_gguf(tmp_path / "model.gguf")
    fails("doctor", tmp_path / "model.gguf", "--base", base, says=["has no LoRA tensors"])
    save_adapter(tmp_path / "vera", random_adapter(PARAMS["llama"], kind="vera"))
    fails("doctor", tmp_path / "vera", "--base", base, says=["kind 'vera', expected lora or dora"])
    edit_fields(good / "adapter_config.json", peft_type="LOHA")
    fails("doctor", good, "--base", base, says=["peft_type is 'LOHA'"])
    (good / "adapter_model.safetensors").write_bytes(b"x")
    edit_fields(good / "adapter_config.json", peft_type="LORA")
    fails("doctor", good, "--base", base, says=["not a complete safetensors file"])
