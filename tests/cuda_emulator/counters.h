// Counts what the hardware would do for the memory requests of warps.
#pragma once

#include <stdint.h>

#include <string>

#include "cuda_emulator/machine.h"
#include "cuda_runtime.h"

namespace cuda_emulator {

enum class Space { kGlobal, kShared };

// Whether requests are recorded. Switching it on forgets what was counted.
bool counting();
void set_counting(bool on);

// The launch that follows is of this kernel.
void start_counting(const std::string& kernel, const cudaLaunchConfig_t& config);
// Arithmetic since then belongs to it.
void finish_counting();

// An access of the thread; for shared memory, the address is an offset.
void record_request(int thread, Space space, Access access, uint64_t address, size_t bytes,
                    Site site);

// Groups what was recorded into requests of warps and counts them. Lanes meet by source line and by
// how often they have been there since the last call: exact where a warp does not diverge.
void group_requests();

// A JSON list with an object per kernel.
std::string counters_json();

}  // namespace cuda_emulator
