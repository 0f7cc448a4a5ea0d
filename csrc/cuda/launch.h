// Launching kernels. Host code only.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "capability.h"

namespace dilconv::cuda {

inline void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  std::string what = std::string("CUDA: ") + cudaGetErrorString(status);
  if (status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction)
    what += ": this build has no kernels for compute capability " + machine_capability();
  cudaGetLastError();  // whoever asks next for the last error must not find this one
  throw std::runtime_error(what);
}

struct Grid {
  dim3 blocks;
  dim3 threads;
  size_t shared_bytes;
};

// Enqueues the kernel on the stream (a cudaStream_t); an empty grid is nothing to do.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, void* stream,
            const Arguments&... arguments) {
  constexpr size_t kWithoutOptingIn = 48 * 1024;
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return;
  if (grid.shared_bytes > kWithoutOptingIn)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               int(grid.shared_bytes)));
  cudaLaunchConfig_t config = {};
  config.gridDim = grid.blocks;
  config.blockDim = grid.threads;
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  check(cudaLaunchKernelEx(&config, kernel, arguments...));
}

}  // namespace dilconv::cuda
