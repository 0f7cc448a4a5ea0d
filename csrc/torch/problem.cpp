#include "problem.h"

#include <ATen/Context.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <torch/library.h>

#include <cstring>

namespace dilconv {
namespace {

using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;

int64_t dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return DILCONV_FLOAT64;
    case at::kFloat:
      return DILCONV_FLOAT32;
    case at::kHalf:
      return DILCONV_FLOAT16;
    case at::kBFloat16:
      return DILCONV_BFLOAT16;
    case at::kChar:
      return DILCONV_INT8;
    case at::kByte:
      return DILCONV_UINT8;
    case at::kShort:
      return DILCONV_INT16;
    case at::kInt:
      return DILCONV_INT32;
    case at::kLong:
      return DILCONV_INT64;
    default:
      TORCH_CHECK_NOT_IMPLEMENTED(false, "dilconv has no kernel for dtype ", tensor.scalar_type());
  }
}

void copy_strides(const Tensor& tensor, bool batched, const Shape& shape, int64_t (&target)[4]) {
  const Strides strides = strides_4d(tensor, shape.spatial, batched);
  for (int i = 0; i < 4; ++i) target[i] = strides[i].expect_int();
}

// The tensor without its data. A complex call is made of real ones of the same memory format.
Tensor sketch(const Tensor& tensor) {
  const Tensor meta =
      at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(at::kMeta));
  if (!meta.is_complex()) return meta;
  return at::empty_like(meta, meta.options().dtype(c10::toRealValueType(meta.scalar_type())));
}

// torch 2.9 names backends, ops and precisions by strings, later ones by enumerations.
template <class Precision, class Backend, class Op>
bool tf32_by(Precision (at::Context::*precision)(Backend, Op) const) {
  const at::Context& context = at::globalContext();
  if constexpr (std::is_enum_v<Op>)
    return (context.*precision)(Backend::CUDA, Op::CONV) == Precision::TF32;
  else
    return (context.*precision)("cuda", "conv") == "tf32";
}

std::vector<int64_t> problem(c10::string_view op, const Tensor& first, const Tensor& second,
                             bool bias, SymIntArrayRef size, SymIntArrayRef stride,
                             SymIntArrayRef padding, SymIntArrayRef dilation, SymInt groups) {
  const ConvArgs args = {stride, padding, dilation, groups};
  const Tensor a = sketch(first), b = sketch(second);
  Shape shape;
  ConvProblem result;
  if (op == "conv2d") {
    const Tensor output = prepare_conv2d(a, b, std::nullopt, args, shape);
    result = make_problem(DILCONV_CONV2D, shape, args, bias, a, b, output);
  } else if (op == "conv2d_grad_input") {
    const Tensor input = prepare_grad_input(a, b, size, std::nullopt, args, shape);
    result = make_problem(DILCONV_GRAD_INPUT, shape, args, bias, input, b, a);
  } else {
    TORCH_CHECK(op == "conv2d_grad_weight", "op must be one of the three ops' names, but got '", op,
                "'");
    const Tensor weight = prepare_grad_weight(a, b, size, args, shape);
    result = make_problem(DILCONV_GRAD_WEIGHT, shape, args, false, b, weight, a);
  }
  std::vector<int64_t> fields(sizeof result / sizeof(int64_t));
  std::memcpy(fields.data(), &result, sizeof result);
  return fields;
}

}  // namespace

ConvProblem make_problem(dilconv_op op, const Shape& shape, const ConvArgs& args, bool has_bias,
                         const Tensor& x, const Tensor& w, const Tensor& y) {
  ConvProblem p;
  p.op = op;
  p.dtype = dtype_of(x);
  p.has_bias = has_bias;
  p.allow_tf32 = p.dtype == DILCONV_FLOAT32 && !x.is_cpu() && tf32_allowed();
  p.batch = shape.batch.expect_int();
  p.groups = shape.groups.expect_int();
  p.in_channels = shape.in_channels.expect_int();
  p.out_channels = shape.out_channels.expect_int();
  for (int axis = 0; axis < 2; ++axis) {
    p.in_size[axis] = shape.in_size[axis].expect_int();
    p.kernel[axis] = shape.kernel[axis].expect_int();
    p.out_size[axis] = shape.out_size[axis].expect_int();
    p.stride[axis] = args.stride[axis].expect_int();
    p.dilation[axis] = args.dilation[axis].expect_int();
    p.pad_before[axis] = args.padding[2 * axis].expect_int();
    p.pad_after[axis] = args.padding[2 * axis + 1].expect_int();
  }
  copy_strides(x, shape.batched, shape, p.x_strides);
  copy_strides(w, true, shape, p.w_strides);
  copy_strides(y, shape.batched, shape, p.y_strides);
  return p;
}

bool tf32_allowed() { return tf32_by(&at::Context::float32Precision); }

// Of tensors on any device, for it looks at their sizes and strides alone.
TORCH_LIBRARY_IMPL(dilconv, CompositeExplicitAutograd, m) { m.impl("_problem", problem); }

}  // namespace dilconv
