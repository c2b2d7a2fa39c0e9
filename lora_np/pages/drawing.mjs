// What both pages share: elements, numbers as text, colours, pictures of matrices, and charts.

export const $ = id => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);  // texts are never parsed as HTML
  return node;
}
export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/** A number as text, with three significant digits. */
export function short(x) {
  if (x === null) return "–";
  const size = Math.abs(x);
  const text = size !== 0 && (size < 1e-3 || size >= 1e6) ? x.toExponential(1) : String(Number(x.toPrecision(3)));
  return text.replace("-", "−");
}
export const count = n => n.toLocaleString("en");
export const percent = (x, digits = 1) => `${(100 * x).toFixed(digits)} %`;

/** The red, green and blue of the colour at t, from 0 to 1, in a gradient of colours such as "#0072B2". */
export function blend(stops, t) {
  const at = Math.min(Math.max(t, 0), 1) * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2);
  const [a, b] = [stops[i], stops[i + 1]].map(hex => [1, 3, 5].map(k => parseInt(hex.slice(k, k + 2), 16)));
  return a.map((x, k) => Math.round(x + (at - i) * (b[k] - x)));
}

/** The value of a colour in the style sheet; it differs between light and dark mode. */
export const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
export const diverging = () => ["minus", "page", "plus"].map(colour);
export const gradient = stops => `background: linear-gradient(90deg, ${stops.join(", ")})`;

/** Paint a canvas with one pixel per entry; the colours in stops stand for entries from −limit to limit. */
export function paint(canvas, values, columns, limit, stops) {
  Object.assign(canvas, { width: columns, height: values.length / columns });
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  const table = Array.from({ length: 256 }, (_, i) => [...blend(stops, i / 255), 255]);
  values.forEach((value, i) => {
    const shade = Math.round(127.5 * (1 + value / (limit || 1)));
    image.data.set(table[Math.max(0, Math.min(shade, 255))], 4 * i);
  });
  context.putImageData(image, 0, 0);
}

function ticks(low, high) {  // about four round numbers
  const power = 10 ** Math.floor(Math.log10((high - low) / 4));
  const step = [1, 2, 5, 10].map(x => x * power).find(x => x >= (high - low) / 5);
  const from = Math.ceil(low / step), to = Math.floor(high / step);
  return Array.from({ length: to - from + 1 }, (_, i) => Number(((from + i) * step).toPrecision(8)));
}

/** Draw lines, points or bars of one or more series into a box, and return a function that marks the i-th x.

series: a list of { xs, ys, colour, name }. Without `from`, the y axis begins a little below the smallest value. With
`even`, the values of x are labels at equal distances, otherwise numbers. */
export function chart(box, series, xLabel, yLabel, { bars = false, even = true, from, to, format = short } = {}) {
  const W = Math.max(box.clientWidth, 240), H = 230, left = 62, right = 14, top = 28, bottom = 44;
  const [{ xs }] = series, all = series.flatMap(({ ys }) => [...ys]);
  const most = Math.max(...all, to ?? -Infinity), least = Math.min(...all);
  const pad = Math.max((most - least) * 0.1, Math.abs(most) * 0.02) || 1;  // flattens changes of a thousandth
  const low = from ?? least - pad, high = from === undefined ? most + pad : (most * 1.05 || 1);
  const step = (W - left - right) / xs.length, end = Math.max(...series.flatMap(each => even ? [1] : [...each.xs]), 1);
  const place = (x, i) => even ? left + step * (i + 0.5) : left + (W - left - right) * x / end;
  const y = value => H - bottom - (Math.min(value, high) - low) / (high - low) * (H - top - bottom);
  const ends = series.map(({ name, ys }) => `${name ?? ""} ${short(ys[0] ?? 0)} to ${short(ys.at(-1) ?? 0)}`);
  const label = `${yLabel} against ${xLabel}: ${ends.join(", ")}`;
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, height: H, role: "img", "aria-label": label });
  const words = (x, y, text, anchor = "start") => picture.append(svg("text", { x, y, "text-anchor": anchor }, text));
  for (const value of ticks(low, high)) {
    picture.append(svg("line", { x1: left, x2: W - right, y1: y(value), y2: y(value), class: "grid" }));
    words(left - 8, y(value) + 5, format(value), "end");
  }
  const every = Math.ceil(30 / step);
  if (even) xs.forEach((text, i) => i % every === 0 && words(place(text, i), H - bottom + 18, String(text), "middle"));
  else ticks(0, end).forEach(x => words(place(x), H - bottom + 18, count(x), "middle"));
  words(left + (W - left - right) / 2, H - 5, xLabel, "middle");
  words(0, 15, yLabel);
  series.forEach(({ name, colour }, k) => name && picture.append(
    svg("text", { x: W - right - 42 * (series.length - 1 - k), y: 15, "text-anchor": "end", style: `fill: ${colour}; font-weight: 600` }, name)));
  series.forEach(({ xs, ys, colour }, k) => {
    const width = 0.7 * step / series.length;
    const bar = (value, i) => svg("rect", {
      x: place(0, i) + (k - series.length / 2) * width, width, y: y(value), height: Math.max(y(low) - y(value), 1), fill: colour,
    });
    const dot = (value, i) => svg("circle", { cx: place(xs[i], i), cy: y(value), r: 4, fill: colour });
    const points = ys.map((value, i) => `${place(xs[i], i)},${y(value)}`).join(" ");
    if (!bars) picture.append(svg("polyline", { points, fill: "none", stroke: colour, "stroke-width": 2.5 }));
    picture.append(...(bars ? ys.map(bar) : ys.length < 20 ? ys.map(dot) : []));
  });
  const marker = svg("circle", { r: 0, class: "marker" });
  picture.append(marker);
  box.replaceChildren(picture);
  return i => fill(marker, { cx: place(xs[i], i), cy: y(series[0].ys[i]), r: 9 }, []);
}
