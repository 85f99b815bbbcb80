// How a tensor of `rows` contiguous rows of `groups * width` elements is cut into blocks, by its shape alone.
#pragma once

#include "rational_cpu_formula.h"

#include <atomic>
#include <memory>
#include <new>

namespace kat {
namespace {

constexpr int64_t kBlockElements = 16384;  // 64 KiB of float32 a stream: stays in L2 next to its gradient and result
constexpr int64_t kNarrowBlockElements = 49152;  // each has sums of its own to add up
constexpr int64_t kTileWidth = 4096;       // a wider group (NCHW: channels x pixels) is cut into tiles of this many columns

struct Problem {
  int64_t rows, width;  // width: contiguous elements of one group in a row
  int groups, m, n;
  int64_t row_blocks, rows_per_block, tiles;  // tiles > 1: columns of one group are cut; 1: a block holds all groups
  // Whether vectors would not fill up with one group: then they are shared by several, see rational_narrow.h.
  bool narrow() const { return width < 128 && width % 16; }
  int64_t columns() const { return width * groups; }
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
  const int64_t elements = p.narrow() ? kNarrowBlockElements : kBlockElements;
  p.rows_per_block = columns >= elements ? 1 : (elements + columns - 1) / columns;
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

template <class S>
struct Forward {
  using T = typename Storage<S>::Compute;
  const S* x;
  S* y;
  const Coefficients<T>* coefficients;
  const T* table;  // of narrow groups: the same by columns
  Problem problem;
  std::atomic<bool>* failed;  // no memory for a thread's work space
};

template <class S>
struct Backward {
  using T = typename Storage<S>::Compute;
  const S* g;
  const S* x;
  S* dx;
  const Coefficients<T>* coefficients;
  const T* table;
  T* partials;  // [blocks, groups_per_block, m + 1 + n]
  Problem problem;
  std::atomic<bool>* failed;
};

// The first `count` elements, and zeros behind them.
template <class S, int L>
KAT_INLINE typename Vec<typename Storage<S>::Compute, L>::F load_some(const S* p, int64_t count) {
  S buffer[L] = {};
  std::memcpy(buffer, p, count * sizeof(S));
  return Storage<S>::template load<L>(buffer);
}

template <class S, int L>
KAT_INLINE typename Vec<typename Storage<S>::Compute, L>::F load_at_most(const S* p, int64_t count) {
  return count >= L ? Storage<S>::template load<L>(p) : load_some<S, L>(p, count);
}

template <class S, int L>
KAT_INLINE void store_some(S* p, int64_t count, typename Vec<typename Storage<S>::Compute, L>::F v) {
  S buffer[L];
  Storage<S>::template store<L>(buffer, v);
  std::memcpy(p, buffer, count * sizeof(S));
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Whether a lane of a comparison's result holds.
template <class I>
KAT_INLINE bool any_of(I lanes) {
  uint64_t words[sizeof(I) / 8], some = 0;
  std::memcpy(words, &lanes, sizeof(I));
  for (uint64_t word : words) some |= word;
  return some != 0;
}

// The elements of a group in a block that are beyond its limit, again in powers of 1/x; the others are right.
template <class S, int BYTES, int M, int N>
KAT_INLINE void forward_careful(const Forward<S>& k, const Block& b, int group) {
  using T = typename Storage<S>::Compute;
  constexpr int L = BYTES / sizeof(T);
  using F = typename Vec<T, L>::F;
  const Coefficients<T>& c = k.coefficients[group];
  for (int64_t row = b.row_begin; row < b.row_end; ++row) {
    const int64_t base = (row * k.problem.groups + group) * k.problem.width;
    for (int64_t i = b.col_begin; i < b.col_end; i += L) {
      const int64_t count = least(L, b.col_end - i);
      const F x = load_at_most<S, L>(k.x + base + i, count);
      if (!any_of(Direct<T, L, M, N>::absolute(x) > c.limit)) continue;
      for (int64_t j = 0; j < count; ++j) {
        if (std::fabs(x[j]) > c.limit) Storage<S>::template store<1>(k.y + base + i + j, typename Vec<T, 1>::F{Careful<T>::forward(x[j], c)});
      }
    }
  }
}

// The same for the gradients. An element beyond the limit has spoiled the sums of its lane, so they are made again: without such
// elements, which then add theirs one at a time.
template <class S, int BYTES, int M, int N>
KAT_INLINE void backward_careful(const Backward<S>& k, const Block& b, int group, typename Storage<S>::Compute* partial) {
  using T = typename Storage<S>::Compute;
  constexpr int L = BYTES / sizeof(T);
  using F = typename Vec<T, L>::F;
  using I = typename Vec<T, L>::I;
  const Coefficients<T>& c = k.coefficients[group];
  const int m = k.problem.m, n = k.problem.n;
  F da[kMaxOrder + 1] = {}, db[kMaxOrder + 1] = {};
  T far_da[kMaxOrder + 1] = {}, far_db[kMaxOrder + 1] = {};
  for (int64_t row = b.row_begin; row < b.row_end; ++row) {
    const int64_t base = (row * k.problem.groups + group) * k.problem.width;
    for (int64_t i = b.col_begin; i < b.col_end; i += L) {
      const int64_t count = least(L, b.col_end - i);
      const F x = load_at_most<S, L>(k.x + base + i, count);
      const F g = load_at_most<S, L>(k.g + base + i, count);
      const I far = Direct<T, L, M, N>::absolute(x) > c.limit;
      const F near_x = bit_cast<F>(bit_cast<I>(x) & ~far), near_g = bit_cast<F>(bit_cast<I>(g) & ~far);
      Direct<T, L, M, N>::backward(near_g, near_x, c, m, n, da, db);
      if (!any_of(far)) continue;
      for (int64_t j = 0; j < count; ++j) {
        if (!far[j]) continue;
        const T dx = Careful<T>::backward(g[j], x[j], c, m, n, far_da, far_db);
        Storage<S>::template store<1>(k.dx + base + i + j, typename Vec<T, 1>::F{dx});
      }
    }
  }
  for (int i = 0; i <= m; ++i) partial[i] = far_da[i];
  for (int j = 1; j <= n; ++j) partial[m + j] = far_db[j];
  for (int l = 0; l < L; ++l) {
    for (int i = 0; i <= m; ++i) partial[i] += da[i][l];
    for (int j = 1; j <= n; ++j) partial[m + j] += db[j][l];
  }
}

// Work space of one thread for the maxima and the sums of a block, kept between calls; zeros. Null and a note in `failed` where
// there is no memory: an exception must not leave a thread of the pool.
template <class T>
T* scratch(int64_t size, std::atomic<bool>* failed) {
  static thread_local std::unique_ptr<T[]> memory;
  static thread_local int64_t capacity = 0;
  if (capacity < size) {
    memory.reset(new (std::nothrow) T[size]);
    capacity = memory ? size : 0;
  }
  if (!memory) {
    failed->store(true, std::memory_order_relaxed);
    return nullptr;
  }
  for (int64_t i = 0; i < size; ++i) memory[i] = 0;
  return memory.get();
}

}  // namespace
}  // namespace kat
