// The ops on tensors with data, as far as they are the same on every device: checks, the
// ConvProblem, the choice of a kernel, bias and complex numbers.
#pragma once

#include <torch/library.h>

#include "../core/registry.h"
#include "complex.h"
#include "problem.h"

namespace dilconv {

// Without a copy of what is copy-on-write: the one tensor that is written was just allocated.
inline void* address(const at::Tensor& tensor) {
  return const_cast<void*>(tensor.const_data_ptr());
}

// Backend is what a device supplies:
//   name      the registry's name of it
//   Guard     constructed from one of the call's tensors, makes its device the current one
//   run(kernel, problem, tensors, isa)   runs the kernel, with workspace and the means to run
template <class Backend>
class DeviceOps {
  using Tensor = at::Tensor;
  using SymInts = c10::SymIntArrayRef;
  using OptionalTensor = std::optional<Tensor>;

  static void run(const ConvProblem& problem, const Tensor& x, const Tensor& w, const Tensor& y,
                  const OptionalTensor& bias) {
    static const Device* const device = find_device(Backend::name);
    const typename Backend::Guard guard(x);
    std::string reason;
    const int isa = active_instruction_set(*device);
    const Kernel* kernel = select(*device, nullptr, problem, isa, reason);
    TORCH_CHECK(kernel, "dilconv: ", reason);
    log_choice(*kernel, problem);
    Tensor dense_bias;
    if (is_given(bias)) dense_bias = bias->contiguous();
    const void* const bias_data = dense_bias.defined() ? dense_bias.const_data_ptr() : nullptr;
    Backend::run(*kernel, problem, {address(x), address(w), address(y), bias_data, nullptr}, isa);
  }

  static Tensor forward(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        SymInts stride, SymInts padding, SymInts dilation, c10::SymInt groups) {
    const ConvArgs args = {stride, padding, dilation, groups};
    Shape shape;
    Tensor output = prepare_conv2d(input, weight, bias, args, shape);
    if (output.is_complex()) return complex_conv2d(input, weight, bias, args);
    run(make_problem(DILCONV_CONV2D, shape, args, is_given(bias), input, weight, output), input,
        weight, output, bias);
    return output;
  }

  static Tensor grad_input(const Tensor& grad_output, const Tensor& weight, SymInts input_size,
                           const OptionalTensor& bias, SymInts stride, SymInts padding,
                           SymInts dilation, c10::SymInt groups) {
    const ConvArgs args = {stride, padding, dilation, groups};
    Shape shape;
    Tensor input = prepare_grad_input(grad_output, weight, input_size, bias, args, shape);
    if (input.is_complex()) return complex_grad_input(grad_output, weight, input_size, bias, args);
    run(make_problem(DILCONV_GRAD_INPUT, shape, args, is_given(bias), input, weight, grad_output),
        input, weight, grad_output, bias);
    return input;
  }

  static Tensor grad_weight(const Tensor& grad_output, const Tensor& input, SymInts kernel_size,
                            SymInts stride, SymInts padding, SymInts dilation, c10::SymInt groups) {
    const ConvArgs args = {stride, padding, dilation, groups};
    Shape shape;
    Tensor weight = prepare_grad_weight(grad_output, input, kernel_size, args, shape);
    if (weight.is_complex()) return complex_grad_weight(grad_output, input, kernel_size, args);
    run(make_problem(DILCONV_GRAD_WEIGHT, shape, args, false, input, weight, grad_output), input,
        weight, grad_output, std::nullopt);
    return weight;
  }

 public:
  static void implement(torch::Library& m) {
    m.impl("conv2d", forward);
    m.impl("conv2d_grad_input", grad_input);
    m.impl("conv2d_grad_weight", grad_weight);
  }
};

}  // namespace dilconv
