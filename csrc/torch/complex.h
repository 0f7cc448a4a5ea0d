// Complex convolutions, composed of three real ones (Gauss): with P = op(ar, br), Q = op(ai, bi)
// and R = op(ar + ai, br + bi), the result is (P - Q) + i (R - P - Q). The same for every device.
#pragma once

#include "ops.h"

namespace dilconv {

at::Tensor complex_conv2d(const at::Tensor& input, const at::Tensor& weight,
                          const std::optional<at::Tensor>& bias, const ConvArgs& args);

at::Tensor complex_grad_input(const at::Tensor& grad_output, const at::Tensor& weight,
                              c10::SymIntArrayRef input_size, const std::optional<at::Tensor>& bias,
                              const ConvArgs& args);

at::Tensor complex_grad_weight(const at::Tensor& grad_output, const at::Tensor& input,
                               c10::SymIntArrayRef kernel_size, const ConvArgs& args);

}  // namespace dilconv
