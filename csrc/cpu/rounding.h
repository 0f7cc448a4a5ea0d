// Whole numbers of things, for the planners. The kernels have their own: see simd/vector.h.
#pragma once

#include <cstdint>

namespace dilconv {

// a / b, rounded towards the greater also below zero; b is above it.
inline int64_t divide_up(int64_t a, int64_t b) { return a > 0 ? (a - 1) / b + 1 : a / b; }

inline int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

}  // namespace dilconv
