// The group-rational activation on the CPU: y = P(x) / Q(x), Q = 1 + |b1||x| + ... + |bn||x|^n, coefficients per channel group.
//
// The tensor arrives as `rows` contiguous rows of `groups * width` elements. It is cut into blocks by its shape alone; each
// block writes its own partial sums of the coefficient gradients, which are added in a fixed order in float64. So the result
// does not depend on the number of threads. Only x is read in the backward: P and Q are recomputed.

#include "rational_cpu_narrow.h"
#include "rational_cpu_wide.h"

#include <new>
#if KAT_X86
#include <cpuid.h>
#endif

namespace kat {

GompParallel gomp_parallel = nullptr;
OmpThreadNum omp_thread_num = nullptr;

namespace {

constexpr int kBytes[] = {16, 32, 64};  // of a vector of each Isa

#define KAT_BLOCKS(NAME, TARGET, BYTES)                                              \
  template <class S, int M, int N>                                                   \
  TARGET void forward_##NAME(const Forward<S>& k, const Block& b) {                  \
    if (k.table) return forward_narrow<S, BYTES, M, N>(k, b);                        \
    forward_wide<S, BYTES, M, N>(k, b);                                              \
  }                                                                                  \
  template <class S, int M, int N>                                                   \
  TARGET void backward_##NAME(const Backward<S>& k, const Block& b, int64_t index) { \
    if (k.table) return backward_narrow<S, BYTES, M, N>(k, b, index);                \
    backward_wide<S, BYTES, M, N>(k, b, index);                                      \
  }
KAT_BLOCKS(portable, , kBytes[kPortable])
#if KAT_X86
KAT_BLOCKS(avx2, KAT_TARGET_AVX2, kBytes[kAvx2])
KAT_BLOCKS(avx512, KAT_TARGET_AVX512, kBytes[kAvx512])
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

// The table of a narrow problem; empty for a wide one. False: no memory.
template <class T>
bool make_table(const Coefficients<T>* packed, const Problem& p, int isa, std::unique_ptr<T[]>& table) {
  if (!p.narrow()) return true;
  table = lay_out(packed, p, kBytes[isa] / static_cast<int64_t>(sizeof(T)));
  return table != nullptr;
}

template <class S>
int forward(const void* x, void* y, const void* a, int a_rows, const void* b, int b_rows, const Problem& p, int threads, int isa) {
  using T = typename Storage<S>::Compute;
  const auto packed = pack_all(static_cast<const T*>(a), a_rows, static_cast<const T*>(b), b_rows, p);
  std::unique_ptr<T[]> table;
  if (!packed || !make_table<T>(packed.get(), p, isa, table)) return 1;
  advise_huge_pages(y, p.rows * p.groups * p.width * static_cast<int64_t>(sizeof(S)));
  std::atomic<bool> failed{false};
  const Forward<S> k{static_cast<const S*>(x), static_cast<S*>(y), packed.get(), table.get(), p, &failed};
  if (p.m == 5 && p.n == 4) {
    run_forward<S, 5, 4>(k, threads, isa);
  } else {
    run_forward<S, -1, -1>(k, threads, isa);
  }
  return failed ? 1 : 0;
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
  std::unique_ptr<T[]> table;
  if (!packed || !partials || !sums || !make_table<T>(packed.get(), p, isa, table)) return 1;
  advise_huge_pages(dx, p.rows * p.groups * p.width * static_cast<int64_t>(sizeof(S)));
  std::atomic<bool> failed{false};
  const Backward<S> k{static_cast<const S*>(g), static_cast<const S*>(x), static_cast<S*>(dx), packed.get(), table.get(), partials.get(), p,
                      &failed};
  if (p.m == 5 && p.n == 4) {
    run_backward<S, 5, 4>(k, threads, isa);
  } else {
    run_backward<S, -1, -1>(k, threads, isa);
  }
  if (failed) return 1;
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

KAT_EXPORT void kat_set_openmp(void* parallel, void* thread_num) {
  kat::gomp_parallel = reinterpret_cast<kat::GompParallel>(parallel);
  kat::omp_thread_num = reinterpret_cast<kat::OmpThreadNum>(thread_num);
}

// By the instruction itself: __builtin_cpu_supports reads a table of the compiler's runtime library, which stays empty under Zig.
KAT_EXPORT int kat_best_isa() {
#if KAT_X86
  const auto all = [](unsigned bits, unsigned wanted) { return (bits & wanted) == wanted; };
  unsigned a, b, c, d, kept, high;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !all(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C)) return kat::kPortable;
  __asm__("xgetbv" : "=a"(kept), "=d"(high) : "c"(0));  // registers that the operating system keeps
  if (!all(kept, 0x6) || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !all(b, bit_AVX2 | bit_BMI | bit_BMI2)) return kat::kPortable;
  return all(kept, 0xe6) && all(b, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL) ? kat::kAvx512 : kat::kAvx2;
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
