// NumPy's `default_rng(0)`, so that the page starts from the same arrays as micro.py: PCG64 (O'Neill 2014), and
// normal numbers by the ziggurat (Marsaglia and Tsang 2000), 255 strips of equal area under the density and its tail.

const MASK = (1n << 128n) - 1n, MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;
const SEED = 0x1aa1b5345996452d09585eb7a69561e3n, INCREMENT = 0x418ddadb3af71a82588133bc447873a9n;
const TAIL = 3.6541528853610088, AREA = 0.0049286732339746549;  // where the tail begins; the area of each part

const density = x => Math.exp(-0.5 * x * x);
const edges = [AREA / density(TAIL)];  // the strips' right edges; the lowest strip includes the tail
edges[255] = TAIL;
for (let i = 254; i > 0; i--) edges[i] = Math.sqrt(-2 * Math.log(AREA / edges[i + 1] + density(edges[i + 1])));

/** A generator of random numbers: uniform() in [0, 1), and normal(). */
export function default_rng() {
  let state = SEED;
  function bits() {  // 64 random bits
    state = (state * MULTIPLIER + INCREMENT) & MASK;
    const mixed = BigInt.asUintN(64, (state >> 64n) ^ state), turn = state >> 122n;
    return BigInt.asUintN(64, (mixed >> turn) | (mixed << (64n - turn)));
  }
  const uniform = () => Number(bits() >> 11n) / 2 ** 53;
  function normal() {
    for (;;) {
      const drawn = bits(), i = Number(drawn & 255n), digits = BigInt.asUintN(52, drawn >> 9n);
      const sign = drawn >> 8n & 1n ? -1 : 1, x = Number(digits) / 2 ** 52 * edges[i];
      const inner = [TAIL, 0][i] ?? edges[i - 1];  // everything to the left of this is under the density
      if (x < inner) return sign * x;
      if (i === 0) {
        for (;;) {
          const beyond = -Math.log1p(-uniform()) / TAIL, y = -Math.log1p(-uniform());
          if (2 * y > beyond * beyond) return (digits >> 8n & 1n ? -1 : 1) * (TAIL + beyond);
        }
      }
      if ((density(inner) - density(edges[i])) * uniform() + density(edges[i]) < density(x)) return sign * x;
    }
  }
  return { uniform, normal };
}
