// Shared by the CPU kernels: the choice of an instruction set at run time and torch's own thread pool.
//
// Every kernel body is a template written in GCC/Clang vector extensions and forced inline into one wrapper per instruction
// set, so that one source serves the portable build (SSE2, NEON, ...) and AVX2 / AVX-512 without intrinsics.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#define KAT_EXPORT extern "C" __attribute__((visibility("default")))
#define KAT_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__)
#define KAT_X86 1
#define KAT_TARGET_AVX2 __attribute__((target("avx2,fma,f16c,bmi,bmi2")))
#define KAT_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2")))
#else
#define KAT_X86 0
#endif

namespace kat {

// The numbers are part of the interface of cpu_library.py.
enum Isa : int { kPortable = 0, kAvx2 = 1, kAvx512 = 2 };
enum DType : int { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3 };

// GOMP_parallel and omp_get_thread_num of the OpenMP runtime that torch has loaded; null: one thread. Linking a runtime of our own
// would start a second pool beside torch's. Defined in rational_cpu.cpp.
using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
using OmpThreadNum = int (*)();
extern GompParallel gomp_parallel;
extern OmpThreadNum omp_thread_num;

constexpr int kMaxTeam = 256;

// Calls f(i) for i in [0, n). Each thread of the team begins with its own stretch, the one that torch's operators before and
// after give it, so that a core finds in its cache what it wrote there. Then it helps the others: a slow core holds nobody up,
// and a pool that gives fewer threads than asked for still does all the work. Results may depend on i alone.
template <class F>
void parallel_for(int64_t n, int threads, const F& f) {
  if (threads <= 1 || n <= 1 || gomp_parallel == nullptr || omp_thread_num == nullptr) {
    for (int64_t i = 0; i < n; ++i) f(i);
    return;
  }
  struct alignas(64) Stretch {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };
  struct Shared {
    const F* f;
    int team;
    Stretch stretches[kMaxTeam];
  } shared;
  shared.f = &f;
  shared.team = static_cast<int>(n < threads ? n : threads);
  if (shared.team > kMaxTeam) shared.team = kMaxTeam;
  for (int t = 0; t < shared.team; ++t) {
    shared.stretches[t].next = n * t / shared.team;
    shared.stretches[t].end = n * (t + 1) / shared.team;
  }
  auto body = [](void* p) {
    auto* s = static_cast<Shared*>(p);
    const int own = omp_thread_num();
    for (int k = 0; k < s->team; ++k) {
      Stretch& stretch = s->stretches[(own + k) % s->team];
      for (int64_t i; (i = stretch.next.fetch_add(1, std::memory_order_relaxed)) < stretch.end;) (*s->f)(i);
    }
  };
  gomp_parallel(body, &shared, static_cast<unsigned>(shared.team), 0);
}

constexpr uintptr_t kHugePage = uintptr_t(1) << 21;
// A result of 18.5 MiB and its gradient may go back to the system when they are freed; then they cost 4700 page faults each
// time anew, which the advice was seen to remove. Where the allocator has kept the memory, it cost nothing measurable.
constexpr int64_t kAdviseFrom = int64_t(1) << 23;

// Asks for huge pages under a result that is about to be written. A large result is fresh memory, and its page faults cost
// more than the arithmetic: 512 times fewer of them is the gain. Only the huge pages that lie wholly inside are named, so
// no memory is used that the tensor does not fill. Advice alone: elsewhere than on Linux, or refused, nothing changes.
inline void advise_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  if (bytes < kAdviseFrom) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / kHugePage * kHugePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Vectors of L lanes of float or double and the integers of their width.
template <class T, int L>
struct Vec;
template <int L>
struct Vec<float, L> {
  typedef float F __attribute__((vector_size(L * 4)));
  typedef int32_t I __attribute__((vector_size(L * 4)));
  typedef uint32_t U __attribute__((vector_size(L * 4)));
  typedef uint16_t H __attribute__((vector_size(L * 2)));
};
template <int L>
struct Vec<double, L> {
  typedef double F __attribute__((vector_size(L * 8)));
  typedef int64_t I __attribute__((vector_size(L * 8)));
};

struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

template <class To, class From>
KAT_INLINE To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

// Storage <-> compute conversions: float32 and float64 are their own compute type, the 16-bit types compute in float32.
template <class S>
struct Storage;

template <>
struct Storage<float> {
  using Compute = float;
  static constexpr bool kPairs = false;
  template <int L>
  static KAT_INLINE typename Vec<float, L>::F load(const float* p) {
    typename Vec<float, L>::F v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  template <int L>
  static KAT_INLINE void store(float* p, typename Vec<float, L>::F v) { std::memcpy(p, &v, sizeof(v)); }
};

template <>
struct Storage<double> {
  using Compute = double;
  static constexpr bool kPairs = false;
  template <int L>
  static KAT_INLINE typename Vec<double, L>::F load(const double* p) {
    typename Vec<double, L>::F v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  template <int L>
  static KAT_INLINE void store(double* p, typename Vec<double, L>::F v) { std::memcpy(p, &v, sizeof(v)); }
};

template <>
struct Storage<bf16> {
  using Compute = float;
  static constexpr bool kPairs = true;
  // The high halves hold the number rounded to nearest, ties to even. A NaN becomes a quiet one, or its low bits could carry
  // over into the sign: a GPU's NaN has all of them set. AVX512_BF16's instruction is faster, and makes
  // numbers below 2^-126 zero, which torch's conversion keeps.
  template <int L>
  static KAT_INLINE typename Vec<float, L>::U round_up(typename Vec<float, L>::U u) {
    using U = typename Vec<float, L>::U;
    const auto v = bit_cast<typename Vec<float, L>::F>(u);
    u = v != v ? (u & 0xffff0000u) | 0x400000u : u;
    return u + (((u >> 16) & 1) + 0x7fff);
  }
  template <int L>
  static KAT_INLINE typename Vec<float, L>::F load(const bf16* p) {
    typename Vec<float, L>::H h;
    std::memcpy(&h, p, sizeof(h));
    auto u = __builtin_convertvector(h, typename Vec<float, L>::U) << 16;
    return bit_cast<typename Vec<float, L>::F>(u);
  }
  template <int L>
  static KAT_INLINE void store(bf16* p, typename Vec<float, L>::F v) {
    using U = typename Vec<float, L>::U;
    const auto h = __builtin_convertvector(round_up<L>(bit_cast<typename Vec<float, L>::U>(v)) >> 16, typename Vec<float, L>::H);
    std::memcpy(p, &h, sizeof(h));
  }
  // 2 L elements at once, the even ones and the odd ones: a shift and a mask, where widening costs shuffles.
  template <int L>
  static KAT_INLINE void load_pair(const bf16* p, typename Vec<float, L>::F& even, typename Vec<float, L>::F& odd) {
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the even element is the low half");
    using F = typename Vec<float, L>::F;
    using U = typename Vec<float, L>::U;
    U both;
    std::memcpy(&both, p, sizeof(both));
    even = bit_cast<F>(both << 16);
    odd = bit_cast<F>(both & 0xffff0000u);
  }
  template <int L>
  static KAT_INLINE void store_pair(bf16* p, typename Vec<float, L>::F even, typename Vec<float, L>::F odd) {
    using U = typename Vec<float, L>::U;
    const U both = (round_up<L>(bit_cast<U>(even)) >> 16) | (round_up<L>(bit_cast<U>(odd)) & 0xffff0000u);
    std::memcpy(p, &both, sizeof(both));
  }
};

// The conversions of F16C, which every target with vectors of 32 bytes and more has. Written as instructions, for an intrinsic is not
// inlined into a function of another target; Clang's checks of them do not look at the function they are inlined into.
#if KAT_X86 && !defined(__clang__)
#define KAT_F16C 1
#else
#define KAT_F16C 0
#endif

template <>
struct Storage<f16> {
  using Compute = float;
  static constexpr bool kPairs = false;
  template <int L>
  static KAT_INLINE typename Vec<float, L>::F load(const f16* p) {
    using F = typename Vec<float, L>::F;
    using U = typename Vec<float, L>::U;
    typename Vec<float, L>::H h;
    std::memcpy(&h, p, sizeof(h));
#if KAT_F16C
    if constexpr (L == 8 || L == 16) {
      F f;
      __asm__("vcvtph2ps %1, %0" : "=v"(f) : "v"(h));
      return f;
    }
#endif
    const U u = __builtin_convertvector(h, U);
    // Exponent and mantissa moved in place, then rescaled by 2^112: exact for normal and subnormal numbers alike.
    const U magnitude = (u & 0x7fff) << 13;
    const F scaled = bit_cast<F>(magnitude) * 0x1p112f;
    const U special = magnitude | 0x7f800000;  // inf and NaN
    const U finite = bit_cast<U>(scaled);
    const U bits = ((u & 0x7c00) == 0x7c00 ? special : finite) | ((u & 0x8000) << 16);
    return bit_cast<F>(bits);
  }
  template <int L>
  static KAT_INLINE void store(f16* p, typename Vec<float, L>::F v) {
    using F = typename Vec<float, L>::F;
    using U = typename Vec<float, L>::U;
#if KAT_F16C
    if constexpr (L == 8 || L == 16) {
      typename Vec<float, L>::H h;
      __asm__("vcvtps2ph $0, %1, %0" : "=v"(h) : "v"(v));  // 0: to nearest, ties to even
      std::memcpy(p, &h, sizeof(h));
      return;
    }
#endif
    const U u = bit_cast<U>(v);
    const U sign = (u >> 16) & 0x8000;
    const U a = u & 0x7fffffff;
    // Normal results: rebias and round to nearest even in the integer; a carry into the exponent is right, up to infinity.
    const U normal = (a - 0x38000000 + 0xfff + ((a >> 13) & 1)) >> 13;
    // Subnormal results (|v| < 2^-14): adding 0.5 lets the float adder do the rounding.
    const F half = bit_cast<F>(a) + 0.5f;
    const U subnormal = bit_cast<U>(half) - 0x3f000000;
    U bits = a < 0x38800000 ? subnormal : normal;
    bits = a >= 0x47800000 ? U{} + 0x7c00 : bits;
    bits = a > 0x7f800000 ? U{} + 0x7e00 : bits;
    const auto h = __builtin_convertvector(bits | sign, typename Vec<float, L>::H);
    std::memcpy(p, &h, sizeof(h));
  }
};

}  // namespace kat
