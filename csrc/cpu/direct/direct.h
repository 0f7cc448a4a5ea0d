// What each instruction set's translation unit offers: the direct kernel's inner parts, as plain functions.
#pragma once

#include "../../core/dilconv.h"
#include "plan.h"

namespace dilconv {

// Runs task(context, index) for index in [0, count) on at most `workers` threads; a worker's number is passed too.
struct TaskPool {
  int workers;
  const void* threads;
  void (*run)(const TaskPool& pool, int64_t count, void (*task)(void* context, int64_t index, int worker),
              void* context);
};

struct DirectGather {
  size_t (*workspace_bytes)(const GatherPlan& plan, int workers);
  void (*run)(const GatherPlan& plan, const void* read, const void* weight, const void* bias, void* written,
              void* workspace, const TaskPool& pool);
};

struct DirectWeight {
  size_t (*workspace_bytes)(const WeightPlan& plan, int workers);
  void (*run)(const WeightPlan& plan, const void* x, const void* y, void* w, void* workspace,
              const TaskPool& pool);
};

// One per instruction set; indexed by dilconv_dtype, the floating ones.
struct DirectTable {
  int vector_bytes;
  DirectGather gather[4];
  DirectWeight weight[4];
};

#if defined(__x86_64__)
extern const DirectTable kDirectSse2, kDirectAvx2, kDirectAvx512;
#else
extern const DirectTable kDirectGeneric;
#endif

}  // namespace dilconv
