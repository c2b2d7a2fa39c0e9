// A port of the specification (SPEC.md) to JavaScript, section by section: a small transformer with LoRA, in float64.
//     node port.mjs OUT vectors/*.float64.safetensors
// reads the inputs and settings of each case and writes the case's outputs to OUT/<case>.float64.safetensors.

import fs from 'node:fs';
import path from 'node:path';

// ---- 1. Arrays -----------------------------------------------------------------------------------------------------
// A tensor is { shape, data }, data a typed array in row-major order: Float64Array for numbers, Int32Array for int64.
// What a function has returned is never changed, so tensors may share their data.
const plus = (x, y) => x + y;
const minus = (x, y) => x - y;
const times = (x, y) => x * y;
const over = (x, y) => x / y;
const range = (n) => Array.from({ length: n }, (_, i) => i);
const sizeOf = (shape) => shape.reduce(times, 1);
const tensor = (shape, values, f) => ({ shape, data: Float64Array.from(values, f) });
const scalar = (value) => tensor([], [value]);
const vector = (values) => tensor([values.length], values);
const zeros = (shape) => tensor(shape, { length: sizeOf(shape) }, () => 0);
const reshape = (a, shape) => ({ shape, data: a.data });
const asRows = (a, n) => reshape(a, [a.data.length / n, n]);
const convert = (Type, a) => ({ shape: a.shape, data: Type.from(a.data) });

// f entry by entry. b and c may lack leading axes and are then repeated along them, as a bias (C,) with x (..., C).
const map = (f, a, b = a, c = a) =>
  tensor(a.shape, a.data, (x, i) => f(x, b.data[i % b.data.length], c.data[i % c.data.length]));
// f of each entry of a (..., n), the one value of its row in b (...), and its place in the row.
const mapRows = (f, a, b, n = a.shape.at(-1)) =>
  tensor(a.shape, a.data, (x, i) => f(x, b.data[Math.floor(i / n)], i % n));
// The last axis folded into one value for each row.
const foldRows = (f, start, a, n = a.shape.at(-1)) =>
  tensor(a.shape.slice(0, -1), range(a.data.length / n), (row) => a.data.slice(row * n, row * n + n).reduce(f, start));
const add = (a, b) => map(plus, a, b);
const subtract = (a, b) => map(minus, a, b);
const multiply = (a, b) => map(times, a, b);
const scale = (a, factor) => map((x) => x * factor, a);
const sumAll = (a) => a.data.reduce(plus, 0);
const rowSum = (a) => foldRows(plus, 0, a);
const rowMax = (a) => foldRows((x, y) => Math.max(x, y), -Infinity, a);
const rowMean = (a) => scale(rowSum(a), 1 / a.shape.at(-1));

// Sums of products: einsum('ik,jk->ij', a, b) is Σ_k a[i, k] b[j, k]. A dot at the front stands for all leading axes,
// taken as one axis of rows.
function einsum(formula, a, b = scalar(1)) {
  const [left, right, out] = formula.split(/,|->/);
  const lead = a.shape.slice(0, a.shape.length - left.length + 1);
  const axes = (shape, letters) => (letters[0] === '.' ? [sizeOf(lead), ...shape.slice(lead.length)] : shape);
  const known = [...axes(a.shape, left), ...axes(b.shape, right)];
  const sizes = Object.fromEntries([...left, ...right].map((letter, axis) => [letter, known[axis]]));
  if ([...left, ...right].some((letter, axis) => sizes[letter] !== known[axis])) {
    throw new Error(`shapes that do not fit each other in ${formula}: ${a.shape} and ${b.shape}`);
  }
  const stride = (word, l) => (word.includes(l) ? sizeOf([...word.split(l)[1]].map((later) => sizes[later])) : 0);
  const loops = Object.keys(sizes).map((l) => [sizes[l], ...[left, right, out].map((word) => stride(word, l))]);
  const result = zeros([...out].flatMap((letter) => (letter === '.' ? lead : sizes[letter])));
  const visit = (depth, i, j, k) => {
    if (depth === loops.length) result.data[k] += a.data[i] * b.data[j];
    const [size, stepA, stepB, stepOut] = loops[depth] ?? [0];
    for (let n = 0; n < size; n++) {
      visit(depth + 1, i + n * stepA, j + n * stepB, k + n * stepOut);
    }
  };
  visit(0, 0, 0, 0);
  return result;
}

// Parts and joins along the first axis.
const slice = (a, begin, end, size = sizeOf(a.shape.slice(1))) =>
  ({ shape: [end - begin, ...a.shape.slice(1)], data: a.data.subarray(begin * size, end * size) });
function concat(parts) {
  const shape = [parts.map((part) => part.shape[0]).reduce(plus), ...parts[0].shape.slice(1)];
  return { shape, data: parts[0].data.constructor.from(parts.flatMap((part) => Array.from(part.data))) };
}
const entry = (a, i) => reshape(slice(a, i, i + 1), a.shape.slice(1));
const stack = (parts) => reshape(concat(parts), [parts.length, ...parts[0].shape]);
const transpose = (a) => einsum('ij,->ji', a);
// For each of the ids (...) its row of the unit matrix, (..., size); a row of 0 for an id that is out of range.
const oneHot = (ids, size) => mapRows((_, id, j) => (j === id ? 1 : 0), zeros([...ids.shape, size]), ids);
// Flat objects of named tensors.
const named = (names, f) => Object.fromEntries(names.map((name) => [name, f(name)]));
const mapNamed = (f, all) => named(Object.keys(all), (name) => f(all[name], name));
const pick = (names, all) => named(names, (name) => all[name]);
const withPrefix = (prefix, all) => Object.fromEntries(Object.entries(all).map(([name, a]) => [prefix + name, a]));
const underPrefix = (prefix, all) => Object.fromEntries(Object.entries(all)
  .filter(([name]) => name.startsWith(prefix)).map(([name, a]) => [name.slice(prefix.length), a]));

// ---- 2. The vectors: safetensors -----------------------------------------------------------------------------------
// Typed arrays have the machine's byte order; wherever Node runs today, that is little-endian, as the files are.
const ARRAYS = { F64: Float64Array, F32: Float32Array, I64: BigInt64Array, I8: Int8Array, U8: Uint8Array };
const jsonOf = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

// The metadata, the names, and a function that reads one tensor: what nobody asks for is not looked at.
function openSafetensors(bytes) {
  const { buffer } = Uint8Array.from(bytes);
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  const { __metadata__: metadata, ...header } = jsonOf(buffer.slice(8, start));
  const read = (name) => {
    const { dtype, shape, data_offsets: [begin, end] } = header[name];
    const data = new ARRAYS[dtype](buffer.slice(start + begin, start + end));
    if (data.length !== sizeOf(shape)) throw new Error(`${name} does not have the size of its shape`);
    return { shape, data: dtype === 'I64' ? Int32Array.from(data, Number) : data }; // BigInts cannot be indices
  };
  return { metadata, names: Object.keys(header), read };
}

// The bytes of a file, always in the one layout that gpt2_write and peft_write ask for.
function toSafetensors(tensors) {
  const header = { __metadata__: { format: 'pt' } };
  const parts = [];
  let offset = 0;
  for (const name of Object.keys(tensors).sort()) {
    const { shape, data } = tensors[name];
    const stored = data instanceof Int32Array ? BigInt64Array.from(data, BigInt) : data;
    const dtype = Object.keys(ARRAYS).find((key) => stored instanceof ARRAYS[key]);
    header[name] = { dtype, shape, data_offsets: [offset, offset + stored.byteLength] };
    parts.push(Buffer.from(stored.buffer, stored.byteOffset, stored.byteLength));
    offset += stored.byteLength;
  }
  const text = JSON.stringify(header);
  const padded = Buffer.from(text.padEnd(8 * Math.ceil(text.length / 8)));
  return Buffer.concat([Buffer.from(BigUint64Array.of(BigInt(padded.length)).buffer), padded, ...parts]);
}

// ---- 4. Tier 1: operations -----------------------------------------------------------------------------------------
// An operation has forward(inputs, settings), which gives its outputs by name, its result as the last of them, and
// backward(inputs, outputs, grad, settings), which gives the gradients of its inputs from that of its result.
const linear = {
  forward: ({ x, weight, bias }) => ({ y: add(einsum('.i,oi->.o', x, weight), bias ?? scalar(0)) }), // x Wᵀ + b
  backward: ({ x, weight }, outputs, grad) => ({
    x: einsum('.o,oi->.i', grad, weight), // grad.y W
    weight: einsum('.o,.i->oi', grad, x), // Σ_rows grad.yᵀ x
    bias: einsum('.o,->o', grad), // Σ_rows grad.y
  }),
};

const layerNorm = {
  forward({ x, weight, bias }, { eps }) {
    const centred = mapRows(minus, x, rowMean(x)); // x − mean
    const variance = rowMean(multiply(centred, centred)); // of the differences: mean(x²) − mean(x)² loses digits
    const inv_std = map((value) => 1 / Math.sqrt(value + eps), variance); // 1 / √(var + ε)
    const x_hat = mapRows(times, centred, inv_std); // (x − mean) · inv_std
    return { inv_std, x_hat, y: add(multiply(x_hat, weight), bias) }; // x_hat ⊙ weight + bias
  },
  backward({ weight }, { inv_std, x_hat }, grad) {
    const d = multiply(grad, weight);
    const centred = mapRows(minus, d, rowMean(d)); // d − mean(d)
    const along = mapRows(times, x_hat, rowMean(multiply(d, x_hat))); // x_hat ⊙ mean(d ⊙ x_hat)
    return {
      x: mapRows(times, subtract(centred, along), inv_std), // (d − mean(d) − x_hat ⊙ mean(d ⊙ x_hat)) · inv_std
      weight: einsum('.c,.c->c', grad, x_hat), // Σ_rows grad.y ⊙ x_hat
      bias: einsum('.c,->c', grad), // Σ_rows grad.y
    };
  },
};

const ROOT = Math.sqrt(2 / Math.PI);
const CUBIC = 0.044715;
const gelu = {
  forward({ x }) {
    const u = map((value) => ROOT * (value + CUBIC * value ** 3), x); // √(2/π) (x + 0.044715 x³)
    const g = map((value) => 0.5 * (1 + Math.tanh(value)), u); // ½ (1 + tanh u)
    const y = multiply(x, g);
    const du = map((value) => ROOT * (1 + 3 * CUBIC * value ** 2), x); // √(2/π) (1 + 3 · 0.044715 x²)
    const slope = map((gate, out, inner) => gate + 2 * out * (1 - gate) * inner, g, y, du); // g + 2 y (1 − g) u′
    return { slope, y };
  },
  backward: (inputs, { slope }, grad) => ({ x: multiply(grad, slope) }),
};

// erf(z) = 2/√π exp(−z²) Σ 2ⁿ z²ⁿ⁺¹ / (1 · 3 · … · (2n+1)), whose terms all have one sign
const erf = (z) => {
  let [term, total] = [z, z];
  for (let n = 1; n < 150; n++) total += term *= (2 * z * z) / (2 * n + 1);
  return Math.abs(z) < 6 ? (2 / Math.sqrt(Math.PI)) * Math.exp(-z * z) * total : Math.sign(z);
};
const geluErf = {
  forward({ x }) {
    const share = map((value) => 0.5 * (1 + erf(value / Math.SQRT2)), x); // Φ = ½ (1 + erf(x/√2))
    const density = map((value) => Math.exp(-value * value / 2) / Math.sqrt(2 * Math.PI), x); // φ
    return { slope: map((s, value, d) => s + value * d, share, x, density), y: multiply(x, share) };
  },
  backward: gelu.backward,
};

const belowMax = (x) => mapRows(minus, x, rowMax(x)); // x − max: exp of it cannot overflow
const softmax = {
  forward({ x }) {
    const weights = map(Math.exp, belowMax(x));
    return { probs: mapRows(over, weights, rowSum(weights)) }; // exp(x − max) / Σ exp(x − max)
  },
  backward: (inputs, { probs }, grad) => // probs ⊙ (grad.probs − Σ grad.probs ⊙ probs)
    ({ x: multiply(probs, mapRows(minus, grad, rowSum(multiply(grad, probs)))) }),
};

// (B, T, H·D) as (B, T, K, H/K, D): a head owns a run of D columns, and H/K query heads side by side share a key head.
const splitHeads = (x, D, width) => reshape(x, [...x.shape.slice(0, 2), width / D, x.shape[2] / width, D]);
const attention = {
  forward({ q, k, v, positions }, { n_heads }) {
    const [queries, keys, values] = [q, k, v].map((x) => splitHeads(x, q.shape[2] / n_heads, k.shape[2]));
    const byKey = scale(einsum('bikgd,bjkod->bkgij', queries, keys), 1 / Math.sqrt(keys.shape[4])); // q kᵀ / √D
    const products = reshape(byKey, [q.shape[0], n_heads, q.shape[1], k.shape[1]]);
    const last = vector(range(q.shape[1]).map((i) => i + k.shape[1] - q.shape[1])); // p = i + Tk − Tq
    const position = positions ?? stack(Array(q.shape[0]).fill(last));
    const ofHeads = einsum('bi,h->bhi', position, vector(Array(n_heads).fill(1)));
    const scores = mapRows((product, p, key) => (key > p ? -Infinity : product), products, ofHeads);
    const { probs } = softmax.forward({ x: scores });
    const context = reshape(einsum('bkgij,bjkod->bikgd', reshape(probs, byKey.shape), values), q.shape); // probs v
    return { scores, probs, context };
  },
  backward({ q, k, v }, { probs }, grad, { n_heads }) {
    const [queries, keys, values, above] = [q, k, v, grad].map((x) => splitHeads(x, q.shape[2] / n_heads, k.shape[2]));
    const byKey = einsum('bikgd,bjkod->bkgij', above, values);
    const gradProbs = reshape(byKey, probs.shape); // grad.context vᵀ
    const gradScores = softmax.backward({}, { probs }, gradProbs).x;
    const gradProducts = reshape(scale(gradScores, 1 / Math.sqrt(keys.shape[4])), byKey.shape); // grad.scores / √D
    const gradQ = reshape(einsum('bkgij,bjkod->bikgd', gradProducts, keys), q.shape); // grad.scores k / √D
    const gradK = reshape(einsum('bkgij,bikgd->bjkd', gradProducts, queries), k.shape); // grad.scoresᵀ q / √D
    // grad.v = probsᵀ grad.context
    const gradV = reshape(einsum('bkgij,bikgd->bjkd', reshape(probs, byKey.shape), above), v.shape);
    return { q: gradQ, k: gradK, v: gradV, probs: gradProbs, scores: gradScores };
  },
};

// In an encoder, each query is at the position of its row's last real token.
const encoderAttention = {
  forward: ({ q, k, v, lengths }, settings) => attention.forward({ q, k, v,
    positions: stack(Array.from(lengths.data, (n) => vector(Array(q.shape[1]).fill(n - 1)))) }, settings),
  backward: attention.backward,
};
const meanPool = { // the mean over t < length: a sum of x with the shares 1/length or 0
  shares: ({ x, lengths }) => stack(Array.from(lengths.data, (n) =>
    vector(range(x.shape[1]).map((t) => (t < n ? 1 / n : 0))))),
  forward: (inputs) => ({ y: einsum('bt,btc->bc', meanPool.shares(inputs), inputs.x) }),
  backward: (inputs, outputs, grad) => ({ x: einsum('bt,bc->btc', meanPool.shares(inputs), grad) }),
};

// weight[ids] is a product with rows of the unit matrix, and so its gradient is that of a product.
const embedding = {
  forward: ({ ids, weight }) => ({ y: einsum('.v,vc->.c', oneHot(ids, weight.shape[0]), weight) }),
  backward: ({ ids, weight }, outputs, grad) => ({ weight: einsum('.v,.c->vc', oneHot(ids, weight.shape[0]), grad) }),
};

const countOf = (real) => Math.max(1, sumAll(real)); // N, at least 1
const crossEntropy = {
  forward({ logits, targets }, { ignore_index }) {
    const real = map((target) => (target === ignore_index ? 0 : 1), targets);
    const shifted = belowMax(logits);
    const logSums = map(Math.log, rowSum(map(Math.exp, shifted))); // log Σ exp(x − max)
    const chosen = rowSum(multiply(shifted, oneHot(targets, logits.shape.at(-1)))); // x_target − max
    const losses = multiply(subtract(logSums, chosen), real);
    return { real, loss: scalar(sumAll(losses) / countOf(real)) }; // (1/N) Σ over the N real targets
  },
  backward({ logits, targets }, { real }, grad) {
    const { probs } = softmax.forward({ x: logits });
    const differences = subtract(probs, oneHot(targets, logits.shape.at(-1))); // softmax(x) − onehot(target)
    const factors = scale(real, sumAll(grad) / countOf(real)); // grad_loss / N, and 0 in rows that are ignored
    return { logits: mapRows(times, differences, factors) };
  },
};

const dropout = { // without a mask, nothing is dropped
  forward: ({ x, mask }) => ({ y: mask ? multiply(x, mask) : x }),
  backward: ({ mask }, outputs, grad) => ({ x: mask ? multiply(grad, mask) : grad }),
};

const scaling = ({ r, alpha, rslora }) => alpha / (rslora ? Math.sqrt(r) : r); // s = α/r, or α/√r
// What LoRA and DoRA both read and hold: x̃ = x ⊙ mask and su = s (x̃ Aᵀ).
const adapterDown = (inputs, settings, dropped = dropout.forward(inputs).y) =>
  ({ dropped, su: scale(linear.forward({ x: dropped, weight: inputs.lora_A }).y, scaling(settings)) });
const lora = {
  forward(inputs, settings) {
    const { dropped, su } = adapterDown(inputs, settings);
    const base = linear.forward(inputs).y; // of x, not of x̃
    return { dropped, su, y: add(base, linear.forward({ x: su, weight: inputs.lora_B }).y) }; // x Wᵀ + b + su Bᵀ
  },
  backward(inputs, { dropped, su }, grad, settings) {
    const base = linear.backward(inputs, {}, grad);
    const up = linear.backward({ x: su, weight: inputs.lora_B }, {}, grad); // grad.y B and Σ_rows grad.yᵀ su
    const inner = scale(up.x, scaling(settings)); // s grad.y B
    const down = linear.backward({ x: dropped, weight: inputs.lora_A }, {}, inner); // … A and Σ_rows (s grad.y B)ᵀ x̃
    const x = add(base.x, dropout.backward(inputs, {}, down.x).x); // grad.y W + ((s grad.y B) A) ⊙ mask
    return { ...base, x, lora_B: up.weight, lora_A: down.weight };
  },
  delta: ({ lora_A, lora_B }, settings) => scale(einsum('or,ri->oi', lora_B, lora_A), scaling(settings)), // s B A
};

const dora = {
  direction(inputs, settings) {
    const V = add(inputs.weight, lora.delta(inputs, settings)); // W + s B A
    const norm = map(Math.sqrt, rowSum(multiply(V, V))); // ‖V‖ of each row
    const factor = map(over, inputs.lora_magnitude_vector, norm); // m / norm
    const delta = subtract(mapRows(times, V, factor), inputs.weight); // (m / norm) ⊙ V − W, row by row
    return { V, norm, factor, delta };
  },
  forward(inputs, settings) {
    const direction = dora.direction(inputs, settings);
    const { dropped, su } = adapterDown(inputs, settings);
    const h = linear.forward({ x: dropped, weight: direction.V }).y; // x̃ Vᵀ
    const rest = linear.forward({ ...inputs, x: subtract(inputs.x, dropped) }).y; // (x − x̃) Wᵀ + b
    const y = add(multiply(h, direction.factor), rest); // (m / norm) ⊙ h + b + (x − x̃) Wᵀ
    return { ...direction, dropped, su, h, y };
  },
  backward(inputs, { V, norm, factor, dropped, h }, grad, settings) {
    const { x, weight, lora_A, lora_B, lora_magnitude_vector: m } = inputs;
    const rest = linear.backward({ x: subtract(x, dropped), weight }, {}, grad);
    const direct = linear.backward({ x: dropped, weight: V }, {}, multiply(grad, factor)); // dh = (m / norm) ⊙ grad.y
    const a = einsum('.o,.o->o', grad, h); // Σ_rows grad.y ⊙ h
    // The norm is held constant, as in the paper, unless norm_gradient asks for dV = −(m ⊙ a / norm³) ⊙ V besides.
    const turn = map((m_i, a_i, norm_i) => (settings.norm_gradient ? -(m_i * a_i) / norm_i ** 3 : 0), m, a, norm);
    const gradV = add(direct.weight, mapRows(times, V, turn)); // Σ_rows dhᵀ x̃ + dV
    const gradBA = scale(gradV, scaling(settings)); // as V holds s B A
    return {
      ...rest, // the bias
      x: add(dropout.backward(inputs, {}, subtract(direct.x, rest.x)).x, rest.x), // mask ⊙ (dh V − grad.y W) + grad.y W
      weight: add(gradV, rest.weight), // Σ_rows dhᵀ x̃ + dV + Σ_rows grad.yᵀ (x − x̃)
      lora_magnitude_vector: map(over, a, norm),
      lora_B: einsum('oi,ri->or', gradBA, lora_A), // Σ_rows dhᵀ su + s dV Aᵀ
      lora_A: einsum('or,oi->ri', lora_B, gradBA), // Σ_rows (s dh B)ᵀ x̃ + s Bᵀ dV
    };
  },
  delta: (inputs, settings) => dora.direction(inputs, settings).delta,
};

// ---- 7. Tier 4: Llama's operations; its model is among the functions of section 5 ----------------------------------
const rmsNorm = {
  forward({ x, weight }, { eps }) {
    const inv_rms = map((square) => 1 / Math.sqrt(square + eps), rowMean(multiply(x, x))); // 1 / √(mean(x²) + ε)
    const x_hat = mapRows(times, x, inv_rms);
    return { inv_rms, x_hat, y: multiply(x_hat, weight) };
  },
  backward({ weight }, { inv_rms, x_hat }, grad) {
    const gradHat = multiply(grad, weight);
    const along = mapRows(times, x_hat, rowMean(multiply(gradHat, x_hat))); // x_hat ⊙ mean(d ⊙ x_hat)
    return { weight: einsum('.c,.c->c', grad, x_hat), x: mapRows(times, subtract(gradHat, along), inv_rms) };
  },
};

// Numbers j and j + D/2 of each head are a point in the plane; at position p it turns by p · θ^(−2j/D).
const rotate = (x, cos, sin, half = cos.shape.at(-1), width = x.shape.at(-1)) => tensor(x.shape, x.data, (value, i) => {
  const at = Math.floor(i / width) * half + (i % half);
  const isFirst = (i % width) % (2 * half) < half;
  return value * cos.data[at] + (isFirst ? -x.data[i + half] : x.data[i - half]) * sin.data[at];
});
const rope = {
  forward({ x, positions, theta }, { head_size: D, rope_divisors: divisors }) {
    const speeds = vector(range(D / 2).map((j) => theta.data[0] ** ((-2 * j) / D) / (divisors?.[j] ?? 1)));
    const angles = einsum('bt,j->btj', positions, speeds);
    const [cos, sin] = [map(Math.cos, angles), map(Math.sin, angles)];
    return { cos, sin, y: rotate(x, cos, sin) };
  },
  backward: (inputs, { cos, sin }, grad) => ({ x: rotate(grad, cos, scale(sin, -1)) }), // turned back
};

const sigmoid = (a) => 0.5 * (1 + Math.tanh(a / 2));
const swiglu = {
  forward: ({ gate, up }) => ({ y: map((a, u) => a * sigmoid(a) * u, gate, up) }), // a σ(a) ⊙ u
  backward: ({ gate, up }, outputs, grad) => ({
    up: map((a, g) => g * a * sigmoid(a), gate, grad),
    gate: map((a, u, g) => g * u * sigmoid(a) * (1 + a * (1 - sigmoid(a))), gate, up, grad),
  }),
};

// The chunks are of no matter: a port may as well compute all logits at once.
const linearCrossEntropy = {
  forward({ x, weight, targets }, settings) {
    const logits = linear.forward({ x, weight }).y;
    return { logits, ...crossEntropy.forward({ logits, targets }, settings) };
  },
  backward({ x, weight, targets }, { logits, real }, grad) {
    return linear.backward({ x, weight }, {}, crossEntropy.backward({ logits, targets }, { real }, grad).logits);
  },
};

// ---- Tier 6: rewards and preferences
const tokenLogProbs = {
  forward({ x, weight, targets }, { ignore_index }) {
    const logits = linear.forward({ x, weight }).y;
    const real = map((target) => (target === ignore_index ? 0 : 1), targets);
    const shifted = belowMax(logits);
    const logSums = map(Math.log, rowSum(map(Math.exp, shifted))); // log Σ exp(z − max)
    const chosen = rowSum(multiply(shifted, oneHot(targets, weight.shape[0]))); // z_target − max
    return { logits, real, log_probs: multiply(subtract(chosen, logSums), real) };
  },
  backward({ x, weight, targets }, { logits, real }, grad) {
    const { probs } = softmax.forward({ x: logits });
    const differences = subtract(oneHot(targets, weight.shape[0]), probs); // onehot(target) − softmax(z)
    return linear.backward({ x, weight }, {}, mapRows(times, differences, multiply(grad, real)));
  },
};

const grpo = {
  forward({ log_probs, old, reference, rewards, lengths }, { clip, beta }) {
    const [N, T] = log_probs.shape;
    const centred = mapRows(minus, rewards, rowMean(rewards));
    const squares = rowSum(multiply(centred, centred));
    const spreads = map((square) => Math.sqrt(square / (rewards.shape[1] - 1)) + 1e-4, squares); // std(R) + 0.0001
    const advantages = mapRows(over, centred, spreads);
    const A = tensor([N, T], log_probs.data, (l, k) => advantages.data[Math.floor(k / T)]);
    const weights = tensor([N, T], log_probs.data, (l, k) => {
      const length = lengths.data[Math.floor(k / T)];
      return k % T < length ? 1 / (N * length) : 0;
    });
    const ratios = map((l, o) => Math.exp(l - o), log_probs, old);
    const d = subtract(reference, log_probs);
    const clipped = map((ratio, a) => (a > 0 ? ratio > 1 + clip : ratio < 1 - clip), ratios, A);
    const kept = map((ratio, is, a) => (is ? 1 + Math.sign(a) * clip : ratio) * a, ratios, clipped, A); // min(ρ A, c A)
    const moved = map((ratio, is, a) => (is ? 0 : ratio * a), ratios, clipped, A);
    const gains = subtract(kept, map((x) => beta * (Math.exp(x) - x - 1), d));
    const slopes = multiply(weights, subtract(map((x) => beta * (1 - Math.exp(x)), d), moved));
    return { advantages, slopes, loss: scalar(-sumAll(multiply(weights, gains))) };
  },
  backward: (inputs, { slopes }, grad) => ({ log_probs: scale(slopes, sumAll(grad)) }),
};

const dpo = {
  forward({ log_probs, reference }, { beta }) {
    const margins = einsum('ps,s->p', subtract(log_probs, reference), vector([beta, -beta]));
    const losses = map((m) => Math.max(-m, 0) + Math.log1p(Math.exp(-Math.abs(m))), margins); // log(1 + exp(−m))
    return { margins, loss: scalar(sumAll(losses) / margins.data.length) };
  },
  backward(inputs, { margins }, grad, { beta }) {
    const slopes = map((m) => (-sumAll(grad) * beta * sigmoid(-m)) / margins.data.length, margins);
    return { log_probs: einsum('p,s->ps', slopes, vector([1, -1])) };
  },
};

const BLOCK = 32;
const repeat = (a) => // each number of a row 32 times
  tensor([...a.shape.slice(0, -1), a.shape.at(-1) * BLOCK], { length: a.data.length * BLOCK },
    (_, i) => a.data[Math.floor(i / BLOCK)]);
const qalora = {
  forward(inputs, settings) {
    const { x, lora_A, lora_B } = inputs;
    const shape = [...x.shape.slice(0, -1), lora_A.shape[1]];
    const pooled = reshape(rowMean(asRows(dropout.forward(inputs).y, BLOCK)), shape);
    const su = scale(linear.forward({ x: pooled, weight: lora_A }).y, scaling(settings) * lora_A.shape[1]);
    return { pooled, su, y: add(linear.forward(inputs).y, linear.forward({ x: su, weight: lora_B }).y) };
  },
  backward(inputs, { pooled, su }, grad, settings) {
    const base = linear.backward(inputs, {}, grad);
    const up = linear.backward({ x: su, weight: inputs.lora_B }, {}, grad);
    const inner = scale(up.x, scaling(settings) * inputs.lora_A.shape[1]); // s L grad.y B
    const down = linear.backward({ x: pooled, weight: inputs.lora_A }, {}, inner);
    const x = add(base.x, dropout.backward(inputs, {}, repeat(scale(down.x, 1 / BLOCK))).x);
    return { ...base, x, lora_B: up.weight, lora_A: down.weight };
  },
  change: (inputs, settings) => scale(lora.delta(inputs, settings), inputs.lora_A.shape[1] / BLOCK), // of each block
  delta: (inputs, settings) => repeat(qalora.change(inputs, settings)),
};

const operationCase = (operation) => (inputs, settings) => {
  const outputs = operation.forward(inputs, settings);
  const [above = scalar(settings.grad_loss)] = Object.values(underPrefix('grad.', inputs));
  const grads = operation.backward(inputs, outputs, above, settings);
  const delta = operation.delta?.(inputs, settings);
  return { ...outputs, ...withPrefix('grad.', grads), delta, merged: delta && add(inputs.weight, delta) };
};

// ---- 5. Tier 2: the model ------------------------------------------------------------------------------------------
// A model is { settings, adapter, parameters }, with the adapter's arrays among the parameters. The forward pass notes
// the calls of operations. The backward pass goes through them from the last to the first and adds up what comes back
// along several ways: to the residual stream, to ln1 from q, k and v, to a token embedding that is the head too.
const ADAPTERS = { lora, dora };
const settingsOf = (adapter, layer) => ({ ...adapter?.layers[layer], rslora: adapter?.rslora });

// a + b; b may lack leading axes, and then its gradient is the sum over these.
const sum = {
  forward: ({ a, b }) => ({ y: add(a, b) }),
  backward: ({ b }, outputs, grad) => ({ a: grad, b: einsum('.n,->n', asRows(grad, b.data.length)) }),
};
// One position of each row of x (B, T, C) is taken by the embedding operation, from all B·T rows.
const rowsAt = (x, positions) => ({ weight: asRows(x, x.shape[2]),
  ids: map((position, row) => row * x.shape[1] + position, positions, vector(range(x.shape[0]))) });
// b after a in the axis of tokens; there may be no a yet.
const appendTokens = (a, b) =>
  (a ? stack(range(b.shape[0]).map((row) => concat([entry(a, row), entry(b, row)]))) : b);

// The activations by name and the calls. past: the activations so far, when ids go on where its keys and values end.
function modelForward({ settings, adapter, parameters }, batch, past = {}) {
  const { n_layers, n_heads, n_classes, layer_norm_eps: eps } = settings;
  const llama = 'rope_theta' in settings;
  const bert = 'pooling' in settings;
  const masks = underPrefix('mask.', batch);
  const [acts, calls] = [{}, []];
  const note = (name, a) => (acts[name] = a);
  const call = (operation, inputs, options) => {
    const outputs = operation.forward(inputs, options);
    calls.push({ operation, inputs, outputs, options });
    return Object.values(outputs).at(-1);
  };
  const layer = (name, operation, inputs, options) =>
    note(name, call(operation, { ...underPrefix(`${name}.`, parameters), ...inputs }, options));
  const project = (name, x) => layer(name, adapter?.layers[name] ? ADAPTERS[adapter.kind] : linear,
    { x, mask: masks[`${name}.adapter`] }, settingsOf(adapter, name));
  const keep = (name, x) => note(name, appendTokens(past[name], x));
  const drop = (place, x) => (masks[place] ? call(dropout, { x, mask: masks[place] }) : x);
  const norm = (name, x) =>
    (llama ? layer(name, rmsNorm, { x }, { eps: settings.rms_norm_eps }) : layer(name, layerNorm, { x }, { eps }));
  const before = past['blocks.0.attn.v_proj']?.shape[1] ?? 0;
  const [B, T] = batch.ids.shape;
  const consecutive = tensor([B, T], { length: B * T }, (_, i) => before + (i % T));
  const turn = (name, x, positions = consecutive) => note(name, call(rope,
    { x, positions, theta: scalar(settings.rope_theta) }, settings));
  const headNorm = (name, x, D = settings.head_size) => // the gradients of a tensor and of its reshape are the same
    note(name, reshape(norm(name, reshape(x, [x.shape[0], x.shape[1], x.shape[2] / D, D])), x.shape));
  const embedBert = (places) => { // all tokens have type 0
    const types = layer('type_emb', embedding, { ids: vector(Array(T).fill(0)) });
    return note('sum', call(sum, { a: tokens, b: note('place', call(sum, { a: places, b: types })) }));
  };
  const tokens = layer('tok_emb', embedding, { ids: batch.ids });
  let x = tokens;
  if (!llama) {
    const places = layer('pos_emb', embedding, { ids: entry(consecutive, 0) });
    x = bert ? norm('emb_norm', embedBert(places)) : call(sum, { a: tokens, b: places });
    x = note('embed', drop('embed', x));
  }
  for (const i of range(n_layers)) {
    const block = `blocks.${i}`;
    // A classifier computes the last block for the last real token of each row alone.
    const reads = n_classes > 0 && !bert && block === `blocks.${n_layers - 1}`;
    const positions = reads ? tensor([x.shape[0], 1], batch.lengths.data, (length) => length - 1) : undefined;
    const take = (a) => (reads ? call(embedding, rowsAt(a, positions)) : a);
    const normed = bert ? x : norm(`${block}.${llama ? 'norm1' : 'ln1'}`, x);
    let q = project(`${block}.attn.q_proj`, take(normed));
    let k = project(`${block}.attn.k_proj`, normed);
    if (settings.head_norm) [q, k] = [headNorm(`${block}.attn.q_norm`, q), headNorm(`${block}.attn.k_norm`, k)];
    if (llama && !settings.unrotated?.includes(i)) {
      q = turn(`${block}.attn.q_rotated`, q, positions);
      k = turn(`${block}.attn.k_rotated`, k);
    }
    k = keep(`${block}.keys`, k);
    const v = keep(`${block}.attn.v_proj`, project(`${block}.attn.v_proj`, normed));
    const context = bert ? call(encoderAttention, { q, k, v, lengths: batch.lengths }, { n_heads })
      : call(attention, { q, k, v, positions }, { n_heads });
    Object.assign(acts, withPrefix(`${block}.attn.`, calls.at(-1).outputs));
    const mixed = drop(`${block}.attn`, project(`${block}.attn.o_proj`, context));
    x = note(`${block}.attn.residual`, call(sum, { a: take(x), b: mixed }));
    if (bert) x = norm(`${block}.norm1`, x);
    const inner = bert ? x : norm(`${block}.${llama ? 'norm2' : 'ln2'}`, x);
    const gate = llama && project(`${block}.mlp.gate_proj`, inner);
    const up = project(`${block}.mlp.up_proj`, inner);
    const act = llama ? layer(`${block}.mlp.swiglu`, swiglu, { gate, up })
      : layer(`${block}.mlp.gelu`, bert ? geluErf : gelu, { x: up });
    const down = project(`${block}.mlp.down_proj`, act);
    x = note(`${block}.mlp.residual`, call(sum, { a: x, b: drop(`${block}.mlp`, down) }));
    if (bert) x = norm(`${block}.norm2`, x);
  }
  if (bert) x = note('pooled', call(meanPool, { x, lengths: batch.lengths }));
  else x = norm(llama ? 'norm_f' : 'ln_f', x);
  x = n_classes > 0 && !bert ? note('pooled', reshape(x, [x.shape[0], x.shape[2]])) : x;
  const weight = parameters[n_classes > 0 || settings.tied === false ? 'head.weight' : 'tok_emb.weight']; // tied
  const logits = note('logits', call(linear, { x, weight, bias: parameters['head.bias'] }));
  if (batch.targets) note('loss', call(crossEntropy, { logits, targets: batch.targets }, { ignore_index: -100 }));
  return { acts, calls };
}

// The activations, and the gradients of the loss with respect to them and to the parameters, by name.
function lossAndGradients(model, batch) {
  const { acts, calls } = modelForward(model, batch);
  const found = new Map([[acts.loss.data, scalar(1)]]); // by data, which ln_f shares with pooled
  const gradOf = ({ shape, data }) => (found.has(data) ? reshape(found.get(data), shape) : undefined);
  for (const { operation, inputs, outputs, options } of calls.reverse()) {
    const grads = operation.backward(inputs, outputs, gradOf(Object.values(outputs).at(-1)), options);
    for (const [name, grad] of Object.entries(grads)) {
      const source = inputs[name] ?? outputs[name]; // attention gives the gradients of its scores and probs too
      if (source) found.set(source.data, add(grad, gradOf(source) ?? scalar(0)));
    }
  }
  return { acts, grads: mapNamed(gradOf, { ...model.parameters, ...acts }) };
}

function model(given, { model: settings, adapter, blocks }) {
  const inputs = mapNamed((a) => (a.data instanceof Uint8Array ? expand(a, blocks) : a), given);
  const { acts, grads } = lossAndGradients({ settings, adapter, parameters: inputs }, inputs);
  const delta = (name) => ADAPTERS[adapter.kind].delta(underPrefix(`${name}.`, inputs), settingsOf(adapter, name));
  const deltas = Object.fromEntries(Object.keys(adapter?.layers ?? {}).map((name) => [`${name}.weight`, delta(name)]));
  const merged = mapNamed((change, name) => add(inputs[name], change), deltas);
  const plain = { settings, adapter: null, parameters: { ...inputs, ...merged } };
  merged.logits = modelForward(plain, pick(['ids', 'lengths'], inputs)).acts.logits;
  return { ...acts, ...withPrefix('grad.', grads), ...withPrefix('delta.', deltas), ...withPrefix('merged.', merged) };
}

function generate(inputs, { model: settings, adapter, n_new }) {
  const outputs = {};
  let [tokens, next, past] = [inputs.ids, inputs.ids, {}];
  for (let step = 0; step < n_new; step++) {
    past = modelForward({ settings, adapter, parameters: inputs }, { ids: next }, past).acts;
    const rows = range(tokens.shape[0]).map((row) => entry(entry(past.logits, row), next.shape[1] - 1));
    const ids = rows.map(({ data }) => data.indexOf(Math.max(...data))); // the lowest of equal ones
    const sorted = rows.map(({ data }) => data.slice().sort().reverse());
    outputs[`step.${step}.logits`] = stack(rows);
    outputs[`step.${step}.margin`] = vector(sorted.map(([first, second]) => first - second));
    next = { shape: [ids.length, 1], data: Int32Array.from(ids) };
    tokens = appendTokens(tokens, next);
  }
  const ofBlocks = (name) => stack(range(settings.n_layers).map((i) => past[`blocks.${i}.${name}`]));
  return { ...outputs, tokens, keys: ofBlocks('keys'), values: ofBlocks('attn.v_proj') };
}

// In this order: the penalty for tokens of the text, the temperature, top-k, top-p.
function sample({ logits, ids, uniform }, { temperature, top_k, top_p, repetition_penalty: penalty }) {
  const probsOf = (x) => Array.from(softmax.forward({ x: vector(x) }).probs.data);
  const rows = range(ids.shape[0]).map((row) => {
    const seen = entry(ids, row).data;
    let x = Array.from(entry(logits, row).data, (value, id) =>
      (seen.includes(id) ? (value > 0 ? value / penalty : value * penalty) : value) / temperature);
    const kth = x.slice().sort((a, b) => b - a)[(top_k ?? x.length) - 1];
    x = x.map((value) => (value < kth ? -Infinity : value));
    const probs = probsOf(x);
    const before = (p) => probs.filter((other) => other > p).reduce(plus, 0); // no two are equal in the cases
    return probsOf(x.map((value, id) => (before(probs[id]) < (top_p ?? 1) ? value : -Infinity)));
  });
  const tokens = rows.map((probs, row) => {
    const sums = probs.map((_, id) => probs.slice(0, id + 1).reduce(plus));
    return sums.filter((total) => total <= uniform.data[row] * sums.at(-1)).length;
  });
  return { probs: stack(rows.map(vector)), tokens: { shape: [tokens.length], data: Int32Array.from(tokens) } };
}

// ---- 6. Tier 3: training and files ---------------------------------------------------------------------------------
function clip(inputs, { max_norm }) {
  const grads = underPrefix('grad.', inputs);
  const norm = Math.sqrt(Object.values(grads).map((g) => sumAll(multiply(g, g))).reduce(plus)); // √(Σ g²)
  const factor = norm > max_norm ? max_norm / norm : 1;
  return { norm: scalar(norm), ...withPrefix('clipped.', mapNamed((g) => scale(g, factor), grads)) };
}

function schedule(inputs, { schedule: kind, steps, peak, warmup_steps: w, final_share: f }) {
  const rate = (i) => {
    const done = (i - w) / Math.max(1, steps - w);
    const c = { constant: 1, linear: 1 - done, cosine: 0.5 * (1 + Math.cos(Math.PI * done)) }[kind];
    return peak * (i < w ? (i + 1) / (w + 1) : f + (1 - f) * c);
  };
  return { learning_rate: vector(range(steps).map(rate)) };
}

// Step t of all arrays, each with its moments; at the start, { after: p }.
const adamwStep = (states, grads, t, rate, { beta1, beta2, eps, weight_decay, rate_factors }) =>
  mapNamed(({ after: p, m = zeros(p.shape), v = zeros(p.shape) }, name) => {
    const eta = rate * (rate_factors[name.split('.').at(-1)] ?? 1);
    const decay = p.shape.length >= 2 ? weight_decay : 0; // biases and layer norms do not decay
    const mean = map((before, g) => beta1 * before + (1 - beta1) * g, m, grads[name]); // β₁ m + (1 − β₁) g
    const square = map((before, g) => beta2 * before + (1 - beta2) * g ** 2, v, grads[name]); // β₂ v + (1 − β₂) g²
    const meanHat = scale(mean, 1 / (1 - beta1 ** t)); // m / (1 − β₁ᵗ)
    const squareHat = scale(square, 1 / (1 - beta2 ** t)); // v / (1 − β₂ᵗ)
    const move = map((a, b) => a / (Math.sqrt(b) + eps), meanHat, squareHat); // m̂ / (√v̂ + ε)
    const after = map((before, x) => before - eta * decay * before - eta * x, p, move); // p − η λ p − η m̂ / (√v̂ + ε)
    return { m: mean, v: square, after };
  }, states);
const parts = (states, key) => withPrefix(`${key}.`, mapNamed((state) => state[key], states));

function adamw(inputs, { optimiser, learning_rate }) {
  const outputs = {};
  let states = mapNamed((after) => ({ after }), underPrefix('start.', inputs));
  for (const [i, rate] of learning_rate.entries()) {
    states = adamwStep(states, mapNamed((g) => entry(g, i), underPrefix('grad.', inputs)), i + 1, rate, optimiser);
    Object.assign(outputs, ...['m', 'v', 'after'].map((key) => withPrefix(`step.${i + 1}.`, parts(states, key))));
  }
  return outputs;
}

// Σ (n_i / N) · mean_i over shards of n_i real targets.
function accumulate({ n_targets, ...means }) {
  const shares = scale(n_targets, 1 / sumAll(n_targets));
  const mean = (a) => reshape(einsum('s,sn->n', shares, asRows(a, a.data.length / a.shape[0])), a.shape.slice(1));
  return withPrefix('mean.', mapNamed(mean, means));
}

function train(inputs, { model: settings, adapter, train: options }) {
  const rates = schedule({}, { ...options, peak: options.learning_rate }).learning_rate.data;
  const trained = Object.keys(inputs).filter((name) => (adapter ? /\.lora_|^head\./ : /\.(weight|bias)$/).test(name));
  const [outputs, log] = [{}, []];
  let states = mapNamed((after) => ({ after }), pick(trained, inputs));
  for (let step = 1; step <= options.steps; step++) {
    const batch = mapNamed((a) => entry(a, inputs.order.data[step - 1]), underPrefix('batches.', inputs));
    const mask = (kept) => scale(entry(kept, step - 1), 1 / (1 - options.dropout)); // kept / (1 − p)
    const masks = withPrefix('mask.', mapNamed(mask, underPrefix('kept.', inputs)));
    const model = { settings, adapter, parameters: { ...inputs, ...mapNamed(({ after }) => after, states) } };
    const { acts, grads } = lossAndGradients(model, { ...batch, ...masks });
    const { norm, ...clipped } = clip(withPrefix('grad.', pick(trained, grads)), { max_norm: options.clip_norm });
    states = adamwStep(states, underPrefix('clipped.', clipped), step, rates[step - 1], options.optimiser);
    log.push({ loss: acts.loss.data[0], grad_norm: norm.data[0], learning_rate: rates[step - 1] });
    Object.assign(outputs, step === 1 && withPrefix('step.1.grad.', grads));
    if ([1, 10, 50].includes(step)) {
      const lines = log.splice(0);
      const logs = mapNamed((_, name) => vector(lines.map((line) => line[name])), lines[0]);
      Object.assign(outputs, withPrefix(`step.${step}.`, { ...logs, ...parts(states, 'after') }));
    }
  }
  return outputs;
}

function spectrum({ before, after }, { k }) {
  const update = subtract(after, before);
  // Jacobi's method: pairs of columns are turned until all are orthogonal. Then each is σ u.
  const columns = range(update.shape[1]).map((j) => entry(transpose(update), j));
  const dot = (p, q) => sumAll(multiply(p, q));
  const pairs = columns.flatMap((_, j) => range(j).map((i) => [i, j]));
  for (const [i, j] of Array(30).fill(pairs).flat()) {
    const [p, q] = [columns[i], columns[j]];
    const angle = Math.atan((2 * dot(p, q)) / (dot(p, p) - dot(q, q)) || 0) / 2;
    columns[i] = map((x, y) => Math.cos(angle) * x + Math.sin(angle) * y, p, q);
    columns[j] = map((x, y) => Math.cos(angle) * y - Math.sin(angle) * x, p, q);
  }
  const sorted = columns.sort((p, q) => dot(q, q) - dot(p, p)).slice(0, Math.min(...update.shape));
  const squares = vector(sorted.map((p) => dot(p, p)));
  const sigma = map(Math.sqrt, squares);
  const left = mapRows(over, stack(sorted), sigma);
  const right = mapRows(over, einsum('ki,ij->kj', left, update), sigma); // v = updateᵀ u / σ
  const energy = vector(range(sorted.length).map((i) => sumAll(slice(squares, 0, i + 1)) / sumAll(squares)));
  const outputs = { update, singular_values: sigma, energy };
  for (const count of k) {
    outputs[`left.${count}`] = einsum('ki,kj->ij', slice(left, 0, count), slice(left, 0, count)); // U_k U_kᵀ
    outputs[`right.${count}`] = einsum('ki,kj->ij', slice(right, 0, count), slice(right, 0, count)); // V_k V_kᵀ
  }
  return outputs;
}

const NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
  -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
  0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0];
const MIDPOINTS = NF4.slice(1).map((point, i) => (NF4[i] + point) / 2);
const largest = (most, x) => Math.max(most, Math.abs(x));
const roundEven = (x) => x + 1.5 * 2 ** 52 - 1.5 * 2 ** 52; // numbers of that size have no room for a fraction
// The scales as int8 numbers around their mean, every step in float32.
function quantiseScales(absmax) {
  const mean = Math.fround(sumAll(absmax) / absmax.data.length);
  const centred = map((x) => Math.fround(x - mean), absmax);
  const groups = range(Math.ceil(centred.data.length / 256)).map((i) => centred.data.slice(i * 256, (i + 1) * 256));
  const steps = vector(groups.map((group) => Math.fround(group.reduce(largest, 0) / 127)));
  const step = vector(range(centred.data.length).map((i) => steps.data[Math.floor(i / 256)] || 1));
  const codes = map((x, size) => Math.max(-127, Math.min(127, roundEven(Math.fround(x / size)))), centred, step);
  const scales = map((code, size) => Math.max(Math.fround(mean + Math.fround(size * code)), 0), codes, step);
  return { mean: scalar(mean), steps, scale_codes: convert(Int8Array, codes), scales };
}

function nf4({ weight }, { block_size, double }) {
  const blocks = asRows(weight, block_size);
  const absmax = foldRows(largest, 0, blocks);
  const codes = mapRows((w, most) => MIDPOINTS.filter((middle) => middle < w / (most || 1)).length, blocks, absmax);
  const packed = convert(Uint8Array, foldRows((high, low) => high * 16 + low, 0, asRows(codes, 2)));
  const stored = double ? quantiseScales(absmax) : { scales: absmax };
  const dequantised = reshape(mapRows((code, size) => NF4[code] * size, codes, stored.scales), weight.shape);
  return { absmax, codes: convert(Uint8Array, vector(codes.data)), packed, ...stored, dequantised };
}

// GPT-2's layers, each with ours that are side by side in it.
const GPT2_LAYERS = { ln_1: ['ln1'], ln_2: ['ln2'], 'attn.c_attn': ['attn.q_proj', 'attn.k_proj', 'attn.v_proj'],
  'attn.c_proj': ['attn.o_proj'], 'mlp.c_fc': ['mlp.up_proj'], 'mlp.c_proj': ['mlp.down_proj'] };
const gpt2Layers = (blocks) => range(blocks).flatMap((i) => Object.entries(GPT2_LAYERS)
  .map(([theirs, ours]) => [`h.${i}.${theirs}`, ours.map((layer) => `blocks.${i}.${layer}`)]));
const gpt2Arrays = (blocks) => [['wte.weight', ['tok_emb.weight']], ['wpe.weight', ['pos_emb.weight']],
  ...[...gpt2Layers(blocks), ['ln_f', ['ln_f']]].flatMap(([theirs, ours]) => ['weight', 'bias']
    .map((leaf) => [`${theirs}.${leaf}`, ours.map((layer) => `${layer}.${leaf}`)]))];
const turned = (name, a) => (/\.c_\w+\.weight$/.test(name) ? transpose(a) : a); // a linear layer's weight is (in, out)
const split = (whole, names, size = whole.shape[0] / names.length) =>
  Object.fromEntries(names.map((name, i) => [name, slice(whole, i * size, (i + 1) * size)]));
const fileOf = (tensors) => convert(Uint8Array, vector(toSafetensors(tensors)));

function gpt2Read(inputs) {
  const { names, read } = openSafetensors(inputs['model.safetensors'].data);
  const prefix = names.includes('wte.weight') ? '' : 'transformer.';
  const arrays = gpt2Arrays(jsonOf(inputs['config.json'].data).n_layer);
  return Object.assign({}, ...arrays.map(([theirs, ours]) => split(turned(theirs, read(prefix + theirs)), ours)));
}

function gpt2Write(inputs, { model }) {
  const arrays = gpt2Arrays(model.n_layers).map(([theirs, ours]) =>
    [`transformer.${theirs}`, turned(theirs, concat(ours.map((name) => inputs[name])))]);
  return { 'model.safetensors': fileOf(Object.fromEntries(arrays)) };
}

const PEFT = 'base_model.model.transformer.';
function peftRead(inputs) {
  const { read } = openSafetensors(inputs['adapter_model.safetensors'].data);
  const { r, lora_alpha: alpha, use_rslora: rslora } = jsonOf(inputs['adapter_config.json'].data);
  const arrays = named(['lora_A', 'lora_B'], (leaf) => read(`${PEFT}h.0.attn.c_attn.${leaf}.weight`));
  const names = GPT2_LAYERS['attn.c_attn'].map((layer) => `delta.blocks.0.${layer}.weight`);
  return split(lora.delta(arrays, { r, alpha, rslora }), names);
}

function peftWrite(inputs, { model, adapter }) {
  const arrays = {};
  const isAdapted = (layer) => layer in adapter.layers;
  for (const [theirs, ours] of gpt2Layers(model.n_layers).filter(([, layers]) => layers.some(isAdapted))) {
    const adapted = ours.filter(isAdapted);
    const scaleOf = (layer) => scaling(settingsOf(adapter, layer));
    const owners = adapted.flatMap((layer) => Array(adapter.layers[layer].r).fill(layer)); // of the rows of A
    const B = transpose(concat(adapted.map((layer) => // side by side, all with the first one's scale
      transpose(scale(inputs[`${layer}.lora_B`], scaleOf(layer) / scaleOf(adapted[0]))))));
    // The rows of a layer have its own columns; everything else is 0.
    const rows = (layer) => map((b, own) => (own ? b : 0), B, vector(owners.map((owner) => owner === layer)));
    arrays[`${PEFT}${theirs}.lora_A.weight`] = concat(adapted.map((layer) => inputs[`${layer}.lora_A`]));
    arrays[`${PEFT}${theirs}.lora_B.weight`] = concat(ours.map(rows));
  }
  return { 'adapter_model.safetensors': fileOf(arrays) };
}

// ---- 7. Tier 4: llama.cpp's blocks and files -----------------------------------------------------------------------
const f32 = Math.fround;
const fromHalf = (bits) => { // sign, 5 bits of exponent, 10 bits
  const [e, m] = [(bits >> 10) & 31, bits & 1023];
  return (bits >> 15 ? -1 : 1) * (e ? (1024 + m) * 2 ** (e - 25) : m * 2 ** -24);
};
const toHalf = (x) => {
  const e = Math.max(-14, Math.floor(Math.log2(Math.abs(x))));
  const whole = roundEven(Math.abs(x) / 2 ** (e - 10)); // 1024 to 2048, or below 1024 for the smallest numbers
  return (x < 0 || Object.is(x, -0) ? 32768 : 0) + (e + 14) * 1024 + whole;
};
const sizeOfBlock = (format) => ({ q8_0: 34, q4_0: 18, q4_1: 20 })[format];

function expand({ shape, data }, format) {
  const size = sizeOfBlock(format);
  const half = (at) => fromHalf(data[at] + 256 * data[at + 1]);
  return tensor([shape[0], (shape[1] / size) * BLOCK], { length: (data.length / size) * BLOCK }, (_, i) => {
    const [at, j] = [Math.floor(i / BLOCK) * size, i % BLOCK];
    if (format === 'q8_0') return f32(half(at) * Int8Array.of(data[at + 2 + j])[0]);
    const code = (data[at + size - 16 + (j % 16)] >> (j < 16 ? 0 : 4)) & 15;
    return format === 'q4_0' ? f32(half(at) * (code - 8)) : f32(f32(half(at) * code) + half(at + 2));
  });
}

function packBlock(w, format) {
  const inverse = (d) => (Number.isFinite(f32(1 / d)) ? f32(1 / d) : 0);
  const bytes = (...numbers) => numbers.flatMap((x) => [toHalf(x) & 255, toHalf(x) >> 8]);
  const halves = (codes) => range(16).map((j) => codes[j] + 16 * codes[j + 16]);
  if (format === 'q8_0') {
    const d = f32(w.reduce(largest, 0) / 127);
    const codes = w.map((x) => f32(x * inverse(d))).map((x) => Math.sign(x) * Math.floor(Math.abs(x) + 0.5));
    return [...bytes(d), ...codes];
  }
  if (format === 'q4_0') {
    const d = f32(w.reduce((most, x) => (Math.abs(x) > Math.abs(most) ? x : most)) / -8);
    return [...bytes(d), ...halves(w.map((x) => Math.min(15, Math.floor(f32(f32(x * inverse(d)) + 8.5)))))];
  }
  const m = Math.min(...w);
  const d = f32(f32(Math.max(...w) - m) / 15);
  return [...bytes(d, m), ...halves(w.map((x) => Math.min(15, Math.floor(f32(f32(f32(x - m) * inverse(d)) + 0.5)))))];
}

function blocks({ weight, blocks: given }, { format }) {
  const rows = range(weight.data.length / BLOCK).map((i) => Array.from(weight.data.slice(i * BLOCK, (i + 1) * BLOCK)));
  const packed = { shape: [weight.shape[0], (weight.shape[1] / BLOCK) * sizeOfBlock(format)],
    data: Uint8Array.from(rows.flatMap((row) => packBlock(row, format))) };
  return { packed, dequantised: expand(packed, format), expanded: expand(given, format) };
}

function qaloraCase(inputs, settings) {
  const weight = expand(inputs.blocks, 'q4_1');
  const merged = { shape: inputs.blocks.shape, data: inputs.blocks.data.slice() };
  qalora.change(inputs, settings).data.forEach((change, i) => { // m′ = m + change, of block i
    const at = i * sizeOfBlock('q4_1') + 2;
    const bits = toHalf(fromHalf(merged.data[at] + 256 * merged.data[at + 1]) + change);
    merged.data.set([bits & 255, bits >> 8], at);
  });
  return { ...operationCase(qalora)({ ...inputs, weight }, settings), weight, merged };
}

const GGUF_NAMES = { attn_norm: 'norm1', attn_q: 'attn.q_proj', attn_k: 'attn.k_proj', attn_v: 'attn.v_proj',
  attn_output: 'attn.o_proj', ffn_norm: 'norm2', ffn_gate: 'mlp.gate_proj', ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj', token_embd: 'tok_emb', output_norm: 'norm_f', output: 'head' };
const ofBlock = (i, name) => (i === undefined ? name : `blocks.${i}.${name}`);
const isTurned = (name) => (/\.[qk]_proj\./.test(name));
// Rows of q and k: within a head, GGUF has row 2j + s where we have row j + s D/2.
const rowInGguf = (row, D) => row - (row % D) + 2 * (row % (D / 2)) + (row % D < D / 2 ? 0 : 1);
const ourOrder = (a, D) => stack(range(a.shape[0]).map((row) => entry(a, rowInGguf(row, D))));
const ggufOrder = (a, D) => stack(range(a.shape[0]).sort((p, q) => rowInGguf(p, D) - rowInGguf(q, D))
  .map((row) => entry(a, row)));

function ggufRead(inputs) {
  const { buffer } = Uint8Array.from(inputs['model.gguf'].data);
  const view = new DataView(buffer);
  let at = 8; // after the name and the version
  const next = (type) => {
    const size = Number(/\d+/.exec(type)[0]) / 8;
    at += size;
    return Number(view[`get${type}`](at - size, true));
  };
  const text = (size = next('BigUint64')) => new TextDecoder().decode(buffer.slice(at, (at += size)));
  const types = ['Uint8', 'Int8', 'Uint16', 'Int16', 'Uint32', 'Int32', 'Float32', 'Uint8', text,
    () => list(next('Uint32'), next('BigUint64')), 'BigUint64', 'BigInt64', 'Float64'];
  const value = (type) => (typeof types[type] === 'string' ? next(types[type]) : types[type]());
  const list = (type, n) => range(n).map(() => value(type));
  const [nTensors, nFields] = [next('BigUint64'), next('BigUint64')];
  const fields = Object.fromEntries(range(nFields).map(() => [text(), value(next('Uint32'))]));
  const tensors = range(nTensors).map(() => {
    const name = text();
    const shape = list(10, next('Uint32')).reverse();
    return { name, shape, type: next('Uint32'), offset: next('BigUint64') };
  });
  const alignment = fields['general.alignment'] ?? 32;
  const start = Math.ceil(at / alignment) * alignment;
  return Object.fromEntries(tensors.map(({ name: theirs, shape, type, offset }) => {
    const [, i, part, leaf] = /^(?:blk\.(\d+)\.)?(\w+)\.(\w+)$/.exec(theirs);
    const name = `${ofBlock(i, GGUF_NAMES[part])}.${leaf}`;
    const format = { 2: 'q4_0', 3: 'q4_1', 8: 'q8_0' }[type];
    const n = format ? (sizeOf(shape) / BLOCK) * sizeOfBlock(format) : sizeOf(shape) * (type === 0 ? 4 : 2);
    const bytes = buffer.slice(start + offset, start + offset + n);
    const array = format ? expand({ shape: [shape[0], n / shape[0]], data: new Uint8Array(bytes) }, format)
      : tensor(shape, type === 0 ? new Float32Array(bytes) : Array.from(new Uint16Array(bytes), fromHalf));
    return [name, isTurned(name) ? ourOrder(array, fields['llama.attention.key_length']) : array];
  }));
}

function ggufAdapter(inputs, { model, adapter }) {
  const u32 = (x) => Buffer.from(Uint32Array.of(x).buffer);
  const u64 = (x) => Buffer.from(BigUint64Array.of(BigInt(x)).buffer);
  const floats = (values) => Buffer.from(Float32Array.from(values).buffer);
  const text = (s) => Buffer.concat([u64(Buffer.byteLength(s)), Buffer.from(s)]);
  const filled = (b) => Buffer.concat([b, Buffer.alloc((32 - (b.length % 32)) % 32)]);
  const linears = Object.entries(GGUF_NAMES).filter(([, ours]) => ours.includes('_proj'));
  const layers = range(model.n_layers).flatMap((i) => linears
    .map(([theirs, ours]) => ({ theirs: `blk.${i}.${theirs}`, ours: ofBlock(i, ours) })))
    .filter(({ ours }) => ours in adapter.layers);
  const alphaOf = ({ ours }) => scaling(settingsOf(adapter, ours)) * adapter.layers[ours].r; // s r
  const alphas = layers.map(alphaOf);
  const count = (x) => alphas.filter((other) => other === x).length;
  const alpha = alphas.reduce((most, x) => (count(x) > count(most) ? x : most));
  const arrays = layers.flatMap((layer) => {
    const B = scale(inputs[`${layer.ours}.lora_B`], alphaOf(layer) / alpha);
    const rows = isTurned(`${layer.ours}.`) ? ggufOrder(B, model.head_size) : B;
    return [[`${layer.theirs}.weight.lora_a`, inputs[`${layer.ours}.lora_A`]],
      [`${layer.theirs}.weight.lora_b`, rows]];
  });
  const data = arrays.map(([, a]) => filled(floats(a.data)));
  const offset = (k) => data.slice(0, k).reduce((sum, b) => sum + b.length, 0);
  const fields = [['general.architecture', 'llama'], ['general.type', 'adapter'], ['adapter.type', 'lora']]
    .map(([key, value]) => Buffer.concat([text(key), u32(8), text(value)]));
  const header = Buffer.concat([Buffer.from('GGUF'), u32(3), u64(arrays.length), u64(fields.length + 1), ...fields,
    text('adapter.lora.alpha'), u32(6), floats([alpha]), ...arrays.map(([name, { shape }], k) => Buffer.concat([
      text(name), u32(shape.length), ...shape.slice().reverse().map(u64), u32(0), u64(offset(k))]))]);
  const file = Buffer.concat([filled(header), ...data]);
  return { 'adapter.gguf': { shape: [file.length], data: Uint8Array.from(file) } };
}

// ---- Running the cases ---------------------------------------------------------------------------------------------
const CASES = { ...mapNamed(operationCase, { linear, layer_norm: layerNorm, gelu, softmax, attention, embedding,
  cross_entropy: crossEntropy, dropout, lora, dora, rms_norm: rmsNorm, rope, swiglu, grouped_attention: attention,
  linear_cross_entropy: linearCrossEntropy, gelu_erf: geluErf, mean_pool: meanPool,
  encoder_attention: encoderAttention, token_log_probs: tokenLogProbs, grpo, dpo }), model, generate, sample, clip,
  schedule, adamw, accumulate, train, spectrum, nf4, gpt2_read: gpt2Read, gpt2_write: gpt2Write, peft_read: peftRead, peft_write: peftWrite,
  llama: model, llama_generate: generate, llama_train: train, blocks, qalora: qaloraCase, gguf_read: ggufRead,
  gguf_adapter: ggufAdapter, bert: model };

// The expected outputs are in the same file; only their names are used, to know what is asked for.
function runCase(folder, source) {
  const { metadata, names, read } = openSafetensors(fs.readFileSync(source));
  const { case: id, kind, dtype, settings, inputs } = JSON.parse(metadata.lora_np);
  if (dtype !== 'float64' || !CASES[kind]) throw new Error(`no way to compute ${kind} in ${dtype}`);
  const outputs = CASES[kind](named(inputs, read), settings);
  const asked = pick(names.filter((name) => !inputs.includes(name)), outputs);
  fs.writeFileSync(path.join(folder, `${id}.float64.safetensors`), toSafetensors(asked));
}

const [directory, ...files] = process.argv.slice(2);
let file = 'port.mjs';
try {
  if (files.length === 0) throw new Error('usage: node port.mjs OUT CASE.float64.safetensors ...');
  fs.mkdirSync(directory, { recursive: true });
  for (file of files) runCase(directory, file);
} catch (error) {
  process.stderr.write(`${file}: ${error.message.split('\n')[0]}\n`);
  process.exitCode = 1;
}
