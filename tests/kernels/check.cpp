// Every kernel of the library against the reference kernel of csrc/core, through the C interface
// alone: no torch, no Python.
//
// Runs each instruction set that the machine has, on whole problems with every dtype, op and
// layout; checks that nothing is written outside the output and the workspace, and that the bits do
// not depend on the threads, or on the order in which a GPU runs its own. This is what is cross-
// compiled and run under an emulator to test instruction sets that the build machine lacks.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "../../csrc/core/dilconv.h"
#include "../../csrc/core/scalar.h"
#include "cases.h"
#include "machine.h"
#include "processes.h"
#include "sizes.h"

namespace {

struct Dtype {
  dilconv_dtype id;
  const char* name;
  size_t bytes;
  double tolerance;  // relative, in the L2 norm
  bool tf32 = false;
};

const Dtype kDtypes[] = {
    {DILCONV_FLOAT64, "float64", 8, 1e-13},   {DILCONV_FLOAT32, "float32", 4, 2e-6},
    {DILCONV_FLOAT32, "tf32", 4, 1e-3, true}, {DILCONV_FLOAT16, "float16", 2, 1e-3},
    {DILCONV_BFLOAT16, "bfloat16", 2, 8e-3},  {DILCONV_INT8, "int8", 1, 0},
    {DILCONV_UINT8, "uint8", 1, 0},           {DILCONV_INT16, "int16", 2, 0},
    {DILCONV_INT32, "int32", 4, 0},           {DILCONV_INT64, "int64", 8, 0}};
constexpr size_t kGuard = 256;
constexpr unsigned char kCanary = 0xA5;

const Machine machine = this_machine();

// A block of memory between two guards, and NaN in every floating dtype until it is written.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : bytes_(bytes), raw_(bytes + 2 * kGuard + 64, char(kCanary)) {
    std::memset(data(), 0xFF, bytes);
  }
  char* data() {
    const size_t base = reinterpret_cast<size_t>(raw_.data()) + kGuard;
    return raw_.data() + (base + 63) / 64 * 64 - base + kGuard;
  }
  bool intact() {
    for (char* p = raw_.data(); p < data(); ++p)
      if (static_cast<unsigned char>(*p) != kCanary) return false;
    for (char* p = data() + bytes_; p < raw_.data() + raw_.size(); ++p)
      if (static_cast<unsigned char>(*p) != kCanary) return false;
    return true;
  }
  size_t bytes() const { return bytes_; }
  bool operator==(Buffer& other) { return std::memcmp(data(), other.data(), bytes_) == 0; }

 private:
  size_t bytes_;
  std::vector<char> raw_;
};

void put(const Dtype& dtype, char* at, double value) {
  switch (dtype.id) {
    case DILCONV_FLOAT64:
      std::memcpy(at, &value, 8);
      return;
    case DILCONV_FLOAT32: {
      const float v = float(value);
      std::memcpy(at, &v, 4);
      return;
    }
    case DILCONV_FLOAT16: {
      dilconv::Half v;
      dilconv::narrow(float(value), v);
      std::memcpy(at, &v, 2);
      return;
    }
    case DILCONV_BFLOAT16: {
      dilconv::BFloat16 v;
      dilconv::narrow(float(value), v);
      std::memcpy(at, &v, 2);
      return;
    }
    default: {
      const int64_t v = int64_t(value * 9);
      std::memcpy(at, &v, dtype.bytes);
      return;
    }
  }
}

double get(const Dtype& dtype, const char* at) {
  switch (dtype.id) {
    case DILCONV_FLOAT64: {
      double v;
      std::memcpy(&v, at, 8);
      return v;
    }
    case DILCONV_FLOAT32: {
      float v;
      std::memcpy(&v, at, 4);
      return v;
    }
    case DILCONV_FLOAT16: {
      dilconv::Half v;
      std::memcpy(&v, at, 2);
      return dilconv::widen(v);
    }
    case DILCONV_BFLOAT16: {
      dilconv::BFloat16 v;
      std::memcpy(&v, at, 2);
      return dilconv::widen(v);
    }
    default: {
      int64_t v = 0;
      std::memcpy(&v, at, dtype.bytes);
      return double(v);
    }
  }
}

// What all processes have done.
struct Done {
  std::atomic<int> cases{0};    // begun; each process takes the next one
  std::atomic<int> checked{0};  // kernels on them
  std::atomic<int> failures{0};
};

Done& done = shared<Done>();

void expect(bool holds, const std::string& where, const char* what) {
  if (holds) return;
  ++done.failures;
  std::printf("FAILED %s: %s\n", where.c_str(), what);
}

// Runs the named kernel; returns what it wrote.
Buffer run(const char* device, const char* kernel, const Case& c, const Dtype& dtype,
           std::vector<Buffer>& inputs, Buffer& bias, const Way& way, const std::string& where) {
  const int written = written_tensor(c);
  const int threads = way.execution.threads.count;
  char message[1024] = "";
  size_t bytes = 0;
  dilconv_status status = dilconv_workspace(device, kernel, nullptr, &c.problem, threads, &bytes,
                                            message, sizeof message);
  expect(status == DILCONV_OK, where, message);
  Buffer workspace(bytes), output(size_t(c.elements[written]) * dtype.bytes);
  const bool mapped = device == machine.device;
  const auto place = [&](Buffer& buffer, bool writable, const char* name) {
    return mapped ? machine.map(buffer.data(), buffer.bytes(), writable, name) : buffer.data();
  };
  const char* const names[] = {"x", "w", "y"};
  void* tensors[3];
  for (int i = 0; i < 3; ++i)
    tensors[i] = i == written ? place(output, true, names[i]) : place(inputs[i], false, names[i]);
  const dilconv_tensors all = {tensors[0], tensors[1], tensors[2],
                               c.problem.has_bias ? place(bias, false, "bias") : nullptr,
                               place(workspace, true, "workspace")};
  way.prepare();
  status = dilconv_run(device, kernel, &c.problem, &all, &way.execution, message, sizeof message);
  machine.unmap();
  expect(status == DILCONV_OK, where, message);
  expect(workspace.intact(), where, "wrote outside its workspace");
  expect(output.intact(), where, "wrote outside its output");
  return output;
}

double relative_error(const Case& c, const Dtype& dtype, Buffer& got, Buffer& expected) {
  const int written = written_tensor(c);
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < c.elements[written]; ++i) {
    const double a = get(dtype, got.data() + i * dtype.bytes),
                 b = get(dtype, expected.data() + i * dtype.bytes);
    difference += (a - b) * (a - b);
    norm += b * b;
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

// Checks the named kernel, or all for ""; returns how many.
int check_case(const char* isa, const Sizes& sizes, int op, const Dtype& dtype, bool channels_last,
               const std::string& wanted) {
  const Case c = make_case(sizes, op, dtype.id, dtype.tf32, channels_last);
  std::mt19937 random(7);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<Buffer> inputs;
  for (int64_t elements : c.elements) {
    inputs.emplace_back(size_t(elements) * dtype.bytes);
    for (int64_t i = 0; i < elements; ++i)
      put(dtype, inputs.back().data() + i * dtype.bytes, uniform(random));
  }
  const int64_t channels = op == DILCONV_GRAD_INPUT ? sizes.in_channels : sizes.out_channels;
  Buffer bias(size_t(channels) * dtype.bytes);
  for (int64_t i = 0; i < channels; ++i) put(dtype, bias.data() + i * dtype.bytes, uniform(random));

  const std::string where = std::string(isa) + ' ' + sizes.name + ' ' + kOps[op] + ' ' +
                            dtype.name + (channels_last ? " channels_last" : " contiguous");
  const Way& first = machine.ways.front();
  Buffer expected = run(machine.oracle, "reference", c, dtype, inputs, bias, first, where);
  int checked = 0;
  for (int k = 0; const char* kernel = dilconv_kernel_name(machine.device, k); ++k) {
    if (machine.oracle == machine.device && std::strcmp(kernel, "reference") == 0) continue;
    if (!wanted.empty() && wanted != kernel) continue;
    if (dilconv_accepts(machine.device, kernel, nullptr, &c.problem, nullptr, 0) != DILCONV_OK)
      continue;
    const std::string what = where + ' ' + kernel;
    Buffer one = run(machine.device, kernel, c, dtype, inputs, bias, first, what);
    const double error = relative_error(c, dtype, one, expected);
    // Winograd's algorithm trades accuracy for speed.
    const double allowed = std::strcmp(kernel, "winograd") == 0 && dtype.id == DILCONV_FLOAT32
                               ? 5e-6
                               : dtype.tolerance;
    expect(error <= allowed, what, ("relative error " + std::to_string(error)).c_str());
    for (size_t i = 1; i < machine.ways.size(); ++i) {
      const Way& way = machine.ways[i];
      Buffer other = run(machine.device, kernel, c, dtype, inputs, bias, way, what);
      expect(one == other, what, ("other bits with " + std::string(way.name)).c_str());
    }
    ++checked;
  }
  return checked;
}

// What the command line asks for.
struct Wanted {
  int every = 1;                  // --every n: one case in n
  int jobs = 1;                   // --jobs n: in n processes
  const char* kernel = "";        // --kernel name: this one alone
  const char* problem = "";       // --problem text: those whose name contains it
  const char* op = "";            // --op name: this one alone
  bool until_failure = false;     // --until-failure
  std::vector<const char*> isas;  // --isa name: these, instead of all that the machine has
};

Wanted parse(int argc, char** argv) {
  Wanted wanted;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    const bool has_value = i + 1 < argc;
    if (option == "--until-failure") {
      wanted.until_failure = true;
    } else if (option == "--every" && has_value) {
      wanted.every = std::atoi(argv[++i]);
    } else if (option == "--jobs" && has_value) {
      wanted.jobs = std::atoi(argv[++i]);
    } else if (option == "--kernel" && has_value) {
      wanted.kernel = argv[++i];
    } else if (option == "--problem" && has_value) {
      wanted.problem = argv[++i];
    } else if (option == "--op" && has_value) {
      wanted.op = argv[++i];
    } else if (option == "--isa" && has_value) {
      wanted.isas.push_back(argv[++i]);
    } else {
      std::printf(
          "usage: check [--every n] [--jobs n] [--kernel name] [--problem text] [--op name] "
          "[--isa name] [--until-failure]\n");
      std::exit(2);
    }
  }
  return wanted;
}

// Checks those of the cases that no other process has taken.
void check_all(const Wanted& wanted) {
  int cases = 0, mine = 0;
  for (const char* isa : wanted.isas) {
    machine.select(isa);
    for (const Sizes& sizes : kSizes) {
      if (!std::strstr(sizes.name, wanted.problem)) continue;
      for (int op = 0; op < 3; ++op) {
        if (*wanted.op && std::strcmp(kOps[op], wanted.op) != 0) continue;
        for (const Dtype& dtype : kDtypes)
          for (const bool channels_last : {false, true}) {
            if (wanted.until_failure && done.failures) return;
            if (cases++ % wanted.every != 0) continue;
            int next = mine++;
            if (done.cases.compare_exchange_strong(next, next + 1))
              done.checked += check_case(isa, sizes, op, dtype, channels_last, wanted.kernel);
          }
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  Wanted wanted = parse(argc, argv);
  for (const char* isa : wanted.isas) {
    bool known = false;
    for (const char* has : machine.instruction_sets) known = known || std::strcmp(has, isa) == 0;
    expect(known, isa, "the machine has no such instruction set");
  }
  if (wanted.isas.empty()) wanted.isas = machine.instruction_sets;
  const bool ended = in_processes(wanted.jobs, [&] { check_all(wanted); });
  expect(ended, "a process", "did not come to its end");
  expect(done.checked > 0, "the library", "no kernel but the reference");
  std::string isas;
  for (const char* isa : wanted.isas) isas += std::string(" ") + isa;
  std::printf("%s:%s: %d cases checked, %d checks failed\n", machine.device, isas.c_str(),
              done.checked.load(), done.failures.load());
  return done.failures != 0;
}
