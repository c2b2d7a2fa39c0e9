// LoRA in one file: micro.py in JavaScript, with the same names in the same order, and nothing to install. The playground
// (pages/playground.mjs) has the part of `main`.
//
//     y = x Wᵀ + b + s (x Aᵀ) Bᵀ   W (out, in) frozen, A (r, in) and B (out, r) trained, s = alpha / r
//
// Flat objects hold all arrays by name. An array is a matrix {rows, cols, data}, with `data` row by row; a vector has one
// row. A batch of B sequences of T tokens is N = B T rows. Only attention mixes rows. C model width, H heads, D = C / H
// head size, F MLP width, V vocabulary size, r rank.

export const FIRST = "that waked the priest all shaven and shorn, that married the man all tattered and torn";
export const SECOND = "for want of a nail the shoe was lost, for want of a shoe the horse was lost, and so on";

// ---------------------------------------------------------------- what NumPy does for micro.py

export const zeros = (rows, cols) => ({ rows, cols, data: new Float64Array(rows * cols) });

/** f, entry by entry; b and c have the shape of a, or are vectors that are used for every row of a. */
export function map(f, a, b = a, c = a) {
  const y = zeros(a.rows, a.cols), K = a.cols;
  for (let n = 0; n < a.rows; n++) {
    const at = n * K, at_b = b.rows > 1 ? at : 0, at_c = c.rows > 1 ? at : 0;
    for (let k = 0; k < K; k++) y.data[at + k] = f(a.data[at + k], b.data[at_b + k], c.data[at_c + k]);
  }
  return y;
}
export const add = (a, b) => map((x, y) => x + y, a, b);

/** The product of a (n, K) and b (K, m). Four rows of b are read at a time, which makes it three times as fast. */
export function matmul(a, b) {
  const y = zeros(a.rows, b.cols), K = a.cols, m = b.cols, { data: A } = a, { data: B } = b, { data: Y } = y;
  for (let n = 0; n < a.rows; n++) {
    let k = 0;
    for (; k + 4 <= K; k += 4) {
      const at = n * K + k, a0 = A[at], a1 = A[at + 1], a2 = A[at + 2], a3 = A[at + 3];
      const b0 = k * m, b1 = b0 + m, b2 = b1 + m, b3 = b2 + m, to = n * m;
      for (let j = 0; j < m; j++) Y[to + j] += a0 * B[b0 + j] + a1 * B[b1 + j] + (a2 * B[b2 + j] + a3 * B[b3 + j]);
    }
    for (; k < K; k++) add_to(y, n * m, A[n * K + k], b, k * m, m);
  }
  return y;
}

export function transpose(a) {
  const y = zeros(a.cols, a.rows);
  for (let i = 0; i < a.rows; i++) for (let j = 0; j < a.cols; j++) y.data[j * a.rows + i] = a.data[i * a.cols + j];
  return y;
}

function column_sums(a) {  // (n, m) to a vector
  const y = zeros(1, a.cols);
  for (let i = 0; i < a.data.length; i++) y.data[i % a.cols] += a.data[i];  // i % a.cols is the column
  return y;
}

// ---------------------------------------------------------------- micro.py

/** Small random weights, zero biases, and layer norms with weights of one. `normal` draws from a normal distribution. */
export function init_params(V, T, C, F, n_layers, normal) {
  const shapes = { tok_emb: [V, C], pos_emb: [T, C], ln_f: [C] }, params = {};
  for (let i = 0; i < n_layers; i++) {
    const block = `blocks.${i}`;
    Object.assign(shapes, { [`${block}.ln1`]: [C], [`${block}.ln2`]: [C] });
    for (const x of "qkvo") shapes[`${block}.attn.${x}_proj`] = [C, C];
    Object.assign(shapes, { [`${block}.mlp.up_proj`]: [F, C], [`${block}.mlp.down_proj`]: [C, F] });
  }
  for (const [name, [rows, cols]] of Object.entries(shapes)) {
    if (!name.includes("emb")) params[`${name}.bias`] = zeros(1, rows);
    params[`${name}.weight`] = cols ? map(() => 0.02 * normal(), zeros(rows, cols)) : map(() => 1, zeros(1, rows));
  }
  return params;
}

/** Adapters on q and v, or on other layers. B A is zero because B is, so training starts from the base model. */
export function init_lora(params, r, uniform, layers = ["q_proj", "v_proj"]) {
  const adapter = {};
  for (const name of Object.keys(params).filter(name => layers.some(layer => name.endsWith(`${layer}.weight`)))) {
    const { rows: n_out, cols: n_in } = params[name];
    adapter[name.replace("weight", "lora_A")] = map(() => (2 * uniform() - 1) / n_in ** 0.5, zeros(r, n_in));
    adapter[name.replace("weight", "lora_B")] = zeros(n_out, r);
  }
  return adapter;
}

/** y = x Wᵀ + b, and + s (x Aᵀ) Bᵀ where the layer has an adapter: (N, in) to (N, out). */
export function linear_forward(x, name, params, s, acts) {
  acts[name] = x;
  const y = add(matmul(x, transpose(params[`${name}.weight`])), params[`${name}.bias`]);
  if (!(`${name}.lora_A` in params)) return y;
  const u = matmul(x, transpose(params[`${name}.lora_A`]));  // (N, r); the large matrix B A is never formed
  return map((y, z) => y + s * z, y, matmul(u, transpose(params[`${name}.lora_B`])));
}

/** Return dx (N, in), and add the layer's gradients to `grads`, which names the trained arrays. */
export function linear_backward(dy, name, params, s, acts, grads) {
  const x = acts[name];
  acts[`${name}.dy`] = dy;  // kept for the playground, which shows it
  // y = x Wᵀ + b, entry by entry: y_no = Σ_i x_ni W_oi + b_o
  let dx = matmul(dy, params[`${name}.weight`]);  // dx_ni = Σ_o dy_no W_oi
  if (`${name}.weight` in grads) {  // W is frozen in LoRA, which saves this product
    collect(grads, `${name}.weight`, matmul(transpose(dy), x));  // dW_oi = Σ_n dy_no x_ni
    collect(grads, `${name}.bias`, column_sums(dy));  // db_o = Σ_n dy_no
  }
  if (`${name}.lora_A` in params) {
    const A = params[`${name}.lora_A`], B = params[`${name}.lora_B`];
    const du = map(z => s * z, matmul(dy, B));  // (N, r), from y = … + s u Bᵀ; zero while B is: A changes one step later
    dx = add(dx, matmul(du, A));  // (N, in), from u = x Aᵀ; x is used twice, so its gradient is a sum
    if (`${name}.lora_A` in grads) {
      collect(grads, `${name}.lora_A`, matmul(transpose(du), x));  // (r, in)
      collect(grads, `${name}.lora_B`, map(z => s * z, matmul(transpose(dy), matmul(x, transpose(A)))));  // (out, r)
    }
  }
  return dx;
}

function collect(grads, name, gradient) {  // grads[name] += gradient
  grads[name] = grads[name] ? add(grads[name], gradient) : gradient;
}

/** y = x̂ w + b with x̂ = (x − mean) / σ and σ = √(variance + ε), row by row. */
export function layer_norm_forward(x, name, params, acts) {
  const sigma = zeros(x.rows, 1), x_hat = zeros(x.rows, x.cols), C = x.cols;
  for (let n = 0; n < x.rows; n++) {
    const row = x.data.subarray(n * C, (n + 1) * C), mean = row.reduce((a, b) => a + b) / C;
    sigma.data[n] = Math.sqrt(row.reduce((a, b) => a + (b - mean) ** 2, 0) / C + 1e-5);
    for (let i = 0; i < C; i++) x_hat.data[n * C + i] = (row[i] - mean) / sigma.data[n];
  }
  acts[name] = { x_hat, sigma };
  return map((z, w, b) => z * w + b, x_hat, params[`${name}.weight`], params[`${name}.bias`]);
}

/** x_i affects x̂ directly and through the mean and σ: ∂x̂_j/∂x_i = (δ_ij − 1/C − x̂_i x̂_j / C) / σ. */
export function layer_norm_backward(dy, name, params, acts, grads) {
  const { x_hat, sigma } = acts[name], C = dy.cols, dx = zeros(dy.rows, C);
  if (`${name}.weight` in grads) {
    collect(grads, `${name}.weight`, column_sums(map((a, b) => a * b, dy, x_hat)));  // (C,)
    collect(grads, `${name}.bias`, column_sums(dy));  // (C,)
  }
  const d = map((a, b) => a * b, dy, params[`${name}.weight`]);  // the gradient of x̂, (N, C)
  for (let n = 0; n < dy.rows; n++) {
    let mean = 0, along = 0;
    for (let i = n * C; i < (n + 1) * C; i++) {
      mean += d.data[i];
      along += d.data[i] * x_hat.data[i];
    }
    for (let i = n * C; i < (n + 1) * C; i++) dx.data[i] = (d.data[i] - mean / C - x_hat.data[i] * along / C) / sigma.data[n];
  }
  return dx;
}

/** y = x g with the gate g = ½ (1 + tanh u), and its slope dy/dx, with dg/du = 2 g (1 − g). */
export function gelu(x, c = (2 / Math.PI) ** 0.5) {
  const g = map(x => 0.5 * (1 + Math.tanh(c * (x + 0.044715 * x ** 3))), x);
  return [map((x, g) => x * g, x, g), map((x, g) => g + x * 2 * g * (1 - g) * c * (1 + 3 * 0.044715 * x ** 2), x, g)];
}

/** Replace each row by its softmax. */
export function softmax(x) {
  const p = zeros(x.rows, x.cols), K = x.cols;
  for (let n = 0; n < x.rows; n++) {
    const row = x.data.subarray(n * K, (n + 1) * K), most = row.reduce((a, b) => Math.max(a, b));
    const e = row.map(z => Math.exp(z - most)), sum = e.reduce((a, b) => a + b);
    for (let k = 0; k < K; k++) p.data[n * K + k] = e[k] / sum;
  }
  return p;
}

/** In each head h, token i averages the values of the tokens j ≤ i. heads is [B, T, H, D]. */
export function attention_forward(q, k, v, heads, name, acts) {
  const [B, T, H, D] = heads, y = zeros(q.rows, q.cols), scores = map(() => -Infinity, zeros(B * H * T, T));
  for_heads(heads, (b, h, i, at, row) => {
    for (let j = 0; j <= i; j++) scores.data[row + j] = dot(q, at(i), k, at(j), D) / D ** 0.5;  // −∞ where j > i
  });
  const probs = softmax(scores);  // (B H T, T)
  for_heads(heads, (b, h, i, at, row) => {
    for (let j = 0; j <= i; j++) add_to(y, at(i), probs.data[row + j], v, at(j), D);
  });
  acts[name] = { q, k, v, probs, heads };
  return y;  // (N, C)
}

export function attention_backward(dy, name, acts) {
  const { q, k, v, probs, heads } = acts[name], [, T, , D] = heads;
  const dq = zeros(q.rows, q.cols), dk = zeros(q.rows, q.cols), dv = zeros(q.rows, q.cols), dprobs = new Float64Array(T);
  for_heads(heads, (b, h, i, at, row) => {
    // y_i = Σ_j probs_ij v_j
    let mean = 0;
    for (let j = 0; j <= i; j++) {
      add_to(dv, at(j), probs.data[row + j], dy, at(i), D);
      dprobs[j] = dot(dy, at(i), v, at(j), D);
      mean += dprobs[j] * probs.data[row + j];
    }
    for (let j = 0; j <= i; j++) {
      // probs = softmax(scores): ∂p_j/∂s_i = p_j (δ_ij − p_i) in each row
      const dscore = probs.data[row + j] * (dprobs[j] - mean) / D ** 0.5;
      // scores_ij = q_i · k_j / √D
      add_to(dq, at(i), dscore, k, at(j), D);
      add_to(dk, at(j), dscore, q, at(i), D);
    }
  });
  return [dq, dk, dv];
}

/** Call f for each query i of each head h: at(t) is where token t's part of that head begins, row where probs_i0 is. */
function for_heads([B, T, H, D], f) {
  for (let b = 0; b < B; b++) for (let h = 0; h < H; h++) {
    for (let i = 0; i < T; i++) f(b, h, i, t => ((b * T + t) * H + h) * D, ((b * H + h) * T + i) * T);
  }
}

function dot(a, i, b, j, n) {
  let sum = 0;
  for (let k = 0; k < n; k++) sum += a.data[i + k] * b.data[j + k];
  return sum;
}

function add_to(y, i, factor, x, j, n) {
  for (let k = 0; k < n; k++) y.data[i + k] += factor * x.data[j + k];
}

/** Logits (N, V) of the next token after each of ids (B, T), an array of arrays, and the saved activations. */
export function forward(params, ids, n_layers, n_heads, s) {
  const E = params["tok_emb.weight"], P = params["pos_emb.weight"], C = E.cols, T = ids[0].length;
  const acts = {}, heads = [ids.length, T, n_heads, C / n_heads];
  let x = zeros(ids.length * T, C), h;  // (N, C)
  ids.flat().forEach((id, n) => {
    add_to(x, n * C, 1, E, id * C, C);
    add_to(x, n * C, 1, P, (n % T) * C, C);
  });
  for (let i = 0; i < n_layers; i++) {
    const block = `blocks.${i}`;
    h = layer_norm_forward(x, `${block}.ln1`, params, acts);
    const [q, k, v] = Array.from("qkv", y => linear_forward(h, `${block}.attn.${y}_proj`, params, s, acts));
    h = attention_forward(q, k, v, heads, `${block}.attn`, acts);
    x = add(x, linear_forward(h, `${block}.attn.o_proj`, params, s, acts));
    h = layer_norm_forward(x, `${block}.ln2`, params, acts);
    [h, acts[`${block}.slope`]] = gelu(linear_forward(h, `${block}.mlp.up_proj`, params, s, acts));
    x = add(x, linear_forward(h, `${block}.mlp.down_proj`, params, s, acts));
  }
  acts.h = layer_norm_forward(x, "ln_f", params, acts);
  return [matmul(acts.h, transpose(E)), acts];  // the token embedding E is also the head
}

/** The mean of −log p(target) over the N tokens, its gradients for the names in `trained`, and the activations. */
export function loss_and_gradients(params, ids, targets, trained, n_layers, n_heads, s) {
  const [logits, acts] = forward(params, ids, n_layers, n_heads, s), E = params["tok_emb.weight"], C = E.cols;
  const dlogits = softmax(logits), N = logits.rows;  // (N, V), so far p
  let loss = 0;
  targets.flat().forEach((id, n) => {
    loss -= Math.log(dlogits.data[n * E.rows + id]) / N;
    dlogits.data[n * E.rows + id] -= 1;  // p − onehot
  });
  dlogits.data.forEach((d, i) => { dlogits.data[i] = d / N; });
  const grads = Object.fromEntries(trained.map(name => [name, null]));
  // logits = ln_f(x) Eᵀ
  let d, dx = layer_norm_backward(matmul(dlogits, E), "ln_f", params, acts, grads);
  for (let i = n_layers - 1; i >= 0; i--) {
    const block = `blocks.${i}`;
    // x = x + down_proj(gelu(up_proj(ln2(x)))): dx passes unchanged, and through the branch
    d = linear_backward(dx, `${block}.mlp.down_proj`, params, s, acts, grads);  // (N, F)
    d = map((a, b) => a * b, d, acts[`${block}.slope`]);
    d = linear_backward(d, `${block}.mlp.up_proj`, params, s, acts, grads);
    dx = add(dx, layer_norm_backward(d, `${block}.ln2`, params, acts, grads));
    // x = x + o_proj(attention(q_proj(h), k_proj(h), v_proj(h))) with h = ln1(x)
    d = linear_backward(dx, `${block}.attn.o_proj`, params, s, acts, grads);
    const dqkv = attention_backward(d, `${block}.attn`, acts);
    d = dqkv.map((dy, j) => linear_backward(dy, `${block}.attn.${"qkv"[j]}_proj`, params, s, acts, grads)).reduce(add);
    dx = add(dx, layer_norm_backward(d, `${block}.ln1`, params, acts, grads));
  }
  if ("tok_emb.weight" in grads) {
    const dE = matmul(transpose(dlogits), acts.h), dP = zeros(ids[0].length, C);  // (V, C), from E's use as the head
    ids.flat().forEach((id, n) => {
      add_to(dE, id * C, 1, dx, n * C, C);  // E[ids]: a sum over a row's uses
      add_to(dP, (n % dP.rows) * C, 1, dx, n * C, C);  // (T, C)
    });
    Object.assign(grads, { "tok_emb.weight": dE, "pos_emb.weight": dP });
  }
  return [loss, grads, acts];
}

/** Update the arrays that have gradients, at step t ≥ 1. m averages the gradient, v its square. */
export function adamw(params, grads, m, v, t, lr, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, decay = 0.01) {
  [params, m, v] = [{ ...params }, { ...m }, { ...v }];
  for (const [name, g] of Object.entries(grads)) {
    m[name] = map((m, g) => beta1 * m + (1 - beta1) * g, m[name] ?? zeros(g.rows, g.cols), g);
    v[name] = map((v, g) => beta2 * v + (1 - beta2) * g ** 2, v[name] ?? zeros(g.rows, g.cols), g);
    const m_part = 1 - beta1 ** t, v_part = 1 - beta2 ** t;  // both started at 0
    const shrink = name.endsWith("bias") || name.includes("ln") ? 1 : 1 - lr * decay;  // weight decay, only on matrices
    const moved = (x, m, v) => shrink * x - lr * (m / m_part) / (Math.sqrt(v / v_part) + eps);
    params[name] = map(moved, params[name], m[name], v[name]);
  }
  return [params, m, v];
}

/** The parameters after `steps` steps on the whole text, and the loss before each step. */
export function train(params, trained, ids, targets, config, steps, lr) {
  let losses = [], m = {}, v = {}, loss, grads;
  for (let t = 1; t <= steps; t++) {
    [loss, grads] = loss_and_gradients(params, ids, targets, trained, ...config);
    [params, m, v] = adamw(params, grads, m, v, t, lr);
    losses.push(loss);
  }
  return [params, losses];
}
