// The small passes beside the products: weights are packed before a gather, partial sums added
// after it or after a grad_weight.
#pragma once

#include "../device.h"
#include "../divisor.h"
#include "indexing.h"
#include "params.h"

namespace dilconv::cuda {

constexpr int kPassThreads = 256;

// To (group, written channel, kernel row, kernel column, padded read channel).
template <class T>
__global__ void __launch_bounds__(kPassThreads)
    pack_kernel(const PackParams p, const Divisor padded_channels, const Divisor kernel_width) {
  const int64_t channels = int64_t(p.groups) * p.written_channels;
  // Of a written channel: fewer than 2^31.
  const unsigned elements = unsigned(p.kernel_height) * p.kernel_width * p.padded_channels;
  const unsigned step = gridDim.y * kPassThreads;
  for (int64_t channel = blockIdx.x; channel < channels; channel += gridDim.x) {
    const T* const from = static_cast<const T*>(p.source) + channel / p.written_channels * p.group +
                          channel % p.written_channels * p.written;
    T* const packed = static_cast<T*>(p.packed) + channel * elements;
    for (unsigned i = blockIdx.y * kPassThreads + threadIdx.x; i < elements; i += step) {
      int row = int(i);
      const int read = padded_channels.split(row), column = kernel_width.split(row);
      const T* const source = from + read * p.read + row * p.row + column * p.column;
      store(packed + i, read < p.read_channels ? load<T>(source) : T{});
    }
  }
}

// Adds up in order what the splits have at the index.
template <class S>
__device__ S sum_of_splits(const void* partial, int splits, int64_t split_stride, int64_t index) {
  S sum = 0;
  for (int split = 0; split < splits; ++split)
    sum += load<S>(static_cast<const S*>(partial) + split * split_stride + index);
  return sum;
}

// What a launch adds up is fewer than 2^31 elements: the workspace bounds them.
template <class T>
__global__ void __launch_bounds__(kPassThreads)
    add_kernel(const AddParams p, const Divisor channels, const Divisor height,
               const Divisor width) {
  const int step = int(gridDim.x) * kPassThreads;
  for (int i = int(blockIdx.x) * kPassThreads + int(threadIdx.x); i < p.elements; i += step) {
    int sample = i;
    int channel = p.channels_last ? channels.split(sample) : 0;
    const int column = width.split(sample), row = height.split(sample);
    if (!p.channels_last) channel = channels.split(sample);
    Sum<T> sum = sum_of_splits<Sum<T>>(p.partial, p.splits, p.elements, i);
    if (p.bias) sum += upcast(load<T>(static_cast<const T*>(p.bias) + channel));
    store(static_cast<T*>(p.written) + (p.first_sample + sample) * p.sample + channel * p.channel +
              row * p.row + column * p.column,
          downcast<T>(sum));
  }
}

// Elements are counted by their digits, as there may be more than 2^31: divisions of 64 bits take
// longer than what is moved.
template <class T>
__global__ void __launch_bounds__(kPassThreads)
    reduce_kernel(const ReduceParams p, const Divisor padded_depths, const Divisor kernel_width) {
  const OdometerBase base(p.rows, p.columns);
  const Odometer step = base.at(gridDim.x * kPassThreads);
  const int64_t split_stride = int64_t(p.groups) * p.rows * p.pitch;
  for (Odometer at = base.at(blockIdx.x * kPassThreads + threadIdx.x); at.outer < p.groups;
       at = base.sum(at, step)) {
    const int group = at.outer, row = at.middle, column = at.inner;
    int tap_row = p.taps_are_rows ? row : column;
    const int depth = padded_depths.split(tap_row), tap_column = kernel_width.split(tap_row);
    if (depth >= p.depths) continue;
    const int64_t channel = int64_t(group) * p.channels + (p.taps_are_rows ? column : row);
    const Sum<T> sum = sum_of_splits<Sum<T>>(p.partial, p.splits, split_stride,
                                             (int64_t(group) * p.rows + row) * p.pitch + column);
    store(static_cast<T*>(p.weight) + channel * p.channel + depth * p.depth + tap_row * p.row +
              tap_column * p.column,
          downcast<T>(sum));
  }
}

}  // namespace dilconv::cuda
