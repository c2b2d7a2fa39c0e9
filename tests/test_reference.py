"""The reference vectors, and the checker that holds ports to them: what it accepts, what it refuses, what it says."""

import functools
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lora_np import reference
from lora_np.cli import main
from lora_np.formats import read_json, read_tensors, write_tensors
from lora_np.reference import MANIFEST, VECTORS, check, compare_exports, exit_code, export, load_case, load_manifest
from lora_np.reference.cases import reference_cases
from lora_np.reference.cases.draws import bits_of, uniform
from lora_np.reference.causes import functions_for, known_factor, likely_causes, looks
from lora_np.reference.mistakes import MISTAKES
from lora_np.reference.sections import sections_of
from lora_np.reference.tolerances import RTOL, allowed, rms, round_up, shares
from lora_np.reference.wrong import derived, known, wrong_outputs

ENTRIES, _ = load_manifest()
DTYPES = ("float64", "float32")
MOST_BYTES = 6_200_000
RUNS = ("train-full", "train-lora")


@pytest.fixture(autouse=True)
def without_search(monkeypatch):
    """Causes are not searched for among mutations of the plain program, which takes seconds; one manifest is reused."""
    module = sys.modules[check.__module__]
    monkeypatch.setattr(module, "DERIVED", 0)
    monkeypatch.setattr(module, "load_manifest", lambda at=None: load_manifest(at) if at else (ENTRIES, VECTORS))


@pytest.fixture
def with_search(without_search, monkeypatch):
    monkeypatch.setattr(sys.modules[check.__module__], "DERIVED", 3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    export(folder)
    return folder


@functools.cache
def parts(id, dtype="float64"):
    """A case's inputs and its outputs; not to be changed."""
    arrays, stages = load_case(ENTRIES[id], dtype, VECTORS), {r["name"]: r["stage"] for r in ENTRIES[id]["tensors"]}
    return tuple({n: a for n, a in arrays.items() if (stages[n] == "input") is inputs} for inputs in (True, False))


def outputs_of(id):
    return {name: array.copy() for name, array in parts(id)[1].items()}


def off(id, got, dtype="float64"):
    """The names of a case's outputs that are not the reference's, in order."""
    right, records = parts(id, dtype)[1], {record["name"]: record for record in ENTRIES[id]["tensors"]}
    return [
        name
        for name, array in right.items()
        if got[name].shape != array.shape or (shares(got[name], array, *allowed(records[name], dtype)) > 1).any()
    ]


def made(id, changes, dtype="float64"):
    """The outputs of the plain program with changes in it."""
    entry = ENTRIES[id]
    return wrong_outputs(changes, entry["kind"], entry["settings"], parts(id, dtype)[0], dtype)


# ---------------------------------------------------------------- the vectors


@pytest.mark.slow
def test_the_shipped_vectors_are_those_of_this_code(exported):
    """Within their tolerances on any machine; and the checker passes on both."""
    agree, said = compare_exports(exported)
    assert agree and "all are within their tolerances" in said
    for folder in (exported, VECTORS):
        results, complaints = check(folder)
        assert exit_code(results, complaints) == 0
        assert len(results) == sum(len(entry["files"]) for entry in ENTRIES.values())
    assert not any(result.worst[0] for result in results), "the vectors agree with themselves to the last bit, JSON too"


@pytest.mark.slow
def test_the_command_exports_the_same_bytes_again(exported, tmp_path, capsys):
    assert main(["reference", "export", str(tmp_path / "vectors")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[: len(ENTRIES)] == list(ENTRIES) and "all are within their tolerances" in said[-1]
    first, second, shipped = ({path.name for path in f.iterdir()} for f in (exported, tmp_path / "vectors", VECTORS))
    assert first == second == shipped
    for name in first:
        assert (tmp_path / "vectors" / name).read_bytes() == (exported / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["Haswell", "Sandybridge", "Prescott"])
def test_another_processors_products_agree_within_the_tolerances(kernels, tmp_path):
    """OpenBLAS is told to use another processor's kernels, which sum in another order."""
    code = f"from lora_np.reference import export; export({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OPENBLAS_CORETYPE": kernels})
    agree, said = compare_exports(tmp_path)
    assert agree, said


@pytest.mark.slow
def test_the_manifest_is_what_its_schema_says():
    jsonschema = pytest.importorskip("jsonschema")
    manifest, schema = read_json(VECTORS / MANIFEST), read_json(VECTORS / "manifest.schema.json")
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(manifest, schema)
    first = manifest["cases"][0]
    for wrong in ({"cases": []}, {"format_version": 2}, {"cases": [{**first, "id": "Not A Name"}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**manifest, "cases": [first], **wrong}, schema)


def test_the_vectors_are_small_and_complete():
    files = {path.name: path.stat().st_size for path in VECTORS.iterdir()}
    assert sum(files.values()) <= MOST_BYTES
    named = {file for entry in ENTRIES.values() for file in entry["files"].values()}
    assert set(files) == named | {MANIFEST, "manifest.schema.json"}
    assert {entry["tier"] for entry in ENTRIES.values()} == {1, 2, 3, 4, 5, 6}
    assert list(ENTRIES) == list(reference_cases())
    for id, entry in ENTRIES.items():
        assert [r["order"] for r in entry["tensors"]] == list(range(len(entry["tensors"])))
        for dtype in DTYPES:
            assert set(read_tensors(VECTORS / entry["files"][dtype])[0]) == {r["name"] for r in entry["tensors"]}, id


def test_every_input_is_a_float32_number():
    """Then both precisions start from the same numbers."""
    for id, entry in ENTRIES.items():
        if id != "linear-subnormal" and not entry["kind"].endswith("_read"):
            narrow = parts(id, "float32")[0]
            for name, array in parts(id)[0].items():
                assert np.array_equal(array.astype(narrow[name].dtype), narrow[name]), (id, name)
                assert np.array_equal(array, narrow[name].astype(array.dtype)), (id, name)


def test_the_edges_are_there():
    """The cases that the edges are for really lie on them."""
    t = {id: load_case(entry, "float64", VECTORS) for id, entry in ENTRIES.items()}
    assert not t["layer-norm-equal-rows"]["x_hat"][0].any(), "rows of equal numbers come out as exactly 0"
    assert np.abs(t["softmax-1e4"]["x"]).max() >= 1e4 and np.abs(t["cross-entropy-80"]["logits"]).max() == 80
    assert (t["cross-entropy-one-real"]["targets"] != -100).sum() == 1
    assert not t["lora-b-0"]["lora_B"].any() and not t["lora-b-0"]["grad.lora_A"].any()
    assert t["lora-b-0"]["grad.lora_B"].any() and not t["lora-alpha-0"]["grad.lora_B"].any()
    for dtype in DTYPES:
        assert 0 < np.abs(parts("linear-subnormal", dtype)[1]["y"]).max() < np.finfo(dtype).tiny
    assert t["lora-full-rank"]["lora_A"].shape[0] == min(t["lora-full-rank"]["weight"].shape)
    assert set(np.unique(t["gelu-saturated"]["slope"])) >= {0.0, 1.0}
    assert (t["model-lm"]["lengths"] < t["model-lm"]["ids"].shape[1]).any(), "a padded batch"
    for id in ("train-full", "train-lora", "train-dora"):
        norms, clip = t[id]["step.50.grad_norm"], ENTRIES[id]["settings"]["train"]["clip_norm"]
        assert 0 < (norms > clip).mean() < 1, "clipped at some steps and not at others"
        assert t[id]["step.50.loss"].mean() < 0.8 * t[id]["step.1.loss"], "learns something"
    for id in ("generate-lm", "generate-lora", "generate-dora"):
        margins = [array.min() for name, array in t[id].items() if name.endswith("margin")]
        assert min(margins) > 0.01, "far more than rounding in either precision"


def test_the_files_describe_themselves():
    """A port reads settings and inputs from a case's own file: a safetensors file's metadata, or JSON."""
    for id, entry in ENTRIES.items():
        expected = {
            "case": id,
            "inputs": list(parts(id)[0]),
            **{name: entry[name] for name in ("tier", "kind", "settings")},
        }
        for name in entry["files"].values():
            path, dtype = VECTORS / name, name.split(".")[1]
            about = read_json(path) if path.suffix == ".json" else json.loads(read_tensors(path)[1]["lora_np"])
            assert {**about, "tensors": None} == {**expected, "dtype": dtype, "tensors": None}
    assert sum("json" in entry["files"] for entry in ENTRIES.values()) >= 15


def test_draws_are_raw_words_of_a_bit_generator():
    """As computed by hand from PCG64's first words, which NumPy promises to keep; the seed is the name's CRC-32."""
    words = np.random.PCG64(0xD87F7E0C).random_raw(2)
    expected = [float(np.float32(-1.0 + 2.0 * (int(word) >> 40) / 2**24)) for word in words]
    assert uniform(bits_of("test"), (2,)).tolist() == expected


# ---------------------------------------------------------------- tolerances


def test_a_tolerance_is_not_below_rounding_and_not_above_a_mistake():
    for id, entry in ENTRIES.items():
        for record in (record for record in entry["tensors"] if record["stage"] != "input"):
            for dtype, epsilon, most in (("float64", 2.0**-52, 1e-10), ("float32", 2.0**-23, 0.05)):
                atol, size = record[dtype]["atol"], record[dtype]["rms"]
                exact = "exact" in entry["flags"] or not record[dtype]["dtype"].startswith("F")
                assert atol == 0 if exact else atol >= 15 * epsilon * size, (id, record["name"])
                # What is zero in theory is rounding: its tolerance has no measure in its own size.
                zero = record["name"].endswith("k_proj.bias") or size == 0
                assert zero or atol <= most * size, (id, record["name"])


def test_measures():
    assert rms(np.array([3.0, 4.0, np.inf])) == pytest.approx(np.sqrt(12.5), rel=1e-15)
    assert rms(np.array([3e-320, 4e-320])) > 0 and rms(np.zeros(3)) == 0 and rms(np.array([-np.inf])) == 0
    inf, nan = np.inf, np.nan
    assert shares([1.0, -inf, inf, nan, nan], [1.5, -inf, -inf, 1.0, nan]).tolist() == [0.5, 0.0, inf, inf, 0.0]
    assert shares([1.5, 0.0, 3.0, inf], [1.0, 0.0, 3.5, 3.0], 0.25, 0.0).tolist() == [2.0, 0.0, 2.0, inf]
    assert shares([1.0, 1.0], [1.0, 2.0], 0.0, 0.0).tolist() == [0.0, inf]  # equal, or not
    assert shares([-1e9, -inf], [-inf, -inf], 0.25, 1e-3).tolist() == [inf, 0.0]
    assert [round_up(x) for x in (1.21e-7, 1.3e-7, 0.0, 9.91e3)] == [1.3e-7, 1.3e-7, 0.0, 1e4]


# ---------------------------------------------------------------- the known mistakes


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_plain_program_agrees(dtype):
    """It shares no code with the package, and it is what mistakes are made in."""
    for id in ENTRIES:
        assert not off(id, made(id, {}, dtype), dtype), id


def test_a_mistake_leaves_the_plain_program_as_it_is():
    for mistake in MISTAKES:
        known(mistake)  # each changes texts that occur once
    assert off("gelu", made("gelu", known("this is ReLU, not GELU")))
    assert not off("gelu", made("gelu", {}))


@pytest.mark.nightly
def test_every_known_mistake_shows_and_is_named():
    """Also if it is another program's, which rounds differently. Most are named alone, and those that are not are the
    same for that case."""
    alone, rng = 0, np.random.default_rng(0)
    cases = [*(id for id, entry in ENTRIES.items() if "train" not in entry["settings"]), *RUNS]
    for mistake in MISTAKES:
        shown = []  # what is named where it shows
        for id in cases:
            if len(shown) == 2 or shown and id in RUNS:  # only what a single step does not show
                break
            entry, (inputs, right) = ENTRIES[id], parts(id)
            try:
                wrong = made(id, known(mistake))
            except (ArithmeticError, ValueError, LookupError):  # this case makes the mistake impossible
                continue
            wrong = {name: wrong[name] for name in right if name in wrong}
            for name, array in wrong.items():
                if array.dtype.kind == "f" and "exact" not in entry["flags"]:
                    wrong[name] = array + 4e-16 * np.clip(array, -1e300, 1e300) * rng.uniform(-1.0, 1.0, array.shape)
            first = next(iter(off(id, wrong)), None)
            if first is not None and wrong[first].shape == right[first].shape:
                shown.append(likely_causes(entry, {**inputs, **right}, wrong, first, "float64")[0])
        assert any(mistake in causes for causes in shown), mistake
        alone += shown.count([mistake])
    assert alone > len(MISTAKES)


# ---------------------------------------------------------------- bad input

LINEAR = ENTRIES["linear"]
Y = np.zeros((2, 3, 4))  # of y's shape


def written(folder, **changes):
    """A port's outputs for the case `linear`, with changes; a change to None leaves a tensor out."""
    tensors = {**outputs_of("linear"), **changes}
    write_tensors(folder / "linear.float64.safetensors", {n: a for n, a in tensors.items() if a is not None})


def as_npy(folder, order="C", dtype="<f8"):
    (folder / "linear.float64").mkdir()
    for name, array in outputs_of("linear").items():
        np.save(folder / "linear.float64" / f"{name}.npy", np.asarray(array, dtype=dtype, order=order))


def spoilt_npy(folder, change=(b"", b""), end=b""):
    """A folder of .npy files in which y's bytes are changed."""
    as_npy(folder)
    path = folder / "linear.float64" / "y.npy"
    path.write_bytes(path.read_bytes().replace(*change) + end)


def as_json(folder, **change):
    """Outputs as JSON; functions of y's shape or values change those."""
    tensors = {name: {"shape": list(a.shape), "values": a.ravel().tolist()} for name, a in outputs_of("linear").items()}
    for field, of in change.items():
        tensors["y"][field] = of(tensors["y"][field])
    as_text(folder, json.dumps({"tensors": tensors}))


def as_text(folder, text):
    (folder / "linear.float64.json").write_text(text)


def as_bfloat16(folder):
    """A safetensors file whose y is of bfloat16, of the right shape: float16 under another name."""
    written(folder, y=Y.astype(np.float16))
    path = folder / "linear.float64.safetensors"
    length, data = path.read_bytes()[:8], path.read_bytes()[8:].replace(b'"F16"', b'"BF16"', 1)
    path.write_bytes((int.from_bytes(length, "little") + 1).to_bytes(8, "little") + data)


def with_entry(folder, make):
    """A folder of .npy files in which something that is no file takes y's place."""
    as_npy(folder)
    (folder / "linear.float64" / "y.npy").unlink()
    make(folder / "linear.float64" / "y.npy")


def checked(capsys, folder, *options):
    """(exit code, what was printed, the error) of the command on the case `linear`."""
    code = main(["reference", "check", str(folder), "--case", "linear", *options])
    out = capsys.readouterr()
    assert "Traceback" not in out.out + out.err
    return code, out.out, out.err


@pytest.mark.parametrize("form, write", [("safetensors", written), ("npy", as_npy), ("json", as_json)])
def test_what_is_right_passes_in_every_form_and_what_is_cut_off_is_said(form, write, tmp_path, capsys):
    write(tmp_path)
    code, out, _ = checked(capsys, tmp_path)
    assert code == 0 and "1 of 1 cases agree" in out
    path = tmp_path / ("linear.float64/y.npy" if form == "npy" else f"linear.float64.{form}")
    whole = path.read_bytes()
    for cut in (1, 100, 400):
        path.write_bytes(whole[:-cut])
        code, out, _ = checked(capsys, tmp_path)
        assert code == 2 and ("linear.float64: y is" if form == "npy" else path.name) in out


NOT_COMPLETE = "y is not a complete .npy file"
UNUSABLE = {  # what is done to the outputs, and what has to be said
    "missing": (lambda f: written(f, **{"grad.x": None}), "grad.x is missing"),
    "extra": (lambda f: written(f, loss=np.zeros(1)), "loss is not a tensor of this case"),
    "shape": (lambda f: written(f, y=np.zeros((6, 4))), "y has shape (6, 4), expected (2, 3, 4)"),
    "dtype": (lambda f: written(f, y=Y.astype(np.float32)), "y has dtype float32, expected float64"),
    "separators": (lambda f: written(f, **{"grad.x": None, "grad/x": np.zeros((2, 3, 6))}),
                   "grad/x is not a tensor of this case; it looks like grad.x"),
    "capitals": (lambda f: written(f, **{"grad.x": None, "Grad.X": np.zeros((2, 3, 6))}),
                 "Grad.X is not a tensor of this case"),
    "Fortran": (lambda f: as_npy(f, "F"), "y is in Fortran order"),
    "big-endian": (lambda f: as_npy(f, dtype=">f8"), "y is big-endian, >f8; expected <f8"),
    "objects": (lambda f: as_npy(f, dtype=object), NOT_COMPLETE),
    "records": (lambda f: as_npy(f, dtype=[("a", "2<f8")]), "y has dtype"),
    "more bytes": (lambda f: spoilt_npy(f, end=b"12345678"), "y has 8 extra bytes after"),
    "an open bracket": (lambda f: spoilt_npy(f, (b"'<f8'", b"[    ")), NOT_COMPLETE),
    "a wrong shape": (lambda f: spoilt_npy(f, (b"(2, 3, 4)", b"(999999,)")), NOT_COMPLETE),
    "a huge shape": (lambda f: spoilt_npy(f, (b"(2, 3, 4), }    ", b"(9999999999999,)")), NOT_COMPLETE),
    "minus signs": (lambda f: spoilt_npy(f, (b"'<f8'", b"-----")), NOT_COMPLETE),
    "version 2 on version 1": (lambda f: spoilt_npy(f, (b"NUMPY\x01", b"NUMPY\x02")), NOT_COMPLETE),
    "a pipe": (lambda f: with_entry(f, os.mkfifo), "y.npy is not a regular .npy file"),
    "a folder in the folder": (lambda f: with_entry(f, os.mkdir), "y.npy is not a regular .npy file"),
    "bfloat16": (as_bfloat16, "y has dtype bfloat16"),
    "a name for a terminal": (lambda f: written(f, **{"\x1b[2J": np.zeros(3)}), "\\x1b[2J is not a tensor"),
    "a long name": (lambda f: written(f, **{"y" * 5000: np.zeros(3)}), "yyyy… is not a tensor"),
    "a lone surrogate": (lambda f: as_text(f, '{"tensors": {"\\ud800": {"shape": [1], "values": [1]}}}'),
                         "\\ud800 is not a tensor"),
    "an archive": (lambda f: (f / "linear.float64.npz").touch(), "linear.float64.npz: expected CASE"),
    "no ending": (lambda f: (f / "linear.float64").touch(), "linear.float64: expected CASE"),
    "nested values": (lambda f: as_json(f, values=lambda v: [v[:12], v[12:]]), "flat list of 24"),
    "a shape of −1": (lambda f: as_json(f, shape=lambda s: [-1, 3, 4]), "y has shape [-1, 3, 4]"),
    "another shape": (lambda f: as_json(f, shape=lambda s: [1]), "y has shape [1], expected [2, 3, 4]"),
    "texts": (lambda f: as_json(f, values=lambda v: list(map(str, v))), "expected a number"),
    "truth values": (lambda f: as_json(f, values=lambda v: [True, *v[1:]]), "has the value True"),
    "a text of digits": (lambda f: as_json(f, values=lambda v: "1" * 24), "flat list of 24"),
    "json that is none": (lambda f: as_text(f, "{"), "not a JSON file"),
    "json of a list": (lambda f: as_text(f, "[]"), 'an object "tensors"'),
    "json without tensors": (lambda f: as_text(f, '{"tensors": {}}'), "grad.x is missing"),
    "a name without precision": (lambda f: (f / "linear.safetensors").touch(), "linear.safetensors: expected CASE"),
    "an unknown case": (lambda f: (f / "linaer.float64.json").touch(), "no case is named 'linaer'"),
    "tensors loose": (lambda f: np.save(f / "y.npy", np.zeros(3)), "y.npy: expected CASE"),
}  # fmt: skip


@pytest.mark.parametrize("spoil, said", UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_input_is_said_by_name(spoil, said, tmp_path, capsys):
    spoil(tmp_path)
    code, out, err = checked(capsys, tmp_path)
    assert code == 2 and said in out and "1 of 1 cases agree" not in out, out


def test_folders_that_are_no_success(tmp_path, capsys):
    (tmp_path / "readme.txt").write_text("nothing to check")
    for folder, said in ((tmp_path, "has no outputs"), (tmp_path / "no", "not there"), (__file__, "is a file")):
        code, out, err = checked(capsys, folder)
        assert code == 2 and said in err and not out


def test_a_part_has_to_be_asked_for(tmp_path, capsys, fails):
    written(tmp_path)
    for options, said in (
        ([], f"{len(ENTRIES) - 1} of {len(ENTRIES)} cases have no outputs"),
        (["--tier", "1"], "tier 1"),
    ):
        assert main(["reference", "check", str(tmp_path), *options]) == 2
        assert said in capsys.readouterr().out
    for dtype, code in (("float32", 2), ("float64", 0)):
        assert checked(capsys, tmp_path, "--dtype", dtype)[0] == code
    for wrong, said in (("--case", "linaer"), "linaer"), (("--tier", "7"), "7"), (("--tier", "2"), "none of the given"):
        fails("reference", "check", tmp_path, "--case", "linear", *wrong, says=[said])


def test_vectors_that_are_not_there_or_spoilt(tmp_path, fails):
    """As the vectors of a check, and as a fresh export: a tensor that is another, and one that is not there."""
    out, vectors = tmp_path / "out", tmp_path / "vectors"
    out.mkdir()
    written(out)
    command = ["reference", "check", out, "--case", "linear", "--vectors", vectors]
    fails(*command, says=["reference export"])
    shutil.copytree(VECTORS, vectors)
    assert main(list(map(str, command))) == 0
    tensors = load_case(LINEAR, "float64", VECTORS)
    for y in (tensors["y"].reshape(6, 4), Y):
        write_tensors(vectors / "linear.float64.safetensors", {**tensors, "y": y})
        fails(*command, says=["y does not match the manifest"])
    (vectors / "lora.float64.safetensors").unlink()
    agree, said = compare_exports(vectors)
    assert not agree and "NOT all are within" in said and "y diverges" in said and "lora" in said


SPOILT_MANIFESTS = {  # what is done to it -> what has to be said
    "no format": (lambda m: m.pop("format"), "format: got None, expected"),
    "no rtol": (lambda m: m.pop("rtol"), "rtol: got None"),
    "another rtol": (lambda m: m.update(rtol={"float64": 1e9, "float32": 1e9}), "rtol: got"),
    "a true version": (lambda m: m.update(format_version=True), "format_version: got True"),
    "cases that are none": (lambda m: m.update(cases=5), "cases: got 5, expected a list"),
    "no id": (lambda m: m["cases"][0].pop("id"), "cases[0]: id"),
    "one id twice": (lambda m: m["cases"].append(m["cases"][0]), "case linear: expected a unique id"),
    "tier 7": (lambda m: m["cases"][0].update(tier=7), "case linear: tier: got 7, expected an integer from 1 to 6"),
    "no file": (lambda m: m["cases"][0]["files"].pop("float64"), "case linear: files"),
    "no tensors": (lambda m: m["cases"][0].pop("tensors"), "cases[0]: tensors: got None, expected a list"),
    "no outputs": (lambda m: [r.update(stage="input") for r in m["cases"][0]["tensors"]], "at least one output"),
    "no stage": (lambda m: m["cases"][0]["tensors"][4].pop("stage"), "a tensor's stage"),
    "no hash": (lambda m: m["cases"][0]["tensors"][4]["float64"].pop("sha256"), "y: float64: sha256: got None"),
    "no tolerance": (lambda m: m["cases"][0]["tensors"][4]["float64"].pop("atol"), "y: float64: atol"),
    "no end": (lambda m: m["cases"][0]["tensors"][4]["float64"].update(atol=float("inf")), "y: float64: atol"),
    "below zero": (lambda m: m["cases"][0]["tensors"][4]["float64"].update(atol=-1.0), "y: float64: atol"),
}


@pytest.mark.parametrize("spoil, said", SPOILT_MANIFESTS.values(), ids=SPOILT_MANIFESTS)
def test_a_spoilt_manifest_is_said_by_name(spoil, said, tmp_path, fails):
    manifest = read_json(VECTORS / MANIFEST)
    manifest["cases"] = manifest["cases"][:1]
    spoil(manifest)
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    written(tmp_path)
    command = ["reference", "check", tmp_path, "--case", "linear", "--vectors", tmp_path]
    fails(*command, says=[f"vectors: {tmp_path / MANIFEST}: ", said])


def test_a_report_never_takes_the_place_of_what_is_read(tmp_path, fails):
    out = tmp_path / "out"
    out.mkdir()
    written(out)
    before = (out / "linear.float64.safetensors").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    for path, said in {
        out / "linear.float64.safetensors": "also an input",
        out / "report.json": "also an input",
        VECTORS / "report.json": "also an input",
        tmp_path / "pipe": "is a pipe, expected a file",
        tmp_path: "a folder",
    }.items():
        fails("reference", "check", out, "--case", "linear", "--json", path, says=[said])
    assert (out / "linear.float64.safetensors").read_bytes() == before and len(list(out.iterdir())) == 1


def test_it_prints_where_the_output_is_not_utf8(tmp_path):
    written(tmp_path, y=np.nan * Y)
    command = [sys.executable, "-m", "lora_np", "reference", "check", str(tmp_path), "--case", "linear"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 1 and b"y diverges" in done.stdout and not done.stderr


# ---------------------------------------------------------------- what is said of a divergence


def divergence(folder, **changes):
    """The Result of the case `linear` with changed tensors."""
    written(folder, **changes)
    results, complaints = check(folder, ["linear"])
    assert not complaints and exit_code(results, complaints) == 1
    return results[0]


def test_the_first_tensor_is_named_and_where_it_is_off(with_search, tmp_path):
    wrong, right = outputs_of("linear"), outputs_of("linear")["grad.x"]
    wrong["grad.x"][1, 2, 3] += 0.5
    wrong["grad.weight"][:] = 0
    found = divergence(tmp_path, **wrong).divergence
    assert (found.tensor, found.stage, found.index, found.agreed) == ("grad.x", "backward", (1, 2, 3), 1)
    assert (found.entries_off, found.entries, found.number) == (1, 36, 2)
    assert (found.got, found.expected) == (wrong["grad.x"][1, 2, 3], right[1, 2, 3])
    assert found.relative == pytest.approx(0.5 / rms(right), rel=1e-3)


def test_tolerances_are_used_entry_by_entry(tmp_path):
    """Half of the tolerance passes and twice of it does not, at a large entry and at a small one."""
    atol = next(r for r in LINEAR["tensors"] if r["name"] == "y")["float64"]["atol"]
    y = outputs_of("linear")["y"]
    for place in (np.argmax(np.abs(y)), np.argmin(np.abs(y))):
        index = np.unravel_index(place, y.shape)
        near, far = y.copy(), y.copy()
        near[index] += 0.5 * (atol + RTOL["float64"] * abs(y[index]))
        far[index] += 2.0 * (atol + RTOL["float64"] * abs(y[index]))
        written(tmp_path, y=near)
        (result,), _ = check(tmp_path, ["linear"])
        assert result.divergence is None and 0.3 < result.worst[0] <= 0.7
        assert divergence(tmp_path, y=far).divergence.index == tuple(map(int, index))


LOOKS = {
    "NaN": (lambda y: y * np.nan, "NaN"),
    "infinity": (lambda y: np.where(y > 0, np.inf, y), "infinity"),
    "a mask": (lambda y: np.where(y > 0, -np.inf, y), "the mask hides other keys"),
    "zero": (lambda y: 0 * y, "0 throughout"),
    "a sign": (lambda y: -y, "sign is reversed"),
    "a factor": (lambda y: y / 3, "the right value divided by T"),
    "an offset": (lambda y: y + 0.25, "plus 0.25"),
    "reversed": (lambda y: y[:, ::-1], "reverse order along axis 1"),
    "moved": (lambda y: np.roll(y, 1, axis=2), "shifted by one along axis 2"),
    "axes": (lambda y: y.transpose(2, 0, 1).reshape(y.shape), "axes swapped"),
    "places": (lambda y: y.ravel()[np.random.default_rng(0).permutation(24)].reshape(y.shape), "in a different order"),
    "precision": (lambda y: y.astype(np.float32).astype(float), "in float32"),
    "rounded": (lambda y: y.astype(np.float32).astype(float), "all its values are float32 numbers"),
    "nearly": (lambda y: y * (1 + 1e-7), "a step computed in float32"),
    "digits": (lambda y: y * (1 + 1e-12), "an inexact constant"),
    "byte order": (lambda y: y.byteswap(), "byte order is reversed"),
    "a row": (lambda y: np.where(np.arange(3)[:, None] == 1, y + y**2, y), "index 1 on axis 1"),
    "beyond all squares": (lambda y: y * 1e300, "times 1e+300"),
    "anything": (lambda y: y + y**2, "cosine"),
}


@pytest.mark.parametrize("spoil, said", LOOKS.values(), ids=LOOKS)
def test_what_a_tensor_looks_like(spoil, said, tmp_path):
    result = divergence(tmp_path, y=spoil(outputs_of("linear")["y"]))
    assert said in " ".join(result.divergence.seen), result.divergence
    assert said in reference.format_result(result)


def test_float32_numbers_are_no_finding_where_they_are_expected():
    right = np.array([1.0, 2.0, 3.0])
    assert "all its values" not in looks(right, np.nextafter(right.astype(np.float32), np.float32(4)).astype(float))[0]


def test_the_section_is_named_and_the_vectors_are(tmp_path, capsys):
    written(tmp_path, y=Y)
    _, out, _ = checked(capsys, tmp_path)
    assert "SPEC.md, section 4, linear\n" in out and f"vectors: {len(ENTRIES)} cases, " in out
    expected = {
        ("model-lm", "blocks.0.ln1"): ["5, model", "4, layer_norm"],
        ("model-lm", "grad.tok_emb.weight"): ["5, model", "4, embedding"],
        ("model-lm-lora", "grad.blocks.1.attn.q_proj.lora_A"): ["5, model", "4, lora"],
        ("model-lm-dora", "merged.blocks.0.attn.v_proj.weight"): ["5, model", "4, dora"],
        ("model-lm-dora", "blocks.0.attn.probs"): ["5, model", "4, attention"],
        ("model-lm-dora", "merged.logits"): ["5, model", "4, linear"],
        ("bert-classifier", "blocks.0.attn.probs"): ["8, bert", "8, encoder_attention"],
        ("bert-classifier", "grad.pooled"): ["8, bert", "8, mean_pool"],
        ("train-full", "step.10.loss"): ["6, train", "4, cross_entropy"],
        ("gpt2-write", "model.safetensors"): ["6, gpt2_read, gpt2_write"],
    }
    for (id, tensor), sections in expected.items():
        assert sections_of(ENTRIES[id], tensor) == sections
    assert all(sections_of(entry, "") for entry in ENTRIES.values()), "each kind has a section"


def test_it_stops_at_the_first_if_asked_and_writes_a_report(tmp_path, capsys):
    written(tmp_path, y=np.nan * Y)
    write_tensors(tmp_path / "softmax.float64.safetensors", {"probs": np.zeros((2, 3, 5))})
    for options, code in (([], 2), (["--first"], 1)):
        assert main(["reference", "check", str(tmp_path), *options]) == code
        assert ("softmax" in capsys.readouterr().out) == (not options)
    path = tmp_path.parent / f"{tmp_path.name}.report.json"
    assert checked(capsys, tmp_path, "--json", str(path))[0] == 1 == read_json(path)["exit_code"]
    (result,) = read_json(path)["results"]
    assert (result["divergence"]["tensor"], result["divergence"]["got"]) == ("y", "nan")


def test_a_small_change_of_the_plain_program_explains_it(with_search, tmp_path):
    """In the backward pass of RMS norm d is not multiplied by the weight: that mistake is in no list. And two in one
    tensor: GELU without the root of its constant, and with the wrong sign of x³."""
    inputs, outputs = parts("rms-norm")
    d, x_hat = inputs["grad.y"], outputs["x_hat"]
    dx = (d - x_hat * (d * x_hat).mean(axis=-1, keepdims=True)) * outputs["inv_rms"][..., None]
    write_tensors(tmp_path / "rms-norm.float64.safetensors", {**outputs, "grad.x": dx})
    (cause, *_) = check(tmp_path, ["rms-norm"])[0][0].divergence.causes
    assert "rms_norm_backward, `d = grad_y * weight`: d lacks the factor weight" in cause and " and " not in cause
    (inputs, outputs), root = parts("gelu"), 2 / np.pi
    y = inputs["x"] * 0.5 * (1.0 + np.tanh(root * (inputs["x"] - 0.044715 * inputs["x"] ** 3)))
    write_tensors(tmp_path / "gelu.float64.safetensors", {**outputs, "y": y})
    (cause,) = check(tmp_path, ["gelu"])[0][0].divergence.causes
    assert "skips sqrt(2.0 / math.pi); and gelu" in cause and "u has cubic * x ** 3 with the wrong sign" in cause


LAYER = "layer(h, f'{attn}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "function, change, tensor",
    [
        pytest.param(
            "rms_norm_backward",
            "rms_norm_backward, `d = grad_y * weight`: d lacks ",
            "grad.blocks.1.mlp.residual",
            marks=pytest.mark.nightly,
        ),
        ("attention_forward", f"v = {LAYER}.v_proj', settings, t, acts)`: v has x in ", "blocks.0.attn.v_proj"),
        ("merged", "params[f'{name}.weight'] has the wrong sign", "merged.blocks.0.attn.k_proj.weight"),
    ],
)
def test_it_also_does_in_a_whole_model(function, change, tensor, with_search, tmp_path):
    """Forward, going back, where the gradient of an activation comes from the operation that reads it, and merging."""
    id = "llama-mixed-ranks" if function == "merged" else "llama-tied"
    inputs, outputs = parts(id)
    functions = functions_for(ENTRIES[id], {**inputs, **outputs}, tensor)
    (function,) = (f for f in functions if f.__name__ == function)
    wrong = made(id, next(sources for sentence, sources in derived(function) if change in sentence))
    write_tensors(tmp_path / f"{id}.float64.safetensors", {name: wrong[name] for name in outputs})
    (result,) = check(tmp_path, [id])[0]
    assert result.divergence.tensor == tensor
    assert any(change in cause for cause in result.divergence.causes)
    assert "    likely cause: as if" in reference.format_result(result)


def test_a_factor_that_two_sizes_have_is_not_named_and_another_tensor_is(tmp_path):
    assert known_factor(3.0, {"T": 3, "B": 2}) == "times T"
    assert known_factor(3.0, {"T": 3, "r": 3}) == "times 3"
    outputs = outputs_of("softmax")
    write_tensors(tmp_path / "softmax.float64.safetensors", {**outputs, "grad.x": outputs["probs"]})
    assert check(tmp_path, ["softmax"])[0][0].divergence.seen == ["it is probs"]


def test_inputs_may_be_handed_back_but_not_changed(tmp_path):
    inputs, _ = parts("linear")
    written(tmp_path, **inputs)
    assert exit_code(*check(tmp_path, ["linear"])) == 0
    found = divergence(tmp_path, **{**inputs, "x": np.nextafter(inputs["x"], 9.0)}).divergence
    assert (found.tensor, found.stage) == ("x", "input") and "an input" in found.causes[0]


def test_the_list_and_an_export_to_no_folder(tmp_path, run, fails):
    listed = run("reference", "list")
    assert all(f" {id} " in listed and entry["catches"] in listed for id, entry in ENTRIES.items())
    (tmp_path / "file").touch()
    fails("reference", "export", tmp_path / "file", says=["is a file"])


def test_the_checker_needs_numpy_and_safetensors_alone():
    code = (
        "import sys; before = set(sys.modules)\n"
        "from lora_np.reference import VECTORS, check, exit_code\n"
        "assert exit_code(*check(VECTORS, tiers=[1])) == 0\n"
        "print({n.split('.')[0] for n in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert eval(found) <= {"lora_np", "numpy", "safetensors"}
