// What each instruction set's translation unit offers: the kernels' inner parts, as plain
// functions.
#pragma once

#include "../../core/dilconv.h"
#include "../depthwise/plan.h"
#include "../direct/plan.h"
#include "../kn2row/plan.h"
#include "../matrix/plan.h"
#include "../winograd/plan.h"

namespace dilconv {

// Runs task(context, index, worker) for index in [0, count) on at most `workers` threads.
struct TaskPool {
  int workers;
  const void* threads;
  void (*run)(const TaskPool& pool, int64_t count,
              void (*task)(void* context, int64_t index, int worker), void* context);
};

// A gather reads x or y and writes the other; a weight gradient reads both and writes w.
template <class Plan>
struct GatherFunctions {
  size_t (*workspace_bytes)(const Plan& plan, int workers);
  void (*run)(const Plan& plan, const void* read, const void* weight, const void* bias,
              void* written, void* workspace, const TaskPool& pool);
};

template <class Plan>
struct WeightFunctions {
  size_t (*workspace_bytes)(const Plan& plan, int workers);
  void (*run)(const Plan& plan, const void* x, const void* y, void* w, void* workspace,
              const TaskPool& pool);
};

// Arrays are indexed by dilconv_dtype, the floating ones.
struct InstructionSet {
  int vector_bytes;
  GatherFunctions<GatherPlan> direct_gather[4];
  WeightFunctions<WeightPlan> direct_weight[4];
  GatherFunctions<DepthwisePlan> depthwise_gather[4];
  WeightFunctions<DepthwisePlan> depthwise_weight[4];
  GatherFunctions<WinogradPlan> winograd_gather[kWinogradForms][4];
  WeightFunctions<WinogradPlan> winograd_weight[kWinogradForms][4];
  GatherFunctions<Kn2rowPlan> kn2row[4];
};

// Native products of bfloat16.
struct MatrixFunctions {
  MatrixShape shape;
  GatherFunctions<MatrixGatherPlan> gather;
  WeightFunctions<MatrixWeightPlan> weight;
  GatherFunctions<Kn2rowPlan> kn2row;  // null where those in vectors of float32 do
  GatherFunctions<DepthwisePlan> paired_squares;
  WeightFunctions<DepthwisePlan> paired_weight;
};

// Compilers that know the instructions, and the shuffles that packing takes.
#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 12)
#define DILCONV_MATRIX 1
extern const MatrixFunctions kMatrixAvx512Bf16, kMatrixAmx;
#endif

#if defined(__x86_64__)
extern const InstructionSet kSse2, kAvx2, kAvx512;
#else
extern const InstructionSet kGeneric;
#endif

}  // namespace dilconv
