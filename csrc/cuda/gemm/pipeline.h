// The main loop: while one slice is multiplied, the next ones are on their way.
#pragma once

#include "loaders.h"

namespace dilconv::cuda {

// `shared`: where the stages go.
template <class A, class B, class LoadA, class LoadB, class Multiply>
__device__ void multiply_slices(char* shared, int slices, LoadA& load_a, LoadB& load_b,
                                Multiply& multiply) {
  constexpr int kBytesA = A::kRows * A::kChunksPerRow * kChunkBytes;
  constexpr int kStageBytes = kBytesA + B::kRows * B::kChunksPerRow * kChunkBytes;
  constexpr int kAhead = kStages - 1;
  // Stages are named by their offsets.
  const auto next = [](int stage) {
    return stage == kAhead * kStageBytes ? 0 : stage + kStageBytes;
  };
  const auto a_of = [&](int stage) { return A{shared + stage}; };
  const auto b_of = [&](int stage) { return B{shared + stage + kBytesA}; };

  int to_fill = 0, ready = 0;
#pragma unroll 1
  for (int slice = 0; slice < kAhead; ++slice) {
    block_barrier();  // a loader may have left something for its next slice
    if (slice < slices) {
      load_a.fetch(a_of(to_fill));
      load_a.store(a_of(to_fill));
      load_b.fetch(b_of(to_fill));
      load_b.store(b_of(to_fill));
    }
    commit_async();
    to_fill = next(to_fill);
  }
  for (int slice = 0; slice < slices; ++slice) {
    wait_async<kStages - 2>();
    // The slice to multiply has arrived, and all warps are done with the stage to fill.
    block_barrier();
    const bool fills = slice + kAhead < slices;
    // One operand at a time, so that what is gathered takes few registers.
    if (fills) load_a.fetch(a_of(to_fill));
    multiply.template half<0>(a_of(ready), b_of(ready));
    if (fills) {
      load_a.store(a_of(to_fill));
      load_b.fetch(b_of(to_fill));
    }
    commit_async();
    multiply.template half<1>(a_of(ready), b_of(ready));
    if (fills) load_b.store(b_of(to_fill));
    to_fill = next(to_fill);
    ready = next(ready);
  }
}

}  // namespace dilconv::cuda
