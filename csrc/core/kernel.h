// The contract of a kernel, and of a device's ordered list of them.
#pragma once

#include <vector>

#include "problem.h"

namespace dilconv {

// Threads are handed down by the caller; a kernel never starts one itself.
class Threads {
 public:
  Threads() = default;
  explicit Threads(const dilconv_threads& threads) : threads_(threads) {}

  int count() const { return threads_.run && threads_.count > 1 ? threads_.count : 1; }

  // Calls task(worker) for worker in [0, workers), concurrently; returns when all have returned.
  template <class Task>
  void run(int workers, const Task& task) const {
    if (workers <= 1) return task(0);
    threads_.run(
        threads_.pool, workers,
        [](void* context, int worker) { (*static_cast<const Task*>(context))(worker); },
        const_cast<Task*>(&task));
  }

 private:
  dilconv_threads threads_{1, nullptr, nullptr};
};

// What a kernel may use while it runs: threads on the CPU, a CUDA stream on a GPU.
struct Execution {
  Threads threads;
  void* stream = nullptr;
};

// isa: an index into the device's instruction sets, the same for all calls of one convolution.
struct Kernel {
  const char* name;
  // Why the kernel cannot run the problem, in words; null if it can.
  const char* (*refuses)(const ConvProblem& problem, int isa);
  // Why a later kernel is expected to be faster, in words; null if none is. Not asked when the
  // kernel is named.
  const char* (*declines)(const ConvProblem& problem, int isa);
  size_t (*workspace_bytes)(const ConvProblem& problem, int threads, int isa);
  void (*run)(const ConvProblem& problem, const Tensors& tensors, const Execution& execution,
              int isa);
};

inline const char* never_declines(const ConvProblem&, int) { return nullptr; }

struct Device {
  const char* name;
  std::vector<Kernel> kernels;                // best first, the reference last
  std::vector<const char*> instruction_sets;  // that the kernels are made for, best first
  // Index of the best instruction set that the machine (the current GPU) runs.
  int (*machine_isa)();
};

}  // namespace dilconv
