"""The pages in a browser without a window: no errors, no sideways scrolling, readable, and the right numbers.

A page is in a frame, because a window cannot be as narrow as a phone. A script that the test adds uses the page and
sends what it sees to the window around it, whose text Chromium prints.
"""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lora_np import micro
from lora_np.classroom import book
from lora_np.cli import main

from .test_explore import HOSTILE, bases, saved, written  # noqa: F401 (a fixture)

pytestmark = pytest.mark.slow

PAGES = Path(micro.__file__).parent / "pages"
VARIABLE = "LORA_NP_CHROMIUM"  # the program; where it is set, these tests need it
NAMES = ("chromium", "chromium-browser", "google-chrome")
LAPTOP, PHONE = (1280, 800), (390, 844)
DARK = "--blink-settings=preferredColorScheme=0"

LISTEN = """<script>
const problems = [];
addEventListener("error", event => problems.push(`error: ${event.message}`));
addEventListener("unhandledrejection", event => problems.push(`rejection: ${event.reason}`));
addEventListener("securitypolicyviolation", event => problems.push(`policy: ${event.violatedDirective}`));
console.error = (...words) => problems.push(`console: ${words.join(" ")}`);
</script>"""

LOOK = """<script>
const text = id => document.getElementById(id)?.textContent;
const find = selector => [...document.querySelectorAll(selector)];
const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
const luminance = rgb => rgb.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
function contrast(node) {  // of a text with what is behind it, see WCAG 2.1
  const style = getComputedStyle(node), front = numbers(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
  let behind = node, back;
  do back = numbers(getComputedStyle(behind).backgroundColor); while (back[3] === 0 && (behind = behind.parentElement));
  const both = [front, back[3] === 0 ? [255, 255, 255] : back].map(rgb => luminance(rgb.slice(0, 3)) + 0.05);
  return Math.max(...both) / Math.min(...both);
}
function look() {  // what is wrong with the page as it is now
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) problems.push(`${wide} wide in ${innerWidth}`);
  for (const node of find("body *")) {
    const own = [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
    if (!own || !node.getClientRects().length || node.disabled || /SCRIPT|STYLE|OPTION/.test(node.tagName)) continue;
    if (contrast(node) < 4.5) problems.push(`contrast ${contrast(node).toFixed(2)}: ${node.outerHTML.slice(0, 100)}`);
  }
  for (const node of find("button, input, select, textarea, canvas, svg, [tabindex]")) {
    const name = node.getAttribute("aria-label") || node.labels?.[0]?.textContent;
    if (!name && !/BUTTON|H2/.test(node.tagName)) problems.push(`no name: ${node.outerHTML.slice(0, 100)}`);
  }
}
const use = (node, event, change = {}) => {
  Object.assign(node, change);
  node.dispatchEvent(new Event(event));
  look();
};
const until = f => new Promise(done => { const timer = setInterval(() => f() && (clearInterval(timer), done()), 20); });
const send = seen =>
  parent.postMessage(JSON.stringify({ ...seen, problems: [...new Set(problems)], width: innerWidth }), "*");
</script>"""

USE_EXPLORER = """<script>
addEventListener("load", () => {
  const seen = { first: find("#map [aria-pressed=true]")[0].title, cells: [], rank: [], scale: [] };
  for (const radio of find("input[name=measure]")) {
    radio.click();
    for (const cell of find("#map button")) { cell.click(); seen.cells.push([radio.value, cell.title, text("layer")]); }
    look();
  }
  const buttons = ["largest", "readable", "scale-play", "rank-play", "rank-play"];
  for (const id of buttons) use(document.getElementById(id), "click");
  use(document.getElementById("largest"), "click");
  seen.largest = find("#map [aria-pressed=true]")[0].title.split(":")[0];
  for (const id of ["rank", "scale"]) for (const end of ["min", "max"]) {
    const slider = document.getElementById(id);
    use(slider, "input", { value: slider[end] });
    seen[id].push(text(`${id}-shown`) + text(`${id}-answers`));
  }
  setTimeout(() => send(seen), 200);
});
</script>"""

USE_PLAYGROUND = """<script>
addEventListener("load", async () => {
  const $ = id => document.getElementById(id), seen = {}, trained = n => until(() => text("step-count") === String(n));
  location.hash = "steps=100";
  await trained(100);
  seen.losses = ["full-new", "lora-new"].map(text);
  use($("one"), "click");
  seen.losses.push(...["full-old", "lora-old"].map(text));
  use($("off"), "click");
  seen.off = [text("lora-old"), location.hash];
  use($("off"), "click");
  for (const value of ["-1", "2", "1"]) use($("strength"), "input", { value });
  use($("strength"), "change");
  for (const { value } of $("layer").options) use($("layer"), "input", { value });
  for (const box of find("#on input")) { box.click(); look(); }
  for (const canvas of find("#arrays canvas")) {
    canvas.focus();
    for (const key of ["ArrowRight", "ArrowDown"]) canvas.dispatchEvent(new KeyboardEvent("keydown", { key }));
    canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: 3, clientY: 3 }));
    look();
  }
  for (const value of [$("token").min, $("token").max]) use($("token"), "input", { value });
  for (const id of ["r", "alpha", "lora_rate", "full_rate", "speed"]) {
    for (const { value } of $(id).options) use($(id), "change", { value });
  }
  use($("again"), "click");
  for (const { value } of $("sample").options) use($("sample"), "change", { value });
  for (const value of ["too short", "x".repeat(500), "🦊".repeat(18), "the quick brown fox 🦊 jumps ünd <b>sits</b>"]) {
    use($("new"), "change", { value });
  }
  await trained(0);
  seen.odd = text("lora-new");
  $("play").click();
  await until(() => Number(text("step-count")) > 20);
  use($("play"), "click");
  seen.tours = [];
  for (const button of find("#tours button")) { use(button, "click"); seen.tours.push(text("tour")); }
  setTimeout(() => send(seen), 200);
});
</script>"""

TAKE_TOURS = """<script>
addEventListener("load", async () => {
  const seen = { pages: [] }, wait = () => until(() => !document.getElementById("play").disabled);
  document.getElementById("speed").value = "1000";
  for (const button of find("#tours button")) {
    button.click();
    for (let next = button; next; next = find("#tour button").find(each => each.textContent === "Next question")) {
      if (next !== button) next.click();
      await wait();
      find("#tour .choices button")[1].click();
      await until(() => !/Training/.test(text("tour")));
      look();
      seen.pages.push(text("tour"));
    }
  }
  send(seen);
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


def used(chromium, page, use, size, folder, *options):
    """What is seen when a script uses the page in a frame of some size."""
    head, tail = '<meta name="viewport"', "</body>"
    assert page.count(head) == page.count(tail) == 1
    page = page.replace(head, LISTEN + head).replace(tail, LOOK + use + tail)
    (folder / "used.html").write_text(page, encoding="utf-8")
    (folder / "around.html").write_text(AROUND % size, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", *options]
    options += ["--virtual-time-budget=900000", f"--user-data-dir={folder / 'profile'}", "--window-size=1500,1000"]
    command = [chromium, *options, "--dump-dom", (folder / "around.html").as_uri()]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=600)
    seen = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert seen and seen[1], f"the page did not answer: {done.stderr[-2000:]}"
    return json.loads(html.unescape(seen[1]))


def data_of(page):
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])


LABELS = [HOSTILE, "x" * 200, "</SCRIPT >"]


@pytest.fixture(scope="module")
def pages(bases, tmp_path_factory):  # noqa: F811
    """Pages as the commands write them: of the shipped language model's adapter, of a classifier's; the playground."""
    out = tmp_path_factory.mktemp("pages")
    folder = saved(out / "a", bases / "llama", LABELS, targets=("v_proj", "down_proj"))
    table = written(out / "rows.jsonl", [{"t": HOSTILE, "l": label} for label in LABELS])
    classifier = ["explore", folder, "--data", table, "--prompt", HOSTILE, "--prompt", "y" * 300]
    play = ["playground", "--no-browser"]
    commands = {"critics": ["explore", "critics"], "hostile labels": classifier, "playground": play}
    for name, words in commands.items():
        assert main([*map(str, words), "--out", str(out / f"{name}.html")]) == 0
    return {name: (out / f"{name}.html").read_text("utf-8") for name in commands}


@pytest.mark.parametrize("size, options", [(LAPTOP, []), (PHONE, [DARK])], ids=["laptop", "dark phone"])
@pytest.mark.parametrize("name", ["critics", "hostile labels"])
def test_the_explorer(name, size, options, chromium, pages, tmp_path):
    seen, data = used(chromium, pages[name], USE_EXPLORER, size, tmp_path, *options), data_of(pages[name])
    assert seen["problems"] == [] and seen["width"] == size[0]
    assert len(seen["cells"]) == 4 * len(data["layers"])
    layers = {layer["layer"]: layer for layer in data["layers"]}
    assert ".mlp." in seen["first"] and seen["largest"] == max(data["layers"], key=lambda layer: layer["size"])["layer"]
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
    for slider, digits in (("rank", 0), ("scale", 2)):
        values, measured, prompts = (data[f"{slider}s"][key] for key in ("values", "measured", "prompts"))
        for end, shown in zip((0, -1), seen[slider], strict=True):
            more = f"perplexity {measured['perplexity'][end]:.1f}" if "perplexity" in measured else None
            more = more or f"accuracy {100 * measured['accuracy'][end]:.1f} %"
            assert shown.startswith(f"{values[end]:.{digits}f}")
            assert f"; loss {measured['loss'][end]:.3f}, {more}" in shown
            for row in prompts:
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
        ('<p style="color: #999">grey</p>', "contrast 2.85"),
        ("<canvas></canvas>", "no name: <canvas"),
    ],
)
def test_a_planted_fault_is_seen(planted, fault, chromium, pages, tmp_path):
    page = pages["critics"].replace("<header>", planted + "<header>")
    assert any(fault in text for text in used(chromium, page, USE_EXPLORER, PHONE, tmp_path)["problems"])


# ---------------------------------------------------------------- the playground


def printed():
    """The numbers that `python -m lora_np.micro` prints at step 100, and at the end."""
    done = subprocess.run([sys.executable, "-m", "lora_np.micro"], capture_output=True, text=True, check=True)
    *_, at_100, end = done.stdout.splitlines()
    return [*at_100.split()[1:], *re.findall(r"\d+\.\d+", end)]


@pytest.mark.parametrize("size, options", [(LAPTOP, []), (PHONE, [DARK])], ids=["laptop", "dark phone"])
def test_the_playground(size, options, chromium, pages, tmp_path):
    seen = used(chromium, pages["playground"], USE_PLAYGROUND, size, tmp_path, *options)
    assert seen["problems"] == [] and seen["width"] == size[0]
    *at_100, base, full, lora = printed()
    assert seen["losses"] == [*at_100, full, lora]
    assert seen["off"] == [base, "#steps=101&strength=0"]
    assert len(seen["tours"]) == 6 and 0 < float(seen["odd"]) < 20


@pytest.mark.nightly
def test_the_tours_end_and_their_answers_are_those_of_the_lessons(chromium, pages, tmp_path):
    seen = used(chromium, pages["playground"], TAKE_TOURS, LAPTOP, tmp_path)
    assert seen["problems"] == []
    said = [re.search(r"(Right\.|No: .*?\.) ", page)[1] for page in seen["pages"]]
    assert said == [
        *("No: what the base knows.", "Right."),
        *("No: more than 90 %.", "No: nearly as much."),
        *("No: full fine-tuning's.", "Right.", "Right."),
        *("No: full fine-tuning.", "No: it returns exactly."),
        *("No: it rises.", "No: the loss falls faster."),
        *("Right.", "Right."),
    ]


def test_the_page_in_the_figures_is_this_one(pages):
    assert (PAGES.parents[1] / "figures" / "playground.html").read_text("utf-8") == pages["playground"]


# ---------------------------------------------------------------- what the pages compute

TRAIN = """
import { readFileSync } from "fs";
import { loss_and_gradients, train } from "%s/micro.mjs";
import { default_rng } from "%s/pages/random.mjs";
const { runs, n_random } = JSON.parse(readFileSync(0)), rng = default_rng();
const read = arrays => Object.fromEntries(Object.entries(arrays).map(([name, rows]) =>
  [name, { rows: rows.length, cols: rows[0].length, data: Float64Array.from(rows.flat()) }]));
const random = Array.from({ length: n_random }, () => [rng.normal(), rng.uniform()]);
const results = runs.map(({ steps, trained, ids, targets, config, lr }) => {
  const [, losses] = train(read(steps[0]), trained, ids, targets, config, 101, lr);
  const at_steps = steps.map(params => loss_and_gradients(read(params), ids, targets, trained, ...config));
  const gradients = at_steps.map(([, grads]) => Object.fromEntries(trained.map(name => [name, [...grads[name].data]])));
  return { losses, gradients };
});
console.log(JSON.stringify({ random, results }));
"""


def test_javascript_computes_what_python_computes(monkeypatch):
    """NumPy's random numbers; in each training run of `micro.main`, the losses of 101 steps and, from the same
    parameters, the gradients of some. The losses differ by rounding, which LoRA's large steps magnify a million times.
    """
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node")
    runs, expected, n_random = [], [], 20000

    def train(params, trained, ids, targets, config, steps, lr):
        run = {"steps": [], "trained": list(trained), "ids": ids.tolist(), "targets": targets.tolist()}
        losses, gradients, m, v = [], [], dict.fromkeys(trained, 0.0), dict.fromkeys(trained, 0.0)
        for t in range(1, steps + 1):
            loss, grads = micro.loss_and_gradients(params, ids, targets, trained, *config)
            losses.append(loss)
            if t in (1, 2, 20, 101):
                gradients.append(grads)
                run["steps"].append({name: np.atleast_2d(array).tolist() for name, array in params.items()})
            params, m, v = micro.adamw(params, grads, m, v, t, lr)
        runs.append(run | {"config": config, "lr": lr})
        expected.append((losses, gradients))
        return params, losses

    monkeypatch.setattr(micro, "train", train)
    micro.main()
    script, given = TRAIN.replace("%s", PAGES.parent.as_uri()), json.dumps({"runs": runs, "n_random": n_random})
    command = [node, "--input-type=module", "--eval", script]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    got, rng = json.loads(done.stdout), np.random.default_rng(0)
    np.testing.assert_allclose(got["random"], [[rng.normal(), rng.random()] for _ in range(n_random)], rtol=1e-13)
    for result, (losses, gradients) in zip(got["results"], expected, strict=True):
        np.testing.assert_allclose(result["losses"], losses, rtol=0, atol=1e-9)
        for ours, theirs in zip(result["gradients"], gradients, strict=True):
            assert ours.keys() == theirs.keys()
            for name, array in theirs.items():
                np.testing.assert_allclose(ours[name], array.ravel(), rtol=0, atol=1e-12, err_msg=name)


ANSWERS = "<details><summary>2</summary><p>No.</p></details><details><summary>3</summary><p>Right, 3.</p></details>"
LESSONS = {  # a question, the cell that answers it, and a solution, in the markup of the book and of JupyterLab
    "book": f"""<section><p>One?</p>{ANSWERS}<div class="cell"><div class="cell_input">code</div>
<details class="hide"><summary>Output</summary><div id="output">3</div></details></div>
<p>Two?</p>{ANSWERS}<p>Text</p></section>
<section><details><summary>A solution</summary>code</details><div class="cell"><div id="other">4</div></div></section>
<section id="what-to-remember"><h2>What to remember</h2></section>
<section><h2>Optional: more</h2><p id="more">More</p></section>""",
    "JupyterLab": f"""<div class="jp-NotebookPanel" id="id-1">
<div class="jp-Cell jp-MarkdownCell"><p>One?</p>{ANSWERS}</div>
<div class="jp-Cell jp-CodeCell">code<div class="jp-Cell-outputWrapper"><div id="output">3</div></div></div>
<div class="jp-Cell jp-MarkdownCell"><p>Two?</p>{ANSWERS}</div>
<div class="jp-Cell jp-MarkdownCell"><details><summary>A solution</summary>code</details></div>
<div class="jp-Cell jp-CodeCell"><div class="jp-Cell-outputWrapper"><div id="other">4</div></div></div>
<h2 id="What-to-remember">What to remember</h2></div>""",
}
LESSONS["JupyterLab 4.6"] = LESSONS["JupyterLab"].replace("h2 id=", "h2 data-jupyter-id=")
GUESS = """<script>
addEventListener("load", async () => {
  const shown = id => document.getElementById(id)?.checkVisibility();
  const toggled = node => new Promise(f => node.parentElement.addEventListener("toggle", f, { once: true }));
  const after = node => getComputedStyle(node, "::after").content;
  const seen = { first: ["output", "other", "more"].map(shown) };
  const summaries = find("summary").filter(node => /^[23]$/.test(node.textContent));
  for (const i of [0, 1, 3]) {
    summaries[i].click();
    await toggled(summaries[i]);
    (seen.scores ??= []).push(after(find("h2")[0]));
  }
  seen.marks = summaries.map(after);
  seen.last = ["output", "other"].map(shown);
  send(seen);
});
</script>"""


@pytest.mark.parametrize("where", LESSONS)
def test_an_answer_is_shown_after_a_guess(where, chromium, tmp_path):
    script = (PAGES.parent / "classroom" / "guesses.js").read_text("utf-8")
    page = f'<!doctype html><meta name="viewport"><body>{LESSONS[where]}<script>{script}</script></body>'
    seen = used(chromium, page, GUESS, LAPTOP, tmp_path)
    score = '"Your first guess was right in {} of {} questions."'
    assert seen["problems"] == []
    assert seen["first"] == [False, True, False if where == "book" else None] and seen["last"] == [True, True]
    assert seen["scores"] == [score.format(0, 1), score.format(0, 1), score.format(1, 2)]
    assert seen["marks"] == ['" ✗ your guess"', "none", "none", '" ✓ your guess"']


DRAW = """<script>
addEventListener("load", async () => {
  const [button] = find("button"), svg = find("svg")[0].getBoundingClientRect();
  const seen = { first: [button.disabled, document.getElementById("rest").checkVisibility()] };
  for (const [i, handle] of find("circle").entries()) {
    const { x, y, width, height } = handle.getBoundingClientRect(), at = { clientX: x + width / 2, bubbles: true };
    handle.dispatchEvent(new PointerEvent("pointerdown", { ...at, clientY: i ? svg.top : y + height / 2 }));
    handle.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown" }));
  }
  seen.guess = find("circle").map(handle => Number(handle.getAttribute("aria-valuenow")));
  button.click();
  seen.verdict = find("p[role=status]")[0].textContent;
  seen.last = document.getElementById("rest").checkVisibility();
  send(seen);
});
</script>"""


@pytest.mark.parametrize("name", book.CURVES)
def test_draw_your_guess(name, chromium, tmp_path):
    page = book.with_curve(f"figures/{name}.md", (book.ROOT / "figures" / f"{name}.md").read_text("utf-8"))
    [block] = re.findall('<div class="draw.*?</div>', page, re.DOTALL)
    script = (PAGES.parent / "classroom" / "curves.js").read_text("utf-8")
    page = f'<!doctype html><meta name="viewport"><body><section>{block}<p id="rest">x</p></section>'
    seen = used(chromium, f"{page}<script>{script}</script></body>", DRAW, PHONE, tmp_path)
    data = json.loads(html.unescape(re.search('data-curve="(.*?)"', block)[1]))
    low, high = data["range"]
    step = (high - low) / 50
    assert seen["problems"] == [] and seen["first"] == [True, False] and seen["last"]
    assert seen["guess"] == pytest.approx([(low + high) / 2 - step] + [high - step] * (len(data["x"]) - 1), abs=0.06)
    off = np.mean(np.abs(np.subtract(seen["guess"], data["mean"])))
    assert float(re.search("is (.*) points off on average", seen["verdict"])[1]) == pytest.approx(off, abs=0.11)
