// The ops on CPU tensors: torch's threads, and workspace for the kernel.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "device_ops.h"

namespace dilconv {
namespace {

void run_in_pool(void*, int count, void (*task)(void* context, int index), void* context) {
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) task(context, int(index));
  });
}

struct Cpu {
  static constexpr const char* name = "cpu";

  struct Guard {
    explicit Guard(const at::Tensor&) {}
  };

  static void run(const Kernel& kernel, const ConvProblem& problem, Tensors tensors, int isa) {
    const int threads = at::in_parallel_region() ? 1 : at::get_num_threads();
    const size_t bytes = kernel.workspace_bytes(problem, threads, isa);
    // Small layers are called often: their scratch does not go through the allocator.
    alignas(64) char small[16384];
    at::Tensor large;
    if (bytes > sizeof small) large = at::empty({int64_t(bytes)}, at::kByte);
    tensors.workspace = large.defined() ? large.data_ptr() : small;
    kernel.run(problem, tensors, {Threads({threads, run_in_pool, nullptr}), nullptr}, isa);
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(dilconv, CPU, m) { DeviceOps<Cpu>::implement(m); }

}  // namespace dilconv
