#include "counters.h"

#include <algorithm>
#include <map>
#include <sstream>
#include <unordered_set>
#include <vector>

#include "block.h"

namespace cuda_emulator {
namespace {

constexpr int kLanes = 32;
constexpr uint64_t kSector = 32;
constexpr uint64_t kBanks = 32, kBankBytes = 4;

// Requests of one kind (load, store) to global memory.
struct Traffic {
  int64_t requests = 0;
  int64_t sectors = 0;                    // of 32 bytes, that the requests touch
  int64_t least = 0;                      // sectors that hold as many distinct bytes
  std::unordered_set<uint64_t> distinct;  // sectors touched by this launch
  int64_t distinct_total = 0;             // by all
};

struct Shared {
  int64_t requests = 0;
  int64_t passes = 0;  // as many as the fullest bank needs
  int64_t least = 0;   // passes without conflicts
};

struct Totals {
  int64_t launches = 0;
  uint64_t most_blocks = 0, most_threads = 0, most_shared_bytes = 0;  // of one launch
  Arithmetic arithmetic;
  Traffic global[2];
  Shared shared[2];
};

// Source line and kind of access: what one instruction would be.
struct Place {
  const char* file;
  int line;
  Space space;
  Access access;
  size_t bytes;
  bool operator==(const Place& other) const {
    return file == other.file && line == other.line && space == other.space &&
           access == other.access && bytes == other.bytes;
  }
};

struct Counting {
  bool on = false;
  std::map<std::string, Totals> kernels;
  Totals* current = nullptr;
  std::vector<Place> places;
  // Addresses, by thread and place, in the order of the accesses.
  std::vector<std::vector<uint64_t>> lanes[kMaxThreads];
};

Counting state;

size_t number_of(const Place& place) {
  const auto found = std::find(state.places.begin(), state.places.end(), place);
  const size_t number = size_t(found - state.places.begin());
  if (number == state.places.size()) state.places.push_back(place);
  return number;
}

// Accesses of at most 32 lanes at once.
struct Warp {
  int lanes;
  size_t bytes;  // of each
  uint64_t addresses[kLanes];
};

uint64_t volume(dim3 size) { return uint64_t(size.x) * size.y * size.z; }

// How many different numbers there are; they are sorted on the way.
int count_distinct(uint64_t* first, int count) {
  std::sort(first, first + count);
  return int(std::unique(first, first + count) - first);
}

// Addresses are multiples of the bytes accessed there: one sector holds them all.
void count_global(Warp& warp, Traffic& traffic) {
  const int distinct = count_distinct(warp.addresses, warp.lanes);
  uint64_t sectors[kLanes];
  for (int i = 0; i < distinct; ++i) sectors[i] = warp.addresses[i] / kSector;
  const int count = count_distinct(sectors, distinct);
  ++traffic.requests;
  traffic.sectors += count;
  traffic.least += int64_t((uint64_t(distinct) * warp.bytes + kSector - 1) / kSector);
  traffic.distinct.insert(sectors, sectors + count);
}

// Accesses of 8 and 16 bytes are served to 16 and 8 lanes at a time; lanes that want the same word
// share it.
void count_shared(const Warp& warp, Shared& shared) {
  const uint64_t words_of_lane = std::max<uint64_t>(1, warp.bytes / kBankBytes);
  const int at_once = kLanes / int(words_of_lane);
  ++shared.requests;
  for (int first = 0; first < warp.lanes; first += at_once) {
    uint64_t words[kBanks];
    int count = 0;
    for (int lane = first; lane < std::min(first + at_once, warp.lanes); ++lane)
      for (uint64_t i = 0; i < words_of_lane; ++i)
        words[count++] = warp.addresses[lane] / kBankBytes + i;
    count = count_distinct(words, count);
    int in_bank[kBanks] = {};
    for (int i = 0; i < count; ++i) ++in_bank[words[i] % kBanks];
    shared.passes += *std::max_element(in_bank, in_bank + kBanks);
    ++shared.least;
  }
}

void count_warp(int first, size_t place) {
  const std::vector<uint64_t>* accesses[kLanes];
  int lanes = 0;
  size_t times = 0;
  for (int lane = first; lane < first + kLanes; ++lane) {
    if (place >= state.lanes[lane].size()) continue;
    accesses[lanes] = &state.lanes[lane][place];
    times = std::max(times, accesses[lanes++]->size());
  }
  const int access = int(state.places[place].access);
  for (size_t time = 0; time < times; ++time) {
    Warp warp = {0, state.places[place].bytes, {}};
    for (int lane = 0; lane < lanes; ++lane)
      if (time < accesses[lane]->size()) warp.addresses[warp.lanes++] = (*accesses[lane])[time];
    if (state.places[place].space == Space::kGlobal)
      count_global(warp, state.current->global[access]);
    else
      count_shared(warp, state.current->shared[access]);
  }
}

void forget_requests() {
  for (auto& places : state.lanes)
    for (auto& accesses : places) accesses.clear();
}

void print(std::ostream& out, const char* name, const Traffic& traffic) {
  out << ", \"" << name << "\": {\"requests\": " << traffic.requests
      << ", \"sectors\": " << traffic.sectors << ", \"least_sectors\": " << traffic.least
      << ", \"distinct_sectors\": " << traffic.distinct_total << '}';
}

void print(std::ostream& out, const char* name, const Shared& shared) {
  out << ", \"" << name << "\": {\"requests\": " << shared.requests
      << ", \"passes\": " << shared.passes << ", \"least_passes\": " << shared.least << '}';
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + '"';
}

}  // namespace

bool counting() { return state.on; }
void set_counting(bool on) {
  state.on = on;
  if (on) state.kernels.clear();
}

void start_counting(const std::string& kernel, const cudaLaunchConfig_t& config) {
  arithmetic = {};
  forget_requests();
  if (!state.on) return;
  Totals& totals = state.kernels[kernel];
  state.current = &totals;
  ++totals.launches;
  totals.most_blocks = std::max(totals.most_blocks, volume(config.gridDim));
  totals.most_threads = std::max(totals.most_threads, volume(config.blockDim));
  totals.most_shared_bytes = std::max<uint64_t>(totals.most_shared_bytes, config.dynamicSmemBytes);
}

void finish_counting() {
  if (!state.on) return;
  Totals& totals = *state.current;
  totals.arithmetic.fma += arithmetic.fma;
  totals.arithmetic.tensor_core += arithmetic.tensor_core;
  for (Traffic& traffic : totals.global) {
    traffic.distinct_total += int64_t(traffic.distinct.size());
    traffic.distinct.clear();
  }
}

void record_request(int thread, Space space, Access access, uint64_t address, size_t bytes,
                    Site site) {
  const size_t place = number_of({site.file, site.line, space, access, bytes});
  auto& places = state.lanes[thread];
  if (places.size() <= place) places.resize(place + 1);
  places[place].push_back(address);
}

void group_requests() {
  if (!state.on) return;
  for (int first = 0; first < kMaxThreads; first += kLanes)
    for (size_t place = 0; place < state.places.size(); ++place) count_warp(first, place);
  forget_requests();
}

std::string counters_json() {
  std::ostringstream out;
  const char* separator = "[\n";
  for (const auto& [kernel, totals] : state.kernels) {
    out << separator << "{\"kernel\": " << quoted(kernel) << ", \"launches\": " << totals.launches
        << ", \"blocks\": " << totals.most_blocks << ", \"threads\": " << totals.most_threads
        << ", \"shared_bytes\": " << totals.most_shared_bytes
        << ", \"fma\": " << totals.arithmetic.fma
        << ", \"tensor_core_fma\": " << totals.arithmetic.tensor_core;
    print(out, "loads", totals.global[0]);
    print(out, "stores", totals.global[1]);
    print(out, "shared_loads", totals.shared[0]);
    print(out, "shared_stores", totals.shared[1]);
    out << '}';
    separator = ",\n";
  }
  out << (state.kernels.empty() ? "[]" : "\n]");
  return out.str();
}

}  // namespace cuda_emulator
