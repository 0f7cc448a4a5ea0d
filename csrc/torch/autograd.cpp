// Derivatives of the three ops. Each is bilinear, and its derivatives are the other two (conjugated
// where complex):
//
//   y  = conv2d(x, w)          dx = grad_input(dy, w)     dw = grad_weight(dy, x)
//   x  = grad_input(y, w)      dy = conv2d(dx, w)         dw = grad_weight(y, dx)
//   w  = grad_weight(y, x)     dy = conv2d(x, dw)         dx = grad_input(y, dw)
//
// so any order of backward and forward differentiation stays within them. The nodes are written as
// torch's own generated ones are, because torch::autograd::Function has no forward AD and refuses
// torch.func.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/view_as_complex.h>
#include <ATen/ops/view_as_real.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/library.h>

#include "ops.h"

namespace dilconv {
namespace {

using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;
using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

// Nodes are intrusive_ptr in recent torch, shared_ptr before.
template <class N>
auto make_node() {
  if constexpr (std::is_base_of_v<c10::intrusive_ptr_target, N>) {
    return c10::make_intrusive<N>();
  } else {
    return std::shared_ptr<N>(new N, [](N* node) { deleteNode(node); });
  }
}

Tensor conjugate(const Tensor& tensor) { return tensor.is_complex() ? tensor.conj() : tensor; }

Tensor tangent(const Tensor& tensor) {
  return tensor.defined() ? tensor._fw_grad(/*level=*/0) : Tensor();
}
Tensor tangent(const OptionalTensor& tensor) {
  return tensor.has_value() ? tangent(*tensor) : Tensor();
}
Tensor primal(const Tensor& tensor) { return tensor._fw_primal(/*level=*/0); }

OptionalTensor optional(const Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : OptionalTensor();
}

Tensor sum_of(const Tensor& a, const Tensor& b) {
  return !a.defined() ? b : !b.defined() ? a : a.add(b);
}

// The gradient of a bias is the sum over everything but the channels of the op's result.
Tensor bias_gradient(const Tensor& grad, int64_t spatial) {
  const int64_t channel = grad.dim() - spatial - 1;
  std::vector<int64_t> dims;
  for (int64_t dim = 0; dim < grad.dim(); ++dim)
    if (dim != channel) dims.push_back(dim);
  // torch has no sum for complex32.
  if (grad.scalar_type() == at::kComplexHalf)
    return at::view_as_complex(at::view_as_real(grad).sum(dims));
  return grad.sum(dims);
}

// ConvArgs that own their values.
struct SavedArgs {
  std::vector<SymInt> stride, padding, dilation;
  SymInt groups;

  void save(const ConvArgs& args) {
    stride = args.stride.vec();
    padding = args.padding.vec();
    dilation = args.dilation.vec();
    groups = args.groups;
  }
  ConvArgs args() const { return {stride, padding, dilation, groups}; }
};

// What the nodes share: two factors, saved only where the other one's gradient needs them.
struct BilinearNode : Node {
  SavedVariable first, second;
  SavedArgs saved;
  std::mutex release;

  void save(const Tensor& a, const Tensor& b, const ConvArgs& args) {
    if (should_compute_output(1)) first = SavedVariable(a, /*is_output=*/false);
    if (should_compute_output(0)) second = SavedVariable(b, /*is_output=*/false);
    saved.save(args);
  }

  // Whether the running backward pass wants this input's gradient: it may want fewer than there
  // are.
  bool task_needs(size_t input) const { return task_should_compute_output(input); }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(release);
    first.reset_data();
    second.reset_data();
  }
};

struct DilatedConv2dBackward final : BilinearNode {
  std::vector<SymInt> weight_sizes;
  std::vector<SymInt> input_size;

  variable_list apply(variable_list&& grads) override {
    const std::lock_guard<std::mutex> lock(release);
    variable_list result(3);
    const Tensor& grad = grads[0];
    if (!grad.defined()) return result;
    const SymIntArrayRef kernel = SymIntArrayRef(weight_sizes).slice(2);
    if (task_needs(0))
      result[0] = conv2d_grad_input(grad, conjugate(second.unpack()), input_size, {}, saved.args());
    // Without input channels the output has none either, and nothing reaches weight and bias.
    const bool empty = weight_sizes[1] == 0;
    if (task_needs(1))
      result[1] = empty ? grad.new_zeros_symint(weight_sizes)
                        : conv2d_grad_weight(grad, conjugate(first.unpack()), kernel, saved.args());
    if (task_needs(2))
      result[2] = empty ? grad.new_zeros_symint(SymIntArrayRef(weight_sizes).slice(0, 1))
                        : bias_gradient(grad, int64_t(kernel.size()));
    return result;
  }

  std::string name() const override { return "DilatedConv2dBackward"; }
};

struct GradInputBackward final : BilinearNode {
  std::vector<SymInt> kernel_size;

  variable_list apply(variable_list&& grads) override {
    const std::lock_guard<std::mutex> lock(release);
    variable_list result(3);
    const Tensor& grad = grads[0];
    if (!grad.defined()) return result;
    if (task_needs(0)) result[0] = conv2d(grad, conjugate(second.unpack()), {}, saved.args());
    if (task_needs(1))
      result[1] = conv2d_grad_weight(conjugate(first.unpack()), grad, kernel_size, saved.args());
    if (task_needs(2)) result[2] = bias_gradient(grad, int64_t(kernel_size.size()));
    return result;
  }

  std::string name() const override { return "GradInputBackward"; }
};

struct GradWeightBackward final : BilinearNode {
  std::vector<SymInt> input_size;

  variable_list apply(variable_list&& grads) override {
    const std::lock_guard<std::mutex> lock(release);
    variable_list result(2);
    const Tensor& grad = grads[0];
    if (!grad.defined()) return result;
    if (task_needs(0)) result[0] = conv2d(conjugate(second.unpack()), grad, {}, saved.args());
    if (task_needs(1))
      result[1] = conv2d_grad_input(conjugate(first.unpack()), grad, input_size, {}, saved.args());
    return result;
  }

  std::string name() const override { return "GradWeightBackward"; }
};

std::vector<SymInt> last_sizes(const Tensor& tensor, int64_t count) {
  const SymIntArrayRef sizes = tensor.sym_sizes();
  return sizes.slice(sizes.size() - count).vec();
}

// Runs forward() below autograd (it checks the arguments), records the node that make() returns if
// a gradient is wanted, and sets the tangent that jvp() returns if an argument has one.
template <class MakeNode, class Forward, class Jvp, class... Arguments>
Tensor differentiate(const MakeNode& make, const Forward& forward, const Jvp& jvp,
                     const Arguments&... arguments) {
  Tensor result = [&] {
    at::AutoDispatchBelowADInplaceOrView guard;
    return forward();
  }();
  if (torch::autograd::compute_requires_grad(arguments...))
    torch::autograd::set_history(result, make());
  if ((tangent(arguments).defined() || ...))
    result._set_fw_grad(jvp(), /*level=*/0, /*is_inplace_op=*/false);
  return result;
}

Tensor conv2d_autograd(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                       SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation,
                       SymInt groups) {
  const ConvArgs args = {stride, padding, dilation, groups};
  const auto make = [&] {
    auto node = make_node<DilatedConv2dBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(input, weight, bias));
    node->save(input, weight, args);
    node->weight_sizes = weight.sym_sizes().vec();
    node->input_size = last_sizes(input, weight.dim() - 2);
    return node;
  };
  const auto jvp = [&] {
    const Tensor dx = tangent(input), dw = tangent(weight), db = tangent(bias);
    Tensor result;
    if (dx.defined()) result = conv2d(dx, primal(weight), optional(db), args);
    if (dw.defined()) {
      const OptionalTensor once = dx.defined() ? OptionalTensor() : optional(db);
      result = sum_of(result, conv2d(primal(input), dw, once, args));
    }
    if (!result.defined()) result = conv2d(at::zeros_like(primal(input)), primal(weight), db, args);
    return result;
  };
  return differentiate(
      make, [&] { return conv2d(input, weight, bias, args); }, jvp, input, weight, bias);
}

Tensor grad_input_autograd(const Tensor& grad_output, const Tensor& weight,
                           SymIntArrayRef input_size, const OptionalTensor& bias,
                           SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation,
                           SymInt groups) {
  const ConvArgs args = {stride, padding, dilation, groups};
  const auto make = [&] {
    auto node = make_node<GradInputBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(grad_output, weight, bias));
    node->save(grad_output, weight, args);
    node->kernel_size = last_sizes(weight, weight.dim() - 2);
    return node;
  };
  const auto jvp = [&] {
    const Tensor dy = tangent(grad_output), dw = tangent(weight), db = tangent(bias);
    Tensor result;
    if (dy.defined())
      result = conv2d_grad_input(dy, primal(weight), input_size, optional(db), args);
    if (dw.defined()) {
      const OptionalTensor once = dy.defined() ? OptionalTensor() : optional(db);
      result = sum_of(result, conv2d_grad_input(primal(grad_output), dw, input_size, once, args));
    }
    if (!result.defined())
      result = conv2d_grad_input(at::zeros_like(primal(grad_output)), primal(weight), input_size,
                                 db, args);
    return result;
  };
  return differentiate(
      make, [&] { return conv2d_grad_input(grad_output, weight, input_size, bias, args); }, jvp,
      grad_output, weight, bias);
}

Tensor grad_weight_autograd(const Tensor& grad_output, const Tensor& input,
                            SymIntArrayRef kernel_size, SymIntArrayRef stride,
                            SymIntArrayRef padding, SymIntArrayRef dilation, SymInt groups) {
  const ConvArgs args = {stride, padding, dilation, groups};
  const auto make = [&] {
    auto node = make_node<GradWeightBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(grad_output, input));
    node->save(grad_output, input, args);
    node->input_size = last_sizes(input, int64_t(kernel_size.size()));
    return node;
  };
  const auto jvp = [&] {
    const Tensor dy = tangent(grad_output), dx = tangent(input);
    Tensor result;
    if (dy.defined()) result = conv2d_grad_weight(dy, primal(input), kernel_size, args);
    if (dx.defined())
      result = sum_of(result, conv2d_grad_weight(primal(grad_output), dx, kernel_size, args));
    return result;
  };
  return differentiate(
      make, [&] { return conv2d_grad_weight(grad_output, input, kernel_size, args); }, jvp,
      grad_output, input);
}

}  // namespace

TORCH_LIBRARY_IMPL(dilconv, Autograd, m) {
  m.impl("conv2d", conv2d_autograd);
  m.impl("conv2d_grad_input", grad_input_autograd);
  m.impl("conv2d_grad_weight", grad_weight_autograd);
}

}  // namespace dilconv
