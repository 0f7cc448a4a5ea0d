#include "complex.h"

#include <ATen/ops/complex.h>
#include <ATen/ops/imag.h>
#include <ATen/ops/real.h>

namespace dilconv {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// A dense copy in the tensor's own memory format: real(x) of a complex tensor has stride 2.
Tensor part(const Tensor& view) { return view.clone(at::MemoryFormat::Preserve); }

template <class Op>
Tensor gauss(const Tensor& a, const Tensor& b, const OptionalTensor& bias, const Op& op) {
  // A lazily conjugated tensor would read as its plain storage below.
  const Tensor left = a.resolve_conj(), right = b.resolve_conj();
  const Tensor ar = part(at::real(left)), ai = part(at::imag(left));
  const Tensor br = part(at::real(right)), bi = part(at::imag(right));
  OptionalTensor bias_real, bias_sum;
  if (bias.has_value() && bias->defined()) {
    const Tensor resolved = bias->resolve_conj();
    bias_real = at::real(resolved).contiguous();
    bias_sum = at::real(resolved).add(at::imag(resolved));
  }
  const Tensor p = op(ar, br, bias_real);
  const Tensor q = op(ai, bi, OptionalTensor());
  const Tensor r = op(ar.add(ai), br.add(bi), bias_sum);
  return at::complex(p.sub(q), r.sub(p).sub(q));
}

}  // namespace

Tensor complex_conv2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                      const ConvArgs& args) {
  return gauss(input, weight, bias, [&](const Tensor& x, const Tensor& w, const OptionalTensor& b) {
    return conv2d(x, w, b, args);
  });
}

Tensor complex_grad_input(const Tensor& grad_output, const Tensor& weight,
                          c10::SymIntArrayRef input_size, const OptionalTensor& bias,
                          const ConvArgs& args) {
  return gauss(grad_output, weight, bias,
               [&](const Tensor& y, const Tensor& w, const OptionalTensor& b) {
                 return conv2d_grad_input(y, w, input_size, b, args);
               });
}

Tensor complex_grad_weight(const Tensor& grad_output, const Tensor& input,
                           c10::SymIntArrayRef kernel_size, const ConvArgs& args) {
  return gauss(grad_output, input, {},
               [&](const Tensor& y, const Tensor& x, const OptionalTensor&) {
                 return conv2d_grad_weight(y, x, kernel_size, args);
               });
}

}  // namespace dilconv
