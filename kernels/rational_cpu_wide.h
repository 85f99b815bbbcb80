// Wide groups: all lanes of a vector have the same coefficients.
#pragma once

#include "rational_cpu_blocks.h"

namespace kat {
namespace {

constexpr int64_t kRowBytes = 256;  // less of a group in a row: strips of several rows
constexpr int64_t kStripElements = 4096;

// A block is walked row by row, so that the addresses run upwards and the hardware prefetches. Groups of few vectors take a
// strip of rows at once: their coefficients and sums would move between memory and registers too often.
template <class S>
int64_t strip_rows(const Problem& p) {
  const int64_t columns = p.columns();
  return p.width * static_cast<int64_t>(sizeof(S)) >= kRowBytes || columns >= kStripElements ? 1 : kStripElements / columns;
}

// Asks for a line of the next strip: the addresses within a strip jump from row to row, which the hardware does not foresee.
// Past the end of the tensor it does nothing. In 16-bit types alone, where it was measured to gain.
template <class S>
KAT_INLINE void prefetch_strip(const S* p, const Block& strip, int64_t columns) {
  const int64_t rows = strip.row_end - strip.row_begin;
  if (rows > 1) __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + rows * columns * sizeof(S)), 0, 2);
}

// One group of a strip, in vectors of L lanes; zeros fill the last. `largest`: L maxima of |x|.
template <class S, int L, int M, int N>
KAT_INLINE void forward_strip(const Forward<S>& k, const Block& b, int group, typename Storage<S>::Compute* largest) {
  using T = typename Storage<S>::Compute;
  using F = typename Vec<T, L>::F;
  const Coefficients<T> c = k.coefficients[group];
  [[maybe_unused]] const int64_t columns = k.problem.columns();
  F top = Storage<T>::template load<L>(largest);
  for (int64_t row = b.row_begin; row < b.row_end; ++row) {
    const int64_t base = (row * k.problem.groups + group) * k.problem.width;
    const S* const in = k.x + base;  // in registers: for all the compiler knows, a store could change k
    S* const out = k.y + base;
    int64_t i = b.col_begin;
    if constexpr (Storage<S>::kPairs && M >= 0 && L > 1) {
      for (; i + 2 * L <= b.col_end; i += 2 * L) {
        F even, odd;
        prefetch_strip(in + i, b, columns);
        prefetch_strip(out + i, b, columns);
        Storage<S>::template load_pair<L>(in + i, even, odd);
        const F a_even = Direct<T, L, M, N>::absolute(even), a_odd = Direct<T, L, M, N>::absolute(odd);
        top = a_even > top ? a_even : top;
        top = a_odd > top ? a_odd : top;
        Storage<S>::template store_pair<L>(out + i, Direct<T, L, M, N>::forward(even, c, k.problem.m, k.problem.n),
                                           Direct<T, L, M, N>::forward(odd, c, k.problem.m, k.problem.n));
      }
    }
    for (; i + L <= b.col_end; i += L) {
      const F x = Storage<S>::template load<L>(in + i);
      const F ax = Direct<T, L, M, N>::absolute(x);
      top = ax > top ? ax : top;
      Storage<S>::template store<L>(out + i, Direct<T, L, M, N>::forward(x, c, k.problem.m, k.problem.n));
    }
    if (i < b.col_end) {
      const F x = load_some<S, L>(in + i, b.col_end - i);
      const F ax = Direct<T, L, M, N>::absolute(x);
      top = ax > top ? ax : top;
      store_some<S, L>(out + i, b.col_end - i, Direct<T, L, M, N>::forward(x, c, k.problem.m, k.problem.n));
    }
  }
  Storage<T>::template store<L>(largest, top);
}

// `sums`: rows of L running sums, m + 1 for the numerator, n for the denominator.
template <class S, int L, int M, int N>
KAT_INLINE void backward_strip(const Backward<S>& k, const Block& b, int group, typename Storage<S>::Compute* largest,
                               typename Storage<S>::Compute* sums) {
  using T = typename Storage<S>::Compute;
  using F = typename Vec<T, L>::F;
  const Coefficients<T> c = k.coefficients[group];
  const int m = M < 0 ? k.problem.m : M, n = N < 0 ? k.problem.n : N;
  [[maybe_unused]] const int64_t columns = k.problem.columns();
  F top = Storage<T>::template load<L>(largest);
  F da[(M < 0 ? kMaxOrder : M) + 1], db[(N < 0 ? kMaxOrder : N) + 1];
  for (int i = 0; i <= m; ++i) da[i] = Storage<T>::template load<L>(sums + i * L);
  for (int j = 1; j <= n; ++j) db[j] = Storage<T>::template load<L>(sums + (m + j) * L);
  for (int64_t row = b.row_begin; row < b.row_end; ++row) {
    const int64_t base = (row * k.problem.groups + group) * k.problem.width;
    const S* const in = k.x + base;
    const S* const grad = k.g + base;
    S* const out = k.dx + base;
    int64_t i = b.col_begin;
    if constexpr (Storage<S>::kPairs && M >= 0 && L > 1) {
      for (; i + 2 * L <= b.col_end; i += 2 * L) {
        F even, odd, g_even, g_odd;
        prefetch_strip(in + i, b, columns);
        prefetch_strip(grad + i, b, columns);
        prefetch_strip(out + i, b, columns);
        Storage<S>::template load_pair<L>(in + i, even, odd);
        Storage<S>::template load_pair<L>(grad + i, g_even, g_odd);
        const F a_even = Direct<T, L, M, N>::absolute(even), a_odd = Direct<T, L, M, N>::absolute(odd);
        top = a_even > top ? a_even : top;
        top = a_odd > top ? a_odd : top;
        const F dx = Direct<T, L, M, N>::backward(g_even, even, c, m, n, da, db);
        Storage<S>::template store_pair<L>(out + i, dx, Direct<T, L, M, N>::backward(g_odd, odd, c, m, n, da, db));
      }
    }
    for (; i + L <= b.col_end; i += L) {
      const F x = Storage<S>::template load<L>(in + i);
      const F g = Storage<S>::template load<L>(grad + i);
      const F ax = Direct<T, L, M, N>::absolute(x);
      top = ax > top ? ax : top;
      Storage<S>::template store<L>(out + i, Direct<T, L, M, N>::backward(g, x, c, m, n, da, db));
    }
    if (i < b.col_end) {
      const F x = load_some<S, L>(in + i, b.col_end - i);
      const F g = load_some<S, L>(grad + i, b.col_end - i);
      const F ax = Direct<T, L, M, N>::absolute(x);
      top = ax > top ? ax : top;
      store_some<S, L>(out + i, b.col_end - i, Direct<T, L, M, N>::backward(g, x, c, m, n, da, db));
    }
  }
  Storage<T>::template store<L>(largest, top);
  for (int i = 0; i <= m; ++i) Storage<T>::template store<L>(sums + i * L, da[i]);
  for (int j = 1; j <= n; ++j) Storage<T>::template store<L>(sums + (m + j) * L, db[j]);
}

template <class T, int LANES>
KAT_INLINE bool exceeds(const T* largest, T limit) {
  bool any = false;
  for (int l = 0; l < LANES; ++l) any |= largest[l] > limit;
  return any;
}

template <class S, int BYTES, int M, int N>
KAT_INLINE void forward_wide(const Forward<S>& k, const Block& b) {
  using T = typename Storage<S>::Compute;
  constexpr int L = BYTES / sizeof(T);
  T* largest = scratch<T>(static_cast<int64_t>(L) * k.problem.groups_per_block(), k.failed);
  if (!largest) return;
  const int64_t step = strip_rows<S>(k.problem);
  for (Block strip = b; strip.row_begin < b.row_end; strip.row_begin += step) {
    strip.row_end = least(strip.row_begin + step, b.row_end);
    for (int group = b.group_begin; group < b.group_end; ++group) {
      forward_strip<S, L, M, N>(k, strip, group, largest + (group - b.group_begin) * L);
    }
  }
  for (int group = b.group_begin; group < b.group_end; ++group) {
    if (exceeds<T, L>(largest + (group - b.group_begin) * L, k.coefficients[group].limit)) forward_careful<S, BYTES, M, N>(k, b, group);
  }
}

template <class S, int BYTES, int M, int N>
KAT_INLINE void backward_wide(const Backward<S>& k, const Block& b, int64_t index) {
  using T = typename Storage<S>::Compute;
  constexpr int L = BYTES / sizeof(T);
  const int size = k.problem.partial_size(), per_block = k.problem.groups_per_block();
  T* memory = scratch<T>(static_cast<int64_t>(L) * per_block * (size + 1), k.failed);
  if (!memory) return;
  const int64_t step = strip_rows<S>(k.problem);
  for (Block strip = b; strip.row_begin < b.row_end; strip.row_begin += step) {
    strip.row_end = least(strip.row_begin + step, b.row_end);
    for (int group = b.group_begin; group < b.group_end; ++group) {
      T* top = memory + static_cast<int64_t>(group - b.group_begin) * L * (size + 1);
      backward_strip<S, L, M, N>(k, strip, group, top, top + L);
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
    if (exceeds<T, L>(top, k.coefficients[group].limit)) backward_careful<S, BYTES, M, N>(k, b, group, partial);
  }
}

}  // namespace
}  // namespace kat
