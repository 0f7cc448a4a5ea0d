// What the sanitizers must be told about fibers and barriers; nothing in other builds.
#pragma once

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(CUDA_EMULATOR_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace cuda_emulator {

// One end of a switch between stacks.
class SanitizedStack {
 public:
#if defined(__SANITIZE_ADDRESS__)
  // Before leaving this stack for another; `ends` when it is never resumed.
  void leave(const SanitizedStack& to, bool ends = false) {
    __sanitizer_start_switch_fiber(ends ? nullptr : &fake_stack_, to.bottom_, to.bytes_);
  }
  // After coming (back) to this stack from another, whose extent is noted.
  void arrive(SanitizedStack& from) {
    __sanitizer_finish_switch_fiber(fake_stack_, &from.bottom_, &from.bytes_);
  }
  void set_extent(const void* bottom, size_t bytes) {
    bottom_ = bottom;
    bytes_ = bytes;
  }

 private:
  void* fake_stack_ = nullptr;
  const void* bottom_ = nullptr;
  size_t bytes_ = 0;
#elif defined(CUDA_EMULATOR_TSAN)
  void leave(const SanitizedStack& to, bool = false) {
    if (!fiber_) fiber_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to.fiber_, __tsan_switch_to_fiber_no_sync);
  }
  void arrive(SanitizedStack&) {}
  void set_extent(const void*, size_t) { fiber_ = __tsan_create_fiber(0); }

 private:
  void* fiber_ = nullptr;
#else
  void leave(const SanitizedStack&, bool = false) {}
  void arrive(SanitizedStack&) {}
  void set_extent(const void*, size_t) {}
#endif
};

// A point that orders what came before release() before what comes after acquire().
struct SyncPoint {
#if defined(CUDA_EMULATOR_TSAN)
  void release() { __tsan_release(this); }
  void acquire() { __tsan_acquire(this); }
#else
  void release() {}
  void acquire() {}
#endif
  char address = 0;
};

}  // namespace cuda_emulator
