// The ops on CPU tensors: the ConvProblem of a call, threads and workspace for the kernel that runs
// it.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <cstring>

#include "../core/registry.h"
#include "complex.h"
#include "shapes.h"

namespace dilconv {
namespace {

using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;
using OptionalTensor = std::optional<Tensor>;

constexpr int64_t kFields = sizeof(ConvProblem) / sizeof(int64_t);

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
      TORCH_CHECK_NOT_IMPLEMENTED(false, "dilconv has no CPU kernel for dtype ",
                                  tensor.scalar_type());
  }
}

void copy_strides(const Tensor& tensor, bool batched, const Shape& shape, int64_t (&target)[4]) {
  const Strides strides = strides_4d(tensor, shape.spatial, batched);
  for (int i = 0; i < 4; ++i) target[i] = strides[i].expect_int();
}

ConvProblem make_problem(dilconv_op op, const Shape& shape, const ConvArgs& args, bool has_bias,
                         const Tensor& x, const Tensor& w, const Tensor& y) {
  ConvProblem p;
  p.allow_tf32 = false;
  p.op = op;
  p.dtype = dtype_of(x);
  p.has_bias = has_bias;
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

void run_in_pool(void*, int count, void (*task)(void* context, int index), void* context) {
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) task(context, int(index));
  });
}

// Without a copy of what is copy-on-write: the one tensor that is written was just allocated.
void* address(const Tensor& tensor) { return const_cast<void*>(tensor.const_data_ptr()); }

void run(const ConvProblem& problem, const Tensor& x, const Tensor& w, const Tensor& y,
         const OptionalTensor& bias) {
  static const Device* const device = find_device("cpu");
  std::string reason;
  const int isa = active_instruction_set(*device);
  const Kernel* kernel = select(*device, nullptr, problem, isa, reason);
  TORCH_CHECK(kernel, "dilconv: ", reason);
  log_choice(*kernel, problem);

  const int threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const size_t bytes = kernel->workspace_bytes(problem, threads, isa);
  // Small layers are called often: their scratch does not go through the allocator.
  alignas(64) char small[16384];
  Tensor large;
  if (bytes > sizeof small) large = at::empty({int64_t(bytes)}, at::kByte);
  Tensor dense_bias;
  if (bias.has_value() && bias->defined()) dense_bias = bias->contiguous();

  const Tensors tensors = {address(x), address(w), address(y),
                           dense_bias.defined() ? dense_bias.const_data_ptr() : nullptr,
                           large.defined() ? large.data_ptr() : small};
  kernel->run(problem, tensors, {Threads({threads, run_in_pool, nullptr}), nullptr}, isa);
}

bool has_bias(const OptionalTensor& bias) { return bias.has_value() && bias->defined(); }

Tensor conv2d_cpu(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                  SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation,
                  SymInt groups) {
  const ConvArgs args = {stride, padding, dilation, groups};
  Shape shape;
  Tensor output = prepare_conv2d(input, weight, bias, args, shape);
  if (output.is_complex()) return complex_conv2d(input, weight, bias, args);
  run(make_problem(DILCONV_CONV2D, shape, args, has_bias(bias), input, weight, output), input,
      weight, output, bias);
  return output;
}

Tensor grad_input_cpu(const Tensor& grad_output, const Tensor& weight, SymIntArrayRef input_size,
                      const OptionalTensor& bias, SymIntArrayRef stride, SymIntArrayRef padding,
                      SymIntArrayRef dilation, SymInt groups) {
  const ConvArgs args = {stride, padding, dilation, groups};
  Shape shape;
  Tensor input = prepare_grad_input(grad_output, weight, input_size, bias, args, shape);
  if (input.is_complex()) return complex_grad_input(grad_output, weight, input_size, bias, args);
  run(make_problem(DILCONV_GRAD_INPUT, shape, args, has_bias(bias), input, weight, grad_output),
      input, weight, grad_output, bias);
  return input;
}

Tensor grad_weight_cpu(const Tensor& grad_output, const Tensor& input, SymIntArrayRef kernel_size,
                       SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation,
                       SymInt groups) {
  const ConvArgs args = {stride, padding, dilation, groups};
  Shape shape;
  Tensor weight = prepare_grad_weight(grad_output, input, kernel_size, args, shape);
  if (weight.is_complex()) return complex_grad_weight(grad_output, input, kernel_size, args);
  run(make_problem(DILCONV_GRAD_WEIGHT, shape, args, false, input, weight, grad_output), input,
      weight, grad_output, std::nullopt);
  return weight;
}

// A complex call is made of real ones of the same sizes and memory format.
Tensor real_like(const Tensor& tensor) {
  if (!tensor.is_complex()) return tensor;
  return at::empty_like(tensor, tensor.options().dtype(c10::toRealValueType(tensor.scalar_type())));
}

std::vector<int64_t> problem_cpu(c10::string_view op, const Tensor& first, const Tensor& second,
                                 bool bias, SymIntArrayRef size, SymIntArrayRef stride,
                                 SymIntArrayRef padding, SymIntArrayRef dilation, SymInt groups) {
  const ConvArgs args = {stride, padding, dilation, groups};
  const Tensor a = real_like(first), b = real_like(second);
  Shape shape;
  ConvProblem problem;
  if (op == "conv2d") {
    const Tensor output = prepare_conv2d(a, b, std::nullopt, args, shape);
    problem = make_problem(DILCONV_CONV2D, shape, args, bias, a, b, output);
  } else if (op == "conv2d_grad_input") {
    const Tensor input = prepare_grad_input(a, b, size, std::nullopt, args, shape);
    problem = make_problem(DILCONV_GRAD_INPUT, shape, args, bias, input, b, a);
  } else {
    TORCH_CHECK(op == "conv2d_grad_weight", "op must be one of the three ops' names, but got '", op,
                "'");
    const Tensor weight = prepare_grad_weight(a, b, size, args, shape);
    problem = make_problem(DILCONV_GRAD_WEIGHT, shape, args, false, b, weight, a);
  }
  std::vector<int64_t> fields(kFields);
  std::memcpy(fields.data(), &problem, sizeof problem);
  return fields;
}

}  // namespace

TORCH_LIBRARY_IMPL(dilconv, CPU, m) {
  m.impl("conv2d", conv2d_cpu);
  m.impl("conv2d_grad_input", grad_input_cpu);
  m.impl("conv2d_grad_weight", grad_weight_cpu);
  m.impl("_problem", problem_cpu);
}

}  // namespace dilconv
