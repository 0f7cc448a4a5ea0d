// The row of the winograd kernel: stride 1, any dilation, kernels of up to 16 pieces.
#include "../../core/registry.h"
#include "../kernels.h"
#include "../tasks.h"
#include "planner.h"

namespace dilconv {
namespace {

const char* refuses(const ConvProblem& p, int) {
  if (!is_floating(p)) return "winograd runs floating types only";
  if (!winograd_allowed()) return "winograd is switched off by the option winograd=0";
  if (p.kernel[0] * p.kernel[1] == 1) return "winograd runs kernels of more than one element only";
  if (p.stride[0] != 1 || p.stride[1] != 1) return "winograd runs stride 1 only";
  if (!has_winograd_form(p)) return "winograd cuts kernels into at most 16 pieces of up to 5x5";
  const int64_t summed = p.op == DILCONV_CONV2D ? p.in_channels : p.out_channels;
  if (p.op != DILCONV_GRAD_WEIGHT && summed == 0) return "winograd needs channels to sum over";
  return nullptr;
}

// It multiplies float32, which takes longer than native products of bfloat16.
const char* declines(const ConvProblem& p, int isa) {
  const double gain = choose_winograd_form(p).gain;
  if (gain <= 1) return "winograd's transforms would cost more than it saves";
  const MatrixFunctions* matrix = p.dtype == DILCONV_BFLOAT16 ? matrix_for(isa) : nullptr;
  return matrix && gain <= matrix->shape.speed ? "native products of bfloat16 are faster" : nullptr;
}

size_t workspace_bytes(const ConvProblem& problem, int threads, int isa_index) {
  if (writes_nothing(problem)) return 0;
  const InstructionSet& isa = kernels_for(isa_index);
  const WinogradPlan plan = plan_winograd(problem, isa.vector_bytes, element_bytes(problem));
  const int workers = choose_workers(problem, threads);
  return problem.op == DILCONV_GRAD_WEIGHT
             ? isa.winograd_weight[plan.form][problem.dtype].workspace_bytes(plan, workers)
             : isa.winograd_gather[plan.form][problem.dtype].workspace_bytes(plan, workers);
}

void run(const ConvProblem& problem, const Tensors& tensors, const Execution& execution,
         int isa_index) {
  if (writes_nothing(problem)) return;
  const InstructionSet& isa = kernels_for(isa_index);
  const TaskPool pool = make_pool(problem, execution.threads);
  const WinogradPlan plan = plan_winograd(problem, isa.vector_bytes, element_bytes(problem));
  if (problem.op == DILCONV_GRAD_WEIGHT) {
    isa.winograd_weight[plan.form][problem.dtype].run(plan, tensors.x, tensors.y, tensors.w,
                                                      tensors.workspace, pool);
    return;
  }
  const bool forward = problem.op == DILCONV_CONV2D;
  isa.winograd_gather[plan.form][problem.dtype].run(
      plan, forward ? tensors.x : tensors.y, tensors.w, tensors.bias,
      forward ? tensors.y : tensors.x, tensors.workspace, pool);
}

}  // namespace

const Kernel kWinograd = {"winograd", refuses, declines, workspace_bytes, run};

}  // namespace dilconv
