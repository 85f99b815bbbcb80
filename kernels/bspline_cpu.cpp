// B-splines on the CPU: dense bases, and the three contractions of a KAN layer that never write the dense bases at all.
//
// Each channel's knots become polynomial pieces once per call: a linear continuation to the left, G intervals, a linear
// continuation to the right. In a piece only spline_order + 1 bases are non-zero, so a sample costs spline_order + 1 multiply-adds per
// output whatever the grid size. A derivative only changes the pieces, so one evaluation serves all derivatives.

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <new>

#include "cpu_common.h"

namespace kat {
namespace {

#define KAT_LAMBDA_INLINE __attribute__((always_inline))

constexpr int kMaxSplineOrder = 7;
constexpr int64_t kTileBytes = 16 * 1024;  // of tiles that stay in L1 beside a channel's coefficients
constexpr int64_t kMaxTile = 128;          // rows
constexpr int64_t kGradientBytes = 16 * 1024;  // of the channels that accumulate together, in L1 beside a tile's gradients
constexpr int64_t kCoefBytes = 256 * 1024;     // of the channels that rows pass by together, in L2

struct Shape {
  int64_t rows, in, out, grid;
  int spline_order, derivative;
  int64_t bases() const { return grid + spline_order; }
};

// The spline_order + 1 non-zero bases of one interval as polynomials of u = (x - origin) * scale; W lanes, one per basis.
template <class T, int W>
struct Piece {
  T origin, scale;
  T coefficient[W][W];  // [power][basis]
};

template <class T, int W>
struct Channel {
  const Piece<T, W>* pieces;  // 0: left continuation, 1..G: intervals (1 stands for all if uniform), G + 1: right one
  const T* breaks;            // the G + 1 domain knots; not set if uniform
  T first, last, inverse_width;
  bool uniform;
  int64_t edge;  // interval whose bases the left continuation continues
};

// c[power][basis] of a derivative of the bases on the interval [t_q, t_{q+1}], in powers of u = (x - t_q) / h, by the recurrence of Cox
// and de Boor carried out on polynomials: for the value up to degree spline_order - derivative, for the derivative above. Right for
// h = 0 too.
void interval_polynomials(const double* t, int64_t q, int spline_order, int derivative, double c[][kMaxSplineOrder + 1]) {
  const double h = t[q + 1] - t[q];
  double work[kMaxSplineOrder + 2][kMaxSplineOrder + 2] = {};  // [basis j - (q - spline_order)][power]
  work[spline_order][0] = derivative > spline_order ? 0 : 1;
  for (int p = 1; p <= spline_order; ++p) {
    const bool differentiate = p > spline_order - derivative;
    for (int64_t j = q - p; j <= q; ++j) {
      double* target = work[j - q + spline_order];
      const double* next = work[j + 1 - q + spline_order];
      double result[kMaxSplineOrder + 2] = {};
      const double left = t[j + p] - t[j], right = t[j + p + 1] - t[j + 1];
      for (int n = 0; n < p; ++n) {
        if (left > 0) {
          result[n] += target[n] * (differentiate ? p : t[q] - t[j]) / left;
          result[n + 1] += differentiate ? 0 : target[n] * h / left;
        }
        if (right > 0 && j < q) {
          result[n] += next[n] * (differentiate ? -p : t[j + p + 1] - t[q]) / right;
          result[n + 1] -= differentiate ? 0 : next[n] * h / right;
        }
      }
      for (int n = 0; n <= p; ++n) target[n] = result[n];
    }
  }
  for (int n = 0; n <= spline_order; ++n)
    for (int j = 0; j <= spline_order; ++j) c[n][j] = work[j][n];
}

template <class T, int W>
void set_piece(Piece<T, W>& piece, double origin, double scale, const double c[][kMaxSplineOrder + 1], int degree) {
  piece = {};
  piece.origin = static_cast<T>(origin);
  piece.scale = static_cast<T>(scale);
  for (int n = 0; n <= degree; ++n)
    for (int j = 0; j < W && j <= kMaxSplineOrder; ++j) piece.coefficient[n][j] = static_cast<T>(c[n][j]);
}

// The linear continuation beyond `side` (0 or 1) of interval q as a polynomial of x - edge: the edge's value and slope, or a derivative.
void continuation(const double* t, int64_t q, int side, int spline_order, int derivative, double line[][kMaxSplineOrder + 1]) {
  for (int power = 0; power < 2; ++power) {
    for (int j = 0; j <= kMaxSplineOrder; ++j) line[power][j] = 0;
    if (derivative + power > 1) continue;
    double c[kMaxSplineOrder + 1][kMaxSplineOrder + 1] = {};
    interval_polynomials(t, q, spline_order, derivative + power, c);
    for (int j = 0; j <= spline_order; ++j)
      for (int n = 0; n <= (side ? spline_order : 0); ++n) line[power][j] += c[n][j];
  }
}

enum Status { kFine, kNoMemory, kBadType, kBadKnots, kTooNarrow };

// Whether every knot is a number that does not fall, and whether T tells the knots apart as well as the arithmetic needs.
template <class T>
Status check_knots(const double* t, int64_t count) {
  double largest = 0, narrowest = std::numeric_limits<double>::infinity();
  for (int64_t m = 0; m < count; ++m) {
    if (!std::isfinite(t[m]) || (m > 0 && t[m] < t[m - 1])) return kBadKnots;
    largest = std::max(largest, std::fabs(t[m]));
    if (m > 0 && t[m] > t[m - 1]) narrowest = std::min(narrowest, t[m] - t[m - 1]);
  }
  const bool narrow = largest * std::numeric_limits<T>::epsilon() > 1e-3 * narrowest;
  const bool wide = largest > std::numeric_limits<T>::max() / 4 || 1 / narrowest > std::numeric_limits<T>::max() / 4;
  return sizeof(T) < sizeof(double) && (narrow || wide) ? kTooNarrow : kFine;
}

template <class T, int W>
Channel<T, W> make_channel(const double* t, const Shape& s, Piece<T, W>* pieces, T* breaks) {
  const int k = s.spline_order;
  const int64_t g = s.grid;
  const double first = t[k], last = t[k + g], width = (last - first) / g;
  const double largest = std::max(std::fabs(t[0]), std::fabs(t[g + 2 * k]));
  const double rounding = 4 * largest * std::numeric_limits<T>::epsilon();
  const double tolerance = rounding < 1e-3 * width ? rounding : 1e-3 * width;
  // All that the lookup of a uniform grid computes must be finite; other grids are searched, which no value leads astray.
  bool uniform = std::isfinite(width) && width > 0 && std::isfinite(static_cast<T>(1 / width)) && std::isfinite(static_cast<T>(width * g));
  for (int64_t m = 0; m < g + 2 * k; ++m) {
    const double off = t[m + 1] - t[m] - width;
    uniform = uniform && off <= tolerance && off >= -tolerance;
  }
  double c[kMaxSplineOrder + 1][kMaxSplineOrder + 1], line[2][kMaxSplineOrder + 1];
  const int64_t distinct = uniform ? 1 : g;
  for (int64_t m = 0; m < distinct; ++m) {
    const double h = t[k + m + 1] - t[k + m], scale = h > 0 && std::isfinite(1 / h) ? 1 / h : 0;
    interval_polynomials(t, k + m, k, s.derivative, c);
    set_piece(pieces[m + 1], t[k + m], scale, c, k);
  }
  int64_t edge = 0;  // the first interval that is not a point, in which x = first lies
  while (edge < g - 1 && t[k + edge + 1] <= first) ++edge;
  continuation(t, k + edge, 0, k, s.derivative, line);
  set_piece(pieces[0], first, 1, line, 1);
  continuation(t, k + g - 1, 1, k, s.derivative, line);
  set_piece(pieces[g + 1], last, 1, line, 1);
  if (!uniform)
    for (int64_t m = 0; m <= g; ++m) breaks[m] = static_cast<T>(t[k + m]);
  return {pieces, breaks, static_cast<T>(first), static_cast<T>(last), static_cast<T>(1 / width), uniform, edge};
}

template <class T, int W>
struct Table {
  std::unique_ptr<Piece<T, W>[]> pieces;
  std::unique_ptr<T[]> breaks;
  std::unique_ptr<Channel<T, W>[]> channels;

  Status build(const double* knots, int64_t knot_rows, const Shape& s, int threads) {
    const int64_t count = s.grid + 2 * s.spline_order + 1;
    Status status = kFine;
    for (int64_t i = 0; i < knot_rows; ++i) {
      const Status one = check_knots<T>(knots + i * count, count);
      if (one == kBadKnots) return one;
      if (one != kFine) status = one;
    }
    if (status != kFine) return status;
    pieces.reset(new (std::nothrow) Piece<T, W>[knot_rows * (s.grid + 2)]);
    breaks.reset(new (std::nothrow) T[knot_rows * (s.grid + 1)]);
    channels.reset(new (std::nothrow) Channel<T, W>[s.in]);
    if (!pieces || !breaks || !channels) return kNoMemory;
    parallel_for(knot_rows, threads, [&](int64_t i) {
      channels[i] = make_channel<T, W>(knots + i * count, s, &pieces[i * (s.grid + 2)], &breaks[i * (s.grid + 1)]);
    });
    for (int64_t i = knot_rows; i < s.in; ++i) channels[i] = channels[0];
    return kFine;
  }
};

template <class T, int W>
KAT_INLINE int64_t locate(const Channel<T, W>& channel, T x, int64_t grid) {
  int64_t piece;
  if (channel.uniform) {
    T f = (x - channel.first) * channel.inverse_width;
    f = f > 0 ? f : 0;  // a NaN ends in the first interval and stays a NaN through u
    f = f < static_cast<T>(grid - 1) ? f : static_cast<T>(grid - 1);
    piece = static_cast<int32_t>(f) + 1;
  } else {
    int64_t low = 0;
    for (int64_t n = grid; n > 1;) {
      const int64_t half = n / 2;
      low = x >= channel.breaks[low + half] ? low + half : low;
      n -= half;
    }
    piece = low + 1;
  }
  piece = x < channel.first ? 0 : piece;
  return x > channel.last ? grid + 1 : piece;
}

// The non-zero bases at x; `*begin` is the index of the first. K < 0: the spline order is known at run time only.
template <class T, int W, int K>
KAT_INLINE void evaluate(const Channel<T, W>& channel, T x, const Shape& s, T* values, int64_t* begin) {
  using V = typename Vec<T, W>::F;
  const int64_t index = locate(channel, x, s.grid);
  const bool shared = channel.uniform && index > 0 && index <= s.grid;
  const Piece<T, W>& piece = channel.pieces[shared ? 1 : index];
  const int degree = K < 0 ? (s.spline_order > 1 ? s.spline_order : 1) : K;
  const T u = shared ? (x - channel.first) * channel.inverse_width - static_cast<T>(index - 1) : (x - piece.origin) * piece.scale;
  V sum = Storage<T>::template load<W>(piece.coefficient[degree]);
  for (int n = degree - 1; n >= 0; --n) sum = sum * u + Storage<T>::template load<W>(piece.coefficient[n]);
  Storage<T>::template store<W>(values, sum + (x - x));  // NaN for an infinite x as for a NaN, also beyond a level edge
  *begin = index == 0 ? channel.edge : (index > s.grid ? s.grid : index) - 1;
}

template <class T, int W>
struct Job {
  Shape s;
  const Channel<T, W>* channels;
  const T *x, *scale, *coef, *g;  // coef (in, bases, stride) and g (rows, stride) are padded to whole vectors
  T* result;
  int64_t stride;
  int64_t unit_rows;  // rows of a unit of work of contract, project and dense
  int64_t tile() const { return std::min(kMaxTile, std::max<int64_t>(1, kTileBytes / static_cast<int64_t>(sizeof(T)) / stride)); }
  // Channels whose coefficients fill so many bytes, at least `least`: how often x, y or g is read again falls with it.
  int64_t channels_in(int64_t bytes, int64_t least) const {
    return std::max(least, bytes / (s.bases() * stride * static_cast<int64_t>(sizeof(T))));
  }
};

// One channel's non-zero bases over a tile of rows: values[j][row], and the offset of the first one's coefficients.
template <class T, int W>
struct Tile {
  T values[W][kMaxTile];
  int64_t first[kMaxTile];
};

// On a uniform grid all intervals share their polynomials, so L rows are evaluated at once; false where a row is outside.
template <class T, int W, int K, int L>
KAT_INLINE bool fill_uniform(const Job<T, W>& job, const Channel<T, W>& channel, const T* x, int64_t at, Tile<T, W>& tile) {
  using V = typename Vec<T, L>::F;
  using I = typename Vec<T, L>::I;
  const int spline_order = K < 0 ? job.s.spline_order : K;
  const int64_t step = job.s.in, last = job.s.grid - 1;
  V v;
  for (int l = 0; l < L; ++l) v[l] = x[l * step];
  const auto outside = !((v >= channel.first) & (v <= channel.last));  // a NaN counts as outside
  bool any = false;
  for (int l = 0; l < L; ++l) any |= outside[l] != 0;
  if (any) return false;
  const V f = (v - channel.first) * channel.inverse_width;
  I index = __builtin_convertvector(f, I);
  index = index > static_cast<decltype(+index[0])>(last) ? I{} + static_cast<decltype(+index[0])>(last) : index;
  index = index < 0 ? I{} : index;
  const V u = f - __builtin_convertvector(index, V);
  const Piece<T, W>& piece = channel.pieces[1];
  for (int j = 0; j <= spline_order; ++j) {
    V sum = V{} + piece.coefficient[spline_order][j];
    for (int n = spline_order - 1; n >= 0; --n) sum = sum * u + piece.coefficient[n][j];
    Storage<T>::template store<L>(&tile.values[j][at], sum);
  }
  for (int l = 0; l < L; ++l) tile.first[at + l] = index[l] * job.stride;
  return true;
}

template <class T, int W, int K, int L>
KAT_INLINE void fill(const Job<T, W>& job, int64_t i, int64_t begin, int64_t end, Tile<T, W>& tile) {
  const Channel<T, W>& channel = job.channels[i];
  const Shape& s = job.s;
  const int spline_order = K < 0 ? s.spline_order : K;
  for (int64_t b = begin; b < end;) {
    const int64_t at = b - begin;
    const T* x = job.x + b * s.in + i;
    if (channel.uniform && b + L <= end && fill_uniform<T, W, K, L>(job, channel, x, at, tile)) {
      b += L;
      continue;
    }
    const int64_t stop = std::min(end, b + L);
    for (; b < stop; ++b) {
      T values[W];
      int64_t first;
      evaluate<T, W, K>(channel, job.x[b * s.in + i], s, values, &first);
      for (int j = 0; j <= spline_order; ++j) tile.values[j][b - begin] = values[j];
      tile.first[b - begin] = first * job.stride;
    }
  }
  if (job.scale) {
    for (int64_t b = begin; b < end; ++b)
      for (int j = 0; j <= spline_order; ++j) tile.values[j][b - begin] *= job.scale[b * s.in + i];
  }
}

template <class T, int L>
KAT_INLINE T horizontal_sum(typename Vec<T, L>::F v) {
  if constexpr (L == 1) {
    return v[0];
  } else {
    typename Vec<T, L / 2>::F halves[2];
    std::memcpy(halves, &v, sizeof(v));
    return horizontal_sum<T, L / 2>(halves[0] + halves[1]);
  }
}

// Calls f(i, begin, end) for all tiles of rows of a unit and all channels, a block of channels at a time: however large the
// grid, a block's coefficients come from memory once and from L2 for every further tile.
template <class T, int W, class F>
KAT_INLINE void for_tiles(const Job<T, W>& job, int64_t index, const F& f) {
  const Shape& s = job.s;
  const int64_t first_row = index * job.unit_rows, last_row = std::min(s.rows, first_row + job.unit_rows);
  const int64_t block = job.channels_in(kCoefBytes, 16), tile = job.tile();
  for (int64_t first = 0; first < s.in; first += block) {
    const int64_t last = std::min(s.in, first + block);
    for (int64_t begin = first_row; begin < last_row; begin += tile)
      for (int64_t i = first; i < last; ++i) f(i, begin, std::min(last_row, begin + tile));
  }
}

// result[b, :] = sum_i scale[b, i] sum_j B_j(x[b, i]) coef[i, j, :] for one unit of rows.
// N is the number of vectors in a padded row of outputs where it is known at compile time, else 0 (here and below).
template <class T, int W, int K, int L, int N>
KAT_INLINE void contract_rows(const Job<T, W>& job, int64_t index) {
  using S = Storage<T>;
  const Shape& s = job.s;
  const int spline_order = K < 0 ? s.spline_order : K;
  const int64_t stride = N ? N * L : job.stride, first_row = index * job.unit_rows;
  std::fill(job.result + first_row * stride, job.result + std::min(s.rows, first_row + job.unit_rows) * stride, T(0));
  Tile<T, W> tile;
  for_tiles(job, index, [&](int64_t i, int64_t begin, int64_t end) KAT_LAMBDA_INLINE {
    fill<T, W, K, L>(job, i, begin, end, tile);
    const T* channel = job.coef + i * s.bases() * stride;
    for (int64_t b = 0; b < end - begin; ++b) {
      const T* __restrict c = channel + tile.first[b];
      T* __restrict y = job.result + (begin + b) * stride;
      for (int64_t o = 0; o < stride; o += L) {
        auto sum = S::template load<L>(y + o);
        for (int j = 0; j <= spline_order; ++j) sum += tile.values[j][b] * S::template load<L>(c + j * stride + o);
        S::template store<L>(y + o, sum);
      }
    }
  });
}

// result[b, i] = sum_j B_j(x[b, i]) <coef[i, j, :], g[b, :]> for one unit of rows.
template <class T, int W, int K, int L, int N>
KAT_INLINE void project_rows(const Job<T, W>& job, int64_t index) {
  using S = Storage<T>;
  const Shape& s = job.s;
  const int spline_order = K < 0 ? s.spline_order : K;
  const int64_t stride = N ? N * L : job.stride;
  Tile<T, W> tile;
  for_tiles(job, index, [&](int64_t i, int64_t begin, int64_t end) KAT_LAMBDA_INLINE {
    fill<T, W, K, L>(job, i, begin, end, tile);
    const T* channel = job.coef + i * s.bases() * stride;
    for (int64_t b = 0; b < end - begin; ++b) {
      const T* __restrict c = channel + tile.first[b];
      const T* __restrict g = job.g + (begin + b) * stride;
      typename Vec<T, L>::F sum = {};
      for (int64_t o = 0; o < stride; o += L) {
        auto slope = tile.values[0][b] * S::template load<L>(c + o);
        for (int j = 1; j <= spline_order; ++j) slope += tile.values[j][b] * S::template load<L>(c + j * stride + o);
        sum += slope * S::template load<L>(g + o);
      }
      job.result[(begin + b) * s.in + i] = horizontal_sum<T, L>(sum);
    }
  });
}

// result[i, j, :] = sum_b scale[b, i] B_j(x[b, i]) g[b, :] for one block of channels: each has one writer and rows are
// added in order, so the result does not depend on the number of threads.
template <class T, int W, int K, int L, int N>
KAT_INLINE void accumulate_block(const Job<T, W>& job, int64_t index) {
  using S = Storage<T>;
  const Shape& s = job.s;
  const int spline_order = K < 0 ? s.spline_order : K;
  const int64_t stride = N ? N * L : job.stride;
  const int64_t block = job.channels_in(kGradientBytes, 2);
  const int64_t first_channel = index * block, last_channel = std::min(s.in, first_channel + block);
  std::fill(job.result + first_channel * s.bases() * stride, job.result + last_channel * s.bases() * stride, T(0));
  Tile<T, W> tile;
  for (int64_t begin = 0; begin < s.rows; begin += job.tile()) {
    const int64_t end = std::min(s.rows, begin + job.tile());
    for (int64_t i = first_channel; i < last_channel; ++i) {
      fill<T, W, K, L>(job, i, begin, end, tile);
      T* channel = job.result + i * s.bases() * stride;
      for (int64_t b = 0; b < end - begin; ++b) {
        T* __restrict w = channel + tile.first[b];
        const T* __restrict g = job.g + (begin + b) * stride;
        if (tile.values[0][b] != tile.values[0][b]) {  // every basis of a position that is not finite
          for (int64_t m = 0; m < s.bases() * stride; ++m) channel[m] += tile.values[0][b];
          continue;
        }
        for (int64_t o = 0; o < stride; o += L) {
          const auto v = S::template load<L>(g + o);
          for (int j = 0; j <= spline_order; ++j) {
            T* p = w + j * stride + o;
            S::template store<L>(p, S::template load<L>(p) + tile.values[j][b] * v);
          }
        }
      }
    }
  }
}

// result[b, i, :]: all bases, dense.
template <class T, int W, int K, int L>
KAT_INLINE void dense_tile(const Job<T, W>& job, int64_t index) {
  const Shape& s = job.s;
  const int spline_order = K < 0 ? s.spline_order : K;
  const int64_t begin = index * job.unit_rows, end = std::min(s.rows, begin + job.unit_rows);
  Tile<T, W> tile;
  std::fill(job.result + begin * job.stride, job.result + end * job.stride, T(0));
  for (int64_t i = 0; i < s.in; ++i) {
    fill<T, W, K, L>(job, i, begin, end, tile);
    for (int64_t b = 0; b < end - begin; ++b) {
      T* y = job.result + (begin + b) * job.stride + i * s.bases() + tile.first[b] / job.stride;
      if (tile.values[0][b] != tile.values[0][b]) {
        y = job.result + (begin + b) * job.stride + i * s.bases();
        std::fill(y, y + s.bases(), tile.values[0][b]);
        continue;
      }
      for (int j = 0; j <= spline_order; ++j) y[j] = tile.values[j][b];
    }
  }
}

enum Task : int { kContract = 0, kProject = 1, kAccumulate = 2, kDense = 3 };

template <class T, int W, int K, int L, int N>
KAT_INLINE void unit_of(const Job<T, W>& job, int task, int64_t index) {
  if (task == kContract) contract_rows<T, W, K, L, N>(job, index);
  if (task == kProject) project_rows<T, W, K, L, N>(job, index);
  if (task == kAccumulate) accumulate_block<T, W, K, L, N>(job, index);
}

template <class T, int W, int K, int L>
KAT_INLINE void unit(const Job<T, W>& job, int task, int64_t index) {
  if (task == kDense) return dense_tile<T, W, K, L>(job, index);
  if constexpr (K == 3) {
    if (job.stride == L) return unit_of<T, W, K, L, 1>(job, task, index);
    if (job.stride == 4 * L) return unit_of<T, W, K, L, 4>(job, task, index);
  }
  unit_of<T, W, K, L, 0>(job, task, index);
}

#define KAT_UNITS(NAME, TARGET, BYTES)                                     \
  template <class T, int W, int K>                                         \
  TARGET void unit_##NAME(const Job<T, W>& job, int task, int64_t index) { \
    unit<T, W, K, BYTES / sizeof(T)>(job, task, index);                    \
  }
KAT_UNITS(portable, , 16)
#if KAT_X86
KAT_UNITS(avx2, KAT_TARGET_AVX2, 32)
KAT_UNITS(avx512, KAT_TARGET_AVX512, 64)
#endif

// Cache-line aligned: a vector that straddles two lines costs two loads.
template <class T>
struct Buffer {
  T* data = nullptr;
  ~Buffer() { ::operator delete[](data, std::align_val_t(64)); }
  bool allocate(int64_t n) {
    data = static_cast<T*>(::operator new[](n * sizeof(T), std::align_val_t(64), std::nothrow));
    return data != nullptr;
  }
};

// `from` itself where its rows are whole vectors, else a zero-padded copy in `copy`.
template <class T>
const T* padded(const T* from, int64_t rows, int64_t out, int64_t stride, Buffer<T>& copy) {
  if (from == nullptr || out == stride) return from;
  if (!copy.allocate(rows * stride)) return nullptr;
  for (int64_t r = 0; r < rows; ++r) {
    T* to = copy.data + r * stride;
    std::copy(from + r * out, from + (r + 1) * out, to);
    std::fill(to + out, to + stride, T(0));
  }
  return copy.data;
}

template <class T, int W, int K>
int run(int task, const void* x, const void* scale, const void* coef, const void* g, void* result, const double* knots, int64_t knot_rows,
        const Shape& s, int threads, int isa) {
  if (task != kDense && s.out == 0) {  // sums over no outputs
    std::fill(static_cast<T*>(result), static_cast<T*>(result) + (task == kProject ? s.rows * s.in : 0), T(0));
    return kFine;
  }
  Table<T, W> table;
  if (const Status status = table.build(knots, knot_rows, s, threads); status != kFine) return status;
  const int64_t lanes = (isa == kAvx512 ? 64 : isa == kAvx2 ? 32 : 16) / static_cast<int64_t>(sizeof(T));
  const int64_t stride = task == kDense ? s.in * s.bases() : (s.out + lanes - 1) / lanes * lanes;
  Buffer<T> coef_copy, g_copy, result_copy;
  Job<T, W> job{s, table.channels.get(), static_cast<const T*>(x), static_cast<const T*>(scale), nullptr, nullptr, static_cast<T*>(result), stride, 0};
  job.coef = padded(static_cast<const T*>(coef), s.in * s.bases(), s.out, stride, coef_copy);
  job.g = padded(static_cast<const T*>(g), s.rows, s.out, stride, g_copy);
  if ((coef && !job.coef) || (g && !job.g)) return kNoMemory;
  const bool by_output = task == kContract || task == kAccumulate;
  const int64_t result_rows = task == kContract ? s.rows : s.in * s.bases();
  const int64_t results = task == kDense ? s.rows * stride : task == kProject ? s.rows * s.in : result_rows * s.out;
  advise_huge_pages(result, results * static_cast<int64_t>(sizeof(T)));
  if (by_output && stride != s.out) {
    if (!result_copy.allocate(result_rows * stride)) return kNoMemory;
    job.result = result_copy.data;
  }
  auto* work = unit_portable<T, W, K>;
#if KAT_X86
  if (isa == kAvx2) work = unit_avx2<T, W, K>;
  if (isa == kAvx512) work = unit_avx512<T, W, K>;
#endif
  const int64_t tile = job.tile(), tiles = (s.rows + tile - 1) / tile;
  // Several units a thread, so that a busy core does not hold up the others; the result does not depend on it.
  const int64_t tiles_per_unit = task == kDense ? 1 : threads > 1 ? (tiles + 4 * threads - 1) / (4 * threads) : tiles;
  job.unit_rows = tiles_per_unit * tile;
  const int64_t block = job.channels_in(kGradientBytes, 2);
  const int64_t units = task == kAccumulate ? (s.in + block - 1) / block : (tiles + tiles_per_unit - 1) / tiles_per_unit;
  parallel_for(units, threads, [&](int64_t i) { work(job, task, i); });
  if (result_copy.data) {
    for (int64_t r = 0; r < result_rows; ++r) {
      const T* from = result_copy.data + r * stride;
      std::copy(from, from + s.out, static_cast<T*>(result) + r * s.out);
    }
  }
  return 0;
}

template <class T>
int choose(int task, const void* x, const void* scale, const void* coef, const void* g, void* result, const double* knots, int64_t knot_rows,
           const Shape& s, int threads, int isa) {
  if (s.spline_order == 3) return run<T, 4, 3>(task, x, scale, coef, g, result, knots, knot_rows, s, threads, isa);
  if (s.spline_order < 3) return run<T, 4, -1>(task, x, scale, coef, g, result, knots, knot_rows, s, threads, isa);
  return run<T, 8, -1>(task, x, scale, coef, g, result, knots, knot_rows, s, threads, isa);
}

}  // namespace
}  // namespace kat

// Tasks as in kat::Task; unused pointers are null. Returns kat::Status: 4, where float32 does not tell the knots apart, asks for float64.
KAT_EXPORT int kat_spline(int task, int dtype, const void* x, const void* scale, const void* coef, const void* g, void* result,
                          const void* knots, int64_t knot_rows, int64_t rows, int64_t in, int64_t out, int64_t grid, int spline_order,
                          int derivative, int threads, int isa) {
  if (spline_order < 0 || spline_order > kat::kMaxSplineOrder) return kat::kBadType;
  const kat::Shape shape{rows, in, out, grid, spline_order, derivative};
  const double* t = static_cast<const double*>(knots);
  switch (dtype) {
    case kat::kFloat32: return kat::choose<float>(task, x, scale, coef, g, result, t, knot_rows, shape, threads, isa);
    case kat::kFloat64: return kat::choose<double>(task, x, scale, coef, g, result, t, knot_rows, shape, threads, isa);
  }
  return kat::kBadType;
}
