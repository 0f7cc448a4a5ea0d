#include "counters.h"

#include <algorithm>
#include <map>
#include <set>
#include <sstream>
#include <tuple>
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
  unsigned most_threads = 0;
  Arithmetic arithmetic;
  Traffic global[2];
  Shared shared[2];
};

struct Request {
  uint64_t address;
  size_t bytes;
};

// Source line, space and access: what one instruction would be.
using Place = std::tuple<const char*, int, Space, Access>;

struct Counting {
  bool on = false;
  std::map<std::string, Totals> kernels;
  Totals* current = nullptr;
  std::map<Place, std::vector<Request>> lanes[kMaxThreads];
};

Counting state;

// Accesses of at most 32 lanes at once.
using Warp = std::vector<Request>;

void count_global(const Warp& warp, Traffic& traffic) {
  std::set<uint64_t> sectors;
  std::set<uint64_t> bytes;
  for (const Request& request : warp)
    for (uint64_t at = request.address; at < request.address + request.bytes; ++at) {
      bytes.insert(at);
      sectors.insert(at / kSector);
    }
  ++traffic.requests;
  traffic.sectors += int64_t(sectors.size());
  traffic.least += int64_t((bytes.size() + kSector - 1) / kSector);
  traffic.distinct.insert(sectors.begin(), sectors.end());
}

// Accesses of 8 and 16 bytes are served to 16 and 8 lanes at a time; lanes that want the same word
// share it.
void count_shared(const Warp& warp, Shared& shared) {
  const size_t bytes = warp.front().bytes;
  const size_t at_once = kLanes * kBankBytes / std::max<size_t>(bytes, kBankBytes);
  ++shared.requests;
  for (size_t first = 0; first < warp.size(); first += at_once) {
    std::set<uint64_t> words[kBanks];
    for (size_t lane = first; lane < std::min(first + at_once, warp.size()); ++lane)
      for (uint64_t at = 0; at < bytes; at += kBankBytes) {
        const uint64_t word = (warp[lane].address + at) / kBankBytes;
        words[word % kBanks].insert(word);
      }
    size_t fullest = 0;
    for (const auto& bank : words) fullest = std::max(fullest, bank.size());
    shared.passes += int64_t(fullest);
    ++shared.least;
  }
}

void count_warp(int first, const Place& place) {
  size_t times = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto found = state.lanes[first + lane].find(place);
    if (found != state.lanes[first + lane].end()) times = std::max(times, found->second.size());
  }
  for (size_t time = 0; time < times; ++time) {
    Warp warp;
    for (int lane = 0; lane < kLanes; ++lane) {
      const auto found = state.lanes[first + lane].find(place);
      if (found != state.lanes[first + lane].end() && time < found->second.size())
        warp.push_back(found->second[time]);
    }
    const int access = int(std::get<Access>(place));
    if (std::get<Space>(place) == Space::kGlobal)
      count_global(warp, state.current->global[access]);
    else
      count_shared(warp, state.current->shared[access]);
  }
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
void set_counting(bool on) { state.on = on; }

void start_counting(const std::string& kernel, unsigned threads) {
  arithmetic = {};
  for (auto& lane : state.lanes) lane.clear();
  if (!state.on) return;
  state.current = &state.kernels[kernel];
  ++state.current->launches;
  state.current->most_threads = std::max(state.current->most_threads, threads);
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
  state.lanes[thread][{site.file, site.line, space, access}].push_back({address, bytes});
}

void group_requests() {
  if (!state.on) return;
  for (int first = 0; first < kMaxThreads; first += kLanes) {
    std::set<Place> places;
    for (int lane = 0; lane < kLanes; ++lane)
      for (const auto& recorded : state.lanes[first + lane]) places.insert(recorded.first);
    for (const Place& place : places) count_warp(first, place);
    for (int lane = 0; lane < kLanes; ++lane) state.lanes[first + lane].clear();
  }
}

std::string counters_json() {
  std::ostringstream out;
  const char* separator = "[\n";
  for (const auto& [kernel, totals] : state.kernels) {
    out << separator << "{\"kernel\": " << quoted(kernel) << ", \"launches\": " << totals.launches
        << ", \"most_threads\": " << totals.most_threads << ", \"fma\": " << totals.arithmetic.fma
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
