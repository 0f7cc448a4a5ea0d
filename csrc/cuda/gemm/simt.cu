// The implicit GEMM on ordinary multiply-adds: every floating dtype, sums in full precision.
#include "simt.h"

#include "../kernels.h"
#include "launches.h"

namespace dilconv {
namespace cuda {
namespace {

TileName largest_tile(const ConvProblem& problem) {
  return problem.dtype == DILCONV_FLOAT32 ? TileName::kMedium : TileName::kSmall;
}

const char* refuses(const ConvProblem& problem, int) { return gemm_refuses(problem); }

size_t workspace_bytes(const ConvProblem& problem, int, int) {
  return size_t(gemm_workspace_bytes(problem, choose_tile(problem, largest_tile(problem))));
}

void run(const ConvProblem& problem, const Tensors& tensors, const Execution& execution, int) {
  using Run = void (*)(const ConvProblem&, const Tensors&, void*);
  constexpr Run runs[] = {run_tiles<double, SimtMultiply, TileName::kSmall>,
                          run_tiles<float, SimtMultiply, TileName::kMedium>,
                          run_tiles<Half, SimtMultiply, TileName::kSmall>,
                          run_tiles<BFloat16, SimtMultiply, TileName::kSmall>};
  runs[problem.dtype](problem, tensors, execution.stream);
}

}  // namespace
}  // namespace cuda

const Kernel kCudaSimt = {"simt", cuda::refuses, never_declines, cuda::workspace_bytes, cuda::run};

}  // namespace dilconv
