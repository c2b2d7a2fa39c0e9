// The playground: one text is learned in advance, another one by full fine-tuning and by LoRA at the same time.

import { FIRST, SECOND, adamw, forward, init_lora, init_params, loss_and_gradients, softmax } from "../micro.mjs";
import { map, matmul, transpose, zeros } from "../micro.mjs";
import { $, chart, colour, count, diverging, el, paint, percent, short } from "./drawing.mjs";
import { default_rng } from "./random.mjs";
import { TOURS } from "./tours.mjs";

const T = 17, C = 32, F = 128, N_LAYERS = 2, N_HEADS = 4, BASE_STEPS = 101, BASE_RATE = 3e-3;  // as in micro.py
const MOST_ROWS = 10, LONGEST = 400, PROMPT = 4;  // most rows (of T letters) and letters of a text; letters of a prompt
const EVERY = 5;  // steps between two points of the curve for the old text
const SAMPLES = {
  "another rhyme": SECOND,
  "the same in old spelling": "thatte waked the prieste all shaven and shorne, thatte maryed the manne all tattered and torne",
  "new letters": "3.14159 26535 89793 23846 26433 83279 50288 41971 69399 37510 58209 74944 59230 78164",
};
const LAYERS = {
  q: "attn.q_proj", k: "attn.k_proj", v: "attn.v_proj", o: "attn.o_proj", u: "mlp.up_proj", d: "mlp.down_proj",
};
const LABELS = { full: "full", lora: "LoRA" }, METHODS = Object.keys(LABELS);
const DEFAULTS = {  // as in micro.py
  old: FIRST, new: SECOND, r: 4, alpha: 16, on: "qv", full_rate: 3e-3, lora_rate: 1e-2,
  steps: 0, strength: 1, layer: "1.attn.v_proj", token: 0,
};
const VIEW = ["steps", "strength", "layer", "token"];  // what does not change the training
const state = { ...DEFAULTS };

// ---------------------------------------------------------------- texts and models

let letters, texts, base, runs = null, playing = false;  // runs: null while the base is trained

const rows_in = text => Math.min(Math.floor(([...text].length - 1) / T), MOST_ROWS);
const is_text = text => rows_in(text) > 0 && [...text].length <= LONGEST;

/** A text as ids and targets, arrays of rows of T letters; letters beyond the last whole row are left out. */
function rows_of(text) {
  const ids = [...text].map(letter => letters.indexOf(letter));
  const starts = Array.from({ length: rows_in(text) }, (_, i) => i * T);
  return [0, 1].map(shift => starts.map(from => ids.slice(from + shift, from + shift + T)));
}

const sizes = s => [N_LAYERS, N_HEADS, s];
const strength_of = name => name === "lora" ? runs.lora.s * state.strength : 0;  // s, times the slider
const new_run = (params, trained, s, rate) =>
  ({ params, trained, s, rate, m: {}, v: {}, t: 0, losses: { new: [], old: [] } });

function train_step(run, [ids, targets]) {
  const [loss, grads] = loss_and_gradients(run.params, ids, targets, run.trained, ...sizes(run.s));
  [run.params, run.m, run.v] = adamw(run.params, grads, run.m, run.v, ++run.t, run.rate);
  return loss;
}

/** The mean loss on a text, and the share of its letters that are the model's first choice. */
function score(params, [ids, targets], s) {
  const [logits] = forward(params, ids, ...sizes(s)), p = softmax(logits), N = p.rows, K = p.cols;
  let loss = 0, right = 0;
  targets.flat().forEach((id, n) => {
    const row = p.data.subarray(n * K, (n + 1) * K);
    loss -= Math.log(row[id]) / N;
    right += (row[id] === Math.max(...row)) / N;
  });
  return { loss, right };
}

/** Read the texts, and begin with an untrained base. */
function begin() {
  letters = [...new Set(state.old + state.new)].sort();  // code points, not UTF-16 units
  texts = { old: rows_of(state.old), new: rows_of(state.new) };
  const params = init_params(letters.length, T, C, F, N_LAYERS, default_rng().normal);
  base = new_run(params, Object.keys(params), 0, BASE_RATE);
  [runs, state.steps] = [null, 0];
}

/** Restart both methods from the trained base. */
function begin_runs() {
  const chosen = Object.keys(LAYERS).filter(key => state.on.includes(key)).map(key => LAYERS[key]);
  const rng = default_rng();
  init_params(letters.length, T, C, F, N_LAYERS, rng.normal);  // micro.py draws the adapter after the base
  const adapter = init_lora(base.params, state.r, rng.uniform, chosen);
  runs = {
    full: new_run(base.params, Object.keys(base.params), 0, state.full_rate),
    lora: new_run({ ...base.params, ...adapter }, Object.keys(adapter), state.alpha / state.r, state.lora_rate),
  };
  state.steps = 0;
  show_sizes();
  record();
  start_writing();
}

function step() {
  for (const name of METHODS) runs[name].losses.new.push(train_step(runs[name], texts.new));
  state.steps++;
  if (state.steps % EVERY === 0) record();
}

function record() {
  for (const name of METHODS) runs[name].losses.old.push(score(runs[name].params, texts.old, runs[name].s).loss);
}

/** ΔW of a layer: W − W of the base for full fine-tuning, s B A for LoRA; null for a layer without an adapter. */
function update_of(name, layer) {
  const { params } = runs[name], s = strength_of(name), A = params[`${layer}.lora_A`], W = `${layer}.weight`;
  if (name === "full") return map((a, b) => a - b, params[W], base.params[W]);
  return A ? map(x => s * x, matmul(params[`${layer}.lora_B`], A)) : null;
}

/** The singular values of M, largest first: square roots of the eigenvalues of MᵀM, by Jacobi's rotations. */
function singular_values(M) {
  const small = M.rows < M.cols ? transpose(M) : M, G = matmul(transpose(small), small), n = G.rows, g = G.data;
  for (let sweep = 0; sweep < 8; sweep++) {
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) {
      if (Math.abs(g[p * n + q]) < 1e-15 * Math.abs(g[0])) continue;
      const angle = 0.5 * Math.atan2(2 * g[p * n + q], g[q * n + q] - g[p * n + p]);
      const c = Math.cos(angle), s = Math.sin(angle);
      for (const [stride, across] of [[1, n], [n, 1]]) for (let k = 0; k < n; k++) {
        const i = p * stride + k * across, j = q * stride + k * across, x = g[i], y = g[j];
        [g[i], g[j]] = [c * x - s * y, s * x + c * y];
      }
    }
  }
  return Array.from({ length: n }, (_, i) => Math.sqrt(Math.max(g[i * n + i], 0))).sort((a, b) => b - a);
}

// ---------------------------------------------------------------- writing: a few letters at a time, between the steps

let writing = {}, is_written = false;  // method -> what is being written; whether all of it is complete

function start_writing() {
  is_written = false;
  writing = Object.fromEntries(METHODS.map(name => [name, {
    params: (runs?.[name] ?? base).params, s: runs ? strength_of(name) : 0,
    ids: ["new", "old"].map(which => texts[which][0].flat().slice(0, PROMPT)),
  }]));
}

/** Write the next letter after both prompts; a model sees only the letters of the current row of T. */
function write_letter({ params, s, ids }) {
  const n = ids[0].length, from = Math.floor((n - 1) / T) * T;
  const [logits] = forward(params, ids.map(row => row.slice(from)), ...sizes(s));
  ids.forEach((row, i) => {
    const at = ((i + 1) * (n - from) - 1) * logits.cols, of_last = logits.data.subarray(at, at + logits.cols);
    row.push(of_last.indexOf(Math.max(...of_last)));
  });
}

/** Continue the texts until a time, or to their end; return whether they are complete. */
function write_until(time) {
  const length = Math.max(...["old", "new"].map(which => texts[which][0].flat().length + 1));
  const find_open = () => Object.values(writing).find(({ ids }) => ids[0].length < length);
  while (find_open() && performance.now() < time) write_letter(find_open());
  return !find_open();
}

const bare = word => word.replace(/[^\p{L}\p{N}]/gu, "");

/** Show what is written; a word's colour shows whether the continued text, the other text or neither contains it. */
function show_writing() {
  const words_of = which => new Set(state[which].split(" ").map(bare));
  for (const [name, { ids }] of Object.entries(writing)) for (const [i, which] of ["new", "old"].entries()) {
    const own = words_of(which), others = words_of(which === "new" ? "old" : "new");
    const words = ids[i].map(id => letters[id]).join("").split(" ").flatMap(word => [
      el("span", { class: own.has(bare(word)) ? "own" : others.has(bare(word)) ? "other" : "neither" }, word), " "]);
    $(`${name}-writes-${which}`).replaceChildren(...words);
  }
}

// ---------------------------------------------------------------- what the page shows

const layer_name = () => `blocks.${state.layer}`;
const short_name = layer => layer.split(".").at(-1).replace("_proj", "");
const layer_label = layer => `block ${layer[0]}, ${short_name(layer)}`;
const largest = matrix => matrix.data.reduce((most, x) => Math.max(most, Math.abs(x)), 0);

function picture(id, title, matrix, stops, more = "") {
  const limit = largest(matrix), cell = Math.min(innerWidth < 640 ? 3 : 4, 144 / Math.max(matrix.rows, matrix.cols));
  const canvas = $(id).querySelector("canvas") ?? el("canvas", { role: "img" });
  paint(canvas, matrix.data, matrix.cols, limit, stops);
  canvas.style.width = `${cell * matrix.cols}px`;
  canvas.setAttribute("aria-label", `${title}, ${matrix.rows} × ${matrix.cols}, entries up to ±${short(limit)}`);
  canvas.title = `entries from −${short(limit)} to ${short(limit)}`;
  $(id).replaceChildren(canvas, el("figcaption", {}, title, el("br"), `${matrix.rows} × ${matrix.cols}${more}`));
}

function show_layer() {
  const layer = layer_name(), grey = [colour("page"), colour("grey-fill"), colour("ink")], { params } = runs.lora;
  const updates = METHODS.map(name => update_of(name, layer)), A = params[`${layer}.lora_A`], B = params[`${layer}.lora_B`];
  for (const [i, name] of METHODS.entries()) {
    const W = runs[name].params[`${layer}.weight`], update = updates[i] ?? zeros(W.rows, W.cols);
    picture(`${name}-W`, name === "full" ? "W" : "W, frozen", W, grey);
    const title = name === "full" ? "ΔW: every entry can change" : A ? `ΔW = ${short(strength_of(name))} B A` : "no adapter here";
    picture(`${name}-update`, title, update, diverging(), `, up to ±${short(largest(update))}`);
  }
  for (const id of ["A", "B"]) $(id).hidden = !A;
  if (A) picture("A", "A", A, diverging());
  if (A) picture("B", "B", B, diverging());
  const series = METHODS.flatMap((name, i) => {
    const ys = updates[i] && singular_values(updates[i]);
    return ys ? [{ xs: ys.map((_, k) => k + 1), ys, colour: colour(name), name: LABELS[name] }] : [];
  });
  chart($("sigma"), series, "i", `singular values σᵢ of ΔW, ${layer_label(state.layer)}`, { bars: true, from: 0 });
}

function show_losses() {
  const now = { right: {} };
  for (const name of METHODS) for (const which of ["new", "old"]) {
    const { loss, right } = score(runs[name].params, texts[which], strength_of(name));
    [now[`${name}_${which}`], now.right[`${name}_${which}`]] = [loss, right];
    $(`${name}-${which}`).textContent = loss.toFixed(3);
    $(`${name}-${which}-right`).textContent = `${percent(right, 0)} of letters right`;
  }
  const line = which => METHODS.map(name => {
    const ys = [...runs[name].losses[which]];
    if (which === "new" && (name === "full" || state.strength === 1)) ys.push(now[`${name}_new`]);  // after the last step
    return { xs: ys.map((_, i) => i * (which === "new" ? 1 : EVERY)), ys, colour: colour(name), name: LABELS[name] };
  });
  for (const which of ["new", "old"]) {
    const title = `loss on the ${which} text, nats${state.strength === 1 ? "" : ", at strength 1"}`;
    chart($(`curve-${which}`), line(which), "step", title, { even: false, from: 0, to: 3 });
  }
  const [of_new, of_old] = ["new", "old"].map(which => METHODS.map(name => now[`${name}_${which}`].toFixed(2)).join(" / "));
  $("brief").textContent = `losses, full / LoRA: new ${of_new}, old ${of_old}`;
  $("guessing").textContent = `Guessing one of the ${letters.length} letters has a loss of ${Math.log(letters.length).toFixed(2)} nats.`;
  return now;
}

function show_sizes() {
  const total = Object.values(base.params).reduce((n, a) => n + a.data.length, 0);
  for (const name of METHODS) {
    const n = runs[name].trained.reduce((n, key) => n + runs[name].params[key].data.length, 0);
    $(`${name}-size`).textContent = `${count(n)} parameters (${percent(n / total)})${n > total ? ", more than the model has" : ""}`;
    $(`${name}-area`).style.width = `${64 * Math.sqrt(n / total)}px`;  // an area to scale
    for (const span of document.querySelectorAll(`.n-${name}`)) span.textContent = count(n);
  }
}

let seen = {}, first = {};  // the losses that the page shows, and those before training, which the tours read
function show() {
  $("step-count").textContent = runs ? state.steps : `base: ${base.t} of ${BASE_STEPS}`;
  $("play").textContent = playing || target !== null ? "❚❚ Pause" : "▶ Train";
  $("play").disabled = $("one").disabled = !runs;
  show_writing();
  if (!runs) return;
  show_layer();
  seen = show_losses();
  if (state.steps === 0) first = seen;
  seen.first = first;
  $("strength-value").textContent = state.strength.toFixed(2) + ({ 0: ": the base", 1: ": as trained" }[state.strength] ?? "");
  $("off").textContent = `adapter: ${state.strength === 0 ? "off" : "on"}`;
  $("token-panel").hidden = playing;
  if (!playing) show_token();
}

// ---------------------------------------------------------------- one token through one adapter

const subscript = n => Array.from(String(n), digit => "₀₁₂₃₄₅₆₇₈₉"[digit]).join("");
const factor = x => x < 0 ? `(${short(x)})` : short(x);
const dot = (p, q) => p.reduce((sum, x, i) => sum + x * q[i], 0);

/** The sum of p_i q_i in numbers, with the three largest terms: "0.1·0.2 + …". */
function terms(p, q) {
  const largest_first = p.map((x, i) => [x, q[i]]).sort((a, b) => Math.abs(b[0] * b[1]) - Math.abs(a[0] * a[1]));
  const shown = largest_first.slice(0, 3).map(([x, y]) => `${factor(x)}·${factor(y)}`).join(" + ");
  return shown + (p.length > 3 ? ` + … (${p.length} terms, the largest first)` : "");
}

/** What one token does in a layer with an adapter: name -> { values, columns, rule, about(i): entry i in numbers }. */
function token_arrays(layer) {
  const { params, trained } = runs.lora, s = strength_of("lora"), [ids, targets] = texts.new, _ = subscript;
  const [, , acts] = loss_and_gradients(params, ids, targets, trained, ...sizes(s));
  const rows = M => Array.from({ length: M.rows }, (_, i) => Array.from(M.data.subarray(i * M.cols, (i + 1) * M.cols)));
  const [W, A, B] = ["weight", "lora_A", "lora_B"].map(leaf => rows(params[`${layer}.${leaf}`]));
  const [Wt, At, Bt] = ["weight", "lora_A", "lora_B"].map(leaf => rows(transpose(params[`${layer}.${leaf}`])));
  const x = rows(acts[layer])[state.token], dy = rows(acts[`${layer}.dy`])[state.token], b = params[`${layer}.bias`].data;
  const u = A.map(row => dot(x, row)), su = u.map(z => s * z);
  const h = W.map((row, o) => b[o] + dot(x, row)), z = B.map(row => dot(su, row)), y = h.map((value, o) => value + z[o]);
  const sdy = dy.map(d => s * d), du = Bt.map(column => dot(sdy, column));
  const dx = Wt.map((column, i) => dot(dy, column) + dot(du, At[i]));
  const two = (n, columns) => [Math.floor(n / columns), n % columns];  // an entry's row and column
  return {
    x: { values: x, rule: "the layer's input", about: i => `x${_(i)} = ${short(x[i])}` },
    u: { values: u, rule: "u = x Aᵀ", about: k => `u${_(k)} = Σᵢ xᵢ A${_(k)}ᵢ = ${terms(x, A[k])} = ${short(u[k])}` },
    h: {
      values: h, rule: "h = x Wᵀ + b, the frozen path",
      about: o => `h${_(o)} = b${_(o)} + Σᵢ xᵢ W${_(o)}ᵢ = ${short(b[o])} + ${terms(x, W[o])} = ${short(h[o])}`,
    },
    z: {
      values: z, rule: "z = s u Bᵀ, the adapter's path",
      about: o => `z${_(o)} = Σₖ s uₖ B${_(o)}ₖ = ${terms(su, B[o])} = ${short(z[o])}`,
    },
    y: {
      values: y, rule: "y = h + z, the layer's output",
      about: o => `y${_(o)} = h${_(o)} + z${_(o)} = ${short(h[o])} + ${factor(z[o])} = ${short(y[o])}`,
    },
    dy: { values: dy, rule: "the gradient of y, from the layers above", about: o => `dy${_(o)} = ${short(dy[o])}` },
    dB: {
      values: sdy.flatMap(d => u.map(v => d * v)), columns: u.length, rule: "dB = s dyᵀ u, this token's part",
      about: n => {
        const [o, k] = two(n, u.length);
        return `dB${_(o)},${_(k)} = s dy${_(o)} u${_(k)} = ${short(s)}·${factor(dy[o])}·${factor(u[k])} = ${short(sdy[o] * u[k])}`;
      },
    },
    du: { values: du, rule: "du = s dy B", about: k => `du${_(k)} = Σₒ s dyₒ Bₒ${_(k)} = ${terms(sdy, Bt[k])} = ${short(du[k])}` },
    dA: {
      values: du.flatMap(d => x.map(v => d * v)), columns: x.length, rule: "dA = duᵀ x, this token's part",
      about: n => {
        const [k, i] = two(n, x.length);
        return `dA${_(k)},${_(i)} = du${_(k)} x${_(i)} = ${factor(du[k])}·${factor(x[i])} = ${short(du[k] * x[i])}`;
      },
    },
    dx: {
      values: dx, rule: "dx = dy W + du A, through both paths",
      about: i => `dx${_(i)} = Σₒ dyₒ Wₒ${_(i)} + Σₖ duₖ Aₖ${_(i)} = ${terms([...dy, ...du], [...Wt[i], ...At[i]])} = ${short(dx[i])}`,
    },
  };
}

let chosen = { name: "u", i: 0 };  // the entry whose formula is shown

function show_token() {
  const layer = layer_name(), has_adapter = `${layer}.lora_A` in runs.lora.params, text = [...state.new];
  const last = texts.new[0].flat().length - 1, at = state.token = Math.min(state.token, last);
  Object.assign($("token"), { max: last, value: at });
  const around = [text.slice(Math.max(at - 12, 0), at), text.slice(at + 1, at + 13)].map(part => part.join(""));
  $("token-value").replaceChildren("…", around[0], el("mark", {}, text[at]), around[1], "…");
  $("formula").textContent = has_adapter ? "" : "This layer has no adapter: choose another layer, or give it one above.";
  const arrays = has_adapter ? token_arrays(layer) : {};
  $("arrays").replaceChildren(...Object.entries(arrays).map(([name, array]) =>
    el("div", { class: "line" }, el("b", {}, name), token_picture(name, array), el("span", {}, array.rule))));
  if (has_adapter) explain(arrays[chosen.name], chosen.name, Math.min(chosen.i, arrays[chosen.name].values.length - 1));
}

/** Show an entry's formula, and mark the entry. */
function explain({ values, columns = values.length, about }, name, i) {
  chosen = { name, i };
  $("formula").textContent = about(i);
  for (const spot of document.querySelectorAll("#arrays .spot")) spot.hidden = spot.dataset.name !== name;
  const share = n => `${100 * n}%`, height = columns / values.length;
  const spot = document.querySelector(`#arrays .spot[data-name=${name}]`);
  Object.assign(spot.style, { left: share(i % columns / columns), top: share(Math.floor(i / columns) * height) });
  Object.assign(spot.style, { width: share(1 / columns), height: share(height) });
  const canvas = document.querySelector(`#arrays canvas[data-name=${name}]`);
  canvas.setAttribute("aria-valuenow", i);
  canvas.setAttribute("aria-valuetext", about(i));
}

/** A picture of an array whose entries can be chosen with the pointer or with the arrow keys. */
function token_picture(name, array) {
  const { values, columns = values.length } = array, n_rows = values.length / columns, limit = Math.max(...values.map(Math.abs));
  const label = `${name}, ${array.rule}: entries up to ±${short(limit)}`;
  const range = { "aria-valuemin": 0, "aria-valuemax": values.length - 1, "aria-valuenow": 0 };
  const canvas = el("canvas", { tabindex: 0, role: "slider", "aria-label": label, "data-name": name, ...range });
  paint(canvas, values, columns, limit, diverging());
  const within = (offset, size, n) => Math.max(0, Math.min(Math.floor(offset / size * n), n - 1));
  for (const event of ["pointermove", "pointerdown"]) canvas.addEventListener(event, ({ offsetX, offsetY }) => {
    const i = within(offsetY, canvas.clientHeight, n_rows), j = within(offsetX, canvas.clientWidth, columns);
    explain(array, name, i * columns + j);
  });
  const current = () => chosen.name === name ? chosen.i : 0;
  canvas.addEventListener("focus", () => explain(array, name, current()));
  canvas.addEventListener("keydown", event => {
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key], to = current() + move;
    if (!move) return;
    event.preventDefault();
    if (to >= 0 && to < values.length) explain(array, name, to);
  });
  const size = `width: ${Math.min(columns * 16, 512)}px; height: ${Math.max(14, n_rows * Math.min(columns > 8 ? 14 : 5, 180 / n_rows))}px`;
  return el("div", { class: "cells", style: size }, canvas, el("i", { class: "spot", "data-name": name, hidden: "" }));
}

// ---------------------------------------------------------------- the page's address

const NUMBERS = Object.keys(DEFAULTS).filter(key => typeof DEFAULTS[key] === "number");

function write_address() {
  const differing = Object.entries(state).filter(([key, value]) => value !== DEFAULTS[key]);
  history.replaceState(null, "", `#${new URLSearchParams(differing)}`);
}

/** Set the state from the address; values that no control offers are ignored. */
function read_address() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const is_offered = (text, key) => [...$(key).options].some(({ value }) => value === text);
  const is_number = (low, high) => text => text.trim() !== "" && Number(text) >= low && Number(text) <= high;
  const is_count = most => text => is_number(0, most)(text) && Number.isInteger(Number(text));
  const is_valid = {
    old: is_text, new: is_text, r: is_offered, alpha: is_offered, full_rate: is_offered, lora_rate: is_offered, layer: is_offered,
    on: text => text && [...text].every(key => key in LAYERS), steps: is_count(9999), strength: is_number(-1, 2), token: is_count(999),
  };
  for (const key of Object.keys(DEFAULTS)) {
    const valid = key in given && is_valid[key](given[key], key);
    state[key] = !valid ? DEFAULTS[key] : NUMBERS.includes(key) ? Number(given[key]) : given[key];
  }
}

// ---------------------------------------------------------------- controls

function show_controls() {
  for (const id of ["r", "alpha", "full_rate", "lora_rate", "layer", "strength"]) $(id).value = state[id];
  for (const key of Object.keys(LAYERS)) $(`on-${key}`).checked = state.on.includes(key);
  const sample = Object.entries(SAMPLES).find(([, text]) => text === state.new);
  $("sample").value = state.old === FIRST && sample ? sample[0] : "own";
}

function show_texts() {
  for (const id of ["old", "new"]) $(id).value = state[id];
  const used = ["old", "new"].map(id => `${rows_in(state[id]) * T + 1} of the ${[...state[id]].length} letters of the ${id} text`);
  $("text-note").textContent = `Used: the first ${used.join(", and ")}.`;
}

/** Show a changed state; if necessary, first restart from the base ("runs") or train a new one ("base"). */
function changed(restart) {
  if (restart) cancel();
  if (restart === "base") {
    begin();
    show_texts();
  } else if (restart && runs) begin_runs();
  show_controls();
  write_address();
  start_writing();
  show();
}

/** Stop training towards a step. */
function cancel() {
  [playing, target, when_done, hurry] = [false, null, null, false];
}

function make_controls() {
  const select = (id, values, text = String) => $(id).append(...values.map(value => el("option", { value }, text(value))));
  select("r", [1, 2, 4, 8, 16, 32]);
  select("alpha", [1, 2, 4, 8, 16, 32, 64, 128]);
  for (const id of ["full_rate", "lora_rate"]) select(id, [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3]);
  const layers = [0, 1].flatMap(i => Object.values(LAYERS).map(layer => `${i}.${layer}`));
  select("layer", layers, layer_label);
  select("sample", [...Object.keys(SAMPLES), "own"], name => name === "own" ? "your own text" : name);
  for (const id of ["r", "alpha", "full_rate", "lora_rate"]) {
    $(id).addEventListener("change", () => { state[id] = Number($(id).value); changed("runs"); });
  }
  for (const [key, name] of Object.entries(LAYERS)) {
    const box = el("input", { type: "checkbox", id: `on-${key}` });
    box.addEventListener("change", () => {
      state.on = Object.keys(LAYERS).filter(key => $(`on-${key}`).checked).join("") || key;  // at least one
      changed("runs");
    });
    $("on").append(el("label", {}, box, ` ${short_name(name)}`));
  }
  for (const id of ["layer", "token", "strength"]) {
    $(id).addEventListener("input", () => {
      state[id] = id === "layer" ? $(id).value : Number($(id).value);
      start_writing();
      show();
    });
    $(id).addEventListener("change", write_address);  // browsers limit how often the address may change
  }
  $("off").addEventListener("click", () => { state.strength = state.strength ? 0 : 1; changed(); });
  $("sample").addEventListener("change", () => {
    if ($("sample").value === "own") return $("new").focus();
    Object.assign(state, { old: FIRST, new: SAMPLES[$("sample").value] });
    changed("base");
  });
  for (const id of ["old", "new"]) $(id).addEventListener("change", () => {
    const text = $(id).value.replace(/\s+/g, " ").trim(), n = [...text].length;
    $("text-note").textContent = `The ${id} text needs ${T + 1} to ${LONGEST} letters; this one has ${n}.`;
    if (is_text(text)) { state[id] = text; changed("base"); }
  });
  $("play").addEventListener("click", () => {
    const was_playing = playing || target !== null;
    cancel();
    playing = !was_playing;
    changed();
  });
  $("one").addEventListener("click", () => { cancel(); step(); changed(); });
  $("again").addEventListener("click", () => changed("runs"));
  addEventListener("hashchange", () => { read_address(); open(); });
  let width = innerWidth;
  addEventListener("resize", () => {  // a phone's address bar changes only the height
    if (innerWidth !== width) show();
    width = innerWidth;
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show());
}

// ---------------------------------------------------------------- tours

function tour_button(label, go) {
  const button = el("button", { type: "button" }, label);
  button.addEventListener("click", go);
  return button;
}

/** Ask a page's question; after the guess, train, and say what happened. `before` has the losses of the earlier pages. */
function show_tour(tour, at = 0, before = []) {
  const page = tour.pages[at], { set } = tour.pages.slice(0, at + 1).findLast(({ set }) => set);
  const { sample, ...others } = set, settings = { ...DEFAULTS, ...others, ...(sample ? { new: SAMPLES[sample] } : {}) };
  const restart = () => { Object.assign(state, settings); changed("base"); };
  const heading = el("h2", { tabindex: -1 }, `${tour.name} (${at + 1} of ${tour.pages.length})`);
  const answer = el("p", { "aria-live": "polite" });
  const choices = el("div", { class: "choices" }, ...page.choices.map((choice, i) => tour_button(choice, () => guess(i))));
  const close = tour_button("Close the tour", () => { cancel(); show(); $("tour").hidden = true; });
  $("tour").replaceChildren(heading, el("p", {}, page.ask), choices, answer, close);
  $("tour").hidden = false;
  heading.focus();
  if (page.set) restart();
  else cancel();

  function guess(i) {
    if (!is_as_asked()) restart();
    state.strength = 1;
    choices.querySelectorAll("button").forEach((button, k) => {
      button.disabled = true;
      button.setAttribute("aria-pressed", k === i);
    });
    answer.textContent = "Training …";
    heading.focus();
    [target, when_done] = [page.run, () => {
      before[at] = seen;
      if (page.after) { Object.assign(state, page.after); changed(); }
      const right = page.answer(seen, before);
      answer.replaceChildren(el("b", {}, i === right ? "Right. " : `No: ${page.choices[right]}. `), page.say(seen, before));
      if (at + 1 < tour.pages.length) close.before(tour_button("Next question", () => show_tour(tour, at + 1, before)));
    }];
  }
  function is_as_asked() {  // somebody may have changed a setting, or trained, before the guess
    return state.steps <= page.run && Object.keys(settings).every(key => VIEW.includes(key) || state[key] === settings[key]);
  }
}

// ---------------------------------------------------------------- the loop

let target = null, when_done = null;  // train up to this step, then call this function
let shown_at = 0, ticked_at = 0, due = 0, hurry = false;  // times in milliseconds; steps that are due; ignore the speed

function open() {
  cancel();
  [target, hurry] = state.steps ? [state.steps, true] : [null, false];  // go straight to the address's step
  begin();
  show_texts();
  show_controls();
  start_writing();
  show();
}

/** Between two frames, train the base or both methods for some milliseconds, then write. */
function tick() {
  const now = performance.now();
  if (!runs) {
    while (base.t < BASE_STEPS && performance.now() < now + 30) train_step(base, texts.old);
    if (base.t === BASE_STEPS) begin_runs();
    else if (write_until(now + 40)) start_writing();
    show();
  } else if (playing || target !== null) {
    due = hurry ? 10 : Math.min(due + (now - ticked_at) / 1000 * Number($("speed").value), 10);
    while (due >= 1 && (target === null || state.steps < target) && performance.now() < now + 30) { step(); due--; }
    if (target !== null && state.steps >= target) {
      const then = when_done;
      cancel();
      changed();
      then?.();
    } else if (write_until(now + 45)) { show_writing(); start_writing(); }
    if (now > shown_at + 150) { show(); shown_at = now; }
  } else if (!is_written) {
    is_written = write_until(now + 30);
    show_writing();
  }
  ticked_at = now;
  setTimeout(tick, 10);
}

make_controls();
$("tours").append(...TOURS.map(tour => tour_button(tour.name, () => show_tour(tour))));
read_address();
open();
tick();
