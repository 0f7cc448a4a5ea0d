// What the ops accept, and the shape and memory format of what they return; for real and symbolic
// sizes alike.
#pragma once

#include <array>

#include "ops.h"

namespace dilconv {

// A convolution's sizes. One-dimensional ones have height 1, unbatched ones batch 1.
struct Shape {
  bool batched;
  int spatial;  // dimensions: 1 or 2
  c10::SymInt batch, groups, in_channels, out_channels;
  std::array<c10::SymInt, 2> in_size, kernel, out_size;
};

// A tensor's strides as those of its four-dimensional view (batch, channels, height, width).
using Strides = std::array<c10::SymInt, 4>;
Strides strides_4d(const at::Tensor& tensor, int spatial, bool batched);

// Each checks the arguments (RuntimeError, naming the argument, its value and what was expected),
// fills in the shape, and returns the uninitialised result.
at::Tensor prepare_conv2d(const at::Tensor& input, const at::Tensor& weight,
                          const std::optional<at::Tensor>& bias, const ConvArgs& args,
                          Shape& shape);
at::Tensor prepare_grad_input(const at::Tensor& grad_output, const at::Tensor& weight,
                              c10::SymIntArrayRef input_size, const std::optional<at::Tensor>& bias,
                              const ConvArgs& args, Shape& shape);
at::Tensor prepare_grad_weight(const at::Tensor& grad_output, const at::Tensor& input,
                               c10::SymIntArrayRef kernel_size, const ConvArgs& args, Shape& shape);

}  // namespace dilconv
