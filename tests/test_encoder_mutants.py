"""Mutants of what goes forward in an encoder, of its files and its tokenizer: tests of the quick run find them all.

test_planted_bugs.py derives mutants of what goes backward, with the same `mutants.py`.
"""

import ast
import json
import re
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest

from lora_np.formats import load_hf, read_json, read_tensors, save_hf
from lora_np.formats.sentence_transformers import IDENTITY, write_beside
from lora_np.model import forward
from lora_np.reference.cases.bert import bert_cases
from lora_np.reference.mutants import mutants

from . import test_bert
from .bugs_by_hand import in_a_folder, of_formulas, read_at_one_position, vectors
from .test_bert import TINY, saved
from .test_planted_bugs import IN_VAIN, SAME, package_functions, with_code
from .test_vectors import ENTRIES, FOLDER, load_case
from .tiny import edit_fields, edit_tensors, random_batch, random_params


def test_the_inputs_of_the_cases_are_drawn_again():
    for case in bert_cases():
        reference = load_case(ENTRIES[case.id], "float64", FOLDER)
        assert all(np.array_equal(reference[name], array) for name, array in case.inputs.items()), case.id


def test_the_first_token_goes_through_the_pooler():
    config = replace(TINY, pooling="cls")
    params, batch, seen = random_params(config), random_batch(config, T=5), {}
    logits, _ = forward(params, batch.ids, config, lengths=batch.lengths, record=seen)
    h = np.tanh(seen["blocks.1.norm2"][:, 0] @ params["pooler.weight"].T + params["pooler.bias"])
    np.testing.assert_allclose(logits, h @ params["head.weight"].T + params["head.bias"], rtol=1e-12)
    assert not any("head" in name for name in random_params(replace(config, n_classes=0)))


@pytest.mark.parametrize(
    "n_classes, kinds", [(0, ["Transformer", "Pooling"]), (4, ["Transformer", "Pooling", "Dense"])]
)
def test_the_files_of_sentence_transformers(n_classes, kinds, tmp_path):
    extra, folder = {"attention_probs_dropout_prob": 0.25} if n_classes else {}, tmp_path / "x"
    config = replace(TINY, n_positions=9, n_classes=n_classes, extra=extra)
    save_hf(folder, random_params(config, np.float32), config)
    written = {path.relative_to(folder).as_posix(): read_json(path) for path in folder.rglob("*.json")}
    fields = written.pop("config.json")
    assert fields["attention_probs_dropout_prob"] == 0.0625 * n_classes and fields["hidden_act"] == "gelu"
    modes = {f"pooling_mode_{name}_tokens": name == "mean" for name in ("mean", "max", "mean_sqrt_len")}
    files = {"modules.json": [
        {"idx": i, "name": f"{i}", "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]}  # fmt: skip
    files["sentence_bert_config.json"] = {"max_seq_length": 9, "do_lower_case": False}
    files["1_Pooling/config.json"] = {"word_embedding_dimension": 6, "pooling_mode_cls_token": False, **modes}
    if n_classes:
        sizes = {"in_features": 6, "out_features": 4, "bias": True}
        files["2_Dense/config.json"] = {**sizes, "activation_function": IDENTITY}
        assert read_tensors(folder / "2_Dense" / "model.safetensors")[1] == {"format": "pt"}
    assert written == files and "pooling" not in fields
    names = read_tensors(folder / "model.safetensors")[0]
    assert "embeddings.word_embeddings.weight" in names and not any("classifier" in name for name in names)
    for about, limit in [({"max_seq_length": n}, min(n or 9, 9)) for n in (0, 1, 99)] + [
        ({"max_seq_length": "x"}, 9),
        (5, 9),
    ]:
        _, files = write_beside(replace(config, n_classes=0, extra={"sentence_transformers": about}), {})
        assert len(files) == 3 and json.loads(files["sentence_bert_config.json"])["max_seq_length"] == limit


HEAD = "2_Dense/model.safetensors"
SPOILT = [  # changes of a classifier's directory, which is then refused
    lambda folder: edit_fields(folder / "2_Dense" / "config.json", use_residual=True),
    lambda folder: edit_tensors(folder / HEAD, lambda t: t | {"more": t["linear.weight"]}),
    lambda folder: edit_fields(folder / "config.json", id2label=5),
    lambda folder: (folder / "modules.json").write_text("5"),
    lambda folder: (folder / "modules.json").write_text('["x"]'),
]


def test_what_is_missing_has_its_default_and_what_is_odd_is_refused(tmp_path):
    folder = saved(tmp_path / "x", 4)
    (folder / "sentence_bert_config.json").unlink()
    edit_fields(folder / "config.json", pooling="cls", type_vocab_size="absent")
    edit_tensors(folder / HEAD, lambda t: {"linear.weight": t["linear.weight"]})
    model = load_hf(folder)
    assert (model.config.pooling, model.config.n_types) == ("mean", 2) and not model.params["head.bias"].any()
    assert model.config.extra["sentence_transformers"] == {"max_seq_length": None, "normalize": False}
    for spoil in SPOILT:
        spoil(saved(folder, 4))
        with pytest.raises(ValueError):
            load_hf(folder)
    test_bert.test_words_in_a_text_file({"do_lower_case": False, "unk_token": "e"}, [2, 10, 6, 7, 3], tmp_path)


# ------------------------------------------------------------------ mutants

MODEL = r"ops\.gelu_erf\.(dist|gelu_erf_f)|ops\.mean_pool\.\w+_f|model\.bert\.(mod|\w+_forward)|model\.operations\.("
MODEL += r"attention|last_keys|gelu_erf|embed|dropout|residual|mean_pool|first_token|tanh)$"
FILES = r"formats\.sentence_transformers\.|formats\.config_fields\.\w*bert|data\.tokenizer_files\.word_piece"
ALL = dict(one for folder in ("ops", "model", "formats", "data") for one in package_functions(folder))
NAMES = [name for name in ALL if re.match(f"{MODEL}|{FILES}", name)]
EQUIVALENT = [  # (function, its mutants' sentences, why no test can show them)
    ("gelu_erf.distribution", r"dtype == np.float64 is dropped", "is exact in float32, too, but slower"),
    ("gelu_erf_forward|mean_pool_forward", r" is (np.empty_like\(|weights|\(dy_dx,\)).* regardless", IN_VAIN),
    ("bert.embed_forward", r"run\('tok_emb', ids\) and place swapped", SAME),
    ("read_beside", r"tensors and dense_head\(.*\) swapped", "concerns a model with two heads"),
    ("word_piece", r"text and vocab\[text\] swapped", "is the same to tokenizers"),
]
POOLINGS = ("mean", "cls")


@cache
def finders(name):
    """Tests, as functions without arguments, that pass with the right code of a function."""
    if re.match(MODEL, name):
        found = [vectors(kind) for kind in ("bert", "gelu_erf", "mean_pool", "encoder_attention")]
        found += [test_the_inputs_of_the_cases_are_drawn_again, test_the_first_token_goes_through_the_pooler]
        found += [test_bert.test_gelu_in_float32_is_as_exact_as_its_source_says, of_formulas, read_at_one_position]
        found += [partial(test_bert.check_padding, replace(TINY, pooling=pooling)) for pooling in POOLINGS]
    else:
        tests = [test_the_files_of_sentence_transformers, test_bert.test_words_in_a_text_file]
        tests += [test_bert.test_a_directory_that_pools_in_another_way_is_refused]
        tests += [test_bert.test_other_models_are_refused_by_name]
        found = [in_a_folder(test, *case) for test in tests for case in test.pytestmark[0].args[1]]
        directories = test_bert.test_directories_are_read_as_they_were_written
        found[2:2] = [in_a_folder(directories, pooling, n_classes) for pooling in POOLINGS for n_classes in (0, 4)]
        found[2:2] = [in_a_folder(test_what_is_missing_has_its_default_and_what_is_odd_is_refused)]
        found += [in_a_folder(test_bert.test_a_folder_in_modules_json_stays_in_the_directory)]
        found += [in_a_folder(test_bert.test_a_pooler_decides_between_the_poolings_of_transformers)]
    return found


def is_found(name, code):
    try:
        with with_code(ALL[name].real, code), np.errstate(all="ignore"):
            for test in finders(name):
                test()
    except (Exception, pytest.fail.Exception):
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_mutant_is_found(name):
    assert not is_found(name, ast.unparse(ALL[name].tree))
    excepted = "|".join(sentences for where, sentences, _ in EQUIVALENT if re.search(where, name)) or "^$"
    wrong = [m for m in mutants(ALL[name].tree) if is_found(name, m.code) is bool(re.search(excepted, m.sentence))]
    assert [(m.line, m.sentence) for m in wrong] == []
