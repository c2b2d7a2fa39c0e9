// "Draw your guess" on the book's pages of experiments: the reader draws a curve, and then sees the measured one. What
// follows on the page stays hidden until then. `book.py` writes the data: x (labels), mean, low and high (of the 95 %
// intervals, in %) and range (of the y axis).
for (const box of document.querySelectorAll(".draw-your-guess")) {
  const { x, mean, low, high, range } = JSON.parse(box.dataset.curve);
  const [width, height, left, bottom, top] = [480, 300, 45, 50, 15];
  const [smallest, largest] = range;
  const rest = [];
  for (let node = box.nextElementSibling; node; node = node.nextElementSibling) rest.push(node);
  const across = (i) => left + (i + 0.5) * (width - left) / x.length;
  const up = (value) => top + (height - top - bottom) * (largest - value) / (largest - smallest);
  const guess = x.map(() => (smallest + largest) / 2);
  const touched = new Set();

  const node = (name, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };
  const line = (values) => values.map((value, i) => `${i ? "L" : "M"}${across(i)} ${up(value)}`).join("");
  const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Your guess" });
  const text = { fill: "currentColor", "font-size": 14, "text-anchor": "middle" };
  for (let tick = smallest; tick <= largest; tick += (largest - smallest) / 5) {
    svg.append(node("path", { d: `M${left} ${up(tick)}H${width}`, stroke: "currentColor", opacity: 0.2 }));
    svg.append(node("text", { ...text, x: left - 8, y: up(tick) + 5, "text-anchor": "end" }, `${tick}`));
  }
  x.forEach((label, i) => svg.append(node("text", { ...text, x: across(i), y: height - bottom + 22 }, label)));
  svg.append(node("text", { ...text, x: (left + width) / 2, y: height - 6 }, box.dataset.axis));
  const path = node("path", { fill: "none", stroke: "currentColor", "stroke-width": 2.5, "stroke-dasharray": "6 5" });
  svg.append(path);
  const handles = x.map((label, i) => {
    const handle = node("circle", { cx: across(i), r: 9, fill: "currentColor", tabindex: 0, role: "slider" });
    handle.setAttribute("aria-label", `${box.dataset.axis}: ${label}`);
    handle.setAttribute("aria-valuemin", smallest);
    handle.setAttribute("aria-valuemax", largest);
    handle.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 }[event.key];
      if (step) set(i, guess[i] + step * (largest - smallest) / 50);
      if (step) event.preventDefault();
    });
    svg.append(handle);
    return handle;
  });

  const show = document.createElement("button");
  const skip = document.createElement("button");
  const verdict = document.createElement("p");
  verdict.setAttribute("role", "status");
  show.textContent = "Show what was measured";
  skip.textContent = "Skip";

  const set = (i, value) => {
    if (show.hidden) return; // the measured curve is already there
    guess[i] = Math.min(largest, Math.max(smallest, value));
    touched.add(i);
    draw();
  };
  const draw = () => {
    path.setAttribute("d", line(guess));
    handles.forEach((handle, i) => {
      handle.setAttribute("cy", up(guess[i]));
      handle.setAttribute("aria-valuenow", guess[i].toFixed(1));
    });
    show.disabled = touched.size < x.length;
  };
  const reveal = () => {
    for (const hidden of rest) hidden.hidden = false;
    show.hidden = skip.hidden = true;
    const look = { stroke: "#d55e00", "stroke-width": 3, fill: "none" };
    svg.append(node("path", { ...look, d: line(mean) }));
    mean.forEach((_, i) => svg.append(node("path", { ...look, d: `M${across(i)} ${up(low[i])}V${up(high[i])}` })));
    if (touched.size < x.length) return;
    const off = guess.map((value, i) => Math.abs(value - mean[i]));
    const worst = off.indexOf(Math.max(...off));
    verdict.textContent = `Your guess is ${(off.reduce((a, b) => a + b) / off.length).toFixed(1)} points off on average, `
      + `and most at ${x[worst]}: you guessed ${guess[worst].toFixed(1)}; ${mean[worst].toFixed(1)} was measured (orange, `
      + "with 95 % intervals).";
  };

  const drag = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const i = Math.floor((point.x - left) * x.length / (width - left));
    if (i >= 0 && i < x.length) set(i, largest - (point.y - top) * (largest - smallest) / (height - top - bottom));
  };
  svg.addEventListener("pointerdown", drag);
  svg.addEventListener("pointermove", drag);
  Object.assign(svg.style, { display: "block", maxWidth: "40rem", touchAction: "none", userSelect: "none" });
  show.addEventListener("click", reveal);
  skip.addEventListener("click", reveal);
  for (const hidden of rest) hidden.hidden = true;
  box.append(svg, show, skip, verdict);
  draw();
  addEventListener("hashchange", () => show.hidden || reveal()); // a link to a section that is hidden
  if (location.hash) reveal();
}
