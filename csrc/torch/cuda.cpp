// The ops on CUDA tensors: the tensor's GPU, torch's current stream there, and workspace from
// torch's caching allocator. Nothing waits for the GPU, so a CUDA graph may capture a call.
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "device_ops.h"

namespace dilconv {
namespace {

struct Cuda {
  static constexpr const char* name = "cuda";

  struct Guard : c10::cuda::CUDAGuard {
    explicit Guard(const at::Tensor& tensor) : c10::cuda::CUDAGuard(tensor.device()) {}
  };

  static void run(const Kernel& kernel, const ConvProblem& problem, Tensors tensors, int isa) {
    // On this stream, like the work: so it may be freed before the work is done. Not a tensor,
    // which torch.use_deterministic_algorithms would fill.
    c10::DataPtr workspace;
    const size_t bytes = kernel.workspace_bytes(problem, 1, isa);
    if (bytes) workspace = c10::cuda::CUDACachingAllocator::get()->allocate(bytes);
    tensors.workspace = workspace.get();
    kernel.run(problem, tensors, {Threads(), c10::cuda::getCurrentCUDAStream().stream()}, isa);
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(dilconv, CUDA, m) { DeviceOps<Cuda>::implement(m); }

}  // namespace dilconv
