#include "tasks.h"

#include <algorithm>
#include <atomic>
#include <string>

#include "../core/registry.h"

namespace dilconv {
namespace {

// Tasks are handed out one by one: their results do not depend on who runs them.
void run_tasks(const TaskPool& pool, int64_t count, void (*task)(void*, int64_t, int),
               void* context) {
  std::atomic<int64_t> next{0};
  const Threads& threads = *static_cast<const Threads*>(pool.threads);
  threads.run(int(std::min<int64_t>(pool.workers, count)), [&](int worker) {
    for (int64_t index; (index = next.fetch_add(1, std::memory_order_relaxed)) < count;)
      task(context, index, worker);
  });
}

}  // namespace

const InstructionSet& kernels_for(int isa) {
#if defined(__x86_64__)
  // A set that has no kernels of its own runs those of the next one.
  for (const std::vector<const char*>& names = find_device("cpu")->instruction_sets;; ++isa) {
    const std::string name = names[isa];
    if (name == "avx512") return kAvx512;
    if (name == "avx2") return kAvx2;
    if (name == "sse2") return kSse2;
  }
#else
  (void)isa;
  return kGeneric;
#endif
}

const MatrixFunctions* matrix_for(int isa) {
#if defined(DILCONV_MATRIX)
  const std::string name = find_device("cpu")->instruction_sets[isa];
  if (name == "amx") return &kMatrixAmx;
  if (name == "avx512_bf16") return &kMatrixAvx512Bf16;
#else
  (void)isa;
#endif
  return nullptr;
}

int element_bytes(const ConvProblem& problem) { return problem.dtype == DILCONV_FLOAT64 ? 8 : 4; }

bool writes_nothing(const ConvProblem& p) {
  if (p.op == DILCONV_GRAD_WEIGHT) return p.out_channels == 0 || p.in_channels == 0;
  const bool forward = p.op == DILCONV_CONV2D;
  const int64_t (&size)[2] = forward ? p.out_size : p.in_size;
  return p.batch == 0 || size[0] == 0 || size[1] == 0 ||
         (forward ? p.out_channels : p.in_channels) == 0;
}

int choose_workers(const ConvProblem& p, int threads) {
  // Threads are woken only for work that outlasts the waking.
  constexpr double kProductsPerWorker = 1e5;
  const double products = double(p.batch) * p.out_channels * p.out_size[0] * p.out_size[1] *
                          p.kernel[0] * p.kernel[1] * (p.in_channels / p.groups);
  return int(std::clamp(products / kProductsPerWorker, 1.0, double(threads)));
}

TaskPool make_pool(const ConvProblem& problem, const Threads& threads) {
  return {choose_workers(problem, threads.count()), &threads, run_tasks};
}

}  // namespace dilconv
