// The row of the direct kernel: register-blocked, in place on NCHW and channels_last, floating types.
#include "direct.h"

#include <algorithm>
#include <atomic>

#include "../../core/registry.h"
#include "../kernels.h"
#include "planner.h"

namespace dilconv {
namespace {

const DirectTable& table() {
#if defined(__x86_64__)
  const char* isa = find_device("cpu")->instruction_sets[active_instruction_set()];
  return isa[0] == 's' ? kDirectSse2 : isa[3] == '5' ? kDirectAvx512 : kDirectAvx2;
#else
  return kDirectGeneric;
#endif
}

int element_bytes(const ConvProblem& problem) { return problem.dtype == DILCONV_FLOAT64 ? 8 : 4; }

// Whether the tensor that the op writes has no elements.
bool writes_nothing(const ConvProblem& p) {
  if (p.op == DILCONV_GRAD_WEIGHT) return p.out_channels == 0 || p.in_channels == 0;
  const bool forward = p.op == DILCONV_CONV2D;
  const int64_t(&size)[2] = forward ? p.out_size : p.in_size;
  return p.batch == 0 || size[0] == 0 || size[1] == 0 || (forward ? p.out_channels : p.in_channels) == 0;
}

// Threads are woken only for work that outlasts the waking.
int choose_workers(const ConvProblem& p, int threads) {
  constexpr double kProductsPerWorker = 1e5;
  const double products = double(p.batch) * p.out_channels * p.out_size[0] * p.out_size[1] * p.kernel[0] *
                          p.kernel[1] * (p.in_channels / p.groups);
  return int(std::clamp(products / kProductsPerWorker, 1.0, double(threads)));
}

void run_tasks(const TaskPool& pool, int64_t count, void (*task)(void*, int64_t, int), void* context) {
  std::atomic<int64_t> next{0};
  const Threads& threads = *static_cast<const Threads*>(pool.threads);
  threads.run(int(std::min<int64_t>(pool.workers, count)), [&](int worker) {
    for (int64_t index; (index = next.fetch_add(1, std::memory_order_relaxed)) < count;)
      task(context, index, worker);
  });
}

const char* refuses(const ConvProblem& problem) {
  return is_floating(problem) ? nullptr : "direct runs floating types only";
}

size_t workspace_bytes(const ConvProblem& problem, int threads) {
  if (writes_nothing(problem)) return 0;
  const DirectTable& isa = table();
  const int workers = choose_workers(problem, threads);
  if (problem.op == DILCONV_GRAD_WEIGHT) {
    const OwnedWeightPlan owned(problem, isa.vector_bytes, element_bytes(problem));
    return isa.weight[problem.dtype].workspace_bytes(owned.plan, workers);
  }
  const OwnedGatherPlan owned(problem, isa.vector_bytes, element_bytes(problem));
  return isa.gather[problem.dtype].workspace_bytes(owned.plan, workers);
}

void run(const ConvProblem& problem, const Tensors& tensors, const Threads& threads) {
  if (writes_nothing(problem)) return;
  const DirectTable& isa = table();
  const TaskPool pool = {choose_workers(problem, threads.count()), &threads, run_tasks};
  if (problem.op == DILCONV_GRAD_WEIGHT) {
    const OwnedWeightPlan owned(problem, isa.vector_bytes, element_bytes(problem));
    isa.weight[problem.dtype].run(owned.plan, tensors.x, tensors.y, tensors.w, tensors.workspace, pool);
    return;
  }
  const bool forward = problem.op == DILCONV_CONV2D;
  const OwnedGatherPlan owned(problem, isa.vector_bytes, element_bytes(problem));
  isa.gather[problem.dtype].run(owned.plan, forward ? tensors.x : tensors.y, tensors.w, tensors.bias,
                                forward ? tensors.y : tensors.x, tensors.workspace, pool);
}

}  // namespace

const Kernel kDirect = {"direct", refuses, workspace_bytes, run};

}  // namespace dilconv
