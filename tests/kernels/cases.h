// A convolution for the programs that run kernels through the C interface: its problem, and how
// many elements its tensors have.
#pragma once

#include <cstring>

#include "../../csrc/core/dilconv.h"

struct Sizes {
  const char* name;
  int64_t batch, groups, in_channels, out_channels;  // channels of all groups
  int64_t in[2], kernel[2], stride[2], dilation[2], before[2], after[2];
};

constexpr const char* kOps[] = {"conv2d", "grad_input", "grad_weight"};

inline void set_strides(int64_t (&strides)[4], const int64_t (&sizes)[4], bool channels_last) {
  const int64_t c = sizes[1], h = sizes[2], w = sizes[3];
  const int64_t last[4] = {c * h * w, 1, w * c, c}, first[4] = {c * h * w, h * w, w, 1};
  std::memcpy(strides, channels_last ? last : first, sizeof strides);
}

struct Case {
  dilconv_problem problem;
  int64_t elements[3];  // of x, w, y
};

inline Case make_case(const Sizes& s, int op, dilconv_dtype dtype, bool tf32, bool channels_last) {
  Case result;
  dilconv_problem& p = result.problem;
  p = {};
  p.op = op;
  p.dtype = dtype;
  p.allow_tf32 = tf32;
  p.has_bias = op != DILCONV_GRAD_WEIGHT;
  p.batch = s.batch;
  p.groups = s.groups;
  p.in_channels = s.in_channels;
  p.out_channels = s.out_channels;
  for (int a = 0; a < 2; ++a) {
    p.in_size[a] = s.in[a];
    p.kernel[a] = s.kernel[a];
    p.stride[a] = s.stride[a];
    p.dilation[a] = s.dilation[a];
    p.pad_before[a] = s.before[a];
    p.pad_after[a] = s.after[a];
    p.out_size[a] =
        (s.in[a] + s.before[a] + s.after[a] - s.dilation[a] * (s.kernel[a] - 1) - 1) / s.stride[a] +
        1;
  }
  const int64_t x[4] = {s.batch, s.in_channels, s.in[0], s.in[1]};
  const int64_t w[4] = {s.out_channels, s.in_channels / s.groups, s.kernel[0], s.kernel[1]};
  const int64_t y[4] = {s.batch, s.out_channels, p.out_size[0], p.out_size[1]};
  set_strides(p.x_strides, x, channels_last);
  set_strides(p.w_strides, w, channels_last);
  set_strides(p.y_strides, y, channels_last);
  result.elements[0] = x[0] * x[1] * x[2] * x[3];
  result.elements[1] = w[0] * w[1] * w[2] * w[3];
  result.elements[2] = y[0] * y[1] * y[2] * y[3];
  return result;
}

// The index of the tensor that the op writes.
inline int written_tensor(const Case& c) {
  constexpr int kWritten[] = {2, 0, 1};
  return kWritten[c.problem.op];
}
