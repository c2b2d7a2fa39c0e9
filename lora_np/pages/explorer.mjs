// The explorer: an adapter's answers at each scale and rank, its layers, and what each of them reads or writes.

import { $, blend, chart, colour, count, diverging, el, gradient, paint, percent, short } from "./drawing.mjs";

const data = JSON.parse($("data").textContent), { labels } = data.facts;
const facts = pairs => pairs.map(([name, value]) => el("span", {}, `${name} `, el("b", {}, value)));
const range = values => !values.length ? "–" : values.length === 1 ? short(values[0]) : `${short(values[0])} to ${short(values.at(-1))}`;
const shades = () => ["shade-0", "shade-1", "shade-2", "shade-3", "shade-4"].map(colour);

// ---------------------------------------------------------------- the headline

document.title = `${data.name} – LoRA explorer`;
$("name").textContent = data.name;
$("lead").textContent = `This adapter changes ${count(data.layers.length)} layers of ${data.base} by low-rank updates ΔW. Move a slider to see what the model answers as you scale or truncate them.`;
$("facts").append(...facts([
  ["kind", data.facts.kind], ["r", range(data.facts.r)], ["α", range(data.facts.alpha)],
  ["s", range(data.facts.s)], ["trained", `${count(data.facts.trained)} parameters (${short(data.facts.percent)} %)`],
  ...(labels ? [["labels", labels.slice(0, 12).join(", ") + (labels.length > 12 ? ", …" : "")]] : []),
]));

// ---------------------------------------------------------------- answers and losses, by scale and by rank

const head = labels ? " with the trained head, if there is one" : "";
const sliders = {
  scale: {
    values: data.scales, label: "scale of ΔW", start: data.scales.values.indexOf(1), format: value => value.toFixed(2),
    words: value => ({ 0: `: the base${head}`, 1: ": the adapter as it was trained" }[value] ?? ""),
    note: labels
      ? "Bars show the labels' probabilities; an orange mark shows the probability at scale 0. A trained head is not scaled. At scales above 1, the update is larger than the trained one."
      : "Each text is continued with the most probable tokens, and highlighted from the first word that differs from the text at scale 0. At scales above 1, the update is larger than the trained one, and if the scale is large enough, the text degenerates.",
  },
  rank: {
    values: data.ranks, label: "every ΔW truncated to rank", start: data.ranks.values.length - 1, format: String,
    words: value => value === 0 ? `: the base${head}` : value === data.ranks.values.at(-1) ? ": nothing is cut off" : "",
    note: "The singular values beyond this rank are set to zero. Where the answers and the curve do not change, the remaining directions have no effect on these texts.",
  },
};

function makeSlider(name) {
  const { values: { values, measured }, label, start, note } = sliders[name];
  const slider = el("input", { type: "range", id: name, min: 0, max: values.length - 1, step: 1 });
  slider.value = start;
  slider.addEventListener("input", () => showValue(name));
  const play = el("button", { type: "button", id: `${name}-play` });
  let timer = 0;
  const move = i => { slider.value = i; showValue(name); };
  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = `▶ Play all ${name}s`;
  }
  play.addEventListener("click", () => {  // from the first value to the last, then back to the start
    if (timer) return stop();
    play.textContent = `❚❚ Stop at this ${name}`;
    move(0);
    timer = setInterval(() => {
      if (Number(slider.value) < values.length - 1) return move(Number(slider.value) + 1);
      stop();
      move(start);
    }, 900);
  });
  stop();
  const options = labels ? "--data FILE --text COLUMN --label COLUMN" : "--text-file FILE";
  const about = measured
    ? [`${note} Measured on ${count(measured.tokens ?? measured.texts)} ${measured.tokens ? "tokens" : "texts"}: ${measured.what}.`]
    : [`${note} No losses were measured, because no texts were given; give held-out texts with `, el("code", {}, options), "."];
  $(`${name}s`).append(el("div", { class: "slider" }, play, el("label", { for: name }, label), slider, el("output", { id: `${name}-shown`, for: name })),
    el("div", { class: "pair", id: `${name}-curves` }), el("div", { id: `${name}-answers` }), el("p", { class: "note" }, ...about));
}

function drawCurves(name) {
  const { values: { values, measured }, label } = sliders[name];
  if (!measured) return;
  const plots = measured.perplexity ? [[measured.perplexity, "perplexity"]] : [[measured.accuracy, "accuracy", percent], [measured.loss, "loss, nats per text"]];
  const boxes = plots.map(() => el("div"));
  $(`${name}-curves`).replaceChildren(...boxes);  // add all boxes first, because a chart is as wide as its box
  sliders[name].move = plots.map(([ys, title, format], i) =>
    chart(boxes[i], [{ xs: values, ys, colour: colour("full") }], label, title, format && { format }));
}

function showValue(name) {
  const { values: { values, prompts, measured }, format, words, move = [] } = sliders[name], i = Number($(name).value);
  const loss = measured ? [`; loss ${measured.loss[i].toFixed(3)}, ${measured.perplexity ? `perplexity ${measured.perplexity[i].toFixed(1)}` : `accuracy ${percent(measured.accuracy[i])}`}`] : [];
  $(`${name}-shown`).replaceChildren(el("b", {}, format(values[i])), words(values[i]), ...loss);
  $(`${name}-answers`).replaceChildren(...prompts.map(({ prompt, answers }) => el("div", { class: "answer" },
    ...(labels ? bars(prompt, answers, i) : texts(prompt, answers[0], answers[i], `${name} ${values[i]}`)))));
  move.forEach(mark => mark(i));
}

function texts(prompt, before, now, where) {  // marks the words from the first one that differs from the base's
  const [old, words] = [before, now].map(text => text.split(/(?<=\s)(?=\S)/));
  let same = 0;
  while (same < words.length && words[same] === old[same]) same++;
  const changed = words.slice(same).join("");
  const paragraph = (title, ...text) => el("div", {}, el("small", {}, title), el("p", {}, el("span", {}, prompt), ...text));
  return [el("div", { class: "pair" }, paragraph("the base", before),
    paragraph(`${where}${changed ? "" : ", the same text"}`, words.slice(0, same).join(""), ...(changed ? [el("mark", {}, changed)] : [])))];
}

function bars(text, answers, i) {  // for the six labels with the largest probabilities at any value
  const most = k => Math.max(...answers.map(row => row[k]));
  const likeliest = labels.map((_, k) => k).sort((a, b) => most(b) - most(a)).slice(0, 6).sort((a, b) => a - b);
  return [el("h3", {}, text), ...likeliest.map(k => el("div", { class: "bar" }, el("span", {}, labels[k]),
    el("div", {}, el("i", { style: `width: ${100 * answers[i][k]}%` }), el("b", { style: `left: ${100 * answers[0][k]}%` })),
    el("span", {}, percent(answers[i][k]))))];
}

// ---------------------------------------------------------------- the map

const measures = {
  size: ["size", "‖ΔW‖ / ‖W‖, Frobenius norms", "The darker a cell, the larger the layer's update relative to its weight."],
  stable: ["stable rank", "stable rank of ΔW, Σσ² / σ₁²", "A stable rank near 1 means that one direction accounts for nearly all of the update."],
  effective: ["effective rank", "effective rank of ΔW, exp of the entropy of σ / Σσ", "The effective rank also counts weak directions; a value near r means that the layer uses its full rank."],
  energy: ["rank at 90 % energy", "smallest number of directions with 90 % of Σσ²", "Keeping this many directions keeps 90 % of ‖ΔW‖²."],
};
const kinds = [...new Set(data.layers.map(layer => layer.kind))];
const last = Math.max(...data.layers.map(layer => layer.block));
const first = Math.min(...data.layers.map(layer => layer.block));
const cells = [];  // buttons with their layers
// Begin with a layer that is easy to read: the one whose leading direction has the largest cosines with whole words,
// preferably in an MLP, because MLPs respond to meanings more than attention does.
const words = ({ tokens }) => (tokens[0]?.[0] ?? []).filter(([text]) => text.match(/^ \p{L}{4,}$/u));
const is_in_mlp = ({ layer }) => layer.includes(".mlp.") ? 1 : 0.01;
const clarity = layer => is_in_mlp(layer) * words(layer).reduce((sum, [, cosine]) => sum + Math.abs(cosine), 0);
const best = score => data.layers.reduce((most, layer) => score(layer) > score(most) ? layer : most);
let selected = best(clarity);

function makeMap() {
  // In a narrow window, the style sheet exchanges rows and columns, so that all blocks are within reach.
  const place = (node, block, kind) => { node.style.cssText = `--block: ${block}; --kind: ${kind}`; $("map").append(node); };
  place(el("div", { class: "kind" }, "block"), 1, 1);
  for (let block = first; block <= last; block++) place(el("div", {}, String(block)), block - first + 2, 1);
  for (const [row, kind] of kinds.entries()) {
    place(el("div", { class: "kind" }, kind.replace("_proj", "")), 1, row + 2);
    for (let block = first; block <= last; block++) {
      const layer = data.layers.find(each => each.kind === kind && each.block === block);
      const node = layer ? el("button", { type: "button" }) : el("div", {}, "·");
      place(node, block - first + 2, row + 2);
      if (!layer) continue;
      node.addEventListener("click", () => choose(layer));
      node.addEventListener("keydown", event => moveOn(event, layer));
      cells.push({ button: node, layer });
    }
  }
  $("largest").addEventListener("click", () => choose(best(layer => layer.size || 0)));
  $("readable").addEventListener("click", () => choose(best(clarity)));
  for (const [key, [name]] of Object.entries(measures)) {
    const radio = el("input", { type: "radio", name: "measure", value: key });
    radio.checked = key === "size";
    radio.addEventListener("change", paintMap);
    $("choice").append(el("label", {}, radio, ` ${name}`));
  }
}

function choose(layer) {
  selected = layer;
  paintMap();
  showLayer();
}

function moveOn(event, { kind, block }) {  // to the next cell in the direction of an arrow key
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step) return;
  event.preventDefault();
  const row = kinds.indexOf(kind) + step[0];
  const next = cells.find(({ layer }) => layer.kind === kinds[row] && layer.block === block + step[1]);
  if (next) { next.button.focus(); next.button.click(); }
}

function paintMap() {
  const key = document.querySelector("input[name=measure]:checked").value;
  const [, title, note] = measures[key];
  const most = Math.max(...data.layers.map(layer => layer[key] || 0)) || 1, least = key === "size" ? 0 : 1;
  for (const { button, layer } of cells) {
    const t = most > least ? ((layer[key] || 0) - least) / (most - least) : 0;
    const back = blend(shades(), t), [red, green, blue] = back.map(c => (c / 255) ** 2.2);
    button.style.background = `rgb(${back.join(" ")})`;
    button.style.color = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "#000" : "#fff";  // with more contrast
    button.textContent = last - first < 12 ? short(layer[key]) : "";
    button.title = `${layer.layer}: ${short(layer[key])}`;
    button.setAttribute("aria-label", button.title);
    button.setAttribute("aria-pressed", layer === selected);
    button.tabIndex = layer === selected ? 0 : -1;
  }
  $("legend").replaceChildren(String(least), el("i", { style: gradient(shades()) }), `${short(most)}   ${title}`);
  $("map-note").textContent = `${note} Choose a layer with the pointer or the arrow keys.`;
}

// ---------------------------------------------------------------- one layer

function showLayer() {
  const layer = selected;
  const spectrum = el("figure", {}, el("h3", {}, "Spectrum of ΔW"));
  const more = layer.rank > layer.sigma.length ? `The first ${layer.sigma.length} of ${layer.rank} are shown. ` : "";
  $("layer").replaceChildren(
    el("h2", { "aria-live": "polite" }, layer.layer),
    el("div", { class: "facts" }, ...facts([
      ["W", layer.shape.join(" × ")], ["rank of ΔW", String(layer.rank)], ["s", short(layer.scale)],
      ["‖ΔW‖ / ‖W‖", short(layer.size)], ["stable rank", short(layer.stable)],
      ["effective rank", short(layer.effective)], ["90 % of energy", `rank ${layer.energy}`],
    ])),
    el("div", { class: "pair" }, spectrum, el("figure", {}, el("h3", {}, "Tokens"), ...tokenLists(layer))),
    el("figure", {}, el("h3", {}, "The trained arrays"), ...layer.pictures.flatMap(drawing)),
    ...(layer.pictures.some(({ name }) => name === "lora_A") ? [el("p", { class: "note" }, "Each row is a row of A, or a column of B. A column with strong colours in many rows is an input of A, or an output of B, that the adapter uses heavily.")] : []),
  );
  const box = spectrum.appendChild(el("div")), xs = layer.sigma.map((_, i) => i + 1);
  if (xs.length) chart(box, [{ xs, ys: layer.sigma, colour: colour("full") }], "i, number of the direction", "σᵢ of ΔW", { bars: true, from: 0 });
  spectrum.append(el("figcaption", {}, `${more}A steep decay means that a lower rank would have almost the same effect.`));
}

function tokenLists(layer) {
  const energy = layer.stable * layer.sigma[0] ** 2;  // Σσ² over all directions, including those that are not in the data
  const inside = /[qkv]_proj|o_proj/.test(layer.kind) ? "attention heads" : "hidden units of the MLP";
  const about = layer.reads
    ? `This layer reads the residual stream: these tokens' embeddings have the largest cosines with its leading input directions vᵢ. Its output goes to ${inside}, which do not correspond to tokens.`
    : `This layer writes to the residual stream: these tokens lie along its leading output directions uᵢ, as the head reads them. Its input comes from ${inside}, which do not correspond to tokens.`;
  const list = (tokens, side) => el("div", { class: "tokens" }, ...tokens.map(([text, cosine]) =>
    el("span", { class: side }, visible(text), el("small", {}, ` ${cosine.toFixed(2).replace("-", "−")}`))));
  return [
    ...layer.tokens.map(([towards, away], i) => el("div", { class: "direction" },
      `${layer.reads ? "v" : "u"}${"₁₂₃"[i]}, ${percent(layer.sigma[i] ** 2 / energy, 0)} of the energy Σσ²`, list(towards, "towards"), list(away, "away"))),
    el("figcaption", {}, `${about} ␣ is a space. The later the block, the less its input depends on a token's own embedding.`),
  ];
}
const visible = text => text.replace(/ /g, "␣").replace(/\n/g, "↵").replace(/\t/g, "⇥");

function drawing({ name, shape, rows, columns, step, peak, pixels }) {
  const canvas = el("canvas", { role: "img", "aria-label": `${name}, ${shape.join(" × ")}, entries up to ±${short(peak)}` });
  paint(canvas, Array.from(atob(pixels), byte => byte.charCodeAt(0) << 24 >> 24), columns, 127, diverging());  // −127 to 127
  canvas.style.height = `${Math.max(rows * 8, 16)}px`;
  const onSide = name === "lora_B", all = shape.length === 1 ? 1 : shape[onSide ? 1 : 0];
  const words = [`${name.replace("lora_", "")} (${shape.join(" × ")})${onSide ? ", transposed" : ""}`];
  if (rows < all) words.push(`${rows} of ${all} rows`);
  if (step > 1) words.push(`each pixel is the mean of ${step} neighbouring entries`);
  const scale = el("span", { class: "legend" }, `−${short(peak)}`, el("i", { style: gradient(diverging()) }), short(peak));
  return [el("figcaption", {}, words.join("; "), scale), canvas];
}

// ---------------------------------------------------------------- begin

function draw() {
  paintMap();
  showLayer();
  for (const name of ["scale", "rank"]) { drawCurves(name); showValue(name); }
}
makeMap();
makeSlider("scale");
makeSlider("rank");
let waiting = 0;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(draw, 150); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
draw();
