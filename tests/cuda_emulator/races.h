// Who last touched each byte: enough to tell of any access whether it races with an earlier one.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include <new>
#include <utility>

#include "block.h"

namespace cuda_emulator {

struct Touch {
  uint32_t time = 0;  // of the last barrier of the toucher's warp
  uint16_t thread = 0;
};

// Whether the touch happened before whatever the thread does now. `since`: what is older is not
// asked about (the launch's start for global memory, the block's for shared).
inline bool ordered(const Touch& touch, const Now& now, uint32_t since) {
  if (touch.time < since) return true;
  if (touch.time < now.start) return false;  // another block of the launch
  if (touch.time < now.block || touch.thread == now.thread) return true;
  return touch.thread / 32 == now.thread / 32 && touch.time < now.warp;
}

inline bool same_warp(const Touch& touch, const Now& now) {
  return touch.time >= now.start && touch.thread / 32 == now.thread / 32;
}

// Two readers are enough: of readers that no barrier separates, two of different warps race with
// any later writer, and so do two of one warp.
class Byte {
 public:
  // The touch with which the access races, or null.
  const Touch* read(const Now& now, uint32_t since) {
    const Touch me = {now.warp, now.thread};
    if (ordered(readers_[0], now, since)) {
      readers_[0] = me;
    } else if (ordered(readers_[1], now, since)) {
      readers_[1] = me;
    } else if (!same_warp(readers_[0], now)) {
      readers_[1] = me;
    } else if (!same_warp(readers_[1], now)) {
      readers_[0] = me;
    }
    return ordered(writer_, now, since) ? nullptr : &writer_;
  }

  const Touch* write(const Now& now, uint32_t since) {
    for (const Touch* touch : {&writer_, &readers_[0], &readers_[1]})
      if (!ordered(*touch, now, since)) return touch;
    writer_ = {now.warp, now.thread};
    return nullptr;
  }

 private:
  Touch writer_, readers_[2];
};

// One Byte for each byte of a buffer. Pages that are never touched take no memory.
class Shadow {
 public:
  explicit Shadow(size_t bytes) : size_(bytes * sizeof(Byte)) {
    if (!size_) return;
    void* pages = mmap(nullptr, size_, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    bytes_ = static_cast<Byte*>(pages);
  }
  Shadow(Shadow&& other) noexcept
      : size_(std::exchange(other.size_, 0)), bytes_(std::exchange(other.bytes_, nullptr)) {}
  Shadow(const Shadow&) = delete;
  Shadow& operator=(const Shadow&) = delete;
  ~Shadow() {
    if (bytes_) munmap(bytes_, size_);
  }

  // The first touch that races with an access to these bytes, or null.
  const Touch* access(size_t first, size_t bytes, bool write, const Now& now, uint32_t since) {
#if defined(CUDA_EMULATOR_TSAN)
    return nullptr;  // its turn to find them
#endif
    for (size_t i = first; i < first + bytes; ++i)
      if (const Touch* touch = write ? bytes_[i].write(now, since) : bytes_[i].read(now, since))
        return touch;
    return nullptr;
  }

 private:
  size_t size_;
  Byte* bytes_ = nullptr;
};

}  // namespace cuda_emulator
