#include "capability.h"

#include <cuda_runtime.h>

#include <atomic>

#include "launch.h"

namespace dilconv::cuda {
namespace {

struct InstructionSet {
  const char* name;
  int capability;
};

constexpr InstructionSet kInstructionSets[] = {{"sm_120", 120}, {"sm_100", 100}, {"sm_90", 90},
                                               {"sm_89", 89},   {"sm_86", 86},   {"sm_80", 80},
                                               {"sm_75", 75}};
constexpr int kCount = sizeof kInstructionSets / sizeof *kInstructionSets;

// Of the current GPU; 0 without one.
int current_capability() {
  int device, major, minor;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess) {
    cudaGetLastError();  // whoever asks next for the last error must not find this one
    return 0;
  }
  return 10 * major + minor;
}

__global__ void __launch_bounds__(32) probe() {}

// Fails if this build has no code for the current GPU, as the first launch would, but also where
// nothing is launched: when the choice of a kernel is explained.
void require_code(int capability) {
  static std::atomic<int> last_found{0};
  if (capability == last_found) return;
  cudaFuncAttributes attributes;
  check(cudaFuncGetAttributes(&attributes, probe));
  last_found = capability;
}

}  // namespace

std::vector<const char*> instruction_sets() {
  std::vector<const char*> names;
  for (const InstructionSet& set : kInstructionSets) names.push_back(set.name);
  return names;
}

int compute_capability(int isa) { return kInstructionSets[isa].capability; }

int machine_isa() {
  const int capability = current_capability();
  if (capability > 0) require_code(capability);
  for (int isa = 0; isa < kCount; ++isa)
    if (capability >= kInstructionSets[isa].capability) return isa;
  return kCount - 1;
}

std::string machine_capability() {
  const int capability = current_capability();
  return std::to_string(capability / 10) + '.' + std::to_string(capability % 10);
}

}  // namespace dilconv::cuda
