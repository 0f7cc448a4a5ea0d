// The implicit GEMM on tensor cores, for the dtypes that they multiply without loss.
#include "../capability.h"
#include "../kernels.h"
#include "launches.h"
#include "tensor_core.h"

namespace dilconv {
namespace cuda {
namespace {

TileName largest_tile(const ConvProblem& problem) {
  return problem.dtype == DILCONV_FLOAT64 ? TileName::kSmall : TileName::kLarge;
}

const char* refuses(const ConvProblem& problem, int isa) {
  const int capability = compute_capability(isa);
  switch (problem.dtype) {
    case DILCONV_FLOAT16:
      break;
    case DILCONV_BFLOAT16:
      if (capability < 80) return "bfloat16 needs compute capability 8.0";
      break;
    case DILCONV_FLOAT64:
      if (capability != 80 && capability != 90 && capability != 100)
        return "float64 on tensor cores is for compute capabilities 8.0, 9.0 and 10.0";
      break;
    default:
      return "only for float16, bfloat16 and float64";
  }
  return gemm_refuses(problem);
}

size_t workspace_bytes(const ConvProblem& problem, int, int) {
  return size_t(gemm_workspace_bytes(problem, choose_tile(problem, largest_tile(problem))));
}

void run(const ConvProblem& problem, const Tensors& tensors, const Execution& execution, int) {
  switch (problem.dtype) {
    case DILCONV_FLOAT16:
      return run_tiles<Half, TensorCoreMultiply, TileName::kLarge>(problem, tensors,
                                                                   execution.stream);
    case DILCONV_BFLOAT16:
      return run_tiles<BFloat16, TensorCoreMultiply, TileName::kLarge>(problem, tensors,
                                                                       execution.stream);
    default:
      return run_tiles<double, TensorCoreMultiply, TileName::kSmall>(problem, tensors,
                                                                     execution.stream);
  }
}

}  // namespace
}  // namespace cuda

const Kernel kCudaTensorCores = {"tensor_cores", cuda::refuses, never_declines,
                                 cuda::workspace_bytes, cuda::run};

}  // namespace dilconv
