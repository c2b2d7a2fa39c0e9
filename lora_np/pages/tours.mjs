// The guided tours. Each page asks for a guess and then trains; the right answer is computed from what was measured.
//
//     set      the settings that differ from the defaults; without `set`, the page continues from the previous one
//     run      train until this step
//     after    settings that change after that
//     answer   (now, pages) -> the index of the right choice
//     say      (now, pages) -> why
//
// now has the losses that the page shows, such as now.lora_new; now.right.lora_new is the share of letters that are
// predicted right. pages[i] is what was measured on the tour's i-th page, before the settings in `after`.

const digits = x => x.toFixed(3);
const share = x => `${(100 * x).toFixed(0)} % of the letters`;
const three_ways = (loss, other) => loss < 0.9 * other ? 0 : loss < 1.1 * other ? 1 : 2;  // lower, about equal, higher
const ALL = "qkvoud", SPELLING = "the same in old spelling", NEW_LETTERS = "new letters";

export const TOURS = [
  {
    name: "Why B starts at zero",
    pages: [
      {
        set: {}, run: 0,
        ask: "A starts with random numbers and B with zeros. What does LoRA's model know before the first step?",
        choices: ["what the base knows", "nothing: A has destroyed it", "the new text"],
        answer: () => 0,
        say: now => `ΔW = s B A is zero because B is. The loss on the old text is ${digits(now.lora_old)}, exactly the base's.`,
      },
      {
        run: 0,
        ask: "Which of the two matrices gets a gradient in the first step?",
        choices: ["only A", "only B", "both"],
        answer: () => 1,
        say: () => "The gradient of A is multiplied by B, so it is zero; that of B is multiplied by A, so it is not. See dA and dB in the panel at the bottom. A gets its first gradient in step 2. If both matrices started at zero, neither would ever get one.",
      },
    ],
  },
  {
    name: "Rank 1 is nearly enough",
    pages: [
      {
        set: { sample: SPELLING, on: ALL, r: 8 }, run: 100,
        ask: "The new text is the old one in another spelling. LoRA has rank 8 on all six kinds of layers, in total 9,216 parameters. How much does it learn in 100 steps?",
        choices: ["half of the letters", "about 80 %", "more than 90 %"],
        answer: now => now.right.lora_new < 0.65 ? 0 : now.right.lora_new < 0.9 ? 1 : 2,
        say: now => `LoRA predicts ${share(now.right.lora_new)}, and full fine-tuning ${share(now.right.full_new)}. The base predicted ${share(now.first.right.lora_new)}.`,
      },
      {
        set: { sample: SPELLING, on: ALL, r: 1 }, run: 100,
        ask: "And with rank 1, where each ΔW is one column times one row, 1,152 parameters in all?",
        choices: ["nearly as much", "half as much", "next to nothing"],
        answer: now => now.right.lora_new > 0.85 ? 0 : now.right.lora_new > 0.4 ? 1 : 2,
        say: (now, pages) => `${share(now.right.lora_new)}, compared with ${share(pages[0].right.lora_new)} at rank 8. The change is simple here, so few directions carry most of it.`,
      },
    ],
  },
  {
    name: "The wrong learning rate",
    pages: [
      {
        set: {}, run: 60,
        ask: "LoRA's learning rate is 0.01 here, about three times that of full fine-tuning. Which loss falls faster?",
        choices: ["full fine-tuning's", "LoRA's"],
        answer: now => now.full_new < now.lora_new ? 0 : 1,
        say: now => `After 60 steps: full fine-tuning ${digits(now.full_new)}, LoRA ${digits(now.lora_new)}.`,
      },
      {
        set: { lora_rate: 0.003 }, run: 60,
        ask: "Full fine-tuning works well with 0.003. What if LoRA gets the same rate?",
        choices: ["it reaches about the same loss as with 0.01", "it is far behind"],
        answer: (now, pages) => now.lora_new < 1.5 * pages[0].lora_new ? 0 : 1,
        say: (now, pages) => `LoRA's loss is ${digits(now.lora_new)} instead of ${digits(pages[0].lora_new)}. LoRA usually needs a larger rate than full fine-tuning; a comparison that uses one rate for both is unfair to one of them.`,
      },
      {
        set: { lora_rate: 0.3 }, run: 60,
        ask: "And with a rate of 0.3?",
        choices: ["it learns faster", "it falls apart"],
        answer: (now, pages) => now.lora_new < pages[0].lora_new ? 0 : 1,
        say: now => `The loss is ${digits(now.lora_new)}. Steps this large overshoot: see the curve below.`,
      },
    ],
  },
  {
    name: "Forgetting",
    pages: [
      {
        set: {}, run: 101,
        ask: "Both learn the new text, and neither sees the old one again. Which one forgets more of it?",
        choices: ["full fine-tuning", "LoRA", "neither forgets"],
        answer: now => Math.max(now.full_old, now.lora_old) < 0.1 ? 2 : now.full_old > now.lora_old ? 0 : 1,
        say: now => `The loss on the old text was ${digits(now.first.lora_old)}; now it is ${digits(now.full_old)} with full fine-tuning (${share(now.right.full_old)} right) and ${digits(now.lora_old)} with LoRA (${share(now.right.lora_old)}). But LoRA has also learned less of the new text so far: both forget.`,
      },
      {
        run: 101, after: { strength: 0 },
        ask: "Now LoRA's adapter is switched off. What becomes of the old text?",
        choices: ["it stays forgotten", "some of it returns", "it returns exactly"],
        answer: now => now.lora_old < 0.04 ? 2 : now.lora_old < 1 ? 1 : 0,
        say: now => `The loss is ${digits(now.lora_old)} again: W was never changed. Full fine-tuning has overwritten its W, so there is nothing to switch off. Move the slider to see everything in between.`,
      },
    ],
  },
  {
    name: "What alpha does",
    pages: [
      {
        set: {}, run: 60, after: { strength: 2 },
        ask: "LoRA adds s B A with s = α / r. After 60 steps, α is doubled, without further training. What happens to the loss on the new text?",
        choices: ["it falls", "it stays the same", "it rises"],
        answer: (now, pages) => three_ways(now.lora_new, pages[0].lora_new),
        say: (now, pages) => `It was ${digits(pages[0].lora_new)} and is now ${digits(now.lora_new)}: B and A were trained for the α that they had, so α must be saved with them.`,
      },
      {
        set: { alpha: 64 }, run: 60,
        ask: "And if α is four times as large from the start, at the same learning rate?",
        choices: ["the loss falls faster", "nothing changes", "the loss falls more slowly"],
        answer: (now, pages) => three_ways(now.lora_new, pages[0].lora_new),
        say: (now, pages) => `After 60 steps: ${digits(now.lora_new)}, compared with ${digits(pages[0].lora_new)}. Each step now changes ΔW four times as much: α acts much like a larger learning rate, which is why it is usually fixed and the rate is tuned.`,
      },
    ],
  },
  {
    name: "Where LoRA fails",
    pages: [
      {
        set: { sample: NEW_LETTERS }, run: 150,
        ask: "The new text is the number π, whose digits the base has never seen. Which method learns it?",
        choices: ["both", "only full fine-tuning", "neither"],
        answer: now => now.full_new > 0.5 ? 2 : now.lora_new < 0.5 ? 0 : 1,
        say: now => `The losses are ${digits(now.full_new)} and ${digits(now.lora_new)}. While the base learned the old text, it pushed the embeddings of all letters that never occurred in the same direction. To the frozen model, one digit therefore looks nearly like another, and LoRA learns little more than how frequent each is.`,
      },
      {
        set: { sample: NEW_LETTERS, on: ALL, r: 16 }, run: 150,
        ask: "Does LoRA need a higher rank? Now it has rank 16 on all six kinds of layers, in total 18,432 parameters.",
        choices: ["yes, that solves it", "no, it makes no difference"],
        answer: (now, pages) => now.lora_new < 0.5 * pages[0].lora_new ? 0 : 1,
        say: now => `The loss is ${digits(now.lora_new)}. What is missing is not in these layers: for new tokens, the embeddings must be trained as well, and most LoRA libraries offer that.`,
      },
    ],
  },
];
