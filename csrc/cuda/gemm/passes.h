// The small passes beside the products: weights are packed before a gather, partial sums added
// after it or after a grad_weight.
#pragma once

#include "../device.h"
#include "../divisor.h"
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

template <class T>
__global__ void __launch_bounds__(kPassThreads) add_kernel(const AddParams p) {
  const int64_t step = int64_t(gridDim.x) * kPassThreads;
  for (int64_t i = int64_t(blockIdx.x) * kPassThreads + threadIdx.x; i < p.elements; i += step) {
    int64_t rest = i;
    const auto digit = [&](int base) {
      const int value = int(rest % base);
      rest /= base;
      return value;
    };
    int channel = p.channels_last ? digit(p.channels) : 0;
    const int column = digit(p.width), row = digit(p.height);
    if (!p.channels_last) channel = digit(p.channels);
    Sum<T> sum = sum_of_splits<Sum<T>>(p.partial, p.splits, p.elements, i);
    if (p.bias) sum += upcast(load<T>(static_cast<const T*>(p.bias) + channel));
    store(static_cast<T*>(p.written) + (p.first_sample + rest) * p.sample + channel * p.channel +
              row * p.row + column * p.column,
          downcast<T>(sum));
  }
}

template <class T>
__global__ void __launch_bounds__(kPassThreads) reduce_kernel(const ReduceParams p) {
  const int64_t elements = int64_t(p.groups) * p.rows * p.columns;
  const int64_t split_stride = int64_t(p.groups) * p.rows * p.pitch;
  const int64_t step = int64_t(gridDim.x) * kPassThreads;
  for (int64_t i = int64_t(blockIdx.x) * kPassThreads + threadIdx.x; i < elements; i += step) {
    const int column = int(i % p.columns);
    const int64_t row = i / p.columns;  // of all groups
    const int in_group = int(row % p.rows);
    const int tap_depth = p.taps_are_rows ? in_group : column;
    const int tap = tap_depth / p.padded_depths, depth = tap_depth % p.padded_depths;
    if (depth >= p.depths) continue;
    const int64_t channel = row / p.rows * p.channels + (p.taps_are_rows ? column : in_group);
    const Sum<T> sum =
        sum_of_splits<Sum<T>>(p.partial, p.splits, split_stride, row * p.pitch + column);
    store(static_cast<T*>(p.weight) + channel * p.channel + depth * p.depth +
              tap / p.kernel_width * p.row + tap % p.kernel_width * p.column,
          downcast<T>(sum));
  }
}

}  // namespace dilconv::cuda
