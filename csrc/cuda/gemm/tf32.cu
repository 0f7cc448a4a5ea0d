// The implicit GEMM on tensor cores for float32, rounded to TF32 before it multiplies.
#include "../capability.h"
#include "../kernels.h"
#include "launches.h"
#include "tensor_core.h"

namespace dilconv {
namespace cuda {
namespace {

const char* refuses(const ConvProblem& problem, int isa) {
  if (problem.dtype != DILCONV_FLOAT32) return "only for float32";
  if (!problem.allow_tf32) return "TF32 is not allowed";
  if (compute_capability(isa) < 80) return "TF32 needs compute capability 8.0";
  return gemm_refuses(problem);
}

size_t workspace_bytes(const ConvProblem& problem, int, int) {
  return size_t(gemm_workspace_bytes(problem, choose_tile(problem, TileName::kLarge)));
}

void run(const ConvProblem& problem, const Tensors& tensors, const Execution& execution, int) {
  run_tiles<float, TensorCoreMultiply, TileName::kLarge>(problem, tensors, execution.stream);
}

}  // namespace
}  // namespace cuda

const Kernel kCudaTf32 = {"tensor_cores_tf32", cuda::refuses, never_declines, cuda::workspace_bytes,
                          cuda::run};

}  // namespace dilconv
