// The memory that kernels see: buffers mapped from the host, and a block's shared memory. Each
// access is checked for bounds, alignment, permission and races.
#pragma once

#include <stddef.h>

namespace cuda_emulator {

constexpr size_t kMaxSharedBytes = 227 * 1024;

void* map_buffer(void* host, size_t bytes, bool writable, const char* name);
void unmap_buffers();

// Where host code, not a kernel, finds the bytes; null unless all of them are in one buffer that
// is writable.
char* writable_buffer(const void* address, size_t bytes);

// The size of the dynamic shared memory of the launch.
void set_shared_bytes(size_t bytes);

// Fills it with NaN, for a new block.
void start_shared_memory();

// Counts the requests that warps made since the last call, for the block's barrier separates them.
void end_requests();

}  // namespace cuda_emulator
