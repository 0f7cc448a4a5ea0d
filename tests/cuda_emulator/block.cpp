#include "block.h"

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <deque>
#include <numeric>
#include <random>
#include <sstream>
#include <vector>

#include "memory.h"
#include "runnable.h"
#include "sanitizers.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_emulator {

Arithmetic arithmetic;

namespace {

using boost::context::fiber;

constexpr size_t kStackBytes = 256 * 1024;

enum class State { kRunnable, kAtBarrier, kInWarp, kFinished };

struct Thread {
  fiber context;
  SanitizedStack stack;
  State state = State::kFinished;
  uint3 index{};
  Site site;  // where it waits
};

// An operation of a warp for which lanes have begun to wait.
struct Gathering {
  const char* name;
  uint32_t lanes, arrived;
  Site site;
  void* operands[kLanes];
};

struct Warp {
  uint32_t lanes = 0;  // that exist
  uint32_t time = 0;   // of its last barrier
  std::vector<Gathering> gatherings;
  SyncPoint sync[2];
  unsigned barriers = 0;
};

struct Grid {
  std::string kernel;
  const std::function<void()>* thread = nullptr;
  std::string fault;       // of the thread that ended the launch
  bool unwinding = false;  // the others end too

  Schedule schedule = Schedule::kForward;
  unsigned seed = 0;
  std::mt19937 random;

  std::deque<Thread> pool;
  SanitizedStack scheduler_stack;
  fiber scheduler;
  Warp warps[kWarps];
  Runnable runnable;
  int threads = 0, finished = 0, at_barrier = 0, cursor = 0;
  int running = -1;
  uint32_t clock = 1, launch_time = 0, start_time = 0, block_time = 0;
  SyncPoint begin, end;  // of a block
  SyncPoint sync[2];
  unsigned barriers = 0;
  Site barrier_site;
  int64_t threads_run = 0;
};

Grid& grid = *new Grid;  // for ever: fibers that wait cannot be destroyed

struct Unwind {};

Thread& thread_at(int number) { return grid.pool[number]; }
Warp& warp_of(int number) { return grid.warps[number / kLanes]; }
uint32_t bit_of(int number) { return 1u << number % kLanes; }

std::string text(uint3 at) {
  std::ostringstream out;
  out << '(' << at.x << ", " << at.y << ", " << at.z << ')';
  return out.str();
}

std::string text(Site site) { return std::string(site.file) + ':' + std::to_string(site.line); }

std::string where() { return "kernel " + grid.kernel + ", block " + text(blockIdx); }

void set_state(int number, State state) {
  thread_at(number).state = state;
  grid.runnable.set(number, state == State::kRunnable);
}

// Back to the scheduler, from the running thread; returns when it is resumed.
void suspend() {
  Thread& self = thread_at(grid.running);
  self.stack.leave(grid.scheduler_stack);
  grid.scheduler = std::move(grid.scheduler).resume();
  self.stack.arrive(grid.scheduler_stack);
}

void leave() {
  suspend();
  if (grid.unwinding) throw Unwind{};
}

void wait(State state, Site site) {
  set_state(grid.running, state);
  thread_at(grid.running).site = site;
  leave();
}

void finish() {
  const int self = grid.running;
  ++grid.finished;
  ++grid.threads_run;
  set_state(self, State::kFinished);
  if (grid.at_barrier > 0)
    fault("ends while others wait at the block's barrier, which all threads must reach", {});
  for (const Gathering& gathering : warp_of(self).gatherings)
    if (gathering.lanes & bit_of(self))
      fault(std::string("ends while other lanes wait for it in ") + gathering.name + " at " +
                text(gathering.site),
            {});
}

// A fiber of the pool runs one thread of each block.
fiber thread_main(fiber&& scheduler, int number) {
  grid.scheduler = std::move(scheduler);
  thread_at(number).stack.arrive(grid.scheduler_stack);
  for (;;) {
    try {
      grid.begin.acquire();
      if (!grid.unwinding) (*grid.thread)();
      grid.end.release();
      if (!grid.unwinding) finish();
    } catch (const Fault& error) {
      grid.fault = error.text;
    } catch (const Unwind&) {
    }
    set_state(grid.running, State::kFinished);
    suspend();
  }
}

void resume(int number) {
  Thread& thread = thread_at(number);
  grid.running = number;
  threadIdx = thread.index;
  grid.scheduler_stack.leave(thread.stack);
  thread.context = std::move(thread.context).resume();
  grid.scheduler_stack.arrive(thread.stack);
  grid.running = -1;
  if (!grid.fault.empty()) throw Fault{grid.fault};
}

int pick() {
  int& cursor = grid.cursor;
  int chosen = -1;
  switch (grid.schedule) {
    case Schedule::kForward:
      chosen = grid.runnable.next_after(cursor);
      cursor = chosen + 1;
      break;
    case Schedule::kReverse:
      chosen = grid.runnable.next_before(cursor);
      cursor = chosen - 1;
      break;
    case Schedule::kRandom:
      chosen = grid.runnable.next_after(int(grid.random() % unsigned(grid.threads)));
      break;
    case Schedule::kGreedy: {  // the same warp as long as it can
      const int warp = cursor / kLanes;
      chosen = grid.runnable.next_after(grid.runnable.in_warp(warp) ? warp * kLanes : cursor);
      cursor = chosen;
      break;
    }
  }
  return chosen;
}

[[noreturn]] void report_deadlock() {
  for (int i = 0; i < grid.threads; ++i) {
    const Thread& thread = thread_at(i);
    if (thread.state == State::kFinished) continue;
    throw Fault{where() + ": deadlock: thread " + text(thread.index) + " waits at " +
                text(thread.site) +
                (thread.state == State::kAtBarrier ? " for the block's barrier"
                                                   : " for lanes of its warp") +
                ", which others never reach"};
  }
  throw Fault{where() + ": deadlock"};
}

void start_block(dim3 block) {
  grid.start_time = grid.block_time = ++grid.clock;
  grid.finished = grid.at_barrier = 0;
  grid.cursor = grid.schedule == Schedule::kReverse ? grid.threads - 1 : 0;
  grid.runnable = Runnable(grid.threads);
  for (Warp& warp : grid.warps) {
    warp.lanes = 0;
    warp.time = grid.clock;
    warp.gatherings.clear();
  }
  grid.begin.release();
  for (int i = 0; i < grid.threads; ++i) {
    const unsigned n = unsigned(i);
    thread_at(i).index = {n % block.x, n / block.x % block.y, n / block.x / block.y};
    warp_of(i).lanes |= bit_of(i);
    set_state(i, State::kRunnable);
  }
}

void grow_pool() {
  while (int(grid.pool.size()) < grid.threads) {
    const int number = int(grid.pool.size());
    boost::context::protected_fixedsize_stack allocator(kStackBytes);
    const boost::context::stack_context stack = allocator.allocate();
    Thread& thread = grid.pool.emplace_back();
    thread.stack.set_extent(static_cast<char*>(stack.sp) - stack.size, stack.size);
    thread.context =
        fiber(std::allocator_arg, boost::context::preallocated(stack.sp, stack.size, stack),
              allocator, [number](fiber&& from) { return thread_main(std::move(from), number); });
  }
}

void run_block(dim3 block) {
  start_shared_memory();
  start_block(block);
  while (grid.finished < grid.threads) {
    const int chosen = pick();
    if (chosen < 0) report_deadlock();
    resume(chosen);
  }
  grid.end.acquire();
  end_requests();
}

// Ends the threads that a fault of another left waiting.
void unwind_block() {
  grid.fault.clear();
  grid.unwinding = true;
  for (int i = 0; i < grid.threads; ++i)
    if (thread_at(i).state != State::kFinished) resume(i);
  grid.unwinding = false;
}

// Everyone passes the block's barrier.
void release_barrier() {
  grid.at_barrier = 0;
  ++grid.barriers;
  grid.block_time = ++grid.clock;
  for (int i = 0; i < grid.threads; ++i) {
    warp_of(i).time = grid.clock;
    set_state(i, State::kRunnable);
  }
  end_requests();
}

Gathering& gather(Warp& warp, const char* name, uint32_t lanes, Site site) {
  for (Gathering& open : warp.gatherings) {
    if (!(open.lanes & lanes)) continue;
    if (open.lanes != lanes || open.name != name || !(open.site == site))
      fault(std::string(name) + " of other lanes, or at another place, than " + open.name + " at " +
                text(open.site) + ", in which lanes wait for this one",
            site);
    return open;
  }
  warp.gatherings.push_back({name, lanes, 0, site, {}});
  return warp.gatherings.back();
}

}  // namespace

void fault(const std::string& message, Site site) {
  std::string at;
  if (*site.file) at = ", at " + text(site);
  throw Fault{where() + ", thread " + text(threadIdx) + at + ": " + message};
}

bool in_kernel() { return grid.running >= 0; }

Now now() {
  return {grid.launch_time, grid.start_time, grid.block_time, warp_of(grid.running).time,
          uint16_t(grid.running)};
}

void maybe_yield() {
  if (grid.schedule == Schedule::kRandom && grid.random() % 8 == 0) leave();
}

void block_barrier(Site site) {
  if (grid.finished > 0)
    fault("is at the block's barrier, which all threads must reach, but others have ended", site);
  for (const Gathering& gathering : warp_of(grid.running).gatherings)
    if (gathering.lanes & bit_of(grid.running))
      fault(std::string("is at the block's barrier while lanes wait for it in ") + gathering.name +
                " at " + text(gathering.site),
            site);
  if (grid.at_barrier > 0 && !(grid.barrier_site == site))
    fault("is at another barrier than others, who wait at " + text(grid.barrier_site), site);
  grid.barrier_site = site;
  SyncPoint& sync = grid.sync[grid.barriers % 2];
  sync.release();
  if (++grid.at_barrier == grid.threads)
    release_barrier();
  else
    wait(State::kAtBarrier, site);
  sync.acquire();
}

void collective(const char* name, uint32_t lanes, void* operands, Compute compute, Site site) {
  const int self = grid.running;
  Warp& warp = warp_of(self);
  if (!(lanes & bit_of(self))) fault(std::string(name) + " without this lane in its mask", site);
  if (lanes & ~warp.lanes)
    fault(std::string(name) + " names lanes that the block does not have", site);
  Gathering& gathering = gather(warp, name, lanes, site);
  gathering.operands[self % kLanes] = operands;
  gathering.arrived |= bit_of(self);
  if (gathering.arrived != lanes) {
    for (int lane = 0; lane < kLanes; ++lane)
      if (lanes >> lane & 1 && thread_at(self - self % kLanes + lane).state == State::kFinished)
        fault(std::string(name) + " with a lane that has ended", site);
    return wait(State::kInWarp, site);
  }
  const Gathering complete = gathering;
  warp.gatherings.erase(warp.gatherings.begin() + (&gathering - warp.gatherings.data()));
  for (int lane = 0; lane < kLanes; ++lane)
    if (lanes >> lane & 1) set_state(self - self % kLanes + lane, State::kRunnable);
  if (compute) compute(complete.operands);
}

void warp_barrier(uint32_t lanes, Site site) {
  Warp& warp = warp_of(grid.running);
  if (lanes != warp.lanes) fault("a barrier of part of the warp is not emulated", site);
  SyncPoint& sync = warp.sync[warp.barriers % 2];
  sync.release();
  collective(
      "warp_barrier", lanes, nullptr,
      [](void* const*) {
        Warp& self = warp_of(grid.running);
        self.time = ++grid.clock;
        ++self.barriers;
      },
      site);
  sync.acquire();
}

void set_schedule(Schedule schedule, unsigned seed) {
  grid.schedule = schedule;
  grid.seed = seed;
}

int64_t threads_run() { return grid.threads_run; }

void run_grid(const std::string& kernel, dim3 blocks, dim3 block,
              const std::function<void()>& thread) {
  grid.kernel = kernel;
  grid.thread = &thread;
  grid.threads = int(block.x * block.y * block.z);
  grid.random.seed(grid.seed);
  grid.fault.clear();
  grid.launch_time = ++grid.clock;
  gridDim = blocks;
  blockDim = block;
  grow_pool();
  std::vector<uint64_t> order(uint64_t(blocks.x) * blocks.y * blocks.z);
  std::iota(order.begin(), order.end(), uint64_t(0));
  if (grid.schedule == Schedule::kReverse) std::reverse(order.begin(), order.end());
  if (grid.schedule == Schedule::kRandom) std::shuffle(order.begin(), order.end(), grid.random);
  try {
    for (const uint64_t n : order) {
      blockIdx = {unsigned(n % blocks.x), unsigned(n / blocks.x % blocks.y),
                  unsigned(n / blocks.x / blocks.y)};
      run_block(block);
    }
  } catch (const Fault&) {
    unwind_block();
    throw;
  }
}

}  // namespace cuda_emulator
