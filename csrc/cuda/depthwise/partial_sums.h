// The second pass of grad_weight: adds the splits' partial sums in order, so that the result does
// not depend on which block ran first.
#pragma once

#include <algorithm>

#include "../device.h"
#include "../launch.h"
#include "plan.h"

namespace dilconv::cuda::depthwise {

constexpr int kWarp = 32;
constexpr int kAddThreads = 256;

// Where the workspace holds the partial sum of a split for a weight.
template <class T>
__host__ __device__ T* partial_sum(T* workspace, const WeightPlan& plan, int split, int channel,
                                   int row, int column) {
  const int64_t weight = (int64_t(channel) * plan.rows.kernel + row) * plan.columns.kernel + column;
  return workspace + weight * plan.splits + split;
}

// The sum over the warp's lanes, in a fixed order.
template <class T>
__device__ T add_lanes(T sum) {
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
  return sum;
}

inline size_t partial_sums_bytes(const WeightPlan& plan, int64_t bytes) {
  return size_t(plan.splits) * plan.channels * plan.rows.kernel * plan.columns.kernel * bytes;
}

// Splits enough to keep a GPU busy, as far as there are `tiles` to split and their sums stay small.
// A function of the problem alone: it decides the order of addition.
inline int choose_splits(const WeightPlan& plan, int64_t tiles, int64_t blocks) {
  constexpr int64_t kSplitBlocks = 2048, kSums = int64_t(1) << 22;
  const int64_t weights = int64_t(plan.channels) * plan.rows.kernel * plan.columns.kernel;
  return int(std::max<int64_t>(1, std::min({tiles, kSplitBlocks / blocks, kSums / weights})));
}

// A warp to a weight.
template <class S>
__global__ void __launch_bounds__(kAddThreads)
    add_partial_sums(const __grid_constant__ WeightPlan plan, const Sum<S>* workspace, S* weight) {
  const int taps = plan.rows.kernel * plan.columns.kernel, lane = threadIdx.x % kWarp;
  const int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  const int channel = int(i / taps), tap = int(i % taps);
  if (channel >= plan.channels) return;
  const int row = tap / plan.columns.kernel, column = tap % plan.columns.kernel;
  Sum<S> sum = 0;
  for (int split = lane; split < plan.splits; split += kWarp)
    sum += load<Sum<S>>(partial_sum(workspace, plan, split, channel, row, column));
  sum = add_lanes(sum);
  if (lane == 0)
    store(weight + channel * plan.weight_strides[0] + row * plan.weight_strides[1] +
              column * plan.weight_strides[2],
          downcast<S>(sum));
}

template <class S>
void launch_partial_sums(const WeightPlan& plan, const void* workspace, void* weight,
                         void* stream) {
  const int64_t weights = int64_t(plan.channels) * plan.rows.kernel * plan.columns.kernel;
  const int64_t blocks = (weights * kWarp + kAddThreads - 1) / kAddThreads;
  const Grid grid = {dim3(unsigned(blocks)), dim3(kAddThreads), 0};
  launch(add_partial_sums<S>, grid, stream, plan, static_cast<const Sum<S>*>(workspace),
         static_cast<S*>(weight));
}

}  // namespace dilconv::cuda::depthwise
