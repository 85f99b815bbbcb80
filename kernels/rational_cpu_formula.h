// One vector, or one element, of the group-rational activation: y = P(x) / Q(x), Q = 1 + |b1||x| + ... + |bn||x|^n.
#pragma once

#include "cpu_common.h"

#include <cmath>
#include <limits>
#include <type_traits>

namespace kat {
namespace {

constexpr int kMaxOrder = 8;

// V: one number for all lanes of a vector, or a vector of them.
template <class V>
struct Polynomials {
  V a[kMaxOrder + 1];   // numerator
  V ia[kMaxOrder + 1];  // i * a_i, of P'
  V b[kMaxOrder + 1];   // |denominator|, b[0] = 1
  V jb[kMaxOrder + 1];  // j * |b_j|, of Q'
};

template <class T>
struct Coefficients : Polynomials<T> {
  T limit;              // beyond this |x| a power may overflow: the block is done again in powers of 1/x
  int top_a, top_b;     // degrees without trailing zero coefficients
};

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

  static KAT_INLINE F spread(T v) { return F{} + v; }
  static KAT_INLINE F spread(F v) { return v; }

  template <class V>
  static KAT_INLINE F horner(F x, const V* c, int low, int high) {
    F p = spread(c[high]);
    for (int i = high - 1; i >= low; --i) p = p * x + c[i];
    return p;
  }

  template <class V>
  static KAT_INLINE F forward(F x, const Polynomials<V>& c, int m, int n) {
    m = M < 0 ? m : M, n = N < 0 ? n : N;
    return horner(x, c.a, 0, m) / horner(absolute(x), c.b, 0, n);
  }

  // Returns dx; adds to da[0..m] and db[1..n] (db without the sign of b).
  template <class V>
  static KAT_INLINE F backward(F g, F x, const Polynomials<V>& c, int m, int n, F* da, F* db) {
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

}  // namespace
}  // namespace kat
