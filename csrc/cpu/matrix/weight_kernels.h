// grad_weight, arranged as the plan says.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

inline size_t matrix_weight_workspace(const MatrixWeightPlan& plan, int workers) {
  if (plan.taps_in_rows)
    return TapRowsWeight(plan, workers, nullptr, nullptr, nullptr, nullptr).workspace_bytes();
  return MatrixWeight(plan, workers, nullptr, nullptr, nullptr, nullptr).workspace_bytes();
}

inline void run_matrix_weight(const MatrixWeightPlan& plan, const void* x, const void* y, void* w,
                              void* workspace, const TaskPool& pool) {
  if (plan.taps_in_rows) return TapRowsWeight(plan, pool.workers, x, y, w, workspace).run(pool);
  MatrixWeight(plan, pool.workers, x, y, w, workspace).run(pool);
}
