#include "instruction_set.h"
#if defined(DILCONV_MATRIX)
#if defined(DILCONV_TWINS)
// For any machine.
#elif defined(__clang__)
#pragma clang attribute push(                                                          \
    __attribute__((target("avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
    apply_to = function)
#else
#pragma GCC target("avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif
#include <immintrin.h>
#if !defined(DILCONV_TWINS)
#define DILCONV_AVX512
#endif

#define DILCONV_MATRIX_FUNCTIONS kMatrixAvx512Bf16
#define DILCONV_REGISTER_TILE "../matrix/pair_vectors.h"
#define DILCONV_SINGLE_ROWS
namespace {
constexpr int kVectorBytes = 64;
constexpr int kMaxRows = 8;
}  // namespace
#include "matrix.inc"

#if defined(__clang__) && !defined(DILCONV_TWINS)
#pragma clang attribute pop
#endif
#endif
