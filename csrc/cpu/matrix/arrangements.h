// How operands are arranged in register tiles, as plans say.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

// Calls use(kernel) with the one that the plan is for.
template <class Use>
auto with_gather(const MatrixGatherPlan& plan, int workers, const void* read, const void* weight,
                 const void* bias, void* written, void* workspace, const Use& use) {
#if defined(DILCONV_SINGLE_ROWS)
  if (plan.in_planes)
    return use(MatrixPlanes(plan.planes, workers, read, weight, bias, written, workspace));
#endif
  return use(MatrixGather(plan, workers, read, weight, bias, written, workspace));
}

inline size_t matrix_gather_workspace(const MatrixGatherPlan& plan, int workers) {
  return with_gather(plan, workers, nullptr, nullptr, nullptr, nullptr, nullptr,
                     [](const auto& kernel) { return kernel.workspace_bytes(); });
}

inline void run_matrix_gather(const MatrixGatherPlan& plan, const void* read, const void* weight,
                              const void* bias, void* written, void* workspace,
                              const TaskPool& pool) {
  with_gather(plan, pool.workers, read, weight, bias, written, workspace,
              [&](auto&& kernel) { kernel.run(pool); });
}

template <class Use>
auto with_weight(const MatrixWeightPlan& plan, int workers, const void* x, const void* y, void* w,
                 void* workspace, const Use& use) {
#if defined(DILCONV_SINGLE_ROWS)
  if (plan.taps_in_rows) return use(TapRowsWeight(plan, workers, x, y, w, workspace));
#endif
  return use(MatrixWeight(plan, workers, x, y, w, workspace));
}

inline size_t matrix_weight_workspace(const MatrixWeightPlan& plan, int workers) {
  return with_weight(plan, workers, nullptr, nullptr, nullptr, nullptr,
                     [](const auto& kernel) { return kernel.workspace_bytes(); });
}

inline void run_matrix_weight(const MatrixWeightPlan& plan, const void* x, const void* y, void* w,
                              void* workspace, const TaskPool& pool) {
  with_weight(plan, pool.workers, x, y, w, workspace, [&](auto&& kernel) { kernel.run(pool); });
}
