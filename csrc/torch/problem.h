// The ConvProblem of a call: what its tensors' sizes and strides say, and what torch allows.
#pragma once

#include "../core/problem.h"
#include "shapes.h"

namespace dilconv {

// x, w and y are the three tensors of the op; the shape is that of prepare_conv2d and its like.
ConvProblem make_problem(dilconv_op op, const Shape& shape, const ConvArgs& args, bool has_bias,
                         const at::Tensor& x, const at::Tensor& w, const at::Tensor& y);

// Whether torch lets a convolution on a GPU multiply float32 in TF32
// (torch.backends.cudnn.conv.fp32_precision).
bool tf32_allowed();

inline bool is_given(const std::optional<at::Tensor>& bias) {
  return bias.has_value() && bias->defined();
}

}  // namespace dilconv
