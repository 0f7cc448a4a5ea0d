// Which positions a tap reads along one axis, in the same terms for conv2d and for grad_input.
//
// Positions that are `period` apart form a phase: they are reached by the same taps, and together
// they read only every `jump`-th position of what is read. So a phase is a dense correlation, with
// a small stride of its own, whatever the dilation.
#pragma once

#include <numeric>

#include "../../core/problem.h"
#include "../divisor.h"

namespace dilconv::cuda::depthwise {

// Rounds down, also below zero. b > 0.
__host__ __device__ inline int floor_div(int a, int b) { return a / b - (a % b < 0); }
__host__ __device__ inline int ceil_div(int a, int b) { return -floor_div(-a, b); }
__host__ __device__ inline int round_up(int a, int b) { return ceil_div(a, b) * b; }
__host__ __device__ inline int smaller(int a, int b) { return a < b ? a : b; }
__host__ __device__ inline int larger(int a, int b) { return a > b ? a : b; }

// The taps that reach a written position: the t-th, t < count, is weight first_tap + t * tap_step
// and reads position first_read + t * jump.
struct Taps {
  int count, first_tap, tap_step, first_read;
};

struct Axis {
  int read_size, written_size, kernel, stride, dilation, pad;
  bool transposed;
  Divisor period, jump;
  // From one position of a phase to the next, the reads move by step * jump.
  int step;
  // What a transposed axis' taps skip: every tap_period-th tap reaches a position.
  int tap_period;

  // The number of positions in a phase.
  __host__ __device__ int phase_size(int phase) const {
    return period.divide_up(written_size - phase);
  }

  __host__ __device__ Taps taps_at(int position) const {
    if (!transposed) return {kernel, 0, 1, position * stride - pad};
    if (stride == 1) return {kernel, kernel - 1, -1, origin(position)};
    int tap = 0;
    while (tap < smaller(kernel, tap_period) && (position + pad - tap * dilation) % stride != 0)
      ++tap;
    if (tap >= smaller(kernel, tap_period)) return {0, 0, 0, 0};
    // A later tap reads an earlier position: the last one is the first in order of reading.
    const int count = ceil_div(kernel - tap, tap_period), last = tap + (count - 1) * tap_period;
    return {count, last, -tap_period, (position + pad - last * dilation) / stride};
  }

  // The most taps that reach any position.
  __host__ __device__ int most_taps() const { return ceil_div(kernel, tap_period); }

  // The first position that any of the written positions from `position` on reads.
  __host__ __device__ int origin(int position) const {
    if (!transposed) return position * stride - pad;
    const int first = position + pad - (kernel - 1) * dilation;
    return stride == 1 ? first : floor_div(first, stride);
  }

  // How many positions, from origin() on, contain the first reads of `count` neighbours.
  __host__ __device__ int first_reads(int count) const {
    if (!transposed || stride == 1) return (count - 1) * stride + 1;
    return (count - 1 + (smaller(kernel, tap_period) - 1) * dilation) / stride + 2;
  }
};

// A stretch of positions, first to last - 1.
struct Span {
  int first, last;
};

// Of the taps of positions [from, to) of a phase, counted within it, those that read inside the
// image at all: the others lie in the padding.
__host__ __device__ inline Span taps_inside(const Axis& axis, const Taps& taps, int from, int to) {
  const int first_inside = axis.jump.divide_up(-taps.first_read);
  const int last_inside = axis.jump.divide_up(axis.read_size - taps.first_read);
  return {larger(0, first_inside - axis.step * (to - 1)),
          smaller(taps.count, last_inside - axis.step * from)};
}

// grad_input gathers too; grad_weight reads x as conv2d does.
inline Axis make_axis(const ConvProblem& p, int axis) {
  Axis result = {};
  result.transposed = p.op == DILCONV_GRAD_INPUT;
  result.read_size = int(result.transposed ? p.out_size[axis] : p.in_size[axis]);
  result.written_size = int(result.transposed ? p.in_size[axis] : p.out_size[axis]);
  result.kernel = int(p.kernel[axis]);
  result.stride = int(p.stride[axis]);
  result.dilation = int(p.dilation[axis]);
  result.pad = int(p.pad_before[axis]);
  const int common = std::gcd(result.stride, result.dilation);
  result.period = Divisor(result.dilation / common * (result.transposed ? result.stride : 1));
  result.jump = Divisor(result.dilation / (result.transposed ? common : 1));
  result.step = result.transposed ? 1 : result.stride / common;
  result.tap_period = result.transposed ? result.stride / common : 1;
  return result;
}

}  // namespace dilconv::cuda::depthwise
