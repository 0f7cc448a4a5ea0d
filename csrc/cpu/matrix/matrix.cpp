// The row of the matrix kernel: bfloat16, on instruction sets that multiply it.
#include "../kernels.h"
#include "../tasks.h"
#include "planner.h"

namespace dilconv {
namespace {

const char* refuses(const ConvProblem& problem, int isa) {
  if (problem.dtype != DILCONV_BFLOAT16) return "matrix runs bfloat16 only";
  return matrix_for(isa) ? nullptr : "the instruction set has no products of bfloat16";
}

// Pairs and vectors of few channels are mostly zeros, while direct's vectors hold pixels of long
// contiguous rows, or input channels for grad_weight. Tiles are so fast that few written channels
// do not matter.
const char* declines(const ConvProblem& p, int isa) {
  constexpr int64_t kFewRead = 3, kLongRow = 32, kManyInputs = 16, kFewProducts = 320,
                    kFewInputs = 7;
  const int64_t in = p.in_channels / p.groups, out = p.out_channels / p.groups;
  const bool forward = p.op == DILCONV_CONV2D, dense = p.x_strides[3] == 1 && p.y_strides[3] == 1;
  const int64_t read = forward ? in : out, written = forward ? out : in;
  const int64_t width = p.op == DILCONV_GRAD_INPUT ? p.in_size[1] : p.out_size[1];
  const MatrixFunctions* matrix = matrix_for(isa);
  const bool tiles = matrix && matrix->shape.row_unit > 1;
  const bool planes = matrix && fits_planes(p, matrix->shape);
  const bool pixels = dense && !planes &&
                      ((read <= kFewRead && width >= kLongRow) ||
                       (written <= kFewRead && width >= 2 * kLongRow && !tiles));
  const bool inputs = out <= (tiles ? 2 : 1) && in >= kManyInputs;
  const bool gradient = p.op == DILCONV_GRAD_WEIGHT;
  const bool better = (gradient ? inputs : pixels) && p.stride[0] == 1 && p.stride[1] == 1;
  const bool empty =
      gradient && !tiles && (in * out == 1 || (in < kFewInputs && !mostly_inside(p)));
  // Few channels are copied as a whole step, which takes longer than so few products do.
  const bool little = !gradient && tiles && dense && 2 * read <= matrix->shape.step &&
                      p.kernel[0] * p.kernel[1] * read * written <= kFewProducts;
  if (!gradient && matrix && joins_well(p, matrix->shape)) return nullptr;
  return better || empty || little ? "with so few channels the products would be mostly of zeros"
                                   : nullptr;
}

size_t workspace_bytes(const ConvProblem& problem, int threads, int isa) {
  if (writes_nothing(problem)) return 0;
  const MatrixFunctions& matrix = *matrix_for(isa);
  const int workers = choose_workers(problem, threads);
  if (problem.op == DILCONV_GRAD_WEIGHT)
    return matrix.weight.workspace_bytes(OwnedMatrixWeightPlan(problem, matrix.shape).plan,
                                         workers);
  return matrix.gather.workspace_bytes(OwnedMatrixGatherPlan(problem, matrix.shape).plan, workers);
}

void run(const ConvProblem& problem, const Tensors& tensors, const Execution& execution, int isa) {
  if (writes_nothing(problem)) return;
  const MatrixFunctions& matrix = *matrix_for(isa);
  const TaskPool pool = make_pool(problem, execution.threads);
  if (problem.op == DILCONV_GRAD_WEIGHT) {
    const OwnedMatrixWeightPlan owned(problem, matrix.shape);
    matrix.weight.run(owned.plan, tensors.x, tensors.y, tensors.w, tensors.workspace, pool);
    return;
  }
  const bool forward = problem.op == DILCONV_CONV2D;
  const OwnedMatrixGatherPlan owned(problem, matrix.shape);
  matrix.gather.run(owned.plan, forward ? tensors.x : tensors.y, tensors.w, tensors.bias,
                    forward ? tensors.y : tensors.x, tensors.workspace, pool);
}

}  // namespace

const Kernel kMatrix = {"matrix", refuses, declines, workspace_bytes, run};

}  // namespace dilconv
