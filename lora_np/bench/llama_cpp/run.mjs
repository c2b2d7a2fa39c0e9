// Carry out jobs with llama.cpp, through the package node-llama-cpp. Jobs and answers are lines of JSON.
//     node run.mjs SETTINGS < jobs > answers
//
// The settings are also JSON; "rows" is the largest number of prompts in a job:
//     {"model": "model.gguf", "adapters": [{"file": "adapter.gguf", "scale": 1}], "context": 512, "threads": 1,
//      "float32": true, "rows": 1}
//
// Prompts are token ids, to which nothing is added. A job is one of
//     {"do": "greedy", "prompt": ids, "n": 48, "stop": ids}       -> {"ids": [...], "margins": [...]}
//     {"do": "probabilities", "ids": ids, "out": "file"}          -> {"shape": [n, vocabulary]}
//     {"do": "tokenize", "text": "...", "special": false}         -> {"ids": [...]}
//     {"do": "detokenize", "ids": ids}                            -> {"text": "..."}
//     {"do": "timing", "prompts": [ids], "n": 32}   -> {"ids": [[...]], "prompt_seconds", "steps_seconds", "peak_bytes"}
//     {"do": "versions"}                                          -> {"node", "node-llama-cpp", "llama.cpp"}
// If a job fails, the answer is {"error": "..."}, with the errors that llama.cpp logged.
//
// The packages are in the folder LORA_NP_LLAMA_CPP or, if this variable is not set, in the folder of this file.

import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

console.log = console.info = console.error; // the standard output is for answers
const folder = path.resolve(process.env.LORA_NP_LLAMA_CPP || import.meta.dirname);
const packages = createRequire(path.join(folder, 'package.json'));
const { getLlama } = await import(pathToFileURL(packages.resolve('node-llama-cpp')));

// ---- The model -----------------------------------------------------------------------------------------------------

async function load(llama, { model: modelPath, adapters, context: contextSize, threads, float32, rows }) {
  const model = await llama.loadModel({ modelPath });
  const context = await model.createContext({
    contextSize, // of each row
    sequences: rows,
    threads,
    lora: { adapters: adapters.map(({ file, scale }) => ({ filePath: file, scale })) },
    // By default llama.cpp keeps keys and values in float16, and flash attention always computes in float16.
    ...(float32 && { flashAttention: false, experimentalKvCacheKeyType: 'F32', experimentalKvCacheValueType: 'F32' }),
  });
  const strategy = () => {
    throw new Error(`the tokens do not fit in a context of ${contextSize}`);
  };
  const sequences = Array.from({ length: rows }, () => context.getSequence({ contextShift: { strategy } }));
  return { model, sequences, sequence: sequences[0] };
}

// ---- Jobs ----------------------------------------------------------------------------------------------------------

// Read ids. At temperature 0, probabilities are those of the whole vocabulary, in descending order.
const read = (sequence, ids, wanted, onTokenResult) =>
  sequence.controlledEvaluate(
    ids.map((id, position) => (wanted(position) ? [id, { generateNext: { token: true, probabilities: true } }] : id)),
    { onTokenResult },
  );

async function greedy({ sequence }, { prompt, n, stop = [] }) {
  const ids = [];
  const margins = [];
  for (let unread = prompt; ids.length < n && !stop.includes(ids.at(-1)); unread = ids.slice(-1)) {
    const outputs = await read(sequence, unread, (position) => position === unread.length - 1);
    const { token, probabilities } = outputs.at(-1).next;
    const [first, second] = probabilities.values();
    ids.push(token);
    margins.push(Math.log(first / second)); // equal to the difference of the logits
  }
  return { ids, margins };
}

// Log-probabilities of the token after each id, as little-endian float32 in the order of the vocabulary.
async function probabilities({ sequence }, { ids, out }) {
  const rows = [];
  await read(sequence, ids, () => true, (position, { next }) => {
    rows[position] = logProbabilities(next.probabilities);
    delete next.probabilities; // megabytes at each position
  });
  fs.writeFileSync(out, Buffer.concat(rows.map((row) => new Uint8Array(row.buffer))));
  return { shape: [rows.length, rows[0].length] };
}

function logProbabilities(probabilities) {
  let sum = 0; // differs from 1 by 1e-4, because the addon summed in float32
  for (const probability of probabilities.values()) sum += probability;
  const row = new Float32Array(probabilities.size);
  for (const [id, probability] of probabilities) row[id] = Math.log(probability / sum);
  return row;
}

const tokenize = ({ model }, { text, special = false }) => ({ ids: model.tokenize(text, special) });

const detokenize = ({ model }, { ids }) => ({ text: model.detokenize(ids, true) });

// Seconds until every prompt has its first new token, and seconds for the n one-token steps after it. A process's first
// job is slower, because the model's file is read into memory.
async function timing({ sequences }, { prompts, n }) {
  const rows = prompts.map((ids, row) => sequences[row].evaluate(ids, { temperature: 0, yieldEogToken: true }));
  const ids = rows.map(() => []);
  const step = () => Promise.all(rows.map(async (tokens, row) => ids[row].push((await tokens.next()).value)));
  const started = performance.now();
  await step();
  const first = performance.now();
  for (let i = 0; i < n; i++) await step();
  const ended = performance.now();
  await Promise.all(rows.map((tokens) => tokens.return()));
  const seconds = { prompt_seconds: (first - started) / 1e3, steps_seconds: (ended - first) / 1e3 };
  return { ids, ...seconds, peak_bytes: peakBytes() };
}

// The peak memory of this process, including Node's own (about 85 MB) and the pages of the model's file that were read.
// resourceUsage().maxRSS will not do, because it starts at the memory of the parent process.
const peakBytes = () => 1024 * Number(/VmHWM:\s*(\d+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))[1]);

const versions = () => ({
  node: process.versions.node,
  'node-llama-cpp': JSON.parse(fs.readFileSync(path.join(folder, 'node_modules/node-llama-cpp/package.json'))).version,
  'llama.cpp': llama.llamaCppRelease.release,
});

// ---- The answers ---------------------------------------------------------------------------------------------------

const jobs = { greedy, probabilities, tokenize, detokenize, timing, versions };
const log = [];
const logger = (level, message) => log.push(message.trim());
const llama = await getLlama({ gpu: false, build: 'never', maxThreads: 0, logLevel: 'error', logger });
const loading = load(llama, JSON.parse(process.argv[2]));
loading.catch(() => {}); // an error becomes the answer to every job

async function answer(job) {
  const loaded = await loading;
  for (const sequence of loaded.sequences) await sequence.clearHistory();
  return jobs[job.do](loaded, job);
}

for await (const line of createInterface({ input: process.stdin })) {
  const result = await answer(JSON.parse(line)).catch(async (error) => {
    await setTimeout(100); // the log arrives later than the error
    return { error: [error.message, ...log].join('\n') };
  });
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
