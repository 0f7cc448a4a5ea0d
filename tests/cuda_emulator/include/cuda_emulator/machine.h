// The emulated GPU as a kernel's thread sees it: memory that checks each access, barriers, and
// operations of whole warps. device.h builds the kernels' vocabulary from it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <string>

namespace cuda_emulator {

// A place in a kernel's source. As a default argument, here() is where the function is called.
struct Site {
  const char* file = "";
  int line = 0;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
  bool operator==(const Site& other) const { return file == other.file && line == other.line; }
};

// Ends the launch; the message names the kernel, the block, the thread and the line as well.
[[noreturn]] void fault(const std::string& message, Site site);

enum class Access { kRead, kWrite };

// Where the bytes at a device address are on the host, after every check that there is: bounds,
// alignment to the size of the access, permission, races.
char* global_memory(const void* address, size_t bytes, Access access, Site site);
char* shared_memory(const void* address, size_t bytes, Access access, Site site);

// The device address of the block's dynamic shared memory.
char* shared_base();

// cp.async: the destination holds NaN, and may not be touched, until the copy was waited for. An
// invalid copy writes zeros and reads nothing. Needs sm_80.
void copy_async(void* shared, const void* global, size_t bytes, bool valid, Site site);
void commit_async(Site site);
void wait_async(int groups_left, Site site);

void block_barrier(Site site);
void warp_barrier(uint32_t lanes, Site site);

// An operation of the given lanes together: the last one to arrive computes it from everybody's
// operands (by lane; null for the others), and then all go on.
using Compute = void (*)(void* const* operands);
void collective(const char* name, uint32_t lanes, void* operands, Compute compute, Site site);
constexpr uint32_t kAllLanes = 0xffffffff;

// Faults on a GPU older than sm_<capability>.
void require_capability(int capability, const char* what, Site site);
int capability();

// Arithmetic that kernels report, since their launch: fused multiply-adds of threads, and multiply-
// adds of tensor cores.
struct Arithmetic {
  int64_t fma = 0, tensor_core = 0;
};
extern Arithmetic arithmetic;

}  // namespace cuda_emulator
