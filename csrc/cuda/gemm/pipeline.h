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
  const auto stage = [&](int slice) { return shared + slice % kStages * kStageBytes; };

  for (int step = 0; step < slices + kAhead; ++step) {
    wait_async<kStages - 2>();
    // The slice to multiply has arrived, and all warps are done with the stage to fill.
    block_barrier();
    const A filled_a = {stage(step)}, ready_a = {stage(step + 1)};
    const B filled_b = {filled_a.data + kBytesA}, ready_b = {ready_a.data + kBytesA};
    const bool fills = step < slices, multiplies = step >= kAhead;
    // One operand at a time, so that what is gathered takes few registers.
    if (fills) load_a.fetch(filled_a);
    if (multiplies) multiply.template half<0>(ready_a, ready_b);
    if (fills) {
      load_a.store(filled_a);
      load_b.fetch(filled_b);
    }
    commit_async();
    if (multiplies) multiply.template half<1>(ready_a, ready_b);
    if (fills) load_b.store(filled_b);
  }
}

}  // namespace dilconv::cuda
