// Under autocast the ops run in the device's lower precision, as F.conv2d does.
#include <ATen/autocast_mode.h>
#include <torch/library.h>

#include "ops.h"

namespace dilconv {
namespace {

using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;
using OptionalTensor = std::optional<Tensor>;

template <c10::DeviceType device>
class Autocast {
  static Tensor cast(const Tensor& tensor) {
    return at::autocast::cached_cast(at::autocast::get_lower_precision_fp_from_device_type(device),
                                     tensor, device);
  }
  static OptionalTensor cast(const OptionalTensor& tensor) {
    return tensor.has_value() && tensor->defined() ? OptionalTensor(cast(*tensor)) : tensor;
  }
  struct Guard {
    c10::impl::ExcludeDispatchKeyGuard exclude{
        at::autocast::get_autocast_dispatch_key_from_device_type(device)};
  };

 public:
  static Tensor forward(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation,
                        SymInt groups) {
    const Guard guard;
    return conv2d(cast(input), cast(weight), cast(bias), {stride, padding, dilation, groups});
  }

  static Tensor grad_input(const Tensor& grad_output, const Tensor& weight,
                           SymIntArrayRef input_size, const OptionalTensor& bias,
                           SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation,
                           SymInt groups) {
    const Guard guard;
    return conv2d_grad_input(cast(grad_output), cast(weight), input_size, cast(bias),
                             {stride, padding, dilation, groups});
  }

  static Tensor grad_weight(const Tensor& grad_output, const Tensor& input,
                            SymIntArrayRef kernel_size, SymIntArrayRef stride,
                            SymIntArrayRef padding, SymIntArrayRef dilation, SymInt groups) {
    const Guard guard;
    return conv2d_grad_weight(cast(grad_output), cast(input), kernel_size,
                              {stride, padding, dilation, groups});
  }

  static void implement(torch::Library& m) {
    m.impl("conv2d", forward);
    m.impl("conv2d_grad_input", grad_input);
    m.impl("conv2d_grad_weight", grad_weight);
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(dilconv, AutocastCPU, m) { Autocast<c10::DeviceType::CPU>::implement(m); }
TORCH_LIBRARY_IMPL(dilconv, AutocastCUDA, m) { Autocast<c10::DeviceType::CUDA>::implement(m); }

}  // namespace dilconv
