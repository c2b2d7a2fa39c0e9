/* port.c: a small transformer with LoRA, its gradients and its training, as SPEC.md has them, in C11 and libm alone.

   gcc -std=c11 -O2 -Wall -Wextra -pedantic -ffp-contract=off -o port64 port.c -lm        (port32: and -DREAL=float)
   mkdir out && ./port64 out vectors/?*.float64.safetensors
   ./port32 SmolLM2-135M-Instruct.Q4_1.gguf 504 3575 282 4649 314        (a real Llama: the logits after these tokens)

   Each file is a case: its inputs and settings are read, its outputs are computed and written to the directory out. Of
   the outputs in the file just the names are used, to know what is asked for. Four operations know how a gradient goes
   back through them: add, product, map and take. All else is made of these and written forward alone; backward() then
   goes through all that was computed, the last first. The machine has to be little-endian, as the files are. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h>
#ifndef REAL
#define REAL double
#endif

/* ==== 1. Memory, arrays, names ==================================================================================== */
typedef const char *Text;
static Text current_file = "port";              /* what a message is about */
static _Noreturn void die(Text s, Text what) { fprintf(stderr, "%s: %s%s\n", current_file, s, what), exit(1); }
typedef struct Chunk { struct Chunk *next; double data[]; } Chunk;  /* zero at first, kept to the end of the case */
static Chunk *chunks;
static void *allocate(size_t size) {
    Chunk *chunk = calloc(1, sizeof(Chunk) + size);
    if (!chunk) die("out of memory", "");
    return chunk->next = chunks, (chunks = chunk)->data;
}
static Text text(Text format, ...) {
    va_list args, again;
    va_start(args, format), va_copy(again, args);
    char *s = allocate(vsnprintf(NULL, 0, format, args) + 1);
    return vsprintf(s, format, again), va_end(args), va_end(again), s;
}
/* An array, row-major. dtype is safetensors' and says what to read: f of F64 or F32, i of I64, u of U8 and I8. g is the
   gradient with respect to f. The rest says how it was computed, and which tensor was computed before it. */
typedef struct Tensor Tensor;
typedef REAL Curve(REAL x, REAL *slope);
typedef void Operation(Tensor *y, Tensor *a, Tensor *b, bool back);
struct Tensor {
    Text dtype, rule;
    int axes, shape[5], size;
    union { REAL *f; int64_t *i; uint8_t *u; };
    REAL *g;
    Operation *operation; Curve *curve;
    Tensor *a, *b, *older;
};
static const Text REAL_DTYPE = sizeof(REAL) == 8 ? "F64" : "F32";
static size_t bytes(const Tensor *t) {
    int width = !strcmp(t->dtype, REAL_DTYPE) ? sizeof(REAL) : !strcmp(t->dtype, "I64") ? 8 : t->dtype[1] == '8';
    return width ? t->size * width : (die("this program is not for ", t->dtype), 0);
}
static Tensor *make(Text dtype, int axes, const int *shape) {
    Tensor *t = allocate(sizeof *t);
    t->dtype = dtype, t->axes = axes, t->size = 1;
    for (int k = 0; k < axes; k++) t->size *= t->shape[k] = shape[k];
    return t->u = allocate(bytes(t)), t->g = *dtype == 'F' ? allocate(bytes(t)) : NULL, t;
}
static Tensor *zeros(int axes, const int *shape) { return make(REAL_DTYPE, axes, shape); }
static Tensor *vector(int n) { return zeros(1, &n); }
static Tensor *matrix(int n, int m) { return zeros(2, (int[]){n, m}); }
static Tensor *integers(int n, int m) { return make("I64", 2, (int[]){n, m}); }
static Tensor *octets(int n) { return make("U8", 1, &n); }
static Tensor *like(const Tensor *x) { return zeros(x->axes, x->shape); }
static Tensor *ending(Tensor x, int axes, int n) { x.shape[axes - 1] = n; return zeros(axes, x.shape); }
static Tensor *scalar(REAL x) { Tensor *t = zeros(0, NULL); *t->f = x; return t; }
static int last(const Tensor *x) { return x->shape[x->axes - 1]; }
/* Views share the data: other axes for the same entries and gradient; n entries along the first axis; one of these. */
static Tensor *shaped(const Tensor *x, int axes, const int *shape) {
    Tensor *y = memcpy(allocate(sizeof *y), x, sizeof *y);
    return memcpy(y->shape, shape, sizeof *shape * axes), y->axes = axes, y;
}
static Tensor *part(const Tensor *x, int from, int n) {
    Tensor *y = shaped(x, x->axes, x->shape);
    return y->shape[0] = n, y->size = x->size / x->shape[0] * n, y->u += bytes(x) / x->shape[0] * from, y;
}
static Tensor *item(const Tensor *x, int k) { return shaped(part(x, k, 1), x->axes - 1, x->shape + 1); }
static Tensor *gradient(const Tensor *x) { Tensor *y = shaped(x, x->axes, x->shape); y->f = x->g; return y; }
static Tensor *join(const Tensor *a, Tensor *b, int axis) {         /* a, which may be NULL, and after it b */
    if (!a) return b;
    Tensor *y = shaped(a, a->axes, a->shape);
    int n = a->size, m = b->size;
    for (int k = 0; k < axis; k++) n /= a->shape[k], m /= b->shape[k];
    y->shape[axis] += b->shape[axis], y = like(y);
    for (int k = 0, row; k < y->size; k++)
        row = k / (n + m), y->f[k] = k % (n + m) < n ? a->f[k - row * m] : b->f[k - (row + 1) * n];
    return y;
}
/* Named tensors, in the order of their names. scope has a case's inputs and all that is computed from them. */
typedef struct List { Text name; Tensor *t; struct List *next; } List;
static List *scope;
static List **place(List **e, Text name) { while (*e && strcmp((*e)->name, name) < 0) e = &(*e)->next; return e; }
static Tensor *insert(List **e, Tensor *t, Text name) {             /* in the place of one of that name, if any */
    if (!*(e = place(e, name)) || strcmp((*e)->name, name))
        *e = memcpy(allocate(sizeof **e), &(List){name, NULL, *e}, sizeof **e);
    return (*e)->t = t;
}
static Tensor *find(Text name) { List *e = *place(&scope, name); return e && !strcmp(e->name, name) ? e->t : NULL; }
static Tensor *get(Text name) { return find(name) ? find(name) : (die("there is no ", name), NULL); }
static Tensor *put(Tensor *t, Text name) { return insert(&scope, t, name); }
static Text after(Text start, Text name) { return strncmp(name, start, strlen(start)) ? NULL : name + strlen(start); }

/* ==== 2. The vectors: JSON and safetensors ======================================================================== */
/* JSON is read in its place: a value is a pointer to its first character. */
static Text skip(Text p) { return p + strspn(p, " \t\r\n"); }
static Text closing_quote(Text p) {
    for (p++; *p && *p != '"'; p++) p += *p == '\\' && p[1];
    return *p ? p : (die("bad JSON", ""), NULL);
}
static Text nth(Text p, int k) {                /* of a list, or of an object's keys; NULL if there are not so many */
    for (int depth = 0; *p; p++) {
        if (*p == '"') p = closing_quote(p);
        depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
        if (depth == 1 && strchr("{[,", *p) && k-- == 0) return strchr("}]", *skip(p + 1)) ? NULL : skip(p + 1);
        if (depth == 0) return NULL;
    }
    die("bad JSON", "");
}
static Text string(Text p) {                    /* of escapes just \" and \\ occur in these files */
    Text end = *p == '"' ? closing_quote(p) : (die("bad JSON", ""), NULL);
    char *s = allocate(end - p), *to = s;
    while (++p < end) *to++ = *(p += *p == '\\');
    return s;
}
static Text lookup(Text object, Text key) {     /* NULL if there is none, or a null */
    Text p = NULL;
    for (int k = 0; (p = nth(object, k)) && strcmp(string(p), key);) k++;
    return p && *(p = skip(skip(closing_quote(p) + 1) + 1)) != 'n' ? p : NULL;
}
static Text member(Text o, Text key) { return lookup(o, key) ? lookup(o, key) : (die("there is no ", key), NULL); }
static double number(Text object, Text key) { return strtod(member(object, key), NULL); }
static int whole(Text object, Text key) { return number(object, key); }
static bool is_true(Text object, Text key) { return lookup(object, key) && *lookup(object, key) == 't'; }
static Text text_of(const uint8_t *bytes, size_t n) { return memcpy(allocate(n + 1), bytes, n); }
static Text header_of(const Tensor *file) {     /* 8 bytes before it have its length, the tensors follow it */
    uint64_t n = 0;
    if (file->size >= 8) memcpy(&n, file->u, 8);
    if (file->size < 8 || n > (uint64_t)file->size - 8 || file->u[8] != '{') die("not a safetensors file", "");
    return text_of(file->u + 8, n);
}
static Tensor *read_tensor(const Tensor *file, Text name) {
    Text header = header_of(file), entry = member(header, name), sizes = member(entry, "shape");
    Text offsets = member(entry, "data_offsets");
    const size_t data = 8 + strlen(header);
    const size_t begin = data + strtoull(nth(offsets, 0), NULL, 10), end = data + strtoull(nth(offsets, 1), NULL, 10);
    int axes = 0, shape[4], size = 1;
    for (; nth(sizes, axes); axes++) {
        const long n = axes < 4 ? strtol(nth(sizes, axes), NULL, 10) : 0;
        if (n < 1 || n > (1 << 24) / size) die("no shape for this program: ", name);
        size *= shape[axes] = n;
    }
    Tensor *t = make(string(member(entry, "dtype")), axes, shape);
    if (begin > end || end > bytes(file) || bytes(t) != end - begin) die("not as many bytes as its shape says: ", name);
    return memcpy(t->u, file->u + begin, bytes(t)), t;
}
static Tensor *encode(const List *list) {       /* in the order of the names, as section 6 has it */
    Text header = "{\"__metadata__\":{\"format\":\"pt\"}", shape;
    size_t end = 0;
    for (const List *e = list; e; end += bytes(e->t), e = e->next) {
        shape = "";
        for (int k = 0; k < e->t->axes; k++) shape = text(k ? "%s,%d" : "%s%d", shape, e->t->shape[k]);
        header = text("%s,\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", header, e->name,
                      e->t->dtype, shape, end, end + bytes(e->t));
    }
    const uint64_t n = strlen(header = text("%s}%*s", header, 7 - (int)(strlen(header) % 8), ""));
    Tensor *file = octets(8 + n + end);
    uint8_t *to = file->u + 8 + n;
    memcpy(file->u, &n, 8), memcpy(file->u + 8, header, n);
    for (const List *e = list; e; to += bytes(e->t), e = e->next) memcpy(to, e->t->u, bytes(e->t));
    return file;
}

/* ==== 4. Tier 1: operations ======================================================================================= */
static Text kind, settings, model, adapter;     /* of the case; NULL if it has none */
static Tensor *newest;                          /* of what was computed */
/* An operation fills in y from a and b, or, going back, adds to their gradients what comes from that of y. */
static Tensor *computed(Tensor *y, Operation *operation, Tensor *a, Tensor *b) {
    y->operation = operation, y->a = a, y->b = b, y->older = newest;
    return operation(y, a, b, false), newest = y;
}
static void backward(Tensor *y, const Tensor *dy) {
    memcpy(y->g, dy->f, bytes(y));
    for (y = newest, newest = NULL; y; y = y->older) if (y->operation) y->operation(y, y->a, y->b, true);
}
/* y = a + b. b may be smaller and is then repeated, as a bias is for each row: its gradient is a sum. */
static void add_to(Tensor *y, Tensor *a, Tensor *b, bool back) {
    for (int k = 0, j; k < y->size; k++)
        if (j = k % b->size, back) a->g[k] += y->g[k], b->g[j] += y->g[k]; else y->f[k] = a->f[k] + b->f[j];
}
static Tensor *add(Tensor *a, Tensor *b) { return computed(like(a), add_to, a, b); }
/* A rule has a letter for each axis of y, of a and of b, or a dot for several: ".o=.i,oi" is x W^T. y, at first zeros,
   gets the sum of a b over the letters it has not; going back, a gets y's gradient times b, and b gets it times a. */
static void multiply(Tensor *y, Tensor *a, Tensor *b, bool back) {
    Tensor *const t[3] = {y, a, b};
    char letters[8] = "", *letter;
    int extent[8], stride[3][8] = {{0}}, total = 1;
    for (int j = strlen(y->rule) - 1, k = 2, step = 1, axis = 0; j >= 0; j--) {
        const char c = y->rule[j];
        if (c == '=' || c == ',') { k--, step = 1, axis = 0; continue; }
        const int size = c == '.' ? t[k]->size / step : t[k]->shape[t[k]->axes - ++axis];
        if (!(letter = strchr(letters, c))) *(letter = letters + strlen(letters)) = c, total *= size;
        else if (extent[letter - letters] != size) die("shapes that do not fit each other in ", y->rule);
        stride[k][letter - letters] = step, extent[letter - letters] = size, step *= size;
    }
    for (int e = 0; e < total; e++) {
        int at[3] = {0};
        for (int n = 0, rest = e; letters[n]; rest /= extent[n++])
            for (int k = 0; k < 3; k++) at[k] += rest % extent[n] * stride[k][n];
        if (!back) y->f[at[0]] += a->f[at[1]] * b->f[at[2]];
        else a->g[at[1]] += y->g[at[0]] * b->f[at[2]], b->g[at[2]] += y->g[at[0]] * a->f[at[1]];
    }
}
static Tensor *product(Tensor *y, Text r, Tensor *a, Tensor *b) { return y->rule = r, computed(y, multiply, a, b); }
static Tensor *linear(Tensor *x, Tensor *W) { return product(ending(*x, x->axes, W->shape[0]), ".o=.i,oi", x, W); }
static Tensor *outer(Tensor *B, Tensor *A) { return product(matrix(B->shape[0], last(A)), "oi=or,ri", B, A); }
static Tensor *scale(Tensor *x, REAL s) { return product(like(x), ".=.,", x, scalar(s)); }
static Tensor *subtract(Tensor *a, Tensor *b) { return add(a, scale(b, -1)); }
static Tensor *times(Tensor *x, Tensor *y) { return y ? product(like(x), ".=.,.", x, y) : x; }  /* no mask: x */
static Tensor *times_row(Tensor *x, Tensor *row) { return product(like(x), ".c=.c,c", x, row); }
static Tensor *times_column(Tensor *x, Tensor *column) { return product(like(x), ".c=.c,.", x, column); }
static Tensor *turn(Tensor *x) { return product(matrix(last(x), x->shape[0]), "ji=ij,", x, scalar(1)); }
static Tensor *sum(Tensor *x) { return product(zeros(x->axes - 1, x->shape), ".=.c,", x, scalar(1)); }
static Tensor *mean(Tensor *x) { return scale(sum(x), (REAL)1 / last(x)); }
static Tensor *minus(Tensor *x, Tensor *column) { return subtract(x, product(like(x), ".c=.,", column, scalar(1))); }
static void call(Tensor *y, Tensor *a, Tensor *b, bool back) {  /* y = curve(a), b its slope:  grad.a = grad.y * b */
    for (int k = 0; k < y->size; k++)
        if (back) a->g[k] += y->g[k] * b->f[k]; else y->f[k] = y->curve(a->f[k], b->f + k);
}
static Tensor *map(Curve *f, Tensor *x) { Tensor *y = like(x); return y->curve = f, computed(y, call, x, like(x)); }
static REAL exponential(REAL x, REAL *slope) { return *slope = exp(x); }
static REAL logarithm(REAL x, REAL *slope) { return *slope = 1 / x, log(x); }
static REAL inverse(REAL x, REAL *slope) { return *slope = -1 / (x * x), 1 / x; }
static REAL root(REAL x, REAL *slope) { return *slope = 1 / (2 * sqrt(x)), sqrt(x); }
/* u = sqrt(2/pi) (x + 0.044715 x^3),  g = (1 + tanh u) / 2,  y = x g,  slope = g + 2 y (1 - g) u' */
static REAL gelu(REAL x, REAL *slope) {
    const REAL c = (REAL)sqrt(2 / acos(-1.0)), cubic = (REAL)0.044715, g = (1 + tanh(c * (x + cubic * x * x * x))) / 2;
    return *slope = g + 2 * x * g * (1 - g) * c * (1 + 3 * cubic * x * x), x * g;
}
/* share = (1 + erf(x / sqrt 2)) / 2,  y = x share,  slope = share + x exp(-x^2 / 2) / sqrt(2 pi) */
static REAL gelu_erf(REAL x, REAL *slope) {
    const REAL share = (1 + erf(x / (REAL)sqrt(2.0))) / 2;
    return *slope = share + x * exp(-x * x / 2) / (REAL)sqrt(2 * acos(-1.0)), x * share;
}
/* y = the rows of a at the indices b, as in an embedding;  grad.a = for each row the sum over where it was taken to */
static void take_from(Tensor *y, Tensor *a, Tensor *b, bool back) {
    for (int k = 0, n = last(y), j; k < y->size; k++)
        if (j = b->i[k / n] * n + k % n, back) a->g[j] += y->g[k]; else y->f[k] = a->f[j];
}
static Tensor *take(Tensor *x, Tensor *b) {
    for (int k = 0; k < b->size; k++) if (b->i[k] < 0 || b->i[k] >= x->size / last(x)) die("an id that no row has", "");
    return computed(ending(*b, b->axes + 1, last(x)), take_from, x, b);
}
static Tensor *below_max(Tensor *x) {           /* x - max of each row, a constant: what follows is the same for any */
    Tensor *max = zeros(x->axes - 1, x->shape);
    for (int k = 0, n = last(x); k < x->size; k++) max->f[k / n] = fmax(k % n ? max->f[k / n] : x->f[k], x->f[k]);
    return minus(x, max);
}
static Tensor *softmax(Tensor *x) { x = map(exponential, below_max(x)); return times_column(x, map(inverse, sum(x))); }
/* (x_target - max) - log(sum of exp(x - max)); 0 where the target is ignored */
static Tensor *token_log_probs(Tensor *x, const Tensor *targets, int ignored) {
    Tensor *hit = like(x = below_max(x)), *real = zeros(targets->axes, targets->shape);
    for (int i = 0; i < targets->size; i++)
        if (targets->i[i] != ignored) hit->f[i * last(x) + targets->i[i]] = real->f[i] = 1;
    return times(subtract(sum(times(x, hit)), map(logarithm, sum(map(exponential, x)))), real);
}
static Tensor *cross_entropy(Tensor *x, const Tensor *targets, int ignored) {     /* the mean of -log p */
    Tensor *share = zeros(targets->axes, targets->shape);
    int real = 0;
    for (int i = 0; i < targets->size; i++) real += targets->i[i] != ignored;
    for (int i = 0; i < targets->size; i++) share->f[i] = (REAL)-1 / fmax(1, real);
    return product(scalar(0), "=.,.", token_log_probs(x, targets, ignored), share);
}
/* A layer's arrays, and what it computes, have names that begin with at: its own and a dot, or nothing if it is a case.
   Its adapter is "lora", "dora", "qalora" or NULL; s is alpha / r, or alpha / sqrt(r); the mask is for the adapter's input. */
typedef struct { Text at, adapter; REAL s; Tensor *mask; } Layer;
static Tensor *own(Layer l, Text leaf) { return get(text("%s%s", l.at, leaf)); }
static Tensor *keep(Layer l, Tensor *t, Text leaf) { return put(t, text("%s%s", l.at, leaf)); }
static REAL adapter_scale(double alpha, double r, bool rslora) { return alpha / (rslora ? sqrt(r) : r); }
/* linear: y = x W^T + b.  LoRA, with x~ = x * mask: su = s (x~ A^T),  y = x W^T + b + su B^T,  delta = s B A.
   DoRA: V = W + s B A,  gain = m / norm of each row of V,  h = x~ V^T,  y = gain * h + b + (x - x~) W^T,
   delta = gain * V - W.  The norm is a constant going back, unless the setting says otherwise.
   QA-LoRA, with L blocks of 32 inputs, p the mean of x~ in each: y = x W^T + b + s L (p A^T) B^T,
   delta = s L / 32 B A, each column 32 times. */
enum { BLOCK = 32 };
static Tensor *qalora(Layer l, Tensor *masked) {
    Tensor *A = own(l, "lora_A"), *B = own(l, "lora_B"), *ones = vector(BLOCK), *delta, *p;
    const int n = last(A), rows = masked->size / BLOCK, deltas[] = {B->shape[0], n, BLOCK};
    for (int j = 0; j < BLOCK; j++) ones->f[j] = 1;
    p = keep(l, shaped(mean(shaped(masked, 2, (int[]){rows, BLOCK})), 3, ending(*masked, 3, n)->shape), "pooled");
    delta = product(zeros(3, deltas), "oig=oi,g", scale(outer(B, A), l.s * n / BLOCK), ones);
    keep(l, shaped(delta, 2, (int[]){B->shape[0], n * BLOCK}), "delta");
    return linear(scale(linear(p, A), l.s * n), B);
}
static Tensor *layer(Layer l, Tensor *x) {
    Tensor *W = own(l, "weight"), *bias = find(text("%sbias", l.at)), *masked = times(x, l.mask), *y = linear(x, W);
    if (l.adapter && *l.adapter == 'q') y = add(y, qalora(l, masked));
    else if (l.adapter) {
        Tensor *A = own(l, "lora_A"), *B = own(l, "lora_B"), *su = keep(l, scale(linear(masked, A), l.s), "su");
        Tensor *delta = scale(outer(B, A), l.s), *V = add(W, delta);
        if (*l.adapter == 'd') {
            Tensor *norm = keep(l, map(root, sum(times(V, V))), "norm");
            if (!is_true(settings, "norm_gradient")) norm->operation = NULL;
            Tensor *gain = times(own(l, "lora_magnitude_vector"), map(inverse, norm));
            y = add(times_row(keep(l, linear(masked, V), "h"), gain), linear(subtract(x, masked), W));
            V = times_column(V, gain), delta = subtract(V, W);
        } else y = add(y, linear(su, B));
        keep(l, delta, "delta"), keep(l, V, "merged");
    }
    return bias ? add(y, bias) : y;
}
/* mean and var = mean of (x - mean)^2 of each row,  inv_std = 1 / sqrt(var + eps),  x_hat = (x - mean) inv_std */
static Tensor *layer_norm(Layer l, Tensor *x) {
    const REAL eps = model ? number(model, "layer_norm_eps") : number(settings, "eps");
    Tensor *apart = minus(x, mean(x)), *var = mean(times(apart, apart));
    Tensor *inv_std = keep(l, map(inverse, map(root, add(var, scalar(eps)))), "inv_std");
    return add(times_row(keep(l, times_column(apart, inv_std), "x_hat"), own(l, "weight")), own(l, "bias"));
}
/* scores = q k^T / sqrt(D), -inf at keys after the query's position;  probs = softmax(scores);  context = probs v
   H / K query heads side by side share a head of keys and values. */
static Tensor *attention(Layer l, Tensor *q, Tensor *k, Tensor *v, const Tensor *places) {
    const int B = q->shape[0], n = q->shape[1], m = k->shape[1], C = last(q);
    const int H = whole(model ? model : settings, "n_heads"), D = C / H, K = last(k) / D;
    const int by_key[] = {B, K, H / K, n, m};
    q = shaped(q, 5, (int[]){B, n, K, H / K, D}), k = shaped(k, 4, (int[]){B, m, K, D}), v = shaped(v, 4, k->shape);
    Tensor *scores = scale(product(zeros(5, by_key), "bkhij=bikhd,bjkd", q, k), 1 / sqrt((REAL)D));
    scores = shaped(scores, 4, (int[]){B, H, n, m});
    for (int e = 0, i; e < scores->size; e++)   /* a classifier's places count on from row to row */
        if (i = e / m % n, e % m > (places ? places->i[e / m / n / H * n + i] % m : i + m - n))
            scores->f[e] = -INFINITY;
    Tensor *probs = keep(l, softmax(keep(l, scores, "scores")), "probs");
    return shaped(product(like(q), "bikhd=bkhij,bjkd", shaped(probs, 5, by_key), v), 3, (int[]){B, n, C});
}
/* ==== 7. Tier 4: Llama's operations ============================================================================== */
/* inv_rms = 1 / sqrt(mean of x^2 + eps) of each row,  x_hat = x inv_rms */
static Tensor *rms_norm(Layer l, Tensor *x) {
    const REAL eps = model ? number(model, "rms_norm_eps") : number(settings, "eps");
    Tensor *inv_rms = keep(l, map(inverse, map(root, add(mean(times(x, x)), scalar(eps)))), "inv_rms");
    return times_row(keep(l, times_column(x, inv_rms), "x_hat"), own(l, "weight"));
}
/* Numbers j and j + D/2 of each head are a point (a, b), which turns by the angle p theta^(-2j/D):
   (a cos - b sin, b cos + a sin). Row k of x is at position from + places[k]. */
static Tensor *rope(Layer l, Tensor *x, const Tensor *places, int from, int D, double theta) {
    const int half = D / 2, width = last(x), shape[3] = {x->shape[0], x->shape[1], half};
    Tensor *c = keep(l, zeros(3, shape), "cos"), *s = keep(l, zeros(3, shape), "sin");
    Tensor *by_cos = like(x), *by_sin = like(x), *other = integers(x->size, 1);
    for (int k = 0; k < c->size; k++) {
        Text list = model ? lookup(model, "rope_divisors") : NULL;
        const double divisor = list ? strtod(nth(list, k % half), NULL) : 1;
        const double angle = (from + places->i[k / half]) * pow(theta, -2.0 * (k % half) / D) / divisor;
        c->f[k] = cos(angle), s->f[k] = sin(angle);
    }
    for (int k = 0; k < x->size; k++) {
        const int at = k / width * half + k % half, first = k % width % D < half;
        other->i[k] = first ? k + half : k - half;
        by_cos->f[k] = c->f[at], by_sin->f[k] = first ? -s->f[at] : s->f[at];
    }
    Tensor *partner = shaped(take(shaped(x, 2, (int[]){x->size, 1}), other), x->axes, x->shape);
    return add(times(x, by_cos), times(partner, by_sin));
}
static REAL silu(REAL a, REAL *slope) {         /* a s(a) with s = 1 / (1 + exp(-a)) = (1 + tanh(a / 2)) / 2 */
    const REAL s = (1 + tanh(a / 2)) / 2;
    return *slope = s * (1 + a * (1 - s)), a * s;
}
static Tensor *swiglu(Tensor *gate, Tensor *up) { return times(map(silu, gate), up); }

/* llama.cpp's blocks of 32 weights: d, in Q4_1 also m, then codes of 8 bits, or of 4: weight j in the low half of byte
   j, weight j + 16 in the high half. The types are GGUF's: 2 is Q4_0, 3 is Q4_1, 8 is Q8_0. */
static int type_of(Text format) { return format[1] == '8' ? 8 : format[3] == '0' ? 2 : 3; }
static int header_bytes(int type) { return type == 3 ? 4 : 2; }
static int block_bytes(int type) { return header_bytes(type) + (type == 8 ? 32 : 16); }
static float half(const uint8_t *p) {           /* float16: sign, 5 bits of exponent, 10 bits */
    const int bits = p[0] | p[1] << 8, e = bits >> 10 & 31, m = bits & 1023;
    const float x = e == 31 ? (m ? NAN : INFINITY) : e ? ldexpf(1024 + m, e - 25) : ldexpf(m, -24);
    return bits >> 15 ? -x : x;
}
static void put_half(uint8_t *p, double x) {    /* rounded, a half to even */
    if (!(fabs(x) < 65520)) die("a number that is too large for float16", "");
    const int e = x && ilogb(x) > -14 ? ilogb(x) : -14, bits = (e + 14) * 1024 + (int)rint(ldexp(fabs(x), 10 - e));
    p[0] = bits, p[1] = bits >> 8 | !!signbit(x) << 7;
}
static float weight_of(const uint8_t *block, int type, int j) {
    const int head = header_bytes(type), code = block[head + j % 16] >> j / 16 * 4 & 15;
    const float d = half(block);
    return type == 8 ? d * (int8_t)block[2 + j] : type == 2 ? d * (code - 8) : d * code + half(block + 2);
}
static Tensor *expand(const Tensor *rows, int type) {
    Tensor *y = matrix(rows->shape[0], last(rows) / block_bytes(type) * BLOCK);
    for (int k = 0; k < y->size; k++) y->f[k] = weight_of(rows->u + k / BLOCK * block_bytes(type), type, k % BLOCK);
    return y;
}
/* All in float32, with the d that is not rounded to float16 yet. */
static void pack(uint8_t *to, const REAL *w, int type) {
    float least = w[0], most = w[0], far = w[0], d, inverse;
    for (int j = 1; j < BLOCK; j++) {
        least = fmin(least, (float)w[j]), most = fmax(most, (float)w[j]);
        if (fabs(w[j]) > fabs(far)) far = w[j];
    }
    d = type == 8 ? fabs(far) / 127 : type == 2 ? far / -8 : (most - least) / 15;
    inverse = isfinite(1 / d) ? 1 / d : 0;
    put_half(to, d);
    if (type == 3) put_half(to + 2, least);
    for (int j = 0, head = header_bytes(type), code; j < BLOCK; j++) {
        const float x = ((float)w[j] - (type == 3 ? least : 0)) * inverse;
        code = type == 8 ? copysign(floor(fabs((double)x) + 0.5), x) : fmin(15, floor(x + (type == 2 ? 8.5f : 0.5f)));
        if (type == 8) to[head + j] = code;
        else to[head + j % 16] = j < 16 ? code : to[head + j % 16] | code << 4;
    }
}
static void run_blocks(void) {
    Tensor *w = get("weight"), *packed;
    const int type = type_of(string(member(settings, "format"))), size = block_bytes(type);
    if (last(w) % BLOCK) die("rows that are not whole blocks", "");
    packed = put(make("U8", 2, (int[]){w->shape[0], last(w) / BLOCK * size}), "packed");
    for (int k = 0; k < w->size; k += BLOCK) pack(packed->u + k / BLOCK * size, w->f + k, type);
    put(expand(packed, type), "dequantised"), put(expand(get("blocks"), type), "expanded");
}
/* ==== 8. Tier 5: BERT's operations =============================================================================== */
/* In an encoder, each of a row's queries is at the position of the row's last token. */
static Tensor *last_places(const Tensor *lengths, int n) {
    Tensor *places = integers(lengths->size, n);
    for (int k = 0; k < places->size; k++) places->i[k] = lengths->i[k / n] - 1;
    return places;
}
static Tensor *mean_pool(Tensor *x, const Tensor *lengths) {
    Tensor *shares = matrix(x->shape[0], x->shape[1]);
    for (int k = 0, T = x->shape[1]; k < shares->size; k++)
        shares->f[k] = k % T < lengths->i[k / T] ? (REAL)1 / lengths->i[k / T] : 0;
    return product(matrix(x->shape[0], last(x)), "bc=bt,btc", shares, x);
}

/* Tier 6. The loss is linear in the ratios that are not clipped; what is clipped is a constant. */
static Tensor *grpo(void) {
    const Tensor *R = get("rewards"), *lengths = get("lengths");
    const REAL low = 1 - (REAL)number(settings, "clip"), high = 2 - low, beta = number(settings, "beta");
    Tensor *x = get("log_probs"), *ratio = map(exponential, subtract(x, get("old"))), *d = subtract(get("reference"), x);
    Tensor *A = put(like(R), "advantages"), *slope = like(x), *penalty = like(x), *fixed = scalar(0);
    const int G = last(R), N = R->size, T = last(x);
    for (int n = 0; n < N; n += G) {
        REAL mean = 0, square = 0;
        for (int k = n; k < n + G; k++) mean += R->f[k] / G;
        for (int k = n; k < n + G; k++) A->f[k] = R->f[k] - mean, square += A->f[k] * A->f[k] / (G - 1);
        for (int k = n; k < n + G; k++) A->f[k] /= sqrt(square) + (REAL)1e-4;
    }
    for (int n = 0; n < N; n++) for (int k = n * T; k < n * T + lengths->i[n]; k++) {
        const REAL weight = (REAL)1 / (N * lengths->i[n]), a = A->f[n], most = a > 0 ? high : low;
        const bool clipped = a > 0 ? ratio->f[k] > high : ratio->f[k] < low;
        penalty->f[k] = beta * weight, *fixed->f -= beta * weight + (clipped ? weight * most * a : 0);
        slope->f[k] = clipped ? 0 : -weight * a;
    }
    d = product(scalar(0), "=.,.", subtract(map(exponential, d), d), penalty);
    return add(add(product(scalar(0), "=.,.", ratio, slope), d), fixed);
}
static REAL softplus(REAL x, REAL *slope) {     /* log(1 + exp x) */
    const REAL small = exp(-fabs(x));
    return *slope = (x > 0 ? 1 : small) / (1 + small), fmax(x, 0) + log1p(small);
}
static Tensor *dpo(void) {
    Tensor *change = subtract(get("log_probs"), get("reference")), *sides = vector(2);
    sides->f[0] = -number(settings, "beta"), sides->f[1] = -sides->f[0];
    return mean(map(softplus, product(vector(change->shape[0]), "p=ps,s", change, sides)));
}

static bool is(Text name) { return !strcmp(kind, name); }
static void run_operation(void) {
    Layer l = {"", is("lora") || is("dora") || is("qalora") ? kind : NULL, 0, find("mask")};
    Tensor *x = find("x"), *y;
    Text name = is("softmax") ? "probs" : strstr(kind, "attention") ? "context" : "y";
    if (strstr(kind, "cross_entropy") || is("grpo") || is("dpo")) name = "loss";
    if (is("token_log_probs")) name = "log_probs";
    if (is("qalora")) put(expand(get("blocks"), 3), "weight");
    if (l.adapter) l.s = adapter_scale(number(settings, "alpha"), number(settings, "r"), is_true(settings, "rslora"));
    if (after("gelu", kind)) y = map(is("gelu") ? gelu : gelu_erf, x), put(y->b, "slope");
    else if (is("mean_pool")) y = mean_pool(x, get("lengths"));
    else if (is("encoder_attention"))
        y = attention(l, get("q"), get("k"), get("v"), last_places(get("lengths"), get("q")->shape[1]));
    else if (is("softmax")) y = softmax(x);
    else if (is("dropout")) y = times(x, l.mask);
    else if (is("embedding")) y = take(get("weight"), get("ids"));
    else if (is("layer_norm")) y = layer_norm(l, x);
    else if (is("rms_norm")) y = rms_norm(l, x);
    else if (is("rope")) y = rope(l, x, get("positions"), 0, whole(settings, "head_size"), *get("theta")->f);
    else if (is("swiglu")) y = swiglu(get("gate"), get("up"));
    else if (is("linear_cross_entropy"))        /* all at once: the chunks change no number */
        y = cross_entropy(linear(x, get("weight")), get("targets"), whole(settings, "ignore_index"));
    else if (is("token_log_probs"))
        y = token_log_probs(linear(x, get("weight")), get("targets"), whole(settings, "ignore_index"));
    else if (is("grpo") || is("dpo")) y = is("grpo") ? grpo() : dpo();
    else if (strstr(kind, "attention")) y = attention(l, get("q"), get("k"), get("v"), find("positions"));
    else if (is("cross_entropy")) y = cross_entropy(get("logits"), get("targets"), whole(settings, "ignore_index"));
    else y = is("linear") || l.adapter ? layer(l, x) : (die("no such kind: ", kind), NULL);
    backward(put(y, name), !strcmp(name, "loss") ? scalar(number(settings, "grad_loss")) : get(text("grad.%s", name)));
    if (!is("qalora")) return;
    Tensor *given = get("blocks"), *merged = put(make("U8", 2, given->shape), "merged");
    memcpy(merged->u, given->u, bytes(given));
    const int size = block_bytes(3), blocks = given->size / size;
    if (get("delta")->size != blocks * BLOCK) die("blocks that do not fit the adapter", "");
    for (int k = 0; k < blocks; k++) {          /* m + delta for the m of each block; no other byte changes */
        uint8_t *m = merged->u + size * k + 2;
        put_half(m, (double)half(m) + get("delta")->f[k * BLOCK]);
    }
}

/* ==== 5. Tier 2: the model ======================================================================================== */
static Layer layer_of(Text name) {
    Text mine = adapter ? lookup(member(adapter, "layers"), name) : NULL;
    if (!mine) return (Layer){text("%s.", name), NULL, 0, NULL};
    const REAL s = adapter_scale(number(mine, "alpha"), number(mine, "r"), is_true(adapter, "rslora"));
    return (Layer){text("%s.", name), string(member(adapter, "kind")), s, find(text("mask.%s.adapter", name))};
}
static Tensor *apply(Text name, Tensor *x) { return put(layer(layer_of(name), x), name); }
static bool llama(void) { return lookup(model, "rope_theta"); }
static bool bert(void) { return lookup(model, "pooling"); }
static Tensor *norm(Text name, Tensor *x) {
    return put((llama() ? rms_norm : layer_norm)(layer_of(name), x), name);
}
static Tensor *norm_if(bool wanted, Text name, Tensor *x) { return wanted ? norm(name, x) : x; }
static Tensor *head_norm(Text name, Tensor *x) {
    const int D = whole(model, "head_size"), heads[4] = {x->shape[0], x->shape[1], last(x) / D, D};
    return put(shaped(rms_norm(layer_of(name), shaped(x, 4, heads)), x->axes, x->shape), name);
}
static bool turns(int i) {
    Text list = lookup(model, "unrotated");
    for (int k = 0; list && nth(list, k); k++) if (strtod(nth(list, k), NULL) == i) return false;
    return llama();
}
/* places are those of the rows of x, the first of them after earlier tokens; a classifier's count on from row to row */
static Tensor *turned(Text name, Tensor *x, const Tensor *ends, int T, int earlier) {
    Tensor *places = integers(x->shape[0], x->shape[1]);
    for (int k = 0; k < places->size; k++) places->i[k] = ends ? ends->i[k] % T : k % T;
    const int D = whole(model, "head_size");
    return put(rope(layer_of(name), x, places, earlier, D, number(model, "rope_theta")), name);
}
static Tensor *residual(Text place, Tensor *x, Tensor *branch) {
    return put(add(x, times(branch, find(text("mask.%s", place)))), text("%s.residual", place));
}
/* x, or, while text is generated, x behind what the same layer made of earlier tokens */
static Tensor *cached(Text name, Tensor *x) { return strstr(kind, "generate") ? put(join(find(name), x, 1), name) : x; }
/* Block b. In its last block a classifier goes on with the places ends alone, which is NULL otherwise. */
static Tensor *block(Text b, Tensor *x, Tensor *ends, int earlier) {
    Text attn = text("%s.attn", b), mlp = text("%s.mlp", b), norms = llama() || bert() ? "norm" : "ln";
    const int T = x->shape[1];
    Tensor *h = norm_if(!bert(), text("%s.%s1", b, norms), x);
    Tensor *q = apply(text("%s.q_proj", attn), ends ? take(h, ends) : h);
    Tensor *k = apply(text("%s.k_proj", attn), h);
    Tensor *v = cached(text("%s.values", b), apply(text("%s.v_proj", attn), h));
    if (is_true(model, "head_norm")) q = head_norm(text("%s.q_norm", attn), q), k = head_norm(text("%s.k_norm", attn), k);
    if (turns(atoi(after("blocks.", b)))) {
        q = turned(text("%s.q_rotated", attn), q, ends, T, earlier);
        k = turned(text("%s.k_rotated", attn), k, NULL, T, earlier);
    }
    k = cached(text("%s.keys", b), k);
    const Tensor *places = bert() ? last_places(get("lengths"), T) : ends;
    Tensor *context = put(attention(layer_of(attn), q, k, v, places), text("%s.context", attn));
    x = residual(attn, ends ? take(x, ends) : x, apply(text("%s.o_proj", attn), context));
    x = norm_if(bert(), text("%s.%s1", b, norms), x), h = norm_if(!bert(), text("%s.%s2", b, norms), x);
    Tensor *gate = llama() ? apply(text("%s.gate_proj", mlp), h) : NULL, *up = apply(text("%s.up_proj", mlp), h);
    up = put(gate ? swiglu(gate, up) : map(bert() ? gelu_erf : gelu, up), text(gate ? "%s.swiglu" : "%s.gelu", mlp));
    return norm_if(bert(), text("%s.%s2", b, norms), residual(mlp, x, apply(text("%s.down_proj", mlp), up)));
}
static Tensor *forward(int earlier) {           /* the logits of ids that stand behind earlier ones, and their loss */
    Tensor *ids = get("ids"), *tok_emb = get("tok_emb.weight"), *x, *head;
    const int B = ids->shape[0], T = ids->shape[1], L = whole(model, "n_layers"), classes = whole(model, "n_classes");
    Tensor *places = item(integers(1, T), 0), *ends = integers(B, 1);
    for (int t = 0; t < T; t++) places->i[t] = earlier + t;
    for (int b = 0; classes && b < B; b++) ends->i[b] = b * T + get("lengths")->i[b] - 1;
    x = put(take(tok_emb, ids), "tok_emb");
    Tensor *place = llama() ? NULL : put(take(get("pos_emb.weight"), places), "pos_emb");
    if (bert())                                 /* all tokens have type 0 */
        place = put(add(place, put(take(get("type_emb.weight"), item(integers(1, T), 0)), "type_emb")), "place");
    if (place) x = add(x, place);
    if (bert()) x = norm("emb_norm", put(x, "sum"));
    if (!llama()) x = put(times(x, find("mask.embed")), "embed");
    for (int i = 0; i < L; i++)
        x = block(text("blocks.%d", i), x, classes && !bert() && i == L - 1 ? ends : NULL, earlier);
    x = bert() ? put(mean_pool(x, get("lengths")), "pooled") : norm(llama() ? "norm_f" : "ln_f", x);
    if (classes && !bert()) x = put(shaped(x, 2, (int[]){B, last(x)}), "pooled");
    head = classes || (llama() && !is_true(model, "tied")) ? get("head.weight") : tok_emb;
    x = linear(x, head), x = put(bert() ? add(x, get("head.bias")) : x, "logits");
    if (find("targets")) put(cross_entropy(x, get("targets"), -100), "loss");
    return x;
}
static void run_model(void) {
    for (List *e = scope; e && lookup(settings, "blocks"); e = e->next)
        if (!strcmp(e->t->dtype, "U8")) e->t = expand(e->t, type_of(string(member(settings, "blocks"))));
    forward(0), backward(get("loss"), scalar(1));
    if (!adapter) return;
    List *all = scope;                          /* the merged model has a scope of its own, without masks */
    scope = NULL;
    for (List *e = all; e; e = e->next) if (!after("mask.", e->name)) put(e->t, e->name);
    for (int k = 0; nth(member(adapter, "layers"), k); k++) {
        Text name = string(nth(member(adapter, "layers"), k)), weight = text("%s.weight", name);
        insert(&all, get(text("%s.delta", name)), text("delta.%s", weight));
        put(insert(&all, get(text("%s.merged", name)), text("merged.%s", weight)), weight);
    }
    adapter = NULL, insert(&all, forward(0), "merged.logits"), scope = all;
}
static void run_generate(void) {
    Tensor *prompt = get("ids"), *keys = NULL, *values = NULL;
    const int B = prompt->shape[0], T = prompt->shape[1], n_new = whole(settings, "n_new"), all = T + n_new;
    Tensor *tokens = put(integers(B, all), "tokens"), *ends = item(integers(1, B), 0);
    for (int k = 0; k < B * T; k++) tokens->i[k / T * all + k % T] = prompt->i[k];
    for (int step = 0, from = 0, n = T; step < n_new; step++, from += n, n = 1) {
        Tensor *ids = put(integers(B, n), "ids"), *margin = put(vector(B), text("step.%d.margin", step));
        for (int k = 0; k < B * n; k++) ids->i[k] = tokens->i[k / n * all + from + k % n], ends->i[k / n] = k;
        Tensor *logits = put(take(forward(from), ends), text("step.%d.logits", step));
        for (int b = 0, best = 0; b < B; b++, best = 0) {
            REAL *row = item(logits, b)->f, second = -INFINITY;
            for (int k = 1; k < last(logits); k++)
                second = fmax(second, fmin(row[k], row[best])), best = row[k] > row[best] ? k : best;
            margin->f[b] = row[best] - second, tokens->i[b * all + from + n] = best;
        }
    }
    const int shape[4] = {1, B, all - 1, last(get("blocks.0.keys"))};
    for (int i = 0; i < whole(model, "n_layers"); i++) {
        keys = put(join(keys, shaped(get(text("blocks.%d.keys", i)), 4, shape), 0), "keys");
        values = put(join(values, shaped(get(text("blocks.%d.values", i)), 4, shape), 0), "values");
    }
}
/* The penalty for tokens of the text, the temperature, top-k, top-p; then the token at uniform in the summed probs. */
static double setting_or(Text key, double rest) { return lookup(settings, key) ? number(settings, key) : rest; }
static void run_sample(void) {
    Tensor *ids = get("ids"), *x = scale(get("logits"), 1), *tokens;
    tokens = put(item(integers(1, ids->shape[0]), 0), "tokens");
    const int V = last(x), T = last(ids);
    for (int b = 0, k, j; b < tokens->size; b++) {
        REAL *row = item(x, b)->f;
        const REAL penalty = number(settings, "repetition_penalty"), *logits = item(get("logits"), b)->f;
        for (j = 0; j < T; j++)
            k = ids->i[b * T + j], row[k] = logits[k] > 0 ? logits[k] / penalty : logits[k] * penalty;
        for (k = 0; k < V; k++) row[k] /= (REAL)number(settings, "temperature");
        Tensor *cut = scale(item(x, b), 1), *probs;
        for (k = 0; k < V; k++) {
            int larger = 0;
            for (j = 0; j < V; j++) larger += row[j] > row[k];
            if (larger >= setting_or("top_k", V)) cut->f[k] = -INFINITY;
        }
        memcpy(row, cut->f, bytes(cut)), probs = softmax(cut);
        for (k = 0; k < V; k++) {
            double before = 0;
            for (j = 0; j < V; j++) before += probs->f[j] > probs->f[k] ? probs->f[j] : 0;
            if (before >= setting_or("top_p", 1)) row[k] = -INFINITY;
        }
    }
    Tensor *probs = put(softmax(x), "probs");
    for (int b = 0; b < tokens->size; b++) {
        double sum = 0, all = 0;
        for (int k = 0; k < V; k++) all += probs->f[b * V + k];
        for (int k = 0; k < V; k++) tokens->i[b] += (sum += probs->f[b * V + k]) <= get("uniform")->f[b] * all;
    }
}

/* ==== 6. Tier 3: training and files =============================================================================== */
static REAL norm_of(const List *e) {            /* sqrt(sum g^2) over all arrays */
    REAL squares = 0;
    for (; e; e = e->next) for (int k = 0; k < e->t->size; k++) squares += e->t->f[k] * e->t->f[k];
    return sqrt(squares);
}
static REAL clip_factor(REAL norm, REAL most) { return norm > most ? most / norm : 1; }
static void run_clip(void) {
    const REAL norm = *put(scalar(norm_of(scope)), "norm")->f, factor = clip_factor(norm, number(settings, "max_norm"));
    for (List *e = scope; e; e = e->next)
        if (after("grad.", e->name)) put(scale(e->t, factor), text("clipped.%s", after("grad.", e->name)));
}
/* i < w: peak (i + 1) / (w + 1);  else peak (f + (1 - f) c),  done = (i - w) / max(1, N - w),  c by the schedule */
static Tensor *learning_rates(Text s, Text of_peak) {
    const double peak = number(s, of_peak), w = number(s, "warmup_steps"), f = number(s, "final_share");
    Tensor *rates = vector(whole(s, "steps"));
    Text schedule = string(member(s, "schedule"));
    for (int i = 0; i < rates->size; i++) {
        const double done = (i - w) / fmax(1.0, rates->size - w), cosine = (1 + cos(acos(-1.0) * done)) / 2;
        const double c = !strcmp(schedule, "constant") ? 1 : !strcmp(schedule, "linear") ? 1 - done : cosine;
        rates->f[i] = i < w ? peak * (i + 1) / (w + 1) : peak * (f + (1 - f) * c);
    }
    return rates;
}
static void run_schedule(void) { put(learning_rates(settings, "peak"), "learning_rate"); }
/* m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,  p = p - rate decay p - rate m^ / (sqrt(v^) + eps),
   where m^ = m / (1 - beta1^t) and v^ = v / (1 - beta2^t). s has the settings. No gradient goes back through a step. */
static void adamw(Text s, Text name, Tensor *g, int t, double rate) {
    const double beta1 = number(s, "beta1"), beta2 = number(s, "beta2");
    Text factor = lookup(member(s, "rate_factors"), strrchr(name, '.') + 1);
    Tensor *p = get(name), *m = find(text("step.%d.m.%s", t - 1, name)), *v = find(text("step.%d.v.%s", t - 1, name));
    m = add(scale(m ? m : like(g), beta1), scale(g, 1 - beta1));
    v = add(scale(v ? v : like(g), beta2), scale(times(g, g), 1 - beta2));
    Tensor *spread = add(map(root, scale(v, 1 / (1 - pow(beta2, t)))), scalar(number(s, "eps")));
    Tensor *step = times(scale(m, 1 / (1 - pow(beta1, t))), map(inverse, spread));
    if (factor) rate *= strtod(factor, NULL);
    if (p->axes > 1) p = subtract(p, scale(p, rate * number(s, "weight_decay")));
    put(put(subtract(p, scale(step, rate)), name), text("step.%d.after.%s", t, name));
    put(m, text("step.%d.m.%s", t, name)), put(v, text("step.%d.v.%s", t, name)), newest = NULL;
}
static void run_adamw(void) {
    Text rate, name;
    for (int t = 1; (rate = nth(member(settings, "learning_rate"), t - 1)); t++)
        for (List *e = scope; e; e = e->next) {
            if (!(name = after("start.", e->name))) continue;
            if (t == 1) put(e->t, name);
            adamw(member(settings, "optimiser"), name, item(get(text("grad.%s", name)), t - 1), t, strtod(rate, NULL));
        }
}
static void run_accumulate(void) {              /* sum of (n_i / N) mean_i, n_i real targets in shard i */
    Tensor *n = get("n_targets"), *shares = vector(n->size);
    int64_t all = 0;
    for (int k = 0; k < n->size; k++) all += n->i[k];
    for (int k = 0; k < n->size; k++) shares->f[k] = (REAL)n->i[k] / all;
    for (List *e = scope; e; e = e->next) {
        if (!e->t->g || after("mean.", e->name)) continue;
        Tensor *mean = put(zeros(e->t->axes - 1, e->t->shape + 1), text("mean.%s", e->name));
        for (int k = 0; k < e->t->size; k++) mean->f[k % mean->size] += shares->f[k / mean->size] * e->t->f[k];
    }
}
static void run_train(void) {
    Text s = member(settings, "train"), place, input;
    Tensor *rates = learning_rates(s, "learning_rate"), *losses = like(rates), *norms = like(rates);
    List *trained = NULL, *e;
    for (e = scope; e; e = e->next)             /* of the inputs, parameters alone are floating-point numbers */
        if (e->t->g && (!adapter || strstr(e->name, ".lora_") || !strcmp(e->name, "head.weight")))
            insert(&trained, NULL, e->name);
    for (int t = 1, from = 0; t <= rates->size; t++) {
        for (e = scope; e; e = e->next) {
            if ((input = after("batches.", e->name))) put(item(e->t, get("order")->i[t - 1]), input);
            if (!(place = after("kept.", e->name))) continue;
            Tensor *kept = item(e->t, t - 1), *mask = put(like(kept), text("mask.%s", place));
            for (int k = 0; k < kept->size; k++) mask->f[k] = kept->u[k] / (1 - number(s, "dropout"));
        }
        forward(0), backward(get("loss"), scalar(1)), losses->f[t - 1] = *get("loss")->f;
        for (e = trained; e; e = e->next) e->t = put(gradient(get(e->name)), text("step.%d.grad.%s", t, e->name));
        norms->f[t - 1] = norm_of(trained);
        for (e = trained; e; e = e->next) {
            Tensor *clipped = scale(e->t, clip_factor(norms->f[t - 1], number(s, "clip_norm")));
            adamw(member(s, "optimiser"), e->name, clipped, t, rates->f[t - 1]);
        }
        if (t != 1 && t != 10 && t != 50) continue;
        put(part(losses, from, t - from), text("step.%d.loss", t));
        put(part(norms, from, t - from), text("step.%d.grad_norm", t));
        put(part(rates, from, t - from), text("step.%d.learning_rate", t)), from = t;
    }
}
/* Singular values and vectors by one-sided Jacobi rotations: the rows of the update, or of its transpose if they are
   longer, are turned in pairs until all are orthogonal: each then is a singular value times a vector, largest first. */
static void run_spectrum(void) {
    Tensor *u = put(subtract(get("after"), get("before")), "update");
    const bool wide = u->shape[0] < u->shape[1];
    Tensor *rows = scale(u = wide ? u : turn(u), 1);
    for (int pair = 0, n = u->shape[0], m = last(u); pair < 60 * n * n; pair++) {
        REAL *x = rows->f + pair / n % n * m, *y = rows->f + pair % n * m, xx = 0, yy = 0, xy = 0;
        for (int k = 0; k < m; k++) xx += x[k] * x[k], yy += y[k] * y[k], xy += x[k] * y[k];
        const REAL angle = atan2(2 * xy, xx - yy) / 2, c = cos(angle), s = sin(angle);
        for (int k = 0; k < m && x < y; k++) xx = x[k], x[k] = c * xx + s * y[k], y[k] = c * y[k] - s * xx;
    }
    Tensor *squares = sum(times(rows, rows)), *sigma = put(map(root, squares), "singular_values"), *y;
    Tensor *energy = put(scale(squares, 1 / *sum(squares)->f), "energy");
    for (int j = 1; j < energy->size; j++) energy->f[j] += energy->f[j - 1];
    Tensor *near = times_column(rows, map(inverse, sigma)), *far = times_column(linear(near, u), map(inverse, sigma));
    Text p;
    for (int i = 0; (p = nth(member(settings, "k"), i / 2)); i++) {
        y = part(i % 2 ? near : far, 0, atoi(p));
        put(product(matrix(last(y), last(y)), "ij=ki,kj", y, y), text(i % 2 == wide ? "right.%d" : "left.%d", atoi(p)));
    }
}
static void run_nf4(void) {
    static const float q[16] = {-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1};
    const Tensor *w = get("weight");
    const int n = w->size, block = whole(settings, "block_size"), blocks = (n + block - 1) / block;
    Tensor *absmax = put(vector(blocks), "absmax"), *scales = put(absmax, "scales"), *y = put(like(w), "dequantised");
    Tensor *codes = put(octets(n), "codes"), *packed = put(octets(n / 2), "packed");
    for (int k = 0; k < n; k++) absmax->f[k / block] = fmax(absmax->f[k / block], fabs(w->f[k]));
    for (int k = 0; k < n; k++) {
        const REAL most = absmax->f[k / block], share = w->f[k] / (most == 0 ? 1 : most);
        for (int j = 0; j < 15; j++) codes->u[k] += (REAL)(((double)q[j] + (double)q[j + 1]) / 2) < share;
        if (k % 2) packed->u[k / 2] = codes->u[k - 1] << 4 | codes->u[k];
    }
    if (is_true(settings, "double")) {          /* the scales in 8 bits: whole numbers of float32 steps from the mean */
        Tensor *steps = put(vector((blocks + 255) / 256), "steps"), *whole = put(make("I8", 1, &blocks), "scale_codes");
        double sum = 0;
        for (int k = 0; k < blocks; k++) sum += absmax->f[k];
        const float mean = sum / blocks;
        put(scalar(mean), "mean"), scales = put(vector(blocks), "scales");
        for (int k = 0; k < blocks; k++) steps->f[k / 256] = fmax(steps->f[k / 256], fabs((float)absmax->f[k] - mean));
        for (int k = 0; k < steps->size; k++) steps->f[k] = (float)steps->f[k] / 127;
        for (int k = 0; k < blocks; k++) {
            const float step = steps->f[k / 256], exact = ((float)absmax->f[k] - mean) / (step == 0 ? 1 : step);
            const float code = fmax(-127.0f, fmin(127.0f, rint(exact)));
            whole->u[k] = (int8_t)code, scales->f[k] = fmax(mean + step * code, 0.0f);
        }
    }
    for (int k = 0; k < n; k++) y->f[k] = q[codes->u[k]] * scales->f[k / block];
}
static Text renamed(Text name, bool back) {     /* ours as GPT-2's, or back; q, k and v are c_attn, and that is q */
    static const Text words[][2] = {{"tok_emb", "wte"}, {"pos_emb", "wpe"}, {"blocks.", "h."}, {".ln1", ".ln_1"},
        {".ln2", ".ln_2"}, {"q_proj", "c_attn"}, {"k_proj", "c_attn"}, {"v_proj", "c_attn"}, {"up_proj", "c_fc"},
        {"attn.o_proj", "attn.c_proj"}, {"mlp.down_proj", "mlp.c_proj"}};
    for (size_t k = 0; k < sizeof words / sizeof *words; k++) {
        Text at = strstr(name, words[k][back]);
        if (at) name = text("%.*s%s%s", (int)(at - name), name, words[k][!back], at + strlen(words[k][back]));
    }
    return name;
}
static void run_gpt2_read(void) {
    Text header = header_of(get("model.safetensors")), p;
    for (int n = 0; (p = nth(header, n)); n++) {
        Text theirs = string(p), bare = after("transformer.", theirs), name = renamed(bare ? bare : theirs, true), q;
        if (!strcmp(theirs, "__metadata__") || strstr(theirs, ".attn.bias") || strstr(theirs, ".masked_bias")) continue;
        Tensor *t = read_tensor(get("model.safetensors"), theirs);
        if (after("blocks.", name) && t->axes == 2) t = turn(t);
        if (!(q = strstr(name, "q_proj"))) put(t, name);
        for (int k = 0, C = t->shape[0] / 3; q && k < 3; k++)
            put(part(t, k * C, C), text("%.*s%c%s", (int)(q - name), name, "qkv"[k], q + 1));
    }
}
/* GPT-2's file of the parameters, or PEFT's of the adapters. q, k and v come first, in this order, as parts of c_attn:
   weights and A's are put one below the other, and B's side by side, each in the rows of its own. */
static void run_write(void) {
    const bool peft = is("peft_write");
    Text qkv = "qkv", format = peft ? "base_model.model.transformer.%s.weight" : "transformer.%s";
    List *inputs = scope;
    scope = NULL;
    for (int k = 0; k < 4; k++)
        for (List *e = inputs; e; e = e->next) {
            Text projection = strstr(e->name, "_proj."), mine = projection ? strchr(qkv, projection[-1]) : NULL;
            Text lora = strstr(e->name, ".lora_"), name = text(format, renamed(e->name, false));
            if (k != (mine ? mine - qkv : 3) || peft != !!lora) continue;
            REAL first = 0;                     /* the scale of the first of q, k and v that has an adapter */
            for (int j = 0; mine && !first && j < 3; j++)
                first = layer_of(text("%.*s%c_proj", (int)(projection - 1 - e->name), e->name, qkv[j])).s;
            const REAL own = lora ? layer_of(text("%.*s", (int)(lora - e->name), e->name)).s : 0;
            Tensor *t = lora && lora[6] == 'B' && mine ? scale(e->t, own / first) : e->t;
            Tensor *high = t != e->t ? matrix(3 * t->shape[0], last(t)) : t;
            if (high != t) memcpy(high->f + k * t->size, t->f, bytes(t));
            if (!peft && after("blocks.", e->name) && t->axes == 2) high = turn(t);
            put(join(find(name), high, high != t), name);
        }
    put(encode(scope), peft ? "adapter_model.safetensors" : "model.safetensors");
}
static void run_peft_read(void) {
    const Tensor *file = get("adapter_model.safetensors"), *json = get("adapter_config.json");
    Text config = text_of(json->u, bytes(json)), name = "base_model.model.transformer.h.0.attn.c_attn.lora_%c.weight";
    Tensor *A = read_tensor(file, text(name, 'A')), *B = read_tensor(file, text(name, 'B'));
    const REAL s = adapter_scale(number(config, "lora_alpha"), number(config, "r"), is_true(config, "use_rslora"));
    for (int k = 0, C = B->shape[0] / 3; k < 3; k++)
        put(scale(outer(part(B, k * C, C), A), s), text("delta.blocks.0.attn.%c_proj.weight", "qkv"[k]));
}

/* ==== A real Llama: GGUF ========================================================================================== */
/* Fields and tensors follow one another from p on; at moves over what was read. */
static const uint8_t *at, *file_end;
static uint64_t little(int n) {                 /* the next n bytes as a whole number */
    uint64_t x = 0;
    if (file_end - at < n) die("ends too early", "");
    return memcpy(&x, at, n), at += n, x;
}
static Text gguf_text(void) {
    const uint64_t n = little(8);
    if ((uint64_t)(file_end - at) < n) die("ends too early", "");
    return at += n, text_of(at - n, n);
}
static double gguf_value(int type) {            /* 0 of a text or a list; no number in use is below 0 */
    static const int sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type < 0 || type > 12) die("a field of an unknown type", "");
    if (type == 8) return gguf_text(), 0;
    if (type == 9) {
        const int of = little(4);
        for (uint64_t n = little(8); n; n--) gguf_value(of);
        return 0;
    }
    const uint64_t bits = little(sizes[type]);
    float narrow;
    double wide;
    memcpy(&narrow, &bits, 4), memcpy(&wide, &bits, 8);
    return type == 6 ? narrow : type == 12 ? wide : bits;
}
static Tensor *gguf_tensor(const uint8_t *data, int type, Tensor *t) {
    if (type != 0 && type != 1 && type != 2 && type != 3 && type != 8)
        die("a tensor that is not F32, F16, Q4_0, Q4_1 or Q8_0", "");
    const int weights = type < 2 ? 1 : BLOCK, size = type < 2 ? 4 - 2 * type : block_bytes(type);
    if (last(t) % weights || data > file_end || (size_t)(file_end - data) < (size_t)t->size / weights * size)
        die("a tensor that is cut off", "");
    for (int k = 0; k < t->size; k++) {
        const uint8_t *p = data + (size_t)(k / weights) * size;
        float x;
        if (type == 0) memcpy(&x, p, sizeof x);
        t->f[k] = type == 0 ? x : type == 1 ? half(p) : weight_of(p, type, k % BLOCK);
    }
    return t;
}
static Text gguf_name(Text name) {              /* ours of GGUF's */
    static const Text words[][2] = {{"attn_norm", "norm1"}, {"ffn_norm", "norm2"}, {"output_norm", "norm_f"},
        {"attn_q", "attn.q_proj"}, {"attn_k", "attn.k_proj"}, {"attn_v", "attn.v_proj"},
        {"attn_output", "attn.o_proj"}, {"ffn_gate", "mlp.gate_proj"}, {"ffn_up", "mlp.up_proj"},
        {"ffn_down", "mlp.down_proj"}, {"token_embd", "tok_emb"}, {"output", "head"}};
    if (after("blk.", name)) name = text("blocks.%s", after("blk.", name));
    for (size_t k = 0; k < sizeof words / sizeof *words; k++) {
        Text found = strstr(name, words[k][0]);
        if (found) return text("%.*s%s%s", (int)(found - name), name, words[k][1], found + strlen(words[k][0]));
    }
    return name;
}
/* GGUF has a head's rows of q and k in the order 0, D/2, 1, D/2 + 1 ...: row 2j + s is row j + s D/2. */
static bool is_turned(Text name) { return strstr(name, "q_proj") || strstr(name, "k_proj"); }
static Tensor *in_order(Tensor *t, int D, bool back) {
    Tensor *y = like(t);
    for (int k = 0, n = t->size / t->shape[0]; k < t->shape[0]; k++) {
        const int ours = k / D * D + k % 2 * D / 2 + k % D / 2;
        memcpy(y->f + (back ? k : ours) * n, t->f + (back ? ours : k) * n, n * sizeof(REAL));
    }
    return y;
}
static void read_gguf(const Tensor *file) {
    static const Text keys[][2] = {{"block_count", "n_layers"}, {"attention.head_count", "n_heads"},
        {"embedding_length", "d_model"}, {"rope.freq_base", "rope_theta"}, {"attention.key_length", "head_size"},
        {"attention.layer_norm_rms_epsilon", "rms_norm_eps"}};
    at = file->u, file_end = at + file->size, model = "{\"n_classes\":0";
    double alignment = 32;
    if (little(4) != 0x46554747 || little(4) != 3) die("not a GGUF file of version 3", "");
    const uint64_t tensors = little(8), fields = little(8);
    for (uint64_t k = 0; k < fields; k++) {
        Text key = gguf_text(), mine = after("llama.", key);
        const double value = gguf_value(little(4));
        for (int j = 0; mine && j < 6; j++)
            if (!strcmp(mine, keys[j][0])) model = text("%s,\"%s\":%.17g", model, keys[j][1], value);
        if (!strcmp(key, "general.alignment")) alignment = value;
    }
    model = text("%s}", model);
    const int D = lookup(model, "head_size") ? whole(model, "head_size")
                                             : whole(model, "d_model") / whole(model, "n_heads");
    struct { Text name; int type; uint64_t offset; Tensor *t; } *all = allocate(tensors * sizeof *all);
    for (uint64_t k = 0; k < tensors; k++) {
        all[k].name = gguf_name(gguf_text());
        int axes = little(4), shape[4];
        if (axes < 1 || axes > 4) die("no shape for this program: ", all[k].name);
        for (int j = axes - 1; j >= 0; j--) shape[j] = little(8);
        all[k].type = little(4), all[k].offset = little(8), all[k].t = zeros(axes, shape);
    }
    const uint64_t step = alignment, data = ((at - file->u) + step - 1) / step * step;
    for (uint64_t k = 0; k < tensors; k++) {
        Tensor *t = gguf_tensor(file->u + data + all[k].offset, all[k].type, all[k].t);
        put(is_turned(all[k].name) ? in_order(t, D, false) : t, all[k].name);
    }
    model = text("%.*s,\"head_size\":%d,\"tied\":%s}", (int)strlen(model) - 1, model, D,
                 find("head.weight") ? "false" : "true");
}
static void run_gguf_read(void) { read_gguf(get("model.gguf")); }
/* port FILE.gguf ID ID ...: the logits after the last of these tokens, one a line. */
static void run_gguf(int n_ids, char **ids) {
    FILE *f = fopen(current_file, "rb");
    if (!f || fseek(f, 0, SEEK_END)) die("cannot be read", "");
    Tensor *file = octets(ftell(f)), *prompt = integers(1, n_ids);
    rewind(f);
    if (!fread(file->u, bytes(file), 1, f) || fclose(f)) die("cannot be read", "");
    read_gguf(file), settings = model, kind = "llama";
    for (int k = 0; k < n_ids; k++) prompt->i[k] = atoi(ids[k]);
    put(prompt, "ids");
    Tensor *logits = forward(0);
    for (int k = logits->size - last(logits); k < logits->size; k++) printf("%.9g\n", (double)logits->f[k]);
}
/* An adapter's file: bytes are put at its end. Its alpha is the s r that most layers have; the others' B makes up. */
enum { LARGEST = 1 << 20 };
static Tensor *output;
static void emit(const void *from, int n) {
    if (n > LARGEST - output->size) die("an adapter that is too large for this program", "");
    memcpy(output->u + output->size, from, n), output->size += n;
}
static void emit_number(uint64_t x, int n) { emit(&x, n); }
static void emit_text(Text s) { emit_number(strlen(s), 8), emit(s, strlen(s)); }
static void fill(void) { output->size += -output->size & 31; }  /* what is there is 0 */
static void run_gguf_adapter(void) {
    static const Text order[] = {"attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.o_proj", "mlp.gate_proj",
                                 "mlp.up_proj", "mlp.down_proj"};
    static const Text theirs[] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    const int n = 7 * whole(model, "n_layers");
    Tensor **arrays = allocate(2 * n * sizeof *arrays);
    double *products = allocate(n * sizeof *products), alpha = 0;   /* s r of each layer */
    int layers = 0, most = 0;
    for (int k = 0; k < n; k++) {
        Text name = text("blocks.%d.%s", k / 7, order[k % 7]);
        if (!(arrays[2 * k] = find(text("%s.lora_A", name)))) continue;
        products[k] = layer_of(name).s * arrays[2 * k]->shape[0], layers++;
    }
    for (int k = 0, same = 0; k < n; k++, same = 0) {
        for (int j = 0; j < n; j++) same += products[k] && products[j] == products[k];
        if (same > most) most = same, alpha = products[k];
    }
    output = put(octets(LARGEST), "adapter.gguf"), output->size = 0;
    emit("GGUF", 4), emit_number(3, 4), emit_number(2 * layers, 8), emit_number(4, 8);
    for (int k = 0; k < 3; k++) {
        emit_text((Text[]){"general.architecture", "general.type", "adapter.type"}[k]), emit_number(8, 4);
        emit_text((Text[]){"llama", "adapter", "lora"}[k]);
    }
    emit_text("adapter.lora.alpha"), emit_number(6, 4), emit(&(float){alpha}, 4);
    for (int k = 0, offset = 0; k < 2 * n; k++) {
        Text name = text("blocks.%d.%s", k / 14, order[k / 2 % 7]);
        if (!arrays[k / 2 * 2]) continue;
        Tensor *t = k % 2 ? scale(get(text("%s.lora_B", name)), products[k / 2] / alpha) : arrays[k];
        arrays[k] = k % 2 && is_turned(name) ? in_order(t, whole(model, "head_size"), true) : t;
        emit_text(text("blk.%d.%s.weight.lora_%c", k / 14, theirs[k / 2 % 7], "ab"[k % 2]));
        emit_number(2, 4), emit_number(last(t), 8), emit_number(t->shape[0], 8), emit_number(0, 4);
        emit_number(offset, 8), offset += (4 * t->size + 31) / 32 * 32;
    }
    for (int k = 0; k < 2 * n; k++) {
        fill();
        for (int j = 0; arrays[k] && j < arrays[k]->size; j++) emit(&(float){arrays[k]->f[j]}, 4);
    }
    fill(), output->shape[0] = output->size;
}

/* ==== The cases =================================================================================================== */
static void run_case(Text directory) {
    static const struct { Text kind; void (*run)(void); } kinds[] = {{"model", run_model}, {"generate", run_generate},
        {"sample", run_sample}, {"clip", run_clip}, {"schedule", run_schedule}, {"adamw", run_adamw},
        {"accumulate", run_accumulate}, {"train", run_train}, {"spectrum", run_spectrum}, {"nf4", run_nf4},
        {"gpt2_read", run_gpt2_read}, {"gpt2_write", run_write}, {"peft_read", run_peft_read},
        {"peft_write", run_write}, {"llama", run_model}, {"bert", run_model}, {"llama_generate", run_generate},
        {"llama_train", run_train}, {"blocks", run_blocks}, {"gguf_read", run_gguf_read},
        {"gguf_adapter", run_gguf_adapter}, {"", run_operation}};
    FILE *f = fopen(current_file, "rb");
    Tensor *file = octets(1 << 24);             /* no case is as large */
    if (!f || !(file->size = fread(file->u, 1, bytes(file), f)) || !feof(f) || fclose(f)) die("cannot be read", "");
    Text header = header_of(file), about = string(member(member(header, "__metadata__"), "lora_np")), p;
    List *asked = NULL;
    kind = string(member(about, "kind")), settings = member(about, "settings");
    model = lookup(settings, "model"), adapter = lookup(settings, "adapter");
    for (int k = 0; (p = nth(member(about, "inputs"), k)); k++) put(read_tensor(file, string(p)), string(p));
    for (int k = 0; (p = nth(header, k)); k++)
        if (strcmp(string(p), "__metadata__") && !find(string(p))) insert(&asked, NULL, string(p));
    for (int k = 0;; k++) if (!*kinds[k].kind || is(kinds[k].kind)) { kinds[k].run(); break; }
    for (List *e = asked; e; e = e->next)
        e->t = find(e->name) || !after("grad.", e->name) ? get(e->name) : gradient(get(after("grad.", e->name)));
    file = encode(asked);
    p = text("%s/%s.%s.safetensors", directory, string(member(about, "case")), string(member(about, "dtype")));
    if (!(f = fopen(p, "wb")) || !fwrite(file->u, bytes(file), 1, f) || fclose(f)) die("cannot write ", p);
}
int main(int argc, char **argv) {
    if (argc < 3) die("usage: port OUT CASE.safetensors ...  or  port MODEL.gguf ID ID ...", "");
    const size_t n = strlen(argv[1]);
    if (n > 5 && !strcmp(argv[1] + n - 5, ".gguf")) return current_file = argv[1], run_gguf(argc - 2, argv + 2), 0;
    for (int k = 2; k < argc; k++) {
        current_file = argv[k], run_case(argv[1]), scope = NULL, newest = NULL;
        for (Chunk *rest; chunks; chunks = rest) rest = chunks->next, free(chunks);
    }
}
