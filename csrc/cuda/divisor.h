// Division by a number that the host knows: a multiplication instead of some twenty instructions.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace dilconv::cuda {

// Divides 0 <= n < 2^31 by 1 <= d < 2^31: n / d = (high word of n * multiplier, plus n) >> shift.
class Divisor {
 public:
  Divisor() = default;
  explicit Divisor(int divisor) : divisor_(divisor) {
    while ((int64_t(1) << shift_) < divisor) ++shift_;
    const uint64_t rest = (uint64_t(1) << shift_) - uint64_t(divisor);
    multiplier_ = uint32_t((rest << 32) / uint64_t(divisor) + 1);
  }

  __host__ __device__ int value() const { return divisor_; }

  __host__ __device__ int divide(int n) const {
    const uint32_t high = uint32_t((uint64_t(uint32_t(n)) * multiplier_) >> 32);
    return int((high + uint32_t(n)) >> shift_);
  }

  // Sets n to the quotient and returns the remainder.
  __host__ __device__ int split(int& n) const {
    const int whole = n;
    n = divide(whole);
    return whole - n * divisor_;
  }

  // Rounds up; n may be negative.
  __host__ __device__ int divide_up(int n) const { return n > 0 ? divide(n - 1) + 1 : -divide(-n); }

  // Rounds down; n may be negative.
  __host__ __device__ int divide_down(int n) const { return -divide_up(-n); }

 private:
  int divisor_ = 1;
  int shift_ = 0;
  uint32_t multiplier_ = 1;
};

}  // namespace dilconv::cuda
