// The row of the direct kernel: register-blocked, in place on NCHW and on channels_last, floating
// types.
#include "../kernels.h"
#include "../tasks.h"
#include "planner.h"

namespace dilconv {
namespace {

const char* refuses(const ConvProblem& problem, int) {
  return is_floating(problem) ? nullptr : "direct runs floating types only";
}

size_t workspace_bytes(const ConvProblem& problem, int threads, int isa_index) {
  if (writes_nothing(problem)) return 0;
  const InstructionSet& isa = kernels_for(isa_index);
  const int workers = choose_workers(problem, threads);
  if (problem.op == DILCONV_GRAD_WEIGHT) {
    const OwnedWeightPlan owned(problem, isa.vector_bytes, element_bytes(problem));
    return isa.direct_weight[problem.dtype].workspace_bytes(owned.plan, workers);
  }
  const OwnedGatherPlan owned(problem, isa.vector_bytes, element_bytes(problem));
  return isa.direct_gather[problem.dtype].workspace_bytes(owned.plan, workers);
}

void run(const ConvProblem& problem, const Tensors& tensors, const Execution& execution,
         int isa_index) {
  if (writes_nothing(problem)) return;
  const InstructionSet& isa = kernels_for(isa_index);
  const TaskPool pool = make_pool(problem, execution.threads);
  if (problem.op == DILCONV_GRAD_WEIGHT) {
    const OwnedWeightPlan owned(problem, isa.vector_bytes, element_bytes(problem));
    isa.direct_weight[problem.dtype].run(owned.plan, owned.swapped ? tensors.y : tensors.x,
                                         owned.swapped ? tensors.x : tensors.y, tensors.w,
                                         tensors.workspace, pool);
    return;
  }
  const bool forward = problem.op == DILCONV_CONV2D;
  const OwnedGatherPlan owned(problem, isa.vector_bytes, element_bytes(problem));
  isa.direct_gather[problem.dtype].run(owned.plan, forward ? tensors.x : tensors.y, tensors.w,
                                       tensors.bias, forward ? tensors.y : tensors.x,
                                       tensors.workspace, pool);
}

}  // namespace

const Kernel kDirect = {"direct", refuses, never_declines, workspace_bytes, run};

}  // namespace dilconv
