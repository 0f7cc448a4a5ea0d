#include "memory.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "counters.h"
#include "cuda_emulator/machine.h"
#include "races.h"

namespace cuda_emulator {
namespace {

// Device addresses are none of the host's: bit 62 is set, where no process has memory. Each mapping
// has a slot of 4 TB, lies in its middle, and is found by its number. Slot 0 is shared memory.
constexpr int kSlotBits = 42;
constexpr int kSlots = 65;
constexpr uint64_t kBase = uint64_t(1) << 62;
constexpr uint64_t kMiddle = uint64_t(1) << (kSlotBits - 1);

constexpr uint64_t address_of(int slot) { return kBase + (uint64_t(slot) << kSlotBits) + kMiddle; }

// -1 if the address is not the device's.
int slot_of(uint64_t address) {
  const uint64_t slot = (address - kBase) >> kSlotBits;
  return slot < uint64_t(kSlots) ? int(slot) : -1;
}

struct Buffer {
  std::string name;
  char* host;
  size_t bytes;
  bool writable;
  Shadow shadow;
};

std::vector<Buffer> buffers;

// A cp.async that was issued and not yet waited for.
struct Copy {
  size_t to, bytes;
  char data[16];
  int group;
};

// What a thread has issued; the group that is open has the number `groups`.
struct Copies {
  std::vector<Copy> pending;
  int groups = 0;
};

struct SharedMemory {
  alignas(1024) char host[kMaxSharedBytes];
  bool pending[kMaxSharedBytes];  // destinations of copies
  Shadow shadow{kMaxSharedBytes};
  size_t bytes = 0;
  Copies copies[kMaxThreads];
};

SharedMemory shared;

// The base of shared memory is aligned to 16, as declared, and no better.
constexpr uint64_t kSharedBase = address_of(0) + 16;

uint64_t number_of(const void* address) { return reinterpret_cast<uint64_t>(address); }

void check_alignment(uint64_t address, size_t bytes, Site site) {
  if (address % bytes)
    fault("an address is not a multiple of the " + std::to_string(bytes) +
              " bytes that are accessed there at once",
          site);
}

// `offset`: signed, of the address from the first of `size` bytes.
void check_bounds(uint64_t offset, size_t bytes, size_t size, const std::string& name, Site site) {
  if (offset <= size && bytes <= size - offset) return;
  fault("accesses bytes " + std::to_string(int64_t(offset)) + " to " +
            std::to_string(int64_t(offset + bytes)) + " of " + name + ", which has " +
            std::to_string(size),
        site);
}

void report_race(const Touch& touch, const Now& now, const std::string& name, size_t offset,
                 Access access, Site site) {
  const std::string other = touch.time < now.start
                                ? "a thread of another block"
                                : "thread number " + std::to_string(touch.thread) + " of the block";
  fault(std::string("race: ") + (access == Access::kWrite ? "writes" : "reads") +
            " what was touched by " + other + ", and no barrier is between: byte " +
            std::to_string(offset) + " of " + name,
        site);
}

// Checks all but alignment of an access to shared memory; returns the offset there.
size_t check_shared(const void* address, size_t bytes, Access access, Site site) {
  if (slot_of(number_of(address)) != 0) fault("an address is not in shared memory", site);
  const size_t offset = number_of(address) - kSharedBase;
  check_bounds(offset, bytes, shared.bytes, "shared memory", site);
  if (std::memchr(shared.pending + offset, true, bytes))
    fault("touches the destination of an asynchronous copy that was not waited for", site);
  const Now self = now();
  if (const Touch* touch =
          shared.shadow.access(offset, bytes, access == Access::kWrite, self, self.start))
    report_race(*touch, self, "shared memory", offset, access, site);
  if (counting()) record_request(self.thread, Space::kShared, access, offset, bytes, site);
  return offset;
}

void complete(const Copy& copy, Site site) {
  std::fill_n(shared.pending + copy.to, copy.bytes, false);
  const Now self = now();
  if (const Touch* touch = shared.shadow.access(copy.to, copy.bytes, true, self, self.start))
    report_race(*touch, self, "shared memory", copy.to, Access::kWrite, site);
  std::memcpy(shared.host + copy.to, copy.data, copy.bytes);
}

}  // namespace

void* map_buffer(void* host, size_t bytes, bool writable, const char* name) {
  if (int(buffers.size()) == kSlots - 1) return nullptr;
  buffers.push_back(
      {name, static_cast<char*>(host), bytes, writable, Shadow(writable ? bytes : 0)});
  return reinterpret_cast<void*>(address_of(int(buffers.size())));
}

void unmap_buffers() { buffers.clear(); }

char* writable_buffer(const void* address, size_t bytes) {
  const int slot = slot_of(number_of(address));
  if (slot < 1 || slot > int(buffers.size())) return nullptr;
  const Buffer& buffer = buffers[size_t(slot - 1)];
  const uint64_t offset = number_of(address) - address_of(slot);
  const bool fits = offset <= buffer.bytes && bytes <= buffer.bytes - offset;
  return buffer.writable && fits ? buffer.host + offset : nullptr;
}

void set_shared_bytes(size_t bytes) { shared.bytes = bytes; }

void start_shared_memory() {
  std::memset(shared.host, 0xff, shared.bytes);
  std::memset(shared.pending, 0, shared.bytes);
  for (Copies& copies : shared.copies) copies = {};
}

void end_requests() { group_requests(); }

char* global_memory(const void* address, size_t bytes, Access access, Site site) {
  maybe_yield();
  const int slot = slot_of(number_of(address));
  if (slot < 1 || slot > int(buffers.size())) fault("an address is not in global memory", site);
  Buffer& buffer = buffers[size_t(slot - 1)];
  const uint64_t offset = number_of(address) - address_of(slot);
  check_bounds(offset, bytes, buffer.bytes, buffer.name, site);
  check_alignment(number_of(address), bytes, site);
  const bool writes = access == Access::kWrite;
  if (writes && !buffer.writable) fault("writes to " + buffer.name, site);
  const Now self = now();
  if (buffer.writable)
    if (const Touch* touch = buffer.shadow.access(offset, bytes, writes, self, self.launch))
      report_race(*touch, self, buffer.name, offset, access, site);
  if (counting())
    record_request(self.thread, Space::kGlobal, access, number_of(address), bytes, site);
  return buffer.host + offset;
}

char* shared_memory(const void* address, size_t bytes, Access access, Site site) {
  maybe_yield();
  check_alignment(number_of(address), bytes, site);
  return shared.host + check_shared(address, bytes, access, site);
}

char* shared_base() { return reinterpret_cast<char*>(kSharedBase); }

void copy_async(void* destination, const void* source, size_t bytes, bool valid, Site site) {
  require_capability(80, "cp.async", site);
  maybe_yield();
  check_alignment(number_of(destination), bytes, site);
  Copy copy = {0, bytes, {}, 0};
  if (valid) std::memcpy(copy.data, global_memory(source, bytes, Access::kRead, site), bytes);
  copy.to = check_shared(destination, bytes, Access::kWrite, site);
  Copies& copies = shared.copies[now().thread];
  copy.group = copies.groups;
  std::memset(shared.host + copy.to, 0xff, bytes);
  std::fill_n(shared.pending + copy.to, bytes, true);
  copies.pending.push_back(copy);
}

void commit_async(Site site) {
  require_capability(80, "cp.async", site);
  ++shared.copies[now().thread].groups;
}

void wait_async(int groups_left, Site site) {
  require_capability(80, "cp.async", site);
  Copies& copies = shared.copies[now().thread];
  const auto done = [&](const Copy& copy) { return copy.group < copies.groups - groups_left; };
  // In the order in which they were issued.
  for (const Copy& copy : copies.pending)
    if (done(copy)) complete(copy, site);
  copies.pending.erase(std::remove_if(copies.pending.begin(), copies.pending.end(), done),
                       copies.pending.end());
}

}  // namespace cuda_emulator
