"""The explorer's page in a browser without a window: no errors, no sideways scrolling, and the numbers of the data.

The page is in a frame, because a window cannot be as narrow as a phone. A script that the test adds uses the page and
sends what it sees to the window around it, whose text Chromium prints.
"""

import html
import json
import os
import re
import shutil
import subprocess

import pytest

from lora_np.cli import main

from .test_explore import HOSTILE, bases, saved, written  # noqa: F401 (a fixture)

pytestmark = pytest.mark.slow

VARIABLE = "LORA_NP_CHROMIUM"  # the program; where it is set, these tests need it
NAMES = ("chromium", "chromium-browser", "google-chrome")
LAPTOP, PHONE = (1366, 768), (390, 844)

LISTEN = """<script>
const problems = [];
addEventListener("error", event => problems.push(`error: ${event.message}`));
addEventListener("unhandledrejection", event => problems.push(`rejection: ${event.reason}`));
addEventListener("securitypolicyviolation", event => problems.push(`policy: ${event.violatedDirective}`));
console.error = (...words) => problems.push(`console: ${words.join(" ")}`);
</script>"""

USE = """<script>
addEventListener("load", () => {
  const seen = { problems, widths: [], cells: [], ranks: [], scales: [] };
  const measure = () => seen.widths.push([document.documentElement.scrollWidth, innerWidth]);
  const text = id => document.getElementById(id)?.textContent;
  for (const radio of document.querySelectorAll("input[name=measure]")) {
    radio.click();
    measure();
    for (const cell of document.querySelectorAll("#map button")) {
      cell.click();
      seen.cells.push([radio.value, cell.title, text("layer")]);
      measure();
    }
  }
  for (const [id, list] of [["rank", seen.ranks], ["scale", seen.scales]]) {
    const slider = document.getElementById(id);
    if (!slider) continue;
    for (const end of [slider.min, slider.max]) {
      slider.value = end;
      slider.dispatchEvent(new Event("input"));
      list.push(text(`${id}-shown`) + (id === "scale" ? text("answers") : ""));
      measure();
    }
  }
  setTimeout(() => parent.postMessage(JSON.stringify(seen), "*"), 200);
});
</script>"""

AROUND = """<!doctype html><body style="margin: 0"><pre id="seen"></pre>
<script>addEventListener("message", event => { document.getElementById("seen").textContent = event.data; });</script>
<iframe style="border: 0; width: %dpx; height: %dpx" src="used.html"></iframe>"""


RANKS = r"‖W‖ ([\d.]+)stable rank ([\d.]+)effective rank ([\d.]+?)90 % of energy rank (\d+)Spectrum"


@pytest.fixture(scope="module")
def chromium():
    """The path of the program; the tests are skipped without it."""
    wanted = os.environ.get(VARIABLE)
    path = next(filter(None, map(shutil.which, [wanted] if wanted else NAMES)), None)
    if path is None:
        assert not wanted, f"{VARIABLE}: there is no program {wanted}"
        pytest.skip("needs Chromium")
    return path


def used(chromium, page, size, folder):
    """What is seen when the page is used in a frame of some size."""
    head, tail = '<meta name="viewport"', "</body>"
    assert page.count(head) == page.count(tail) == 1
    page = page.replace(head, LISTEN + head).replace(tail, USE + tail)
    (folder / "used.html").write_text(page, encoding="utf-8")
    (folder / "around.html").write_text(AROUND % size, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    options += ["--virtual-time-budget=20000", f"--user-data-dir={folder / 'profile'}", "--window-size=1500,1000"]
    command = [chromium, *options, "--dump-dom", (folder / "around.html").as_uri()]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300)
    seen = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert seen and seen[1], f"the page did not answer: {done.stderr[-2000:]}"
    return json.loads(html.unescape(seen[1]))


def faults(seen):
    """What is wrong with what was seen on any page."""
    return seen["problems"] + [f"{wide} wide in {window}" for wide, window in seen["widths"] if wide > window]


def data_of(page):
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])


LABELS = [HOSTILE, "x" * 200, "</SCRIPT >"]


@pytest.fixture(scope="module")
def pages(bases, tmp_path_factory):  # noqa: F811
    """Pages as the command writes them: of the shipped language model's adapter, and of a classifier's."""
    out = tmp_path_factory.mktemp("pages")
    folder = saved(out / "a", bases / "llama", LABELS, targets=("v_proj", "down_proj"))
    table = written(out / "rows.jsonl", [{"t": HOSTILE, "l": label} for label in LABELS])
    classifier = ["explore", folder, "--data", table, "--prompt", HOSTILE, "--prompt", "y" * 300]
    commands = {"critics": ["explore", "critics"], "hostile labels": classifier}
    for name, words in commands.items():
        assert main([*map(str, words), "--out", str(out / f"{name}.html")]) == 0
    return {name: (out / f"{name}.html").read_text("utf-8") for name in commands}


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
@pytest.mark.parametrize("name", ["critics", "hostile labels"])
def test_a_page(name, size, chromium, pages, tmp_path):
    seen, data = used(chromium, pages[name], size, tmp_path), data_of(pages[name])
    assert faults(seen) == [] and {window for _, window in seen["widths"]} == {size[0]}
    assert len(seen["cells"]) == 4 * len(data["layers"])
    layers = {layer["layer"]: layer for layer in data["layers"]}
    for measure, title, panel in seen["cells"]:
        name, shown = title.split(": ")
        layer, digits = layers[name], {"rel": 0.006}  # the page shows three
        assert float(shown) == pytest.approx(layer[measure], **digits)
        *numbers, energy = re.search(RANKS, panel).groups()
        expected = [layer[key] for key in ("size", "stable", "effective")]
        assert list(map(float, numbers)) == pytest.approx(expected, **digits) and int(energy) == layer["energy"]
        assert name in panel
        for [towards, _] in layer["tokens"][:1]:
            assert all(token.replace(" ", "␣") in panel for token, _ in towards)
    ranks, answers = data["ranks"], data["answers"]
    for end, shown in zip((0, -1), seen["ranks"], strict=True):
        more = f"perplexity {ranks['perplexity'][end]:.1f}" if "perplexity" in ranks else None
        more = more or f"accuracy {100 * ranks['accuracy'][end]:.1f} %"
        assert shown == f"{ranks['ranks'][end]}: loss {ranks['loss'][end]:.3f}, {more}"
    for end, shown in zip((0, -1), seen["scales"], strict=True):
        assert shown.startswith(f"{answers['scales'][end]:.2f}")
        for row in answers["prompts"]:
            answer = row["answers"][end]
            said = [answer] if isinstance(answer, str) else [*LABELS, *(f"{100 * p:.1f} %" for p in answer)]
            assert all(text in shown for text in (row["prompt"], *said))


@pytest.mark.parametrize(
    "planted, fault",
    [
        ("<script>undefinedName();</script>", "error: "),
        ("<script>console.error('planted')</script>", "console: planted"),
        ("<script>Promise.reject('planted')</script>", "rejection: planted"),
        ('<img alt="" src="http://127.0.0.1:9/x.png">', "policy: img-src"),
        ('<p style="width: 2000px">wide</p>', "wide in"),
    ],
)
def test_a_planted_fault_is_seen(planted, fault, chromium, pages, tmp_path):
    page = pages["critics"].replace("<header>", planted + "<header>")
    assert any(fault in text for text in faults(used(chromium, page, PHONE, tmp_path)))


def test_a_wrong_number_is_seen(chromium, pages, tmp_path):
    page = pages["critics"].replace("ranks.loss[i].toFixed(3)", "(2 * ranks.loss[i]).toFixed(3)")
    assert page != pages["critics"]
    seen = used(chromium, page, PHONE, tmp_path)
    assert f"loss {data_of(pages['critics'])['ranks']['loss'][0]:.3f}" not in seen["ranks"][0]
