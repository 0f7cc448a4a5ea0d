// The CUDA runtime and the control interface of the emulated GPU.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "block.h"
#include "counters.h"
#include "cuda_emulator/control.h"
#include "cuda_emulator/machine.h"
#include "cuda_runtime.h"
#include "memory.h"
#include "symbols.h"

#if defined(CUDA_EMULATOR_TSAN)
// The emulator is not instrumented, but TSan knows the memory that it allocates.
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_suppressions() {
  return "race:cuda_emulator::collective\n";
}
#endif

namespace cuda_emulator {
namespace {

struct Gpu {
  int capability;
  int shared_kilobytes;            // of a multiprocessor
  int shared_kilobytes_per_block;  // that a kernel may opt in to
};

// CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". For the last of
// them there is no code: neither what is made for 10.0 runs there, nor PTX for 12.0.
constexpr Gpu kGpus[] = {{75, 64, 64},   {80, 164, 163},  {86, 100, 99},  {89, 100, 99},
                         {90, 228, 227}, {100, 228, 227}, {120, 100, 99}, {110, 228, 227}};
constexpr int kWithoutCode = 110;
constexpr size_t kWithoutOptingIn = 48 * 1024;

const Gpu* find_gpu(int capability) {
  for (const Gpu& gpu : kGpus)
    if (gpu.capability == capability) return &gpu;
  return nullptr;
}

const Gpu* initial_gpu() {
  const char* wanted = std::getenv("CUDA_EMULATOR_CAPABILITY");
  const Gpu* gpu = find_gpu(wanted ? std::atoi(wanted) : 80);
  if (!gpu) {
    std::fprintf(stderr, "CUDA_EMULATOR_CAPABILITY=%s is not emulated\n", wanted);
    std::abort();
  }
  return gpu;
}

const Gpu*& gpu() {
  static const Gpu* current = initial_gpu();
  return current;
}

std::map<const void*, size_t> opted_in;  // bytes of shared memory, by kernel
std::string message;                     // about the last error
cudaError_t last_error = cudaSuccess;
bool launches_only = false;

cudaError_t fail(cudaError_t error, const std::string& text) {
  message = text;
  last_error = error;
  return error;
}

bool exceeds(dim3 size, dim3 limit) {
  return size.x > limit.x || size.y > limit.y || size.z > limit.z;
}

// The kernel's __launch_bounds__, as <cuda_runtime.h> left it in the code; 0 without one.
unsigned launch_bound(const void* kernel) {
#if defined(__x86_64__)
  constexpr unsigned char kNoOp[] = {0x90}, kBranchTarget[] = {0xf3, 0x0f, 0x1e, 0xfa};
#elif defined(__aarch64__)
  constexpr unsigned char kNoOp[] = {0x1f, 0x20, 0x03, 0xd5},
                          kBranchTarget[] = {0x5f, 0x24, 0x03, 0xd5};
#else
#error "tell what a no-op looks like"
#endif
  const auto* code = static_cast<const unsigned char*>(kernel);
  if (std::memcmp(code, kBranchTarget, sizeof kBranchTarget) == 0) code += sizeof kBranchTarget;
  unsigned count = 0;
  for (; std::memcmp(code, kNoOp, sizeof kNoOp) == 0; code += sizeof kNoOp) ++count;
  return count;
}

// Why the registers of a multiprocessor, or the kernel's own promise, do not allow the block. nvcc
// gives a kernel with a bound so few registers that a block of as many threads can be launched, and
// one without a bound up to 255.
std::string register_refusal(const void* kernel, uint64_t threads) {
  constexpr uint64_t kThreadsOfMostRegisters = 65536 / 256;
  const unsigned bound = launch_bound(kernel);
  const std::string count = std::to_string(threads) + " threads in a block, but ";
  if (bound && threads > bound)
    return count + "__launch_bounds__ promise at most " + std::to_string(bound);
  if (!bound && threads > kThreadsOfMostRegisters)
    return count + "without __launch_bounds__ the registers need not suffice for more than " +
           std::to_string(kThreadsOfMostRegisters);
  return {};
}

// Why the hardware would not launch the kernel, or an empty string.
std::string refusal(const void* kernel, const cudaLaunchConfig_t& config) {
  const dim3 grid = config.gridDim, block = config.blockDim;
  if (!grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z)
    return "an empty grid or block";
  if (exceeds(grid, {0x7fffffff, 65535, 65535})) return "a grid beyond (2^31 - 1, 65535, 65535)";
  if (exceeds(block, {1024, 1024, 64})) return "a block beyond (1024, 1024, 64)";
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (threads > kMaxThreads) return "more than 1024 threads in a block";
  const std::string registers = register_refusal(kernel, threads);
  if (!registers.empty()) return registers;
  if (config.numAttrs) return "launch attributes are not emulated";
  const auto raised = opted_in.find(kernel);
  const size_t limit =
      raised == opted_in.end() ? kWithoutOptingIn : std::max(kWithoutOptingIn, raised->second);
  if (config.dynamicSmemBytes > limit)
    return std::to_string(config.dynamicSmemBytes) + " bytes of shared memory, but " +
           std::to_string(limit) + " are allowed";
  return {};
}

}  // namespace

cudaError_t set_attribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
  if (value < 0 || value > gpu()->shared_kilobytes_per_block * 1024)
    return fail(cudaErrorInvalidValue,
                "kernel " + function_name(kernel) + ": " + std::to_string(value) +
                    " bytes of shared memory, on sm_" + std::to_string(gpu()->capability));
  opted_in[kernel] = size_t(value);
  return cudaSuccess;
}

cudaError_t find_kernel(const void* kernel) {
  if (gpu()->capability == kWithoutCode)
    return fail(cudaErrorNoKernelImageForDevice,
                "kernel " + function_name(kernel) + ": no image for the device");
  return cudaSuccess;
}

cudaError_t launch(const void* kernel, const cudaLaunchConfig_t& config,
                   const std::function<void()>& thread) {
  const std::string name = function_name(kernel);
  if (in_kernel()) return fail(cudaErrorInvalidValue, "kernel " + name + ": launched by a kernel");
  const cudaError_t found = find_kernel(kernel);
  if (found != cudaSuccess) return found;
  const std::string reason = refusal(kernel, config);
  if (!reason.empty()) return fail(cudaErrorInvalidConfiguration, "kernel " + name + ": " + reason);
  set_shared_bytes(config.dynamicSmemBytes);
  start_counting(name, config);
  try {
    if (!launches_only) run_grid(name, config.gridDim, config.blockDim, thread);
  } catch (const Fault& error) {
    return fail(cudaErrorLaunchFailure, error.text);
  }
  finish_counting();
  return cudaSuccess;
}

int capability() { return gpu()->capability; }

void require_capability(int needed, const char* what, Site site) {
  if (capability() < needed)
    fault(std::string(what) + " needs sm_" + std::to_string(needed) + ", but this is sm_" +
              std::to_string(capability()),
          site);
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaSuccess) return "no error";
  return error == last_error ? message.c_str() : "an error of CUDA";
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return fail(cudaErrorInvalidDevice, "there is one device, number 0");
  const Gpu& current = *gpu();
  switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = int(kWithoutOptingIn);
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = 4;  // few, so that small problems are large
      return cudaSuccess;
    case cudaDevAttrL2CacheSize:
      *value = 4 << 20;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = current.capability / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = current.capability % 10;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = current.shared_kilobytes * 1024;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = current.shared_kilobytes_per_block * 1024;
      return cudaSuccess;
  }
  return fail(cudaErrorInvalidValue, "an attribute that is not emulated");
}

cudaError_t cudaMemsetAsync(void* address, int value, size_t bytes, cudaStream_t) {
  char* host = writable_buffer(address, bytes);
  if (!host && bytes) return fail(cudaErrorInvalidValue, "cudaMemsetAsync beyond a buffer");
  if (bytes) std::memset(host, value, bytes);
  return cudaSuccess;
}

int cuda_emulator_set_schedule(const char* name, unsigned seed) {
  static const char* const names[] = {"forward", "reverse", "random", "greedy"};
  for (int i = 0; i < 4; ++i)
    if (std::strcmp(name, names[i]) == 0) {
      set_schedule(Schedule(i), seed);
      return 0;
    }
  return -1;
}

int cuda_emulator_set_capability(int capability) {
  const Gpu* wanted = find_gpu(capability);
  if (wanted) gpu() = wanted;
  return wanted ? 0 : -1;
}

void* cuda_emulator_map(void* host, size_t bytes, int writable, const char* name) {
  return map_buffer(host, bytes, writable != 0, name);
}

void cuda_emulator_unmap(void) { unmap_buffers(); }

const char* cuda_emulator_error(void) { return message.c_str(); }

void cuda_emulator_count(int on) { set_counting(on != 0); }

void cuda_emulator_launch_only(int on) { launches_only = on != 0; }

const char* cuda_emulator_counters(void) {
  static std::string text;
  text = counters_json();
  return text.c_str();
}

int64_t cuda_emulator_threads_run(void) { return threads_run(); }
