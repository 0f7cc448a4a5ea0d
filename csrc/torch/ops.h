// The three ops as C++ functions that go through torch's dispatcher.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymIntArrayRef.h>

#include <optional>

namespace dilconv {

// The arguments that the three ops share: stride and dilation (height, width), padding (top,
// bottom, left, right).
struct ConvArgs {
  c10::SymIntArrayRef stride;
  c10::SymIntArrayRef padding;
  c10::SymIntArrayRef dilation;
  c10::SymInt groups;
};

at::Tensor conv2d(const at::Tensor& input, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias, const ConvArgs& args);

at::Tensor conv2d_grad_input(const at::Tensor& grad_output, const at::Tensor& weight,
                             c10::SymIntArrayRef input_size, const std::optional<at::Tensor>& bias,
                             const ConvArgs& args);

at::Tensor conv2d_grad_weight(const at::Tensor& grad_output, const at::Tensor& input,
                              c10::SymIntArrayRef kernel_size, const ConvArgs& args);

}  // namespace dilconv
