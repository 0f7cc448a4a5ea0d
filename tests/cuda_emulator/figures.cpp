// What the emulator counts of each kernel on layers that networks have, as JSON: how each layer is
// launched in its full size, and what a smaller one like it moves and multiplies, beside the least
// that any kernel must.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "../kernels/cases.h"
#include "cuda_emulator/control.h"

namespace {

// `full` is launched only; `small` runs. It is as wide as the full one, or half, so that tiles are
// cut alike, and has the channels that the widest tile of conv2d takes.
struct Layer {
  Sizes full, small;
};

const Layer kLayers[] = {
    {{"dense 3x3, dilation 2", 32, 1, 256, 256, {56, 56}, {3, 3}, {1, 1}, {2, 2}, {2, 2}, {2, 2}},
     {"1x64x16x56 to 128", 1, 1, 64, 128, {16, 56}, {3, 3}, {1, 1}, {2, 2}, {2, 2}, {2, 2}}},
    {{"dense 3x3, 64 channels", 32, 1, 64, 64, {56, 56}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}},
     {"1x64x16x56", 1, 1, 64, 64, {16, 56}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}}},
    {{"dense 3x3, stride 2", 32, 1, 128, 256, {56, 56}, {3, 3}, {2, 2}, {1, 1}, {1, 1}, {1, 1}},
     {"1x64x16x56 to 128", 1, 1, 64, 128, {16, 56}, {3, 3}, {2, 2}, {1, 1}, {1, 1}, {1, 1}}},
    {{"pointwise, 144 to 32", 32, 1, 144, 32, {56, 56}, {1, 1}, {1, 1}, {1, 1}, {0, 0}, {0, 0}},
     {"1x144x16x56 to 32", 1, 1, 144, 32, {16, 56}, {1, 1}, {1, 1}, {1, 1}, {0, 0}, {0, 0}}},
    {{"stem 7x7, stride 2", 32, 1, 3, 64, {224, 224}, {7, 7}, {2, 2}, {1, 1}, {3, 3}, {3, 3}},
     {"1x3x16x112 to 64", 1, 1, 3, 64, {16, 112}, {7, 7}, {2, 2}, {1, 1}, {3, 3}, {3, 3}}},
    {{"depthwise 3x3", 32, 256, 256, 256, {56, 56}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}},
     {"1x64x56x56", 1, 64, 64, 64, {56, 56}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}}},
    {{"depthwise 3x3, dilation 4",
      32,
      256,
      256,
      256,
      {56, 56},
      {3, 3},
      {1, 1},
      {4, 4},
      {4, 4},
      {4, 4}},
     {"1x64x56x56", 1, 64, 64, 64, {56, 56}, {3, 3}, {1, 1}, {4, 4}, {4, 4}, {4, 4}}},
    {{"depthwise 3x3, stride 2",
      32,
      144,
      144,
      144,
      {112, 112},
      {3, 3},
      {2, 2},
      {1, 1},
      {1, 1},
      {1, 1}},
     {"1x48x56x56", 1, 48, 48, 48, {56, 56}, {3, 3}, {2, 2}, {1, 1}, {1, 1}, {1, 1}}},
    {{"depthwise 7x7", 32, 96, 96, 96, {56, 56}, {7, 7}, {1, 1}, {1, 1}, {3, 3}, {3, 3}},
     {"1x32x56x56", 1, 32, 32, 32, {56, 56}, {7, 7}, {1, 1}, {1, 1}, {3, 3}, {3, 3}}},
};

struct Dtype {
  dilconv_dtype id;
  const char* name;
  int64_t bytes;
  bool tf32 = false;
};

const Dtype kDtypes[] = {{DILCONV_FLOAT64, "float64", 8},
                         {DILCONV_FLOAT32, "float32", 4},
                         {DILCONV_FLOAT32, "tf32", 4, true},
                         {DILCONV_FLOAT16, "float16", 2},
                         {DILCONV_BFLOAT16, "bfloat16", 2}};

void check(dilconv_status status, const char* message) {
  if (status == DILCONV_OK) return;
  std::fprintf(stderr, "%s\n", message);
  std::exit(1);
}

// Pairs of an output and a tap that read inside the image, of one axis.
int64_t pairs_inside(const dilconv_problem& p, int axis) {
  int64_t pairs = 0;
  for (int64_t i = 0; i < p.out_size[axis]; ++i)
    for (int64_t k = 0; k < p.kernel[axis]; ++k) {
      const int64_t read = i * p.stride[axis] + k * p.dilation[axis] - p.pad_before[axis];
      pairs += read >= 0 && read < p.in_size[axis];
    }
  return pairs;
}

// Multiply-adds that are not with padding.
int64_t least_products(const dilconv_problem& p) {
  return p.batch * p.out_channels * (p.in_channels / p.groups) * pairs_inside(p, 0) *
         pairs_inside(p, 1);
}

int64_t bias_elements(const dilconv_problem& p) {
  if (!p.has_bias) return 0;
  return p.op == DILCONV_GRAD_INPUT ? p.in_channels : p.out_channels;
}

// Runs the kernel; the values of the tensors make no difference. `mapped`: in memory.
void run(const char* kernel, const Case& c, const Dtype& dtype, bool mapped) {
  char message[1024] = "";
  size_t workspace = 0;
  check(dilconv_workspace("cuda", kernel, nullptr, &c.problem, 1, &workspace, message,
                          sizeof message),
        message);
  std::vector<std::vector<char>> memory;
  int places = 0;
  const auto place = [&](int64_t bytes, bool writable, const char* name) -> void* {
    if (!mapped) return reinterpret_cast<void*>(uintptr_t(++places) << 40);
    memory.emplace_back(size_t(bytes));
    return cuda_emulator_map(memory.back().data(), size_t(bytes), writable, name);
  };
  const int written = written_tensor(c);
  const char* const names[] = {"x", "w", "y"};
  void* tensors[3];
  for (int i = 0; i < 3; ++i)
    tensors[i] = place(c.elements[i] * dtype.bytes, i == written, names[i]);
  const dilconv_tensors all = {tensors[0], tensors[1], tensors[2],
                               place(bias_elements(c.problem) * dtype.bytes, false, "bias"),
                               place(int64_t(workspace), true, "workspace")};
  check(dilconv_run("cuda", kernel, &c.problem, &all, nullptr, message, sizeof message), message);
  cuda_emulator_unmap();
}

const char* separator = "[\n";

void print(const char* kernel, const Layer& layer, const Sizes& sizes, int op, const Dtype& dtype,
           bool channels_last) {
  const bool counted = &sizes == &layer.small;
  const Case c = make_case(sizes, op, dtype.id, dtype.tf32, channels_last);
  cuda_emulator_launch_only(!counted);
  cuda_emulator_count(1);
  run(kernel, c, dtype, counted);
  cuda_emulator_count(0);
  const int64_t elements = c.elements[0] + c.elements[1] + c.elements[2] + bias_elements(c.problem);
  std::printf(
      "%s{\"layer\": \"%s\", \"size\": \"%s\", \"op\": \"%s\", \"dtype\": \"%s\", \"layout\": "
      "\"%s\", \"kernel\": \"%s\", \"least_bytes\": %lld, \"least_products\": %lld, \"launches\": "
      "%s}",
      separator, layer.full.name, counted ? sizes.name : "full", kOps[op], dtype.name,
      channels_last ? "channels_last" : "contiguous", kernel,
      static_cast<long long>(elements * dtype.bytes),
      static_cast<long long>(least_products(c.problem)), cuda_emulator_counters());
  separator = ",\n";
}

// Every kernel is launched; the chosen one runs, except in bfloat16, which goes float16's way.
void print_layer(const Layer& layer, int op, const Dtype& dtype, bool channels_last) {
  const Case full = make_case(layer.full, op, dtype.id, dtype.tf32, channels_last);
  bool chosen = false;
  for (int k = 0; const char* kernel = dilconv_kernel_name("cuda", k); ++k) {
    if (dilconv_accepts("cuda", kernel, nullptr, &full.problem, nullptr, 0) != DILCONV_OK) continue;
    print(kernel, layer, layer.full, op, dtype, channels_last);
    if (!chosen && dtype.id != DILCONV_BFLOAT16)
      print(kernel, layer, layer.small, op, dtype, channels_last);
    chosen = true;
  }
}

}  // namespace

// On a GPU of compute capability 8.0, or $CUDA_EMULATOR_CAPABILITY.
int main() {
  for (const Layer& layer : kLayers)
    for (int op = 0; op < 3; ++op)
      for (const Dtype& dtype : kDtypes)
        for (const bool channels_last : {false, true}) print_layer(layer, op, dtype, channels_last);
  std::printf("\n]\n");
}
