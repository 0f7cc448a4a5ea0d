#include "ops.h"

#include <ATen/core/dispatch/Dispatcher.h>

namespace dilconv {

using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;
using OptionalTensor = std::optional<Tensor>;

Tensor conv2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
              const ConvArgs& args) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("dilconv::conv2d", "")
          .typed<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, SymIntArrayRef,
                        SymIntArrayRef, SymIntArrayRef, SymInt)>();
  return op.call(input, weight, bias, args.stride, args.padding, args.dilation, args.groups);
}

Tensor conv2d_grad_input(const Tensor& grad_output, const Tensor& weight, SymIntArrayRef input_size,
                         const OptionalTensor& bias, const ConvArgs& args) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("dilconv::conv2d_grad_input", "")
          .typed<Tensor(const Tensor&, const Tensor&, SymIntArrayRef, const OptionalTensor&,
                        SymIntArrayRef, SymIntArrayRef, SymIntArrayRef, SymInt)>();
  return op.call(grad_output, weight, input_size, bias, args.stride, args.padding, args.dilation,
                 args.groups);
}

Tensor conv2d_grad_weight(const Tensor& grad_output, const Tensor& input,
                          SymIntArrayRef kernel_size, const ConvArgs& args) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("dilconv::conv2d_grad_weight", "")
          .typed<Tensor(const Tensor&, const Tensor&, SymIntArrayRef, SymIntArrayRef,
                        SymIntArrayRef, SymIntArrayRef, SymInt)>();
  return op.call(grad_output, input, kernel_size, args.stride, args.padding, args.dilation,
                 args.groups);
}

}  // namespace dilconv
