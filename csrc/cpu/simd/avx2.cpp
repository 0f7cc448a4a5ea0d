#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#include <immintrin.h>

#define DILCONV_INSTRUCTION_SET kAvx2
#define DILCONV_AVX2
namespace {
constexpr int kVectorBytes = 32;
constexpr int kMaxRows = 4;
}  // namespace
#include "kernels.inc"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
