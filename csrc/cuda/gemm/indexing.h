// Counting through (tap, channel) and (sample, pixel) without divisions.
#pragma once

#include "../device.h"

namespace dilconv::cuda {

// A number with three digits of different bases; the first is not bounded.
struct Odometer {
  int outer, middle, inner;
};

// Of bases (unbounded, middle, inner), neither of them zero.
class OdometerBase {
 public:
  __device__ OdometerBase(int middle, int inner) : middle_(middle), inner_(inner) {}

  template <class Int>  // unsigned, of 32 or 64 bits
  __device__ Odometer at(Int value) const {
    const Int rest = value / Int(inner_);
    return {int(rest / Int(middle_)), int(rest % Int(middle_)), int(value % Int(inner_))};
  }

  __device__ Odometer sum(const Odometer& a, const Odometer& b) const {
    Odometer result = {a.outer + b.outer, a.middle + b.middle, a.inner + b.inner};
    if (result.inner >= inner_) {
      result.inner -= inner_;
      ++result.middle;
    }
    if (result.middle >= middle_) {
      result.middle -= middle_;
      ++result.outer;
    }
    return result;
  }

  __device__ int inner() const { return inner_; }

 private:
  int middle_, inner_;
};

}  // namespace dilconv::cuda
