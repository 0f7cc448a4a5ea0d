// One thread block: a fiber per thread, barriers, operations of whole warps, and the order in which
// threads run.
#pragma once

#include <stdint.h>

#include <functional>
#include <string>

#include "cuda_emulator/machine.h"
#include "cuda_runtime.h"

namespace cuda_emulator {

constexpr int kMaxThreads = 1024;

enum class Schedule { kForward, kReverse, kRandom, kGreedy };

// Moments, counted in barriers: what happened at an earlier time than a thread's `block` happened
// before it, and so did what its own warp did earlier than its `warp`.
struct Now {
  uint32_t launch, start, block, warp;  // start: of the thread block
  uint16_t thread;
};

// Of the running thread.
Now now();
bool in_kernel();

// Lets another thread go first, now and then, where the schedule is random.
void maybe_yield();

// The schedule for the launches that follow, and what its random numbers start from.
void set_schedule(Schedule schedule, unsigned seed);

struct Fault {
  std::string text;
};

// Runs all blocks of the grid. Throws Fault.
void run_grid(const std::string& kernel, dim3 grid, dim3 block,
              const std::function<void()>& thread);

int64_t threads_run();

}  // namespace cuda_emulator
