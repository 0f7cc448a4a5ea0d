// Instead of cuda.cpp, in a build without CUDA: CUDA tensors are refused in words.
#include <torch/library.h>

namespace dilconv {
namespace {

void refuse(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack*) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      false, op.schema().name(),
      " got a CUDA tensor, but this dilconv_ext was built without CUDA kernels. To build them, "
      "install a CUDA build of torch and the CUDA toolkit of the same major version, with its nvcc "
      "on the PATH or its folder in CUDA_HOME, and run "
      "`pip install --no-build-isolation --force-reinstall --no-deps .` in a checkout");
}

}  // namespace

TORCH_LIBRARY_IMPL(dilconv, CUDA, m) {
  for (const char* name : {"conv2d", "conv2d_grad_input", "conv2d_grad_weight"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&refuse>());
}

}  // namespace dilconv
