// Narrow groups: neighboring lanes of a vector belong to different groups, so each lane has coefficients and sums of its own.
//
// Rows follow each other without a gap, so that a vector of the same coefficients comes again after `period` elements: the least
// common multiple of a row and a vector, or, where that is long, one row, whose last vector is then filled with zeros. A block, which
// fits into the second cache, is walked once for each vector of the period, with its coefficients and sums in registers.
#pragma once

#include "rational_cpu_blocks.h"

#include <numeric>

namespace kat {
namespace {

constexpr int64_t kLongestPeriod = 1024;

inline int64_t period_of(const Problem& p, int64_t lanes) {
  const int64_t together = std::lcm(p.columns(), lanes);
  return together <= kLongestPeriod ? together : p.columns();
}

inline int64_t vectors_of(int64_t period, int64_t lanes) { return (period + lanes - 1) / lanes; }

// [vectors, a_0..a_m, i a_i (1..m), |b_1|..|b_n|, j |b_j| (1..n), lanes]
template <class T>
std::unique_ptr<T[]> lay_out(const Coefficients<T>* coefficients, const Problem& p, int64_t lanes) {
  const int64_t vectors = vectors_of(period_of(p, lanes), lanes);
  std::unique_ptr<T[]> table(new (std::nothrow) T[vectors * (2 * p.m + 1 + 2 * p.n) * lanes]);
  if (!table) return table;
  for (int64_t v = 0; v < vectors; ++v) {
    T* out = table.get() + v * (2 * p.m + 1 + 2 * p.n) * lanes;
    for (int64_t l = 0; l < lanes; ++l) {
      const Coefficients<T>& c = coefficients[(v * lanes + l) % p.columns() / p.width];
      T* o = out + l;
      for (int i = 0; i <= p.m; ++i, o += lanes) *o = c.a[i];
      for (int i = 1; i <= p.m; ++i, o += lanes) *o = c.ia[i];
      for (int j = 1; j <= p.n; ++j, o += lanes) *o = c.b[j];
      for (int j = 1; j <= p.n; ++j, o += lanes) *o = c.jb[j];
    }
  }
  return table;
}

template <class T, int L>
KAT_INLINE Polynomials<typename Vec<T, L>::F> take(const T* table, int64_t vector, int m, int n) {
  Polynomials<typename Vec<T, L>::F> c;
  const T* t = table + vector * (2 * m + 1 + 2 * n) * L;
  for (int i = 0; i <= m; ++i, t += L) c.a[i] = Storage<T>::template load<L>(t);
  for (int i = 1; i <= m; ++i, t += L) c.ia[i] = Storage<T>::template load<L>(t);
  c.b[0] = typename Vec<T, L>::F{} + T(1);
  for (int j = 1; j <= n; ++j, t += L) c.b[j] = Storage<T>::template load<L>(t);
  for (int j = 1; j <= n; ++j, t += L) c.jb[j] = Storage<T>::template load<L>(t);
  return c;
}

// Whether an element of `group` was too large: largest[i * stride] holds the maximum of the i-th lane of the period.
template <class T, int L>
bool group_exceeds(const T* largest, int64_t stride, const Problem& p, int64_t period, int group, T limit) {
  bool any = false;
  for (int64_t first = group * p.width; first < period; first += p.columns()) {
    for (int64_t i = first; i < first + p.width; ++i) any |= largest[i / L * stride + i % L] > limit;
  }
  return any;
}

template <class S, int BYTES, int M, int N>
KAT_INLINE void forward_narrow(const Forward<S>& k, const Block& b) {
  using T = typename Storage<S>::Compute;
  constexpr int L = BYTES / sizeof(T);
  using F = typename Vec<T, L>::F;
  const Problem& p = k.problem;
  const int m = M < 0 ? p.m : M, n = N < 0 ? p.n : N;
  const int64_t period = period_of(p, L), vectors = vectors_of(period, L);
  const int64_t begin = b.row_begin * p.columns(), end = b.row_end * p.columns();
  T* largest = scratch<T>(vectors * L, k.failed);
  if (!largest) return;
  for (int64_t v = 0; v < vectors; ++v) {
    const Polynomials<F> c = take<T, L>(k.table, v, m, n);
    F top{};
    const int64_t lanes = least(L, period - v * L);
    int64_t i = begin + v * L;
    if (lanes == L) {
      for (; i + L <= end; i += period) {
        const F x = Storage<S>::template load<L>(k.x + i);
        const F ax = Direct<T, L, M, N>::absolute(x);
        top = ax > top ? ax : top;
        Storage<S>::template store<L>(k.y + i, Direct<T, L, M, N>::forward(x, c, m, n));
      }
    }
    for (; i < end; i += period) {
      const int64_t count = least(lanes, end - i);
      const F x = load_some<S, L>(k.x + i, count);
      const F ax = Direct<T, L, M, N>::absolute(x);
      top = ax > top ? ax : top;
      store_some<S, L>(k.y + i, count, Direct<T, L, M, N>::forward(x, c, m, n));
    }
    Storage<T>::template store<L>(largest + v * L, top);
  }
  for (int group = 0; group < p.groups; ++group) {
    if (group_exceeds<T, L>(largest, L, p, period, group, k.coefficients[group].limit)) forward_careful<S, BYTES, M, N>(k, b, group);
  }
}

template <class S, int BYTES, int M, int N>
KAT_INLINE void backward_narrow(const Backward<S>& k, const Block& b, int64_t index) {
  using T = typename Storage<S>::Compute;
  constexpr int L = BYTES / sizeof(T);
  using F = typename Vec<T, L>::F;
  const Problem& p = k.problem;
  const int m = M < 0 ? p.m : M, n = N < 0 ? p.n : N, size = p.partial_size();
  const int64_t period = period_of(p, L), vectors = vectors_of(period, L);
  const int64_t begin = b.row_begin * p.columns(), end = b.row_end * p.columns();
  const int64_t stride = (1 + size) * L;  // of a vector: its maxima, then its sums
  T* memory = scratch<T>(vectors * stride, k.failed);
  if (!memory) return;
  for (int64_t v = 0; v < vectors; ++v) {
    const Polynomials<F> c = take<T, L>(k.table, v, m, n);
    T* sums = memory + v * stride;
    F top{}, da[(M < 0 ? kMaxOrder : M) + 1] = {}, db[(N < 0 ? kMaxOrder : N) + 1] = {};
    const int64_t lanes = least(L, period - v * L);
    int64_t i = begin + v * L;
    if (lanes == L) {
      for (; i + L <= end; i += period) {
        const F x = Storage<S>::template load<L>(k.x + i);
        const F g = Storage<S>::template load<L>(k.g + i);
        const F ax = Direct<T, L, M, N>::absolute(x);
        top = ax > top ? ax : top;
        Storage<S>::template store<L>(k.dx + i, Direct<T, L, M, N>::backward(g, x, c, m, n, da, db));
      }
    }
    for (; i < end; i += period) {
      const int64_t count = least(lanes, end - i);
      const F x = load_some<S, L>(k.x + i, count);
      const F g = load_some<S, L>(k.g + i, count);
      const F ax = Direct<T, L, M, N>::absolute(x);
      top = ax > top ? ax : top;
      store_some<S, L>(k.dx + i, count, Direct<T, L, M, N>::backward(g, x, c, m, n, da, db));
    }
    Storage<T>::template store<L>(sums, top);
    for (int i = 0; i <= m; ++i) Storage<T>::template store<L>(sums + (1 + i) * L, da[i]);
    for (int j = 1; j <= n; ++j) Storage<T>::template store<L>(sums + (1 + m + j) * L, db[j]);
  }
  T* partials = k.partials + index * p.groups * size;
  for (int64_t i = 0; i < p.groups * size; ++i) partials[i] = 0;
  for (int64_t i = 0; i < period; ++i) {
    const T* sums = memory + i / L * stride + L + i % L;
    T* partial = partials + i % p.columns() / p.width * size;
    for (int j = 0; j < size; ++j) partial[j] += sums[j * L];
  }
  for (int group = 0; group < p.groups; ++group) {
    if (!group_exceeds<T, L>(memory, stride, p, period, group, k.coefficients[group].limit)) continue;
    backward_careful<S, BYTES, M, N>(k, b, group, partials + group * size);
  }
}

}  // namespace
}  // namespace kat
