#include "planner.h"

#include <algorithm>

#include "../direct/planner.h"
#include "../rounding.h"

namespace dilconv {
namespace {

// Costs in products of the direct kernel, measured: per tile and channel, the transforms of data
// and results; per pair of channels, that of a filter.
struct Form {
  int64_t taps[2], tile[2];
  double data, result, filter;

  int64_t planes() const { return (taps[0] + tile[0] - 1) * (taps[1] + tile[1] - 1); }
  bool is_flat() const { return taps[0] == 1 || taps[1] == 1; }
};

// By WinogradForms.
constexpr Form kForms[kWinogradForms] = {
    {{3, 3}, {2, 2}, 200, 100, 60},  {{3, 3}, {3, 3}, 350, 200, 90},
    {{3, 3}, {4, 4}, 500, 300, 120}, {{4, 4}, {3, 3}, 500, 250, 140},
    {{5, 5}, {2, 2}, 500, 200, 160}, {{1, 2}, {1, 5}, 80, 60, 20},
    {{1, 3}, {1, 4}, 80, 50, 20},    {{1, 4}, {1, 3}, 80, 40, 25},
    {{1, 5}, {1, 2}, 80, 30, 25},    {{3, 1}, {4, 1}, 80, 50, 20},
    {{4, 1}, {3, 1}, 80, 40, 25},    {{5, 1}, {2, 1}, 80, 30, 25}};

// Transformed weights, or their gradients, may take half a megabyte more than the weights.
constexpr int64_t kMoreBytes = 524288;

bool gathers_from_y(const ConvProblem& p) { return p.op == DILCONV_GRAD_INPUT; }

// The fewer planes, the more tiles fit into the cache.
int64_t task_tiles(const Form& form) { return form.is_flat() ? 96 : 24; }
int64_t chunk_tiles(const Form& form) { return form.is_flat() ? 128 : 32; }

int64_t count_pieces(const ConvProblem& p, int axis, const Form& form) {
  return p.kernel[axis] <= form.taps[axis] ? 1 : divide_up(p.kernel[axis], form.taps[axis]);
}

// Of both axes; 0 if they are too many.
int64_t count_pieces(const ConvProblem& p, const Form& form) {
  const int64_t h = count_pieces(p, 0, form), w = count_pieces(p, 1, form);
  return h > kWinogradPieces || w > kWinogradPieces / h ? 0 : h * w;
}

int64_t count_forms(const ConvProblem& p) {
  return is_16_bit_floating(p) ? kWinograd16BitForms : kWinogradForms;
}

WinogradAxis plan_axis(const ConvProblem& p, int axis, const Form& form) {
  constexpr int64_t kMostPhases = 32;
  const bool swapped = gathers_from_y(p);
  WinogradAxis plan;
  plan.tile = form.tile[axis];
  plan.taps = form.taps[axis];
  plan.kernel = p.kernel[axis];
  plan.pieces = count_pieces(p, axis, form);
  plan.read_size = swapped ? p.out_size[axis] : p.in_size[axis];
  plan.written_size = swapped ? p.in_size[axis] : p.out_size[axis];
  const int64_t dilation = plan.kernel == 1 ? 1 : p.dilation[axis];  // else it says nothing
  plan.dilation = plan.taps == 1 ? 1 : dilation;
  plan.piece_step = plan.taps * dilation;
  // grad_input reads the taps in reverse: its first one is the last.
  plan.origin = swapped ? p.pad_before[axis] - (plan.kernel - 1) * dilation : -p.pad_before[axis];
  plan.tiles = divide_up(divide_up(plan.written_size, plan.dilation), plan.tile);
  plan.phase_block = std::min(plan.dilation, kMostPhases);
  plan.tile_block =
      std::max<int64_t>(1, plan.dilation > kMostPhases ? 1 : task_tiles(form) / plan.dilation);
  return plan;
}

// Tiles of all phases of an axis.
int64_t count_tiles(const WinogradAxis& axis) {
  const int64_t whole = (axis.tiles - 1) * axis.dilation;
  return whole + std::min(axis.dilation, axis.written_size - axis.tile * whole);
}

}  // namespace

WinogradPlan plan_winograd(const ConvProblem& p, int vector_bytes, int element_bytes) {
  const bool swapped = gathers_from_y(p);
  WinogradPlan plan;
  plan.form = choose_winograd_form(p).form;
  const Form& form = kForms[plan.form];
  plan.batch = p.batch;
  plan.groups = p.groups;
  plan.read_channels = (swapped ? p.out_channels : p.in_channels) / p.groups;
  plan.written_channels = (swapped ? p.in_channels : p.out_channels) / p.groups;
  std::copy_n(swapped ? p.y_strides : p.x_strides, 4, plan.read_strides);
  std::copy_n(swapped ? p.x_strides : p.y_strides, 4, plan.written_strides);
  for (int i = 0; i < 4; ++i) plan.weight_strides[i] = p.w_strides[i < 2 && swapped ? 1 - i : i];
  plan.weight_group_stride = p.out_channels / p.groups * p.w_strides[0];
  plan.flipped = swapped;
  plan.h = plan_axis(p, 0, form);
  plan.w = plan_axis(p, 1, form);
  plan.pieces = plan.h.pieces * plan.w.pieces;

  const int64_t lanes = vector_bytes / element_bytes;
  const int64_t filter_bytes = form.planes() * plan.pieces * plan.read_channels * element_bytes;
  const int64_t bytes =
      p.kernel[0] * p.kernel[1] * plan.read_channels * plan.written_channels * element_bytes +
      kMoreBytes;
  plan.task_tiles = task_tiles(form);
  plan.chunk_tiles = chunk_tiles(form);
  plan.sums_bytes = bytes;
  plan.pass_vectors =
      std::clamp<int64_t>(bytes / std::max<int64_t>(1, filter_bytes * lanes), 1,
                          std::max<int64_t>(1, divide_up(plan.written_channels, lanes)));
  return plan;
}

bool has_winograd_form(const ConvProblem& p) {
  return std::any_of(kForms, kForms + count_forms(p),
                     [&](const Form& form) { return count_pieces(p, form) > 0; });
}

WinogradChoice choose_winograd_form(const ConvProblem& p) {
  const bool swapped = gathers_from_y(p);
  const int64_t in = p.in_channels / p.groups, out = p.out_channels / p.groups;
  const double read = double(swapped ? out : in), written = double(swapped ? in : out);
  constexpr int64_t kLanes = 16;
  const double read_vectors = double(round_up(swapped ? out : in, kLanes));
  const double written_vectors = double(round_up(swapped ? in : out, kLanes));
  // The direct kernel's vectors hold written channels on channels_last and for grad_weight.
  const bool channels_last = p.y_strides[1] == 1;
  const bool channels_in_vectors = p.op == DILCONV_GRAD_WEIGHT || channels_last;
  // With few written channels it takes dot products over the read ones, in about twice the time.
  const bool widens = is_16_bit_floating(p);
  const bool few = p.op != DILCONV_GRAD_WEIGHT && written <= kFewWritten;
  const bool dots = few && channels_last && read == read_vectors && !widens;
  // What is left of the peak; and packing vectors of pixels takes as long as so many products.
  constexpr double kEfficiency = 0.85, kPackedPixels = 2;
  // And else vectors of pixels, which it copies first.
  const bool padded = few && !(channels_last && widens);
  const double products = double(count_products(p, 0) * count_products(p, 1));
  const double taps = double(p.kernel[0] * p.kernel[1]);
  const double outputs =
      swapped ? double(p.in_size[0] * p.in_size[1]) : double(p.out_size[0] * p.out_size[1]);
  double direct = products * read *
                  (dots                  ? 2 * written
                   : padded              ? 1.5 * written
                   : channels_in_vectors ? written_vectors
                                         : written + (widens ? 0 : kPackedPixels));
  if (p.op == DILCONV_GRAD_WEIGHT) direct = kLanes * weight_cost(p, kLanes, 4);
  direct /= kEfficiency;
  // Transformed weights that do not stay in the second-level cache are written and read back, which
  // decides where native products, of bfloat16, are nearly as fast. A batch would share that. Those
  // of grad_weight are sums, which only pass by.
  constexpr double kFilterPassing = 2000, kSumPassing = 500, kCacheBytes = 1048576;
  const double weight_bytes = double(p.kernel[0] * p.kernel[1] * 4) * read * written;
  const bool passes_filters =
      p.dtype == DILCONV_BFLOAT16 && weight_bytes + kMoreBytes > kCacheBytes;
  const double passing = !passes_filters               ? 0
                         : p.op == DILCONV_GRAD_WEIGHT ? kSumPassing
                                                       : kFilterPassing;
  double best = 0;
  int64_t chosen = -1;
  for (int64_t index = 0; index < count_forms(p); ++index) {
    const Form& form = kForms[index];
    const double pieces = double(count_pieces(p, form));
    if (pieces == 0) continue;
    const double planes = double(form.planes()) * pieces;
    // Of pieces with other than whole vectors of channels, vectors lie across cache lines.
    const double data =
        form.data * (pieces > 1 && p.op != DILCONV_GRAD_WEIGHT && read != read_vectors ? 2 : 1);
    const double passes =
        std::max(1.0, planes / taps * std::min(1.0, read * written * taps / 147456));
    const double of_tile = planes * read * written_vectors + passes * pieces * data * read_vectors +
                           form.result * written_vectors;
    const double of_filters = pieces * (form.filter + passing) * read * written_vectors;
    // Tiles are counted, which takes divisions, only where the fewest would do.
    if (chosen >= 0 && outputs / double(form.tile[0] * form.tile[1]) * of_tile + of_filters >= best)
      continue;
    const double tiles =
        double(count_tiles(plan_axis(p, 0, form)) * count_tiles(plan_axis(p, 1, form)));
    const double cost = tiles * of_tile + of_filters;
    if (chosen < 0 || cost < best) {
      best = cost;
      chosen = index;
    }
  }
  return {chosen, chosen < 0 ? 0 : direct / best};
}

}  // namespace dilconv
