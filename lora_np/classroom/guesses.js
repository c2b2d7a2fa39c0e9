// Questions in the lessons, in JupyterLab and in the book: two or more <details> in a row are the answers to a
// question, and the next code cell shows what happens. Its output stays hidden until the reader has opened an answer.
// The first answer that is opened is the guess. The lesson ends with the number of right guesses.
if (!document.querySelector("style[data-guesses]")) {
  const answered = new Map(); // panel's id ("" in the book) -> (question -> whether the guess was right)
  const rules = document.createElement("style");
  const scores = document.createElement("style");
  rules.dataset.guesses = "";
  rules.textContent = `
    .jp-MarkdownCell:has(details + details:last-child:not([data-guess])) + .jp-CodeCell .jp-Cell-outputWrapper,
    details + details:not([data-guess]) + .cell > :not(.cell_input, details.above-input) { display: none; }
    .jp-MarkdownCell:has(details + details:last-child:not([data-guess])) + .jp-CodeCell::after,
    details + details:not([data-guess]) + .cell::after {
      content: "Choose an answer above. The output is shown after that.";
      display: block; margin: 0.3em 1em; font-style: italic;
    }
    .jp-CodeCell::after { padding-left: 5em; }
    :is(.jp-RenderedMarkdown, .bd-article) details + p { margin-top: 1em; }
    details[data-guess="right"] > summary::after { content: " ✓ your guess"; font-weight: bold; }
    details[data-guess="wrong"] > summary::after { content: " ✗ your guess"; font-weight: bold; }`;
  document.head.append(rules, scores);

  const HEADING = 'h2:is([id="What-to-remember"], [data-jupyter-id="What-to-remember"])'; // JupyterLab 4.6 renames ids

  const answersBeside = (details) => {
    const answers = [details];
    while (answers[0].previousElementSibling?.tagName === "DETAILS") answers.unshift(answers[0].previousElementSibling);
    while (answers.at(-1).nextElementSibling?.tagName === "DETAILS") answers.push(answers.at(-1).nextElementSibling);
    return answers;
  };

  const showScores = () => {
    scores.textContent = [...answered].map(([panel, guesses]) => {
      const right = [...guesses.values()].filter(Boolean).length;
      const place = panel ? `[id="${panel}"] ${HEADING}` : "#what-to-remember > h2";
      return `${place}::after {
        content: "Your first guess was right in ${right} of ${guesses.size} questions.";
        display: block; margin-top: 0.6em; font-style: italic; font-size: 1rem; }`;
    }).join("\n");
  };

  document.addEventListener("toggle", ({ target }) => {
    if (target.tagName !== "DETAILS" || !target.open) return;
    const answers = answersBeside(target);
    if (answers.length < 2 || "guess" in target.dataset) return;
    const panel = target.closest(".jp-NotebookPanel")?.id ?? "";
    const guesses = answered.get(panel) ?? new Map();
    const summary = target.querySelector("summary").textContent;
    const right = target.textContent.trim().slice(summary.length).trim().startsWith("Right");
    answers.forEach((answer) => { answer.dataset.guess = ""; });
    target.dataset.guess = right ? "right" : "wrong";
    const question = answers[0].previousElementSibling.textContent;
    if (!guesses.has(question)) guesses.set(question, right); // else JupyterLab has rendered the cell anew
    answered.set(panel, guesses);
    const cell = target.closest(".jp-Cell")?.nextElementSibling ?? answers.at(-1).nextElementSibling;
    cell?.querySelector(".jp-Cell-outputWrapper .jp-Placeholder")?.click(); // unfold the output
    cell?.querySelectorAll(":scope > details:not(.above-input)").forEach((output) => { output.open = true; });
    showScores();
  }, true);

  // In the book, optional sections are folded. JupyterLab folds them by itself.
  for (const heading of document.querySelectorAll("section > h2")) {
    if (!heading.textContent.startsWith("Optional")) continue;
    const folded = document.createElement("details");
    folded.innerHTML = "<summary>Show this section</summary>";
    while (heading.nextSibling) folded.append(heading.nextSibling);
    heading.after(folded);
  }
}
