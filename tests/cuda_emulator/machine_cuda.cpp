// The emulated GPU: three compute capabilities that take different paths, and every schedule.
#include <cstdlib>

#include "../kernels/machine.h"
#include "cuda_emulator/control.h"

namespace {

Way schedule(const char* name, void (*prepare)()) {
  return {name, {{1, nullptr, nullptr}, nullptr}, prepare};
}

}  // namespace

Machine this_machine() {
  return {"cuda",
          "oracle",
          {"sm_90", "sm_80", "sm_75"},
          {schedule("forward", [] { cuda_emulator_set_schedule("forward", 0); }),
           schedule("reverse", [] { cuda_emulator_set_schedule("reverse", 0); }),
           schedule("greedy", [] { cuda_emulator_set_schedule("greedy", 0); }),
           schedule("random", [] { cuda_emulator_set_schedule("random", 1); })},
          [](const char* isa) { cuda_emulator_set_capability(std::atoi(isa + 3)); },
          [](void* host, size_t bytes, bool writable, const char* name) {
            return cuda_emulator_map(host, bytes, writable, name);
          },
          cuda_emulator_unmap};
}
