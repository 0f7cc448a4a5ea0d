// What the files of the emulator's own test share: launching a kernel, and saying how it must end.
#pragma once

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "../../csrc/cuda/device.h"
#include "cuda_emulator/control.h"

namespace selftest {

using namespace dilconv::cuda;

inline int failures = 0, checks = 0;

struct Launch {
  dim3 grid = 1, block = 64;
  size_t shared = 0;
};

template <class... P, class... A>
cudaError_t start(const Launch& how, void (*kernel)(P...), A... arguments) {
  cudaLaunchConfig_t config = {how.grid, how.block, how.shared, nullptr, nullptr, 0};
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

// An empty `wanted` means that the launch succeeds; else its error contains it.
inline void expect(const char* what, cudaError_t error, const char* wanted) {
  ++checks;
  const std::string got = error == cudaSuccess ? "" : cuda_emulator_error();
  const bool holds = *wanted ? got.find(wanted) != std::string::npos : got.empty();
  if (holds) return;
  ++failures;
  std::printf("FAILED %s: expected '%s', got '%s'\n", what, wanted, got.c_str());
}

inline void expect(const char* what, bool holds) {
  ++checks;
  if (holds) return;
  ++failures;
  std::printf("FAILED %s\n", what);
}

constexpr const char* kSchedules[] = {"forward", "reverse", "random", "greedy"};

// The launch must end so under every schedule.
inline void expect_always(const char* what, const char* wanted,
                          const std::function<cudaError_t()>& run) {
  for (const char* schedule : kSchedules) {
    cuda_emulator_set_schedule(schedule, 1);
    expect((std::string(what) + ", " + schedule).c_str(), run(), wanted);
  }
  cuda_emulator_set_schedule("forward", 0);
}

inline float* map(std::vector<float>& data, bool writable) {
  return static_cast<float*>(
      cuda_emulator_map(data.data(), data.size() * sizeof(float), writable, "the data"));
}

inline float* tile() { return reinterpret_cast<float*>(shared_memory()); }

void test_copies();
void test_tensor_cores();

}  // namespace selftest
