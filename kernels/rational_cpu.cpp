// The group-rational activation on the CPU: y = P(x) / Q(x), Q = 1 + |b1||x| + ... + |bn||x|^n, coefficients per channel group.
//
// The tensor arrives as `rows` contiguous rows of `groups * width` elements. It is cut into blocks by its shape alone; each
// block writes its own partial sums of the coefficient gradients, which are added in a fixed order in float64. So the result
// does not depend on the number of threads. Only x is read in the backward: P and Q are recomputed.

#include "cpu_common.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>

namespace kat {

GompParallel gomp_parallel = nullptr;

namespace {

constexpr int kMaxOrder = 8;
constexpr int64_t kBlockElements = 16384;  // 64 KiB of float32 a stream: stays in L2 next to its gradient and result
constexpr int64_t kNarrowBytes = 256;      // groups narrower than this are walked in strips of several rows
constexpr int64_t kStripElements = 4096;
constexpr int64_t kTileWidth = 4096;       // a wider group (NCHW: channels x pixels) is cut into tiles of this many columns

template <class T>
struct Coefficients {
  T a[kMaxOrder + 1];   // numerator
  T ia[kMaxOrder + 1];  // i * a_i, of P'
  T b[kMaxOrder + 1];   // |denominator|, b[0] = 1
  T jb[kMaxOrder + 1];  // j * |b_j|, of Q'
  T limit;              // beyond this |x| a power may overflow: the block is done again in powers of 1/x
  int top_a, top_b;     // degrees without trailing zero coefficients
};

struct Problem {
  int64_t rows, width;  // width: contiguous elements of one group in a row
  int groups, m, n;
  int64_t row_blocks, rows_per_block, tiles;  // tiles > 1: columns of one group are cut; 1: a block holds all groups
  int64_t blocks() const { return tiles == 1 ? row_blocks : row_blocks * groups * tiles; }
  int partial_size() const { return m + 1 + n; }
  int groups_per_block() const { return tiles == 1 ? groups : 1; }
};

struct Block {
  int64_t row_begin, row_end, col_begin, col_end;
  int group_begin, group_end;
};

Problem make_problem(int64_t rows, int groups, int64_t width, int m, int n) {
  Problem p{rows, width, groups, m, n, 0, 0, 1};
  if (width > kTileWidth) p.tiles = (width + kTileWidth - 1) / kTileWidth;
  const int64_t columns = p.tiles == 1 ? width * groups : (width + p.tiles - 1) / p.tiles;
  p.rows_per_block = columns >= kBlockElements ? 1 : (kBlockElements + columns - 1) / columns;
  p.row_blocks = (rows + p.rows_per_block - 1) / p.rows_per_block;
  return p;
}

Block make_block(const Problem& p, int64_t i) {
  Block b{0, 0, 0, p.width, 0, p.groups};
  int64_t row_block = i;
  if (p.tiles > 1) {
    const int64_t tile = i % p.tiles, step = (p.width + p.tiles - 1) / p.tiles;
    b.group_begin = static_cast<int>((i / p.tiles) % p.groups);
    b.group_end = b.group_begin + 1;
    b.col_begin = tile * step;
    b.col_end = b.col_begin + step < p.width ? b.col_begin + step : p.width;
    row_block = i / p.tiles / p.groups;
  }
  b.row_begin = row_block * p.rows_per_block;
  b.row_end = b.row_begin + p.rows_per_block < p.rows ? b.row_begin + p.rows_per_block : p.rows;
  return b;
}

template <class T>
Coefficients<T> pack(const T* a, const T* b, int m, int n) {
  Coefficients<T> c{};
  c.b[0] = 1;
  double weight = 1;
  for (int i = 0; i <= m; ++i) {
    c.a[i] = a[i];
    c.ia[i] = i * a[i];
    if (a[i] != 0) c.top_a = i;
    weight += (i + 1) * std::fabs(static_cast<double>(a[i]));
  }
  for (int j = 1; j <= n; ++j) {
    c.b[j] = std::fabs(b[j - 1]);
    c.jb[j] = j * c.b[j];
    if (c.b[j] != 0) c.top_b = j;
    weight += (j + 1) * static_cast<double>(c.b[j]);
  }
  const double top = static_cast<double>(std::numeric_limits<T>::max()) / 16;
  c.limit = static_cast<T>(std::pow(top / weight, 1.0 / (m > n ? (m > 1 ? m : 1) : n)));
  return c;
}

// One vector of the direct formula. M, N >= 0: compile-time orders; -1: taken from c at run time.
template <class T, int L, int M, int N>
struct Direct {
  using F = typename Vec<T, L>::F;
  using I = typename Vec<T, L>::I;
  static constexpr int kM = M < 0 ? kMaxOrder : M;
  static constexpr int kN = N < 0 ? kMaxOrder : N;

  using Bits = typename std::conditional<sizeof(T) == 8, int64_t, int32_t>::type;
  static constexpr Bits kSign = std::numeric_limits<Bits>::min();

  static KAT_INLINE F absolute(F x) { return bit_cast<F>(bit_cast<I>(x) & ~kSign); }

  // v * sign(x) with sign(0) = sign(-0) = +1. (Bits instead of a conditional, on which GCC 12 can fail.)
  static KAT_INLINE F times_sign(F v, F x) { return bit_cast<F>(bit_cast<I>(v) ^ (bit_cast<I>(x < 0) & kSign)); }

  static KAT_INLINE F horner(F x, const T* c, int low, int high) {
    F p = F{} + c[high];
    for (int i = high - 1; i >= low; --i) p = p * x + c[i];
    return p;
  }

  static KAT_INLINE F forward(F x, const Coefficients<T>& c, int m, int n) {
    m = M < 0 ? m : M, n = N < 0 ? n : N;
    return horner(x, c.a, 0, m) / horner(absolute(x), c.b, 0, n);
  }

  // Returns dx; adds to da[0..m] and db[1..n] (db without the sign of b).
  static KAT_INLINE F backward(F g, F x, const Coefficients<T>& c, int m, int n, F* da, F* db) {
    m = M < 0 ? m : M, n = N < 0 ? n : N;
    const F ax = absolute(x);
    const F r = (F{} + T(1)) / horner(ax, c.b, 0, n);
    const F y = horner(x, c.a, 0, m) * r;
    const F gr = g * r;
    const F dp = m > 0 ? horner(x, c.ia + 1, 0, m - 1) : F{};
    const F dq = times_sign(n > 0 ? horner(ax, c.jb + 1, 0, n - 1) : F{}, x);
    const F gry = gr * y;
    // Products in a chain instead of powers kept aside: fewer multiplications, and the sums go to the adders, idle otherwise.
    F term = gr;
    da[0] += term;
#pragma GCC unroll 8
    for (int i = 1; i <= kM; ++i) {
      if (i <= m) da[i] += (term *= x);
    }
    term = gry;
#pragma GCC unroll 8
    for (int j = 1; j <= kN; ++j) {
      if (j <= n) db[j] -= (term *= ax);
    }
    return gr * dp - gry * dq;
  }
};

// The same in powers of t = 1/|x| for |x| > 1, one element at a time: finite wherever the true value is.
template <class T>
struct Careful {
  static T scale(T v, T x, T t, int power) {
    for (; power > 0; --power) v *= x;
    for (; power < 0; ++power) v *= t;
    return v;
  }
  static T reversed(const T* c, T s, T t, int high) {
    T p = 0, sign = 1;
    for (int i = 0; i <= high; ++i, sign *= s) p = p * t + c[i] * sign;
    return p;
  }

  static T forward(T x, const Coefficients<T>& c) {
    const T ax = std::fabs(x), s = x < 0 ? T(-1) : T(1);
    if (!(ax > 1)) return Direct<T, 1, -1, -1>::forward(typename Vec<T, 1>::F{x}, c, c.top_a, c.top_b)[0];
    const T t = 1 / ax;
    return scale(reversed(c.a, s, t, c.top_a) / reversed(c.b, 1, t, c.top_b), ax, t, c.top_a - c.top_b);
  }

  static T backward(T g, T x, const Coefficients<T>& c, int m, int n, T* da, T* db) {
    const T ax = std::fabs(x), s = x < 0 ? T(-1) : T(1);
    if (!(ax > 1)) {
      using F = typename Vec<T, 1>::F;
      F va[kMaxOrder + 1] = {}, vb[kMaxOrder + 1] = {};
      const T dx = Direct<T, 1, -1, -1>::backward(F{g}, F{x}, c, m, n, va, vb)[0];
      for (int i = 0; i <= m; ++i) da[i] += va[i][0];
      for (int j = 1; j <= n; ++j) db[j] += vb[j][0];
      return dx;
    }
    const T t = 1 / ax;
    const int u = c.top_a, v = c.top_b;
    const T q = reversed(c.b, 1, t, v);
    const T y = reversed(c.a, s, t, u) / q;  // the value is y |x|^(u - v), which may overflow where its slope does not
    T sign = 1;
    for (int i = 0; i <= m; ++i, sign *= s) da[i] += scale(g * sign / q, ax, t, i - v);
    for (int j = 1; j <= n; ++j) db[j] -= scale(g * y / q, ax, t, u - v + j - v);
    const T dp = u > 0 ? reversed(c.ia + 1, s, t, u - 1) : T(0);
    const T dq = v > 0 ? s * reversed(c.jb + 1, 1, t, v - 1) : T(0);
    return scale(g * (dp - y * dq) / q, ax, t, u - v - 1);
  }
};

template <class S>
struct Forward {
  using T = typename Storage<S>::Compute;
  const S* x;
  S* y;
  const Coefficients<T>* coefficients;
  Problem problem;
};

template <class S>
struct Backward {
  using T = typename Storage<S>::Compute;
  const S* g;
  const S* x;
  S* dx;
  const Coefficients<T>* coefficients;
  T* partials;  // [blocks, groups_per_block, m + 1 + n]
  Problem problem;
};

// A block is walked row by row, so that the addresses run upwards and the hardware prefetches. Narrow groups take a strip of a
// few rows at once: their coefficients and sums would move between memory and registers too often.
template <class S>
int64_t strip_rows(const Problem& p) {
  const int64_t columns = p.width * p.groups;
  return p.width * static_cast<int64_t>(sizeof(S)) >= kNarrowBytes || columns >= kStripElements ? 1 : kStripElements / columns;
}

// Asks for a line of the next strip: the addresses within a strip jump from row to row, which the hardware does not foresee.
// Past the end of the tensor it does nothing. In 16-bit types alone, where it was measured to gain.
template <class S>
KAT_INLINE void prefetch_strip(const S* p, const Block& strip, int64_t columns) {
  const int64_t rows = strip.row_end - strip.row_begin;
  if (rows > 1) __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + rows * columns * sizeof(S)), 0, 2);
}

// Columns from `begin` on in vectors of L lanes, as many as fit; returns where it stopped. `largest` holds LANES maxima of |x|.
template <class S, int L, int M, int N>
KAT_INLINE int64_t forward_lanes(const Forward<S>& k, const Block& b, int group, int64_t begin, typename Storage<S>::Compute* largest) {
  using T = typename Storage<S>::Compute;
  using F = typename Vec<T, L>::F;
  const int64_t end = begin + (b.col_end - begin) / L * L;
  if (end == begin) return begin;
  const Coefficients<T> c = k.coefficients[group];
  [[maybe_unused]] const int64_t columns = k.problem.groups * k.problem.width;
  F top = Storage<T>::template load<L>(largest);
  for (int64_t row = b.row_begin; row < b.row_end; ++row) {
    const int64_t base = (row * k.problem.groups + group) * k.problem.width;
    int64_t i = begin;
    if constexpr (Storage<S>::kPairs && M >= 0 && L > 1) {
      for (; i + 2 * L <= end; i += 2 * L) {
        F even, odd;
        prefetch_strip(k.x + base + i, b, columns);
        prefetch_strip(k.y + base + i, b, columns);
        Storage<S>::template load_pair<L>(k.x + base + i, even, odd);
        const F a_even = Direct<T, L, M, N>::absolute(even), a_odd = Direct<T, L, M, N>::absolute(odd);
        top = a_even > top ? a_even : top;
        top = a_odd > top ? a_odd : top;
        Storage<S>::template store_pair<L>(k.y + base + i, Direct<T, L, M, N>::forward(even, c, k.problem.m, k.problem.n),
                                           Direct<T, L, M, N>::forward(odd, c, k.problem.m, k.problem.n));
      }
    }
    for (; i < end; i += L) {
      const F x = Storage<S>::template load<L>(k.x + base + i);
      const F ax = Direct<T, L, M, N>::absolute(x);
      top = ax > top ? ax : top;
      Storage<S>::template store<L>(k.y + base + i, Direct<T, L, M, N>::forward(x, c, k.problem.m, k.problem.n));
    }
  }
  Storage<T>::template store<L>(largest, top);
  return end;
}

// `sums`: rows of LANES running sums, m + 1 for the numerator, n for the denominator; narrower vectors use the first lanes.
template <class S, int L, int LANES, int M, int N>
KAT_INLINE int64_t backward_lanes(const Backward<S>& k, const Block& b, int group, int64_t begin, typename Storage<S>::Compute* largest,
                                  typename Storage<S>::Compute* sums) {
  using T = typename Storage<S>::Compute;
  using F = typename Vec<T, L>::F;
  const int64_t end = begin + (b.col_end - begin) / L * L;
  if (end == begin) return begin;
  const Coefficients<T> c = k.coefficients[group];
  const int m = M < 0 ? k.problem.m : M, n = N < 0 ? k.problem.n : N;
  [[maybe_unused]] const int64_t columns = k.problem.groups * k.problem.width;
  F top = Storage<T>::template load<L>(largest);
  F da[(M < 0 ? kMaxOrder : M) + 1], db[(N < 0 ? kMaxOrder : N) + 1];
  for (int i = 0; i <= m; ++i) da[i] = Storage<T>::template load<L>(sums + i * LANES);
  for (int j = 1; j <= n; ++j) db[j] = Storage<T>::template load<L>(sums + (m + j) * LANES);
  for (int64_t row = b.row_begin; row < b.row_end; ++row) {
    const int64_t base = (row * k.problem.groups + group) * k.problem.width;
    int64_t i = begin;
    if constexpr (Storage<S>::kPairs && M >= 0 && L > 1) {
      for (; i + 2 * L <= end; i += 2 * L) {
        F even, odd, g_even, g_odd;
        prefetch_strip(k.x + base + i, b, columns);
        prefetch_strip(k.g + base + i, b, columns);
        prefetch_strip(k.dx + base + i, b, columns);
        Storage<S>::template load_pair<L>(k.x + base + i, even, odd);
        Storage<S>::template load_pair<L>(k.g + base + i, g_even, g_odd);
        const F a_even = Direct<T, L, M, N>::absolute(even), a_odd = Direct<T, L, M, N>::absolute(odd);
        top = a_even > top ? a_even : top;
        top = a_odd > top ? a_odd : top;
        const F dx = Direct<T, L, M, N>::backward(g_even, even, c, m, n, da, db);
        Storage<S>::template store_pair<L>(k.dx + base + i, dx, Direct<T, L, M, N>::backward(g_odd, odd, c, m, n, da, db));
      }
    }
    for (; i < end; i += L) {
      const F x = Storage<S>::template load<L>(k.x + base + i);
      const F g = Storage<S>::template load<L>(k.g + base + i);
      const F ax = Direct<T, L, M, N>::absolute(x);
      top = ax > top ? ax : top;
      Storage<S>::template store<L>(k.dx + base + i, Direct<T, L, M, N>::backward(g, x, c, m, n, da, db));
    }
  }
  Storage<T>::template store<L>(largest, top);
  for (int i = 0; i <= m; ++i) Storage<T>::template store<L>(sums + i * LANES, da[i]);
  for (int j = 1; j <= n; ++j) Storage<T>::template store<L>(sums + (m + j) * LANES, db[j]);
  return end;
}

template <class S>
void forward_careful(const Forward<S>& k, const Block& b, int group) {
  using T = typename Storage<S>::Compute;
  for (int64_t row = b.row_begin; row < b.row_end; ++row) {
    const int64_t base = (row * k.problem.groups + group) * k.problem.width;
    for (int64_t i = b.col_begin; i < b.col_end; ++i) {
      const T x = Storage<S>::template load<1>(k.x + base + i)[0];
      Storage<S>::template store<1>(k.y + base + i, typename Vec<T, 1>::F{Careful<T>::forward(x, k.coefficients[group])});
    }
  }
}

template <class S>
void backward_careful(const Backward<S>& k, const Block& b, int group, typename Storage<S>::Compute* partial) {
  using T = typename Storage<S>::Compute;
  const int m = k.problem.m, n = k.problem.n;
  T da[kMaxOrder + 1] = {}, db[kMaxOrder + 1] = {};
  for (int64_t row = b.row_begin; row < b.row_end; ++row) {
    const int64_t base = (row * k.problem.groups + group) * k.problem.width;
    for (int64_t i = b.col_begin; i < b.col_end; ++i) {
      const T x = Storage<S>::template load<1>(k.x + base + i)[0];
      const T g = Storage<S>::template load<1>(k.g + base + i)[0];
      const T dx = Careful<T>::backward(g, x, k.coefficients[group], m, n, da, db);
      Storage<S>::template store<1>(k.dx + base + i, typename Vec<T, 1>::F{dx});
    }
  }
  for (int i = 0; i <= m; ++i) partial[i] = da[i];
  for (int j = 1; j <= n; ++j) partial[m + j] = db[j];
}

// Work space of one thread, kept between calls: LANES maxima and (m + 1 + n) x LANES sums per group of a block.
template <class T>
T* scratch(int64_t size) {
  static thread_local std::unique_ptr<T[]> memory;
  static thread_local int64_t capacity = 0;
  if (capacity < size) {
    memory.reset(new T[size]);
    capacity = size;
  }
  for (int64_t i = 0; i < size; ++i) memory[i] = 0;
  return memory.get();
}

template <class T, int LANES>
KAT_INLINE bool exceeds(const T* largest, T limit) {
  bool any = false;
  for (int l = 0; l < LANES; ++l) any |= largest[l] > limit;
  return any;
}

// The widest vector first, then narrower ones for what is left of the group's width.
template <class S, int BYTES, int M, int N>
KAT_INLINE void forward_block(const Forward<S>& k, const Block& b) {
  using T = typename Storage<S>::Compute;
  constexpr int L = BYTES / sizeof(T);
  T* largest = scratch<T>(static_cast<int64_t>(L) * k.problem.groups_per_block());
  const int64_t step = strip_rows<S>(k.problem);
  for (Block strip = b; strip.row_begin < b.row_end; strip.row_begin += step) {
    strip.row_end = strip.row_begin + step < b.row_end ? strip.row_begin + step : b.row_end;
    for (int group = b.group_begin; group < b.group_end; ++group) {
      T* top = largest + (group - b.group_begin) * L;
      int64_t i = forward_lanes<S, L, M, N>(k, strip, group, b.col_begin, top);
      if constexpr (L >= 4 && M >= 0) i = forward_lanes<S, L / 2, M, N>(k, strip, group, i, top);
      forward_lanes<S, 1, M, N>(k, strip, group, i, top);
    }
  }
  for (int group = b.group_begin; group < b.group_end; ++group) {
    if (exceeds<T, L>(largest + (group - b.group_begin) * L, k.coefficients[group].limit)) forward_careful(k, b, group);
  }
}

template <class S, int BYTES, int M, int N>
KAT_INLINE void backward_block(const Backward<S>& k, const Block& b, int64_t index) {
  using T = typename Storage<S>::Compute;
  constexpr int L = BYTES / sizeof(T);
  const int size = k.problem.partial_size(), per_block = k.problem.groups_per_block();
  T* memory = scratch<T>(static_cast<int64_t>(L) * per_block * (size + 1));
  const int64_t step = strip_rows<S>(k.problem);
  for (Block strip = b; strip.row_begin < b.row_end; strip.row_begin += step) {
    strip.row_end = strip.row_begin + step < b.row_end ? strip.row_begin + step : b.row_end;
    for (int group = b.group_begin; group < b.group_end; ++group) {
      T* top = memory + static_cast<int64_t>(group - b.group_begin) * L * (size + 1);
      T* sums = top + L;
      int64_t i = backward_lanes<S, L, L, M, N>(k, strip, group, b.col_begin, top, sums);
      if constexpr (L >= 4 && M >= 0) i = backward_lanes<S, L / 2, L, M, N>(k, strip, group, i, top, sums);
      backward_lanes<S, 1, L, M, N>(k, strip, group, i, top, sums);
    }
  }
  for (int group = b.group_begin; group < b.group_end; ++group) {
    const T* top = memory + static_cast<int64_t>(group - b.group_begin) * L * (size + 1);
    T* partial = k.partials + (index * per_block + group - b.group_begin) * size;
    for (int i = 0; i < size; ++i) {
      T total = 0;
      for (int l = 0; l < L; ++l) total += top[L + i * L + l];
      partial[i] = total;
    }
    if (exceeds<T, L>(top, k.coefficients[group].limit)) backward_careful(k, b, group, partial);
  }
}

#define KAT_BLOCKS(NAME, TARGET, BYTES)                                              \
  template <class S, int M, int N>                                                   \
  TARGET void forward_##NAME(const Forward<S>& k, const Block& b) {                  \
    forward_block<S, BYTES, M, N>(k, b);                                             \
  }                                                                                  \
  template <class S, int M, int N>                                                   \
  TARGET void backward_##NAME(const Backward<S>& k, const Block& b, int64_t index) { \
    backward_block<S, BYTES, M, N>(k, b, index);                                     \
  }
KAT_BLOCKS(portable, , 16)
#if KAT_X86
KAT_BLOCKS(avx2, KAT_TARGET_AVX2, 32)
KAT_BLOCKS(avx512, KAT_TARGET_AVX512, 64)
#endif

template <class S, int M, int N>
void run_forward(const Forward<S>& k, int threads, int isa) {
  auto* block = forward_portable<S, M, N>;
#if KAT_X86
  if (isa == kAvx2) block = forward_avx2<S, M, N>;
  if (isa == kAvx512) block = forward_avx512<S, M, N>;
#endif
  parallel_for(k.problem.blocks(), threads, [&](int64_t i) { block(k, make_block(k.problem, i)); });
}

template <class S, int M, int N>
void run_backward(const Backward<S>& k, int threads, int isa) {
  auto* block = backward_portable<S, M, N>;
#if KAT_X86
  if (isa == kAvx2) block = backward_avx2<S, M, N>;
  if (isa == kAvx512) block = backward_avx512<S, M, N>;
#endif
  parallel_for(k.problem.blocks(), threads, [&](int64_t i) { block(k, make_block(k.problem, i), i); });
}

template <class T>
std::unique_ptr<Coefficients<T>[]> pack_all(const T* a, int a_rows, const T* b, int b_rows, const Problem& p) {
  std::unique_ptr<Coefficients<T>[]> packed(new (std::nothrow) Coefficients<T>[p.groups]);
  if (packed) {
    for (int g = 0; g < p.groups; ++g) {
      packed[g] = pack<T>(a + (a_rows == 1 ? 0 : g) * (p.m + 1), b + (b_rows == 1 ? 0 : g) * p.n, p.m, p.n);
    }
  }
  return packed;
}

template <class S>
int forward(const void* x, void* y, const void* a, int a_rows, const void* b, int b_rows, const Problem& p, int threads, int isa) {
  using T = typename Storage<S>::Compute;
  const auto packed = pack_all(static_cast<const T*>(a), a_rows, static_cast<const T*>(b), b_rows, p);
  if (!packed) return 1;
  advise_huge_pages(y, p.rows * p.groups * p.width * static_cast<int64_t>(sizeof(S)));
  const Forward<S> k{static_cast<const S*>(x), static_cast<S*>(y), packed.get(), p};
  if (p.m == 5 && p.n == 4) {
    run_forward<S, 5, 4>(k, threads, isa);
  } else {
    run_forward<S, -1, -1>(k, threads, isa);
  }
  return 0;
}

template <class S>
int backward(const void* g, const void* x, void* dx, const void* a, int a_rows, const void* b, int b_rows, void* da, void* db, const Problem& p,
             int threads, int isa) {
  using T = typename Storage<S>::Compute;
  const auto* denominator = static_cast<const T*>(b);
  const auto packed = pack_all(static_cast<const T*>(a), a_rows, denominator, b_rows, p);
  const int size = p.partial_size(), per_block = p.groups_per_block();
  const int64_t blocks = p.blocks();
  std::unique_ptr<T[]> partials(new (std::nothrow) T[blocks * per_block * size + 1]);
  std::unique_ptr<double[]> sums(new (std::nothrow) double[static_cast<int64_t>(p.groups) * size]());
  if (!packed || !partials || !sums) return 1;
  advise_huge_pages(dx, p.rows * p.groups * p.width * static_cast<int64_t>(sizeof(S)));
  const Backward<S> k{static_cast<const S*>(g), static_cast<const S*>(x), static_cast<S*>(dx), packed.get(), partials.get(), p};
  if (p.m == 5 && p.n == 4) {
    run_backward<S, 5, 4>(k, threads, isa);
  } else {
    run_backward<S, -1, -1>(k, threads, isa);
  }
  for (int64_t i = 0; i < blocks; ++i) {
    const int first = make_block(p, i).group_begin;
    for (int j = 0; j < per_block * size; ++j) sums[static_cast<int64_t>(first) * size + j] += partials[i * per_block * size + j];
  }
  T* da_out = static_cast<T*>(da);
  T* db_out = static_cast<T*>(db);
  for (int row = 0; row < a_rows; ++row) {
    for (int i = 0; i <= p.m; ++i) {
      double total = 0;
      for (int group = row; group < (a_rows == 1 ? p.groups : row + 1); ++group) total += sums[static_cast<int64_t>(group) * size + i];
      da_out[row * (p.m + 1) + i] = static_cast<T>(total);
    }
  }
  for (int row = 0; row < b_rows; ++row) {
    for (int j = 0; j < p.n; ++j) {
      double total = 0;
      for (int group = row; group < (b_rows == 1 ? p.groups : row + 1); ++group) total += sums[static_cast<int64_t>(group) * size + p.m + 1 + j];
      db_out[row * p.n + j] = static_cast<T>(denominator[row * p.n + j] < 0 ? -total : total);  // sign(0) = +1
    }
  }
  return 0;
}

}  // namespace
}  // namespace kat

KAT_EXPORT void kat_set_gomp_parallel(void* function) { kat::gomp_parallel = reinterpret_cast<kat::GompParallel>(function); }

KAT_EXPORT int kat_best_isa() {
#if KAT_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  return avx2 && avx512 ? kat::kAvx512 : avx2 ? kat::kAvx2 : kat::kPortable;
#else
  return kat::kPortable;
#endif
}

// Coefficients and their gradients are float32, or float64 where dtype is float64. Returns 0, 1 (out of memory) or 2 (bad dtype).
KAT_EXPORT int kat_rational_forward(int dtype, const void* x, void* y, const void* a, int a_rows, const void* b, int b_rows, int64_t rows,
                                    int groups, int64_t width, int m, int n, int threads, int isa) {
  const kat::Problem p = kat::make_problem(rows, groups, width, m, n);
  switch (dtype) {
    case kat::kFloat32: return kat::forward<float>(x, y, a, a_rows, b, b_rows, p, threads, isa);
    case kat::kFloat64: return kat::forward<double>(x, y, a, a_rows, b, b_rows, p, threads, isa);
    case kat::kBFloat16: return kat::forward<kat::bf16>(x, y, a, a_rows, b, b_rows, p, threads, isa);
    case kat::kFloat16: return kat::forward<kat::f16>(x, y, a, a_rows, b, b_rows, p, threads, isa);
  }
  return 2;
}

KAT_EXPORT int kat_rational_backward(int dtype, const void* g, const void* x, void* dx, const void* a, int a_rows, const void* b, int b_rows,
                                     void* da, void* db, int64_t rows, int groups, int64_t width, int m, int n, int threads, int isa) {
  const kat::Problem p = kat::make_problem(rows, groups, width, m, n);
  switch (dtype) {
    case kat::kFloat32: return kat::backward<float>(g, x, dx, a, a_rows, b, b_rows, da, db, p, threads, isa);
    case kat::kFloat64: return kat::backward<double>(g, x, dx, a, a_rows, b, b_rows, da, db, p, threads, isa);
    case kat::kBFloat16: return kat::backward<kat::bf16>(g, x, dx, a, a_rows, b, b_rows, da, db, p, threads, isa);
    case kat::kFloat16: return kat::backward<kat::f16>(g, x, dx, a, a_rows, b, b_rows, da, db, p, threads, isa);
  }
  return 2;
}
