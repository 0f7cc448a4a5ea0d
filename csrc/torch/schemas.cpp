// The ops' schemas, and the kernels that only know shapes.
#include <torch/library.h>

#include "shapes.h"

namespace dilconv {

using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;
using OptionalTensor = std::optional<Tensor>;

namespace {

Tensor conv2d_meta(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                   SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation,
                   SymInt groups) {
  Shape shape;
  return prepare_conv2d(input, weight, bias, {stride, padding, dilation, groups}, shape);
}

Tensor grad_input_meta(const Tensor& grad_output, const Tensor& weight, SymIntArrayRef input_size,
                       const OptionalTensor& bias, SymIntArrayRef stride, SymIntArrayRef padding,
                       SymIntArrayRef dilation, SymInt groups) {
  Shape shape;
  return prepare_grad_input(grad_output, weight, input_size, bias,
                            {stride, padding, dilation, groups}, shape);
}

Tensor grad_weight_meta(const Tensor& grad_output, const Tensor& input, SymIntArrayRef kernel_size,
                        SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation,
                        SymInt groups) {
  Shape shape;
  return prepare_grad_weight(grad_output, input, kernel_size, {stride, padding, dilation, groups},
                             shape);
}

}  // namespace

TORCH_LIBRARY(dilconv, m) {
  // The ops read any strides, and the kernels above tell the result's from them: Inductor may
  // choose its own. By default it gives a custom op eager mode's, by a copy for each op where need
  // be, so that both backward ops had their own of a gradient that was cut or padded on its way.
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag, at::Tag::flexible_layout};
  m.def(
      "conv2d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=1, SymInt[4] "
      "padding=0, "
      "SymInt[2] dilation=1, SymInt groups=1) -> Tensor",
      tags);
  m.def(
      "conv2d_grad_input(Tensor grad_output, Tensor weight, SymInt[] input_size, Tensor? "
      "bias=None, "
      "SymInt[2] stride=1, SymInt[4] padding=0, SymInt[2] dilation=1, SymInt groups=1) -> Tensor",
      tags);
  m.def(
      "conv2d_grad_weight(Tensor grad_output, Tensor input, SymInt[] kernel_size, SymInt[2] "
      "stride=1, "
      "SymInt[4] padding=0, SymInt[2] dilation=1, SymInt groups=1) -> Tensor",
      tags);
  // The dilconv_problem of a call, field by field: what explain() asks the kernels about.
  m.def(
      "_problem(str op, Tensor a, Tensor b, bool bias, SymInt[] size, SymInt[2] stride, SymInt[4] "
      "padding, "
      "SymInt[2] dilation, SymInt groups) -> int[]",
      tags);
}

TORCH_LIBRARY_IMPL(dilconv, Meta, m) {
  m.impl("conv2d", conv2d_meta);
  m.impl("conv2d_grad_input", grad_input_meta);
  m.impl("conv2d_grad_weight", grad_weight_meta);
}

}  // namespace dilconv
