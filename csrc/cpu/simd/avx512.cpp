#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif
#include <immintrin.h>

#define DILCONV_INSTRUCTION_SET kAvx512
#define DILCONV_AVX512  // __AVX512F__ may be evaluated before the pragma above
namespace {
constexpr int kVectorBytes = 64;
constexpr int kMaxRows = 8;
}  // namespace
#include "kernels.inc"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
