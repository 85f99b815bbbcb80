// Fourier-KArAt attention on the CPU: z = sum_m cos(m A) a_m + sin(m A) b_m with A = scale q k^T, out = z (w^T v).
//
// One (batch, head) at a time, in tiles of kQueries x kKeys: a small matrix product gives the logits, sine and cosine are taken
// once, higher harmonics follow by rotation, and a second product contracts them with the coefficients. The backward does the
// same again from q and k, so no map of N x N elements exists outside a tile that fits the first-level cache. All work goes
// through one register-blocked product whose left operand is read by broadcast and whose right operand is read by rows.
//
// Gradients of a, b and w are sums over the batch: each unit (a head and a fixed part of the batch) has its own partial sums,
// added in a fixed order in float64. The cut depends on the shapes alone, so neither does the result on the thread count.

#include "cpu_common.h"

#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>

namespace kat {
namespace {

constexpr int kQueries = 32;  // tile width: lanes run over queries; a multiple of every vector length
constexpr int kKeys = 24;     // tile height: a multiple of the rows of the product's register block
constexpr int64_t kUnits = 32;  // pieces of work a call is cut into (at least, where the shapes allow)

// Row-major product C[i][j] (+)= sum_k A[i * kRowStride + k * a_step] * B[k * b_step + j] for rows x columns of C.
template <class T>
struct Product {
  int64_t rows, columns, depth;  // columns: a multiple of the vector length
  const T* a;
  int64_t a_step;
  const T* b;
  int64_t b_step;
  T* c;
  int64_t c_step;
  bool accumulate;
};

template <class T, int L, int ROWS, int VECTORS, int ROW_STRIDE>
KAT_INLINE void product_block(const Product<T>& p, int64_t row, int64_t column) {
  using F = typename Vec<T, L>::F;
  F sum[ROWS][VECTORS];
  T* c = p.c + row * p.c_step + column;
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) sum[i][v] = p.accumulate ? Storage<T>::template load<L>(c + i * p.c_step + v * L) : F{};
  const T* a = p.a + row * ROW_STRIDE;
  const T* b = p.b + column;
  for (int64_t k = 0; k < p.depth; ++k, a += p.a_step, b += p.b_step) {
    F right[VECTORS];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) right[v] = Storage<T>::template load<L>(b + v * L);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) sum[i][v] += a[i * ROW_STRIDE] * right[v];
  }
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) Storage<T>::template store<L>(c + i * p.c_step + v * L, sum[i][v]);
}

template <class T, int L, int ROWS, int VECTORS, int ROW_STRIDE>
KAT_INLINE void product_rows(const Product<T>& p, int64_t column) {
  int64_t row = 0;
  for (; row + ROWS <= p.rows; row += ROWS) product_block<T, L, ROWS, VECTORS, ROW_STRIDE>(p, row, column);
  for (; row + 4 <= p.rows; row += 4) product_block<T, L, 4, VECTORS, ROW_STRIDE>(p, row, column);
  for (; row < p.rows; ++row) product_block<T, L, 1, VECTORS, ROW_STRIDE>(p, row, column);
}

template <class T, int L, int ROWS, int ROW_STRIDE>
KAT_INLINE void product_body(const Product<T>& p) {
  int64_t column = 0;
  for (; column + 2 * L <= p.columns; column += 2 * L) product_rows<T, L, ROWS, 2, ROW_STRIDE>(p, column);
  if (column < p.columns) product_rows<T, L, ROWS, 1, ROW_STRIDE>(p, column);
}

// Largest |x| for which n * kHalfPiHigh below is exact: n = round(x * 2 / pi) needs 20 bits, kHalfPiHigh has 32.
constexpr float kReducible = 0x1p20f;
constexpr double kHalfPiHigh = 0x1.921fb544p+0, kHalfPiLow = 0x1.0b4611a626331p-34;

// Sine and cosine within 2 ulp for |x| <= kReducible. The reduction runs in float64, which keeps it exact next to the zeros too.
template <int L>
KAT_INLINE void sincos(typename Vec<float, L>::F x, typename Vec<float, L>::F* sine, typename Vec<float, L>::F* cosine) {
  using F = typename Vec<float, L>::F;
  using I = typename Vec<float, L>::I;
  typedef double D __attribute__((vector_size(L * 8)));
  const F shifted = x * 0.636619772f + 0x1.8p23f;  // the sum's last mantissa bits are the nearest integer
  const I quadrant = bit_cast<I>(shifted);
  const D n = __builtin_convertvector(shifted - 0x1.8p23f, D);
  const F r = __builtin_convertvector(__builtin_convertvector(x, D) - n * kHalfPiHigh - n * kHalfPiLow, F);
  const F r2 = r * r;
  const F s = r + r * r2 * (-1.6666654611e-1f + r2 * (8.3321608736e-3f + r2 * -1.9515295891e-4f));
  const F c = 1.0f - 0.5f * r2 + r2 * r2 * (4.166664568298827e-2f + r2 * (-1.388731625493765e-3f + r2 * 2.443315711809948e-5f));
  // Bit operations throughout: GCC 12 splits a vector comparison kept in a variable into scalars under AVX-512.
  const I swap = (bit_cast<I>(s) ^ bit_cast<I>(c)) & -(quadrant & 1);
  *sine = bit_cast<F>(bit_cast<I>(s) ^ swap ^ (quadrant & 2) << 30);
  *cosine = bit_cast<F>(bit_cast<I>(c) ^ swap ^ ((quadrant + 1) & 2) << 30);
}

// Fills trig[key][2 m] = cos((m + 1) x) and trig[key][2 m + 1] = sin((m + 1) x) from logits x[key], rows kQueries apart.
template <class T, int L>
KAT_INLINE void harmonics_body(const T* logits, T* trig, int num_harmonics, int keys, int columns) {
  using F = typename Vec<T, L>::F;
  bool careful = sizeof(T) == 8;
  if constexpr (sizeof(T) == 4) {
    using I = typename Vec<T, L>::I;
    I top = {};  // the largest magnitude as an integer, which orders NaN above everything
    for (int i = 0; i < keys; ++i) {
      for (int j = 0; j < columns; j += L) {
        const F x = Storage<T>::template load<L>(logits + i * kQueries + j);
        const I magnitude = bit_cast<I>(x) & 0x7fffffff;
        top = magnitude > top ? magnitude : top;
        F s, c;
        sincos<L>(x, &s, &c);
        T* row = trig + i * 2 * num_harmonics * kQueries + j;
        Storage<T>::template store<L>(row, c);
        Storage<T>::template store<L>(row + kQueries, s);
      }
    }
    for (int l = 0; l < L; ++l) careful |= top[l] > bit_cast<int32_t>(kReducible);
  }
  if (careful) {
    for (int i = 0; i < keys; ++i) {
      for (int j = 0; j < columns; ++j) {
        const double x = static_cast<double>(logits[i * kQueries + j]);
        trig[i * 2 * num_harmonics * kQueries + j] = static_cast<T>(std::cos(x));
        trig[(i * 2 * num_harmonics + 1) * kQueries + j] = static_cast<T>(std::sin(x));
      }
    }
  }
  for (int i = 0; i < keys && num_harmonics > 1; ++i) {
    for (int j = 0; j < columns; j += L) {
      T* row = trig + i * 2 * num_harmonics * kQueries + j;
      const F c1 = Storage<T>::template load<L>(row), s1 = Storage<T>::template load<L>(row + kQueries);
      F c = c1, s = s1;
      for (int m = 1; m < num_harmonics; ++m) {  // a rotation: its error grows with m, that of the three-term recurrence with m^2
        const F next = c * c1 - s * s1;
        s = s * c1 + c * s1;
        c = next;
        Storage<T>::template store<L>(row + 2 * m * kQueries, c);
        Storage<T>::template store<L>(row + (2 * m + 1) * kQueries, s);
      }
    }
  }
}

// Gradient of the logits: sum_m m (cos(m A) * (dz b_m) - sin(m A) * (dz a_m)), `dtrig` laid out as `trig`.
template <class T, int L>
KAT_INLINE void logits_gradient_body(const T* trig, const T* dtrig, T* dlogits, int num_harmonics, int keys, int columns) {
  using F = typename Vec<T, L>::F;
  for (int i = 0; i < keys; ++i) {
    for (int j = 0; j < columns; j += L) {
      F sum = {};
      for (int m = 0; m < num_harmonics; ++m) {
        const int64_t at = (static_cast<int64_t>(i) * num_harmonics + m) * 2 * kQueries + j;
        const F c = Storage<T>::template load<L>(trig + at), s = Storage<T>::template load<L>(trig + at + kQueries);
        const F dc = Storage<T>::template load<L>(dtrig + at), ds = Storage<T>::template load<L>(dtrig + at + kQueries);
        sum += static_cast<T>(m + 1) * (c * ds - s * dc);
      }
      Storage<T>::template store<L>(dlogits + i * kQueries + j, sum);
    }
  }
}

template <class S>
using Compute = typename Storage<S>::Compute;

// to[i][c] = factor * from[i][c] for c < dim, 0 for dim <= c < width. One of the two is the 16-bit or strided side.
template <class From, class To, int L>
KAT_INLINE void copy_rows_body(const From* from, int64_t from_step, int64_t count, int64_t dim, Compute<From> factor, To* to, int64_t to_step,
                               int64_t width) {
  for (int64_t i = 0; i < count; ++i) {
    const From* source = from + i * from_step;
    To* target = to + i * to_step;
    int64_t c = 0;
    for (; c + L <= dim; c += L) Storage<To>::template store<L>(target + c, factor * Storage<From>::template load<L>(source + c));
    for (; c < dim; ++c) Storage<To>::template store<1>(target + c, factor * Storage<From>::template load<1>(source + c));
    for (; c < width; ++c) target[c] = To{};
  }
}

#if defined(__clang__)
#define KAT_SHUFFLE(A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
#else
#define KAT_SHUFFLE(A, B, ...) __builtin_shuffle(A, B, I{__VA_ARGS__})
#endif

// to[c][i] = from[i][c] for i < count, 0 for count <= i < width; in blocks of 4 x 4.
template <class T>
KAT_INLINE void transpose_body(const T* from, int64_t from_step, int64_t count, int64_t dim, T* to, int64_t width) {
  using F = typename Vec<T, 4>::F;
  using I [[maybe_unused]] = typename Vec<T, 4>::I;
  const int64_t whole_rows = count / 4 * 4, whole_columns = dim / 4 * 4;
  for (int64_t i = 0; i < whole_rows; i += 4) {
    for (int64_t c = 0; c < whole_columns; c += 4) {
      F row[4];
      for (int n = 0; n < 4; ++n) row[n] = Storage<T>::template load<4>(from + (i + n) * from_step + c);
      const F a = KAT_SHUFFLE(row[0], row[1], 0, 4, 1, 5), b = KAT_SHUFFLE(row[2], row[3], 0, 4, 1, 5);
      const F d = KAT_SHUFFLE(row[0], row[1], 2, 6, 3, 7), e = KAT_SHUFFLE(row[2], row[3], 2, 6, 3, 7);
      Storage<T>::template store<4>(to + c * width + i, KAT_SHUFFLE(a, b, 0, 1, 4, 5));
      Storage<T>::template store<4>(to + (c + 1) * width + i, KAT_SHUFFLE(a, b, 2, 3, 6, 7));
      Storage<T>::template store<4>(to + (c + 2) * width + i, KAT_SHUFFLE(d, e, 0, 1, 4, 5));
      Storage<T>::template store<4>(to + (c + 3) * width + i, KAT_SHUFFLE(d, e, 2, 3, 6, 7));
    }
    for (int64_t c = whole_columns; c < dim; ++c) {
      for (int64_t n = i; n < i + 4; ++n) to[c * width + n] = from[n * from_step + c];
    }
  }
  for (int64_t c = 0; c < dim; ++c) {
    for (int64_t i = whole_rows; i < count; ++i) to[c * width + i] = from[i * from_step + c];
    for (int64_t i = count; i < width; ++i) to[c * width + i] = 0;
  }
}

#define KAT_FOURIER_ISA(NAME, TARGET, BYTES, ROWS)                                                                          \
  struct NAME {                                                                                                             \
    template <class T>                                                                                                      \
    static constexpr int lanes = BYTES / sizeof(T);                                                                         \
    template <class T, int ROW_STRIDE>                                                                                      \
    TARGET __attribute__((noinline)) static void product(const Product<T>& p) {                                             \
      product_body<T, lanes<T>, ROWS, ROW_STRIDE>(p);                                                                       \
    }                                                                                                                       \
    template <class T>                                                                                                      \
    TARGET static void harmonics(const T* logits, T* trig, int num_harmonics, int keys, int columns) {                      \
      harmonics_body<T, lanes<T>>(logits, trig, num_harmonics, keys, columns);                                              \
    }                                                                                                                       \
    template <class T>                                                                                                      \
    TARGET static void logits_gradient(const T* trig, const T* dtrig, T* dlogits, int num_harmonics, int keys, int columns) {\
      logits_gradient_body<T, lanes<T>>(trig, dtrig, dlogits, num_harmonics, keys, columns);                                \
    }                                                                                                                       \
    template <class From, class To>                                                                                         \
    TARGET __attribute__((noinline)) static void copy_rows(const From* from, int64_t from_step, int64_t count, int64_t dim, \
                                                           Compute<From> factor, To* to, int64_t to_step, int64_t width) {  \
      copy_rows_body<From, To, lanes<Compute<From>>>(from, from_step, count, dim, factor, to, to_step, width);              \
    }                                                                                                                       \
    template <class T>                                                                                                      \
    TARGET __attribute__((noinline)) static void transpose(const T* from, int64_t from_step, int64_t count, int64_t dim,    \
                                                           T* to, int64_t width) {                                          \
      transpose_body(from, from_step, count, dim, to, width);                                                               \
    }                                                                                                                       \
  };
KAT_FOURIER_ISA(Portable, , 16, 6)
#if KAT_X86
KAT_FOURIER_ISA(Avx2, KAT_TARGET_AVX2, 32, 6)
KAT_FOURIER_ISA(Avx512, KAT_TARGET_AVX512, 64, 12)
#endif

// A (batch, head, token, channel) tensor whose channels are contiguous; strides in elements.
struct View {
  void* data;
  int64_t batch, head, token;
};

template <class S>
S* rows_of(const View& v, int64_t b, int64_t h) { return static_cast<S*>(v.data) + b * v.batch + h * v.head; }

struct Sizes {
  int64_t batch, heads, tokens, dim, value_dim, rank, num_harmonics;  // num_harmonics: G
};

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Hands out aligned pieces of one block of memory; with a null base it only adds up their sizes.
template <class T>
struct Arena {
  T* base;
  int64_t used = 0;
  T* take(int64_t n) {
    T* piece = base == nullptr ? nullptr : base + used;
    used += round_up(n, 64 / sizeof(T));
    return piece;
  }
};

// Memory on a cache line's boundary; null where there is none. (std::aligned_alloc is missing on Windows.)
struct AlignedDelete {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t(64)); }
};

template <class T>
std::unique_ptr<T, AlignedDelete> allocate(int64_t n) {
  return std::unique_ptr<T, AlignedDelete>(static_cast<T*>(::operator new(n * sizeof(T) + 64, std::align_val_t(64), std::nothrow)));
}

// coefficients[token][harmonic, cos | sin][rank] of one head from a, b (rank, token, harmonic).
template <class T>
void pack_coefficients(const T* a, const T* b, const Sizes& s, T* coefficients) {
  for (int64_t p = 0; p < s.rank; ++p) {
    for (int64_t i = 0; i < s.tokens * s.num_harmonics; ++i) {
      coefficients[2 * i * s.rank + p] = a[p * s.tokens * s.num_harmonics + i];
      coefficients[(2 * i + 1) * s.rank + p] = b[p * s.tokens * s.num_harmonics + i];
    }
  }
}

// Draws `count` tasks with `threads` workers, each with its own piece of `arena`.
template <class T, class F>
void run_tasks(int64_t count, int threads, T* arena, int64_t arena_size, const F& task) {
  std::atomic<int64_t> next{0};
  const int64_t workers = threads < 1 ? 1 : threads;
  parallel_for(workers, threads, [&](int64_t worker) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) task(i, arena + worker * arena_size);
  });
}

template <class S>
struct Inputs {
  using T = Compute<S>;
  Sizes size;
  View q, k, v;
  const T *a, *b, *w;  // contiguous (h, r, N, G), (h, r, N, G), (h, N, r)
  T scale;
};

// The tile loop's buffers, shared by forward and backward.
template <class T>
struct Tile {
  T *query, *logits, *trig;
  int64_t first, count;
  int columns;
};

template <class Isa, class T>
int padded_lanes(int64_t count) { return static_cast<int>(round_up(count, Isa::template lanes<T>)); }

template <class Isa, class T>
void tile_harmonics(const Sizes& s, const Tile<T>& t, const T* keys, int64_t first_key, int key_count) {
  Isa::template product<T, 1>({key_count, t.columns, s.dim, keys + first_key, s.tokens, t.query, kQueries, t.logits, kQueries, false});
  Isa::template harmonics<T>(t.logits, t.trig, static_cast<int>(s.num_harmonics), key_count, t.columns);
}

template <class Isa, class S>
struct ForwardTask {
  using T = Compute<S>;
  const Inputs<S>& in;
  View out;
  T* z;             // (B, h, N, r)
  const T* packed;  // coefficients of every head
  int64_t parts;    // pieces the queries of one (batch, head) are cut into

  int64_t width() const { return padded_lanes<Isa, T>(in.size.value_dim); }

  struct Work {
    T *keys, *rows, *u, *z, *out;
    Tile<T> tile;
  };

  Work carve(Arena<T>& arena) const {
    const Sizes& s = in.size;
    Work w;
    w.keys = arena.take(s.dim * s.tokens);
    w.rows = arena.take(s.tokens * (s.dim > width() ? s.dim : width()));
    w.u = arena.take(s.rank * width());
    w.z = arena.take(s.rank * kQueries);
    w.out = arena.take(kQueries * width());
    w.tile = {arena.take(s.dim * kQueries), arena.take(kKeys * kQueries), arena.take(2 * s.num_harmonics * kKeys * kQueries), 0, 0, 0};
    return w;
  }

  void query_tile(Work& w, int64_t b, int64_t h) const {
    const Sizes& s = in.size;
    Tile<T>& t = w.tile;
    t.columns = padded_lanes<Isa, T>(t.count);
    Isa::template copy_rows<S, T>(rows_of<S>(in.q, b, h) + t.first * in.q.token, in.q.token, t.count, s.dim, in.scale, w.rows, s.dim, s.dim);
    Isa::template transpose<T>(w.rows, s.dim, t.count, s.dim, t.query, static_cast<int64_t>(kQueries));
    const T* coefficients = packed + h * s.tokens * 2 * s.num_harmonics * s.rank;
    for (int64_t key = 0; key < s.tokens; key += kKeys) {
      const int count = static_cast<int>(key + kKeys < s.tokens ? kKeys : s.tokens - key);
      tile_harmonics<Isa, T>(s, t, w.keys, key, count);
      const int64_t terms = 2 * s.num_harmonics;
      Isa::template product<T, 1>({s.rank, t.columns, count * terms, coefficients + key * terms * s.rank, s.rank, t.trig, kQueries,
                                   w.z, kQueries, key > 0});
    }
    T* z_rows = z + ((b * s.heads + h) * s.tokens + t.first) * s.rank;
    for (int64_t i = 0; i < t.count; ++i) {
      for (int64_t p = 0; p < s.rank; ++p) z_rows[i * s.rank + p] = w.z[p * kQueries + i];
    }
    Isa::template product<T, 1>({t.count, width(), s.rank, w.z, kQueries, w.u, width(), w.out, width(), false});
    Isa::template copy_rows<T, S>(w.out, width(), t.count, s.value_dim, T(1), rows_of<S>(out, b, h) + t.first * out.token, out.token, s.value_dim);
  }

  void operator()(int64_t index, T* memory) const {
    const Sizes& s = in.size;
    Arena<T> arena{memory};
    Work w = carve(arena);
    const int64_t part = index % parts, h = index / parts % s.heads, b = index / parts / s.heads;
    Isa::template copy_rows<S, T>(rows_of<S>(in.v, b, h), in.v.token, s.tokens, s.value_dim, T(1), w.rows, width(), width());
    Isa::template product<T, 1>({s.rank, width(), s.tokens, in.w + h * s.tokens * s.rank, s.rank, w.rows, width(), w.u, width(), false});
    Isa::template copy_rows<S, T>(rows_of<S>(in.k, b, h), in.k.token, s.tokens, s.dim, T(1), w.rows, s.dim, s.dim);
    Isa::template transpose<T>(w.rows, s.dim, s.tokens, s.dim, w.keys, s.tokens);
    const int64_t tiles = (s.tokens + kQueries - 1) / kQueries;
    for (int64_t i = tiles * part / parts; i < tiles * (part + 1) / parts; ++i) {
      w.tile.first = i * kQueries;
      w.tile.count = s.tokens - w.tile.first < kQueries ? s.tokens - w.tile.first : kQueries;
      query_tile(w, b, h);
    }
  }
};

template <class Isa, class S>
int forward(const Inputs<S>& in, const View& out, void* z, int threads) {
  using T = Compute<S>;
  const Sizes& s = in.size;
  const int64_t head_size = s.tokens * 2 * s.num_harmonics * s.rank, pairs = s.batch * s.heads;
  const int64_t tiles = (s.tokens + kQueries - 1) / kQueries;
  const int64_t wanted = (kUnits + pairs - 1) / pairs;
  auto packed = allocate<T>(s.heads * head_size);
  if (!packed) return 1;
  for (int64_t h = 0; h < s.heads; ++h) {
    const int64_t offset = h * s.rank * s.tokens * s.num_harmonics;
    pack_coefficients(in.a + offset, in.b + offset, s, packed.get() + h * head_size);
  }
  const ForwardTask<Isa, S> task{in, out, static_cast<T*>(z), packed.get(), wanted < tiles ? wanted : tiles};
  Arena<T> plan{nullptr};
  task.carve(plan);
  auto memory = allocate<T>(plan.used * (threads < 1 ? 1 : threads));
  if (!memory) return 1;
  advise_huge_pages(out.data, pairs * s.tokens * s.value_dim * static_cast<int64_t>(sizeof(S)));
  advise_huge_pages(z, pairs * s.tokens * s.rank * static_cast<int64_t>(sizeof(T)));
  run_tasks(pairs * task.parts, threads, memory.get(), plan.used, task);
  return 0;
}

template <class S>
struct Gradients {
  using T = Compute<S>;
  View dout, dq, dk, dv;
  const T* z;
  T *da, *db, *dw;
};

template <class Isa, class S>
struct BackwardTask {
  using T = Compute<S>;
  const Inputs<S>& in;
  const Gradients<S>& g;
  const T *packed, *packed_t, *w_t;  // per head: (N 2G, r), (r, N 2G), (r, N)
  T* partials;                       // per unit: (N 2G, rank_width) and (N, rank_width)
  int64_t chunks;

  int64_t width() const { return padded_lanes<Isa, T>(in.size.dim); }
  int64_t value_width() const { return padded_lanes<Isa, T>(in.size.value_dim); }
  int64_t rank_width() const { return padded_lanes<Isa, T>(in.size.rank); }
  int64_t terms() const { return in.size.tokens * 2 * in.size.num_harmonics; }
  int64_t partial_size() const { return (terms() + in.size.tokens) * rank_width(); }

  struct Work {
    T *keys, *key_rows, *value_rows, *value_columns, *dout, *u, *u_t, *du, *du_t, *dk, *dv;
    T *query_rows, *dout_t, *dz_t, *dz, *dtrig, *dlogits, *dq;
    Tile<T> tile;
  };

  Work carve(Arena<T>& arena) const {
    const Sizes& s = in.size;
    Work w;
    w.keys = arena.take(s.dim * s.tokens);
    w.key_rows = arena.take(s.tokens * width());
    w.value_rows = arena.take(s.tokens * value_width());
    w.value_columns = arena.take(s.value_dim * s.tokens);
    w.dout = arena.take(s.tokens * value_width());
    w.u = arena.take(s.rank * value_width());
    w.u_t = arena.take(s.value_dim * s.rank);
    w.du = arena.take(s.rank * value_width());
    w.du_t = arena.take(s.value_dim * rank_width());
    w.dk = arena.take(s.tokens * width());
    w.dv = w.value_rows;  // the values are not needed any more when dv is written
    w.query_rows = arena.take(kQueries * width());
    w.dout_t = arena.take(s.value_dim * kQueries);
    w.dz_t = arena.take(s.rank * kQueries);
    w.dz = arena.take(kQueries * rank_width());
    w.dtrig = arena.take(2 * s.num_harmonics * kKeys * kQueries);
    w.dlogits = arena.take(kKeys * kQueries);
    w.dq = arena.take(kQueries * width());
    w.tile = {arena.take(s.dim * kQueries), arena.take(kKeys * kQueries), arena.take(2 * s.num_harmonics * kKeys * kQueries), 0, 0, 0};
    return w;
  }

  // Everything that is linear in N: u = w^T v, du = z^T dout, dv = w du, dw += v du^T.
  void value_side(Work& w, int64_t b, int64_t h, T* dw) const {
    const Sizes& s = in.size;
    const int64_t n = value_width();
    Isa::template copy_rows<S, T>(rows_of<S>(in.v, b, h), in.v.token, s.tokens, s.value_dim, T(1), w.value_rows, n, n);
    Isa::template transpose<T>(w.value_rows, n, s.tokens, s.value_dim, w.value_columns, s.tokens);
    Isa::template copy_rows<S, T>(rows_of<S>(g.dout, b, h), g.dout.token, s.tokens, s.value_dim, T(1), w.dout, n, n);
    Isa::template product<T, 1>({s.rank, n, s.tokens, in.w + h * s.tokens * s.rank, s.rank, w.value_rows, n, w.u, n, false});
    Isa::template transpose<T>(w.u, n, s.rank, s.value_dim, w.u_t, s.rank);
    const T* z = g.z + (b * s.heads + h) * s.tokens * s.rank;
    Isa::template product<T, 1>({s.rank, n, s.tokens, z, s.rank, w.dout, n, w.du, n, false});
    Isa::template transpose<T>(w.du, n, s.rank, s.value_dim, w.du_t, rank_width());
    Isa::template product<T, 1>({s.tokens, rank_width(), s.value_dim, w.value_columns, s.tokens, w.du_t, rank_width(), dw, rank_width(), true});
    Isa::template product<T, 1>({s.tokens, n, s.rank, w_t + h * s.rank * s.tokens, s.tokens, w.du, n, w.dv, n, false});
    Isa::template copy_rows<T, S>(w.dv, n, s.tokens, s.value_dim, T(1), rows_of<S>(g.dv, b, h), g.dv.token, s.value_dim);
  }

  void query_tile(Work& w, int64_t b, int64_t h, T* dcoefficients) const {
    const Sizes& s = in.size;
    Tile<T>& t = w.tile;
    t.columns = padded_lanes<Isa, T>(t.count);
    const int64_t harmonics = 2 * s.num_harmonics, n = width();
    Isa::template copy_rows<S, T>(rows_of<S>(in.q, b, h) + t.first * in.q.token, in.q.token, t.count, s.dim, in.scale, w.query_rows, n, n);
    Isa::template transpose<T>(w.query_rows, n, t.count, s.dim, t.query, static_cast<int64_t>(kQueries));
    Isa::template transpose<T>(w.dout + t.first * value_width(), value_width(), t.count, s.value_dim, w.dout_t, static_cast<int64_t>(kQueries));
    Isa::template product<T, 1>({s.rank, t.columns, s.value_dim, w.u_t, s.rank, w.dout_t, kQueries, w.dz_t, kQueries, false});
    Isa::template transpose<T>(w.dz_t, static_cast<int64_t>(kQueries), s.rank, t.count, w.dz, rank_width());
    for (int64_t key = 0; key < s.tokens; key += kKeys) {
      const int count = static_cast<int>(key + kKeys < s.tokens ? kKeys : s.tokens - key);
      tile_harmonics<Isa, T>(s, t, w.keys, key, count);
      Isa::template product<T, 1>({count * harmonics, t.columns, s.rank, packed_t + h * s.rank * terms() + key * harmonics, terms(), w.dz_t,
                                   kQueries, w.dtrig, kQueries, false});
      Isa::template logits_gradient<T>(t.trig, w.dtrig, w.dlogits, static_cast<int>(s.num_harmonics), count, t.columns);
      Isa::template product<T, kQueries>({count * harmonics, rank_width(), t.count, t.trig, 1, w.dz, rank_width(),
                                          dcoefficients + key * harmonics * rank_width(), rank_width(), true});
      Isa::template product<T, 1>({t.count, n, count, w.dlogits, kQueries, w.key_rows + key * n, n, w.dq, n, key > 0});
      Isa::template product<T, kQueries>({count, n, t.count, w.dlogits, 1, w.query_rows, n, w.dk + key * n, n, t.first > 0});
    }
    Isa::template copy_rows<T, S>(w.dq, n, t.count, s.dim, in.scale, rows_of<S>(g.dq, b, h) + t.first * g.dq.token, g.dq.token, s.dim);
  }

  void operator()(int64_t unit, T* memory) const {
    const Sizes& s = in.size;
    Arena<T> arena{memory};
    Work w = carve(arena);
    const int64_t chunk = unit % chunks, h = unit / chunks;
    T* dcoefficients = partials + unit * partial_size();
    for (int64_t i = 0; i < partial_size(); ++i) dcoefficients[i] = 0;
    for (int64_t b = s.batch * chunk / chunks; b < s.batch * (chunk + 1) / chunks; ++b) {
      value_side(w, b, h, dcoefficients + terms() * rank_width());
      Isa::template copy_rows<S, T>(rows_of<S>(in.k, b, h), in.k.token, s.tokens, s.dim, T(1), w.key_rows, width(), width());
      Isa::template transpose<T>(w.key_rows, width(), s.tokens, s.dim, w.keys, s.tokens);
      for (int64_t first = 0; first < s.tokens; first += kQueries) {
        w.tile.first = first;
        w.tile.count = s.tokens - first < kQueries ? s.tokens - first : kQueries;
        query_tile(w, b, h, dcoefficients);
      }
      Isa::template copy_rows<T, S>(w.dk, width(), s.tokens, s.dim, T(1), rows_of<S>(g.dk, b, h), g.dk.token, s.dim);
    }
  }

  // The sum of all chunks for one token of one head, in the order of the chunks.
  void reduce(int64_t index) const {
    const Sizes& s = in.size;
    const int64_t token = index % s.tokens, h = index / s.tokens, n = rank_width();
    const auto total = [&](int64_t offset) {
      double sum = 0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partials[(h * chunks + chunk) * partial_size() + offset];
      return static_cast<T>(sum);
    };
    for (int64_t p = 0; p < s.rank; ++p) {
      for (int64_t m = 0; m < s.num_harmonics; ++m) {
        const int64_t term = token * 2 * s.num_harmonics + 2 * m, target = ((h * s.rank + p) * s.tokens + token) * s.num_harmonics + m;
        g.da[target] = total(term * n + p);
        g.db[target] = total((term + 1) * n + p);
      }
      g.dw[(h * s.tokens + token) * s.rank + p] = total((terms() + token) * n + p);
    }
  }
};

template <class Isa, class S>
int backward(const Inputs<S>& in, const Gradients<S>& g, int threads) {
  using T = Compute<S>;
  const Sizes& s = in.size;
  const int64_t terms = s.tokens * 2 * s.num_harmonics, head_size = terms * s.rank, wanted = (kUnits + s.heads - 1) / s.heads;
  const int64_t chunks = wanted < s.batch ? wanted : s.batch, units = s.heads * chunks;
  auto packed = allocate<T>(2 * s.heads * head_size), w_t = allocate<T>(s.heads * s.rank * s.tokens);
  BackwardTask<Isa, S> task{in, g, packed.get(), packed.get() + s.heads * head_size, w_t.get(), nullptr, chunks};
  Arena<T> plan{nullptr};
  task.carve(plan);
  auto partials = allocate<T>(units * task.partial_size()), memory = allocate<T>(plan.used * (threads < 1 ? 1 : threads));
  if (!packed || !w_t || !partials || !memory) return 1;
  task.partials = partials.get();
  const int64_t bytes = in.size.batch * in.size.heads * in.size.tokens * static_cast<int64_t>(sizeof(S));
  advise_huge_pages(g.dq.data, bytes * in.size.dim);
  advise_huge_pages(g.dk.data, bytes * in.size.dim);
  advise_huge_pages(g.dv.data, bytes * in.size.value_dim);
  for (int64_t h = 0; h < s.heads; ++h) {
    T* coefficients = packed.get() + h * head_size;
    pack_coefficients(in.a + h * head_size / 2, in.b + h * head_size / 2, s, coefficients);
    Isa::template transpose<T>(coefficients, s.rank, terms, s.rank, packed.get() + s.heads * head_size + h * head_size, terms);
    Isa::template transpose<T>(in.w + h * s.tokens * s.rank, s.rank, s.tokens, s.rank, w_t.get() + h * s.rank * s.tokens, s.tokens);
  }
  run_tasks(units, threads, memory.get(), plan.used, task);
  parallel_for(s.heads * s.tokens, threads, [&](int64_t i) { task.reduce(i); });
  return 0;
}

// f.template operator()<Isa, S>() for the instruction set and the dtype chosen at run time; 2 for a bad dtype.
template <class S, class F>
int dispatch_isa(int isa, const F& f) {
#if KAT_X86
  if (isa == kAvx512) return f(Avx512{}, S{});
  if (isa == kAvx2) return f(Avx2{}, S{});
#endif
  return f(Portable{}, S{});
}

template <class F>
int dispatch(int dtype, int isa, const F& f) {
  switch (dtype) {
    case kFloat32: return dispatch_isa<float>(isa, f);
    case kFloat64: return dispatch_isa<double>(isa, f);
    case kBFloat16: return dispatch_isa<bf16>(isa, f);
    case kFloat16: return dispatch_isa<f16>(isa, f);
  }
  return 2;
}

Sizes sizes_of(const int64_t* n) { return {n[0], n[1], n[2], n[3], n[4], n[5], n[6]}; }

View view_of(const void* data, const int64_t* strides) { return {const_cast<void*>(data), strides[0], strides[1], strides[2]}; }

template <class S>
Inputs<S> inputs_of(const int64_t* sizes, const int64_t* strides, const void* const* p, double scale) {
  using T = Compute<S>;
  return {sizes_of(sizes), view_of(p[0], strides), view_of(p[1], strides + 3), view_of(p[2], strides + 6), static_cast<const T*>(p[3]),
          static_cast<const T*>(p[4]), static_cast<const T*>(p[5]), static_cast<T>(scale)};
}

}  // namespace
}  // namespace kat

// sizes: B, h, N, d, d_v, r, G. strides: (batch, head, token) in elements of q, k, v and out. pointers: q, k, v, a, b, w, out, z.
// a, b, w and z are contiguous float32 (float64 where dtype is float64). Returns 0, 1 (out of memory) or 2 (bad dtype).
KAT_EXPORT int kat_fourier_attention_forward(int dtype, const int64_t* sizes, const int64_t* strides, void* const* pointers, double scale,
                                             int threads, int isa) {
  return kat::dispatch(dtype, isa, [&](auto set, auto storage) {
    using S = decltype(storage);
    const auto in = kat::inputs_of<S>(sizes, strides, pointers, scale);
    return kat::forward<decltype(set), S>(in, kat::view_of(pointers[6], strides + 9), pointers[7], threads);
  });
}

// strides: of q, k, v, dout, dq, dk, dv. pointers: q, k, v, a, b, w, dout, z, dq, dk, dv, da, db, dw.
KAT_EXPORT int kat_fourier_attention_backward(int dtype, const int64_t* sizes, const int64_t* strides, void* const* pointers, double scale,
                                              int threads, int isa) {
  return kat::dispatch(dtype, isa, [&](auto set, auto storage) {
    using S = decltype(storage);
    using T = kat::Compute<S>;
    const auto in = kat::inputs_of<S>(sizes, strides, pointers, scale);
    const kat::Gradients<S> g{kat::view_of(pointers[6], strides + 9),   kat::view_of(pointers[8], strides + 12),
                              kat::view_of(pointers[9], strides + 15),  kat::view_of(pointers[10], strides + 18),
                              static_cast<const T*>(pointers[7]),       static_cast<T*>(pointers[11]),
                              static_cast<T*>(pointers[12]),            static_cast<T*>(pointers[13])};
    return kat::backward<decltype(set), S>(in, g, threads);
  });
}

// Sine and cosine of n float32 values with the vector code of the kernels, for the accuracy test.
KAT_EXPORT void kat_sincos(const float* x, float* sine, float* cosine, int64_t n, int isa) {
  kat::dispatch_isa<float>(isa, [&](auto set, float) {
    float row[kat::kQueries], trig[2 * kat::kQueries];
    for (int64_t i = 0; i < n; i += kat::kQueries) {
      for (int j = 0; j < kat::kQueries; ++j) row[j] = i + j < n ? x[i + j] : 0;
      decltype(set)::template harmonics<float>(row, trig, 1, 1, kat::kQueries);
      for (int j = 0; j < kat::kQueries && i + j < n; ++j) {
        cosine[i + j] = trig[j];
        sine[i + j] = trig[kat::kQueries + j];
      }
    }
    return 0;
  });
}
