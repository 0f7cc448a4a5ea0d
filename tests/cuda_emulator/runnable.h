// Which threads of a block can run.
#pragma once

#include <stdint.h>

#include "block.h"

namespace cuda_emulator {

constexpr int kLanes = 32, kWarps = kMaxThreads / kLanes;

class Runnable {
 public:
  explicit Runnable(int threads = 1)
      : last_(threads - 1), warps_((threads + kLanes - 1) / kLanes) {}

  void set(int number, bool can) {
    const uint32_t bit = 1u << number % kLanes;
    uint32_t& lanes = lanes_[number / kLanes];
    lanes = can ? lanes | bit : lanes & ~bit;
  }

  bool in_warp(int warp) const { return lanes_[warp] != 0; }

  // The first that can run at or after the number, around the end; -1 if there is none.
  int next_after(int number) const {
    const int warp = number / kLanes % warps_;
    const uint32_t rest = lanes_[warp] & (~0u << number % kLanes);
    if (rest) return warp * kLanes + __builtin_ctz(rest);
    for (int i = 1; i <= warps_; ++i) {
      const int other = (warp + i) % warps_;
      if (lanes_[other]) return other * kLanes + __builtin_ctz(lanes_[other]);
    }
    return -1;
  }

  // The same, downwards.
  int next_before(int number) const {
    const int from = number < 0 ? last_ : number, warp = from / kLanes;
    const uint32_t rest = lanes_[warp] & (~0u >> (kLanes - 1 - from % kLanes));
    if (rest) return highest(warp, rest);
    for (int i = 1; i <= warps_; ++i) {
      const int other = (warp - i + warps_) % warps_;
      if (lanes_[other]) return highest(other, lanes_[other]);
    }
    return -1;
  }

 private:
  static int highest(int warp, uint32_t lanes) {
    return warp * kLanes + kLanes - 1 - __builtin_clz(lanes);
  }

  int last_, warps_;
  uint32_t lanes_[kWarps] = {};
};

}  // namespace cuda_emulator
