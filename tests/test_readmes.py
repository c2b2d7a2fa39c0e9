"""What the READMEs offer works: Python runs as it is, commands are ones that exist, links lead somewhere."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig
from lora_np.adapters.lora import backward, forward
from lora_np.classroom import check
from lora_np.cli import build_parser

ROOT = Path(__file__).resolve().parents[1]
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for pattern in ("README.md", "lora_np/**/README.md", "notebooks/README.md", "tests/README.md", "figures/*.md")
    for path in sorted(ROOT.glob(pattern))
}


def code(text, language):
    """The code blocks of one language, one below the other."""
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def run(script, *arguments, folder):
    """Run a script in a process of its own and return the lines that it prints."""
    path = folder / "script.py"
    path.write_text(script, encoding="utf-8")
    command = [sys.executable, str(path), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


WITH_PYTHON = sorted(name for name, text in TEXTS.items() if code(text, "python"))
KIND = "lora_np/adapters/README.md"  # its last block adds a kind of adapter, which the commands are then to know


@pytest.mark.parametrize("name", [name for name in WITH_PYTHON if name not in ("README.md", KIND)])
def test_the_python_of_a_readme_runs(name, tmp_path):
    run(code(TEXTS[name], "python"), folder=tmp_path)


@pytest.mark.parametrize("at_the_start", [True, False])
def test_lora_in_ten_lines_is_the_layer_of_the_package(at_the_start):
    script, update = code(TEXTS["README.md"], "python"), "A, B = A - 0.03 * dA, B - 0.03 * dB"
    assert script.count(update) == 1
    script = script.replace(update, "break")  # after the first step
    if not at_the_start:  # B = 0 would hide most mistakes
        start, zeros = "B = np.zeros((n_out, r))", "rng.normal(size=(n_out, r))"
        assert script.count(start) == 1
        script = script.replace(start, f"B = {zeros}")
    names = {}
    exec(script, names)
    config = AdapterConfig(r=names["r"], alpha=names["s"] * names["r"])
    y, cache = forward(names["x"], names["W"], None, {"lora_A": names["A"], "lora_B": names["B"]}, config)
    dx, grads = backward(names["dy"], cache)
    expected = {"y": y, "dx": dx, "dA": grads["lora_A"], "dB": grads["lora_B"]}
    for name, array in expected.items():
        np.testing.assert_allclose(names[name], array, rtol=1e-9, atol=1e-9, err_msg=name)


def test_lora_in_ten_lines_prints_what_the_readme_says(tmp_path):
    printed = run(code(TEXTS["README.md"], "python"), folder=tmp_path)
    assert printed and "\n".join(printed) in TEXTS["README.md"]


def test_the_feedback_in_the_readme_is_what_the_check_prints(capsys):
    def lora_backward(dy, x, W, A, B, s):
        du = s * dy @ B
        return dy @ W, du.T @ x, s * dy.T @ (x @ A.T)

    check.lora_backward(lora_backward)
    *printed, _ = capsys.readouterr().out.splitlines()
    assert "\n".join(printed) in TEXTS["README.md"]


USE = """
import sys

from lora_np.adapters import VARIANTS
from lora_np.cli import main

VARIANTS["diagonal"] = {"kind": "diagonal"}
source, base, out = sys.argv[1:]
table = ["finetune", "--data", source, "--text", "t", "--label", "l", "--base", base, "--variant", "diagonal"]
assert main([*table, "--out", out + "/task", "--epochs", "1", "--lora-dropout", "0.1"]) == 0
assert main(["merge", out + "/task", "--out", out + "/merged"]) == 0
for name in ("task", "merged"):
    assert main(["predict", "--model", f"{out}/{name}", "the fox likes the dog"]) == 0
"""


@pytest.mark.slow
def test_the_kind_that_a_readme_adds_is_right_and_known_to_the_commands(tiny_base, tmp_path):
    rows = [{"t": f"the {a} {v} the dog", "l": v} for a in ("fox", "cat", "hen", "owl") for v in ("likes", "hates")]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows * 3), encoding="utf-8")
    lines = run(code(TEXTS[KIND], "python") + USE, source, tiny_base, tmp_path, folder=tmp_path)
    assert float(next(line for line in lines if re.fullmatch(r"[\d.]+e-\d+", line))) < 1e-8  # of the gradient check
    assert lines[-1] == next(line for line in lines if "the fox likes the dog" in line)


def commands():
    """(README, arguments) of every `python -m lora_np` in a block of commands."""
    for name, text in TEXTS.items():
        for line in code(text, "bash").replace("\\\n", " ").splitlines():
            *_, last = line.split("&&")
            words = shlex.split(last, comments=True)
            if words[1:3] == ["-m", "lora_np"]:
                yield name, words[3:]


@pytest.mark.parametrize("name, arguments", list(commands()))
def test_a_command_of_a_readme_exists(name, arguments):
    if not arguments or arguments[0].startswith("-"):
        arguments = ["run", *arguments]
    build_parser().parse_args(arguments)  # raises ValueError for what there is not


@pytest.mark.parametrize("name", TEXTS)
def test_links_of_a_readme_lead_somewhere(name):
    for path, anchor in re.findall(r"\]\(([^)#\s]+)(#[^)\s]+)?\)", TEXTS[name]):
        target = (ROOT / name).parent / path
        assert "://" in path or target.exists(), path
        if anchor and path.endswith(".md"):
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor[1:] in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], anchor


# ---------------------------------------------------------------- results that are quoted

RESULTS = re.compile(r"\]\((?:\.\./)*figures/(?!README|bench)(\w+)\.md")


def quotations():
    """(place, paragraph, pages) for every paragraph of a README or a lesson that links to the results' pages.

    A table directly before the paragraph belongs to it.
    """
    texts = {name: text for name, text in TEXTS.items() if not name.startswith("figures")}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        texts[path.name] = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    for name, text in texts.items():
        paragraphs = re.split(r"\n\s*\n", text)
        for before, paragraph in zip(["", *paragraphs], paragraphs):
            if pages := RESULTS.findall(paragraph):
                yield name, before * before.lstrip().startswith("|") + "\n" + paragraph, pages


def numbers_in(text):
    """The numbers in a text with their decimals, as strings; those of code, links and formulas are left out."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|\$[^$]*\$", " ", text).replace("−", "-")
    return re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?![\w.]*\d)", text)


def unsupported(paragraph, pages):
    """The numbers in a paragraph that are not those of a page, rounded; whole numbers count only as % and points."""
    results = {float(number.replace(",", "")) for page in pages for number in numbers_in(page)}
    quoted = [n for n in numbers_in(paragraph) if "." in n or re.search(rf"\b{n} (%|points|nats|times)", paragraph)]
    return [n for n in quoted if not any(f"{x:.{len(n.partition('.')[2])}f}" == n.replace(",", "") for x in results)]


@pytest.mark.parametrize("name, paragraph, pages", [pytest.param(*case, id=case[0]) for case in quotations()])
def test_quoted_results_are_those_of_the_experiments(name, paragraph, pages):
    assert unsupported(paragraph, [(ROOT / "figures" / f"{page}.md").read_text("utf-8") for page in pages]) == []


def test_a_number_that_is_no_result_is_found():
    page = "LoRA reaches 82.34 % with 332,546 parameters, and −1.47 points [−2.1, −0.8]."
    assert unsupported("82.3 %, 1.5 points, 332,546 and `7.7` and rank 8", [page]) == []
    assert unsupported("82.4 %, 1.5 points and 83 %", [page]) == ["82.4", "83"]
