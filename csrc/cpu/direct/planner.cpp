#include "planner.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace dilconv {
namespace {

// Positions j in [0, count) for which origin + j * step lies in [0, size).
Range valid_positions(int64_t origin, int64_t step, int64_t count, int64_t size) {
  const int64_t begin = origin >= 0 ? 0 : divide_up(-origin, step);
  const int64_t end = origin >= size ? 0 : (size - 1 - origin) / step + 1;
  const int64_t first = std::min(begin, count);
  return {first, std::clamp(end, first, count)};
}

// The output positions that a kernel element reads inside the image for.
Range valid_outputs(const ConvProblem& p, int axis, int64_t k) {
  return valid_positions(k * p.dilation[axis] - p.pad_before[axis], p.stride[axis],
                         p.out_size[axis], p.in_size[axis]);
}

// Cuts [0, count) where taps enter or leave the image, but not so finely that the pieces cost more
// than the zeros they avoid: a piece of n positions and t taps is charged (n + overhead) * t, in
// sixteenths.
class Cutter {
 public:
  Cutter(const std::vector<Tap>& taps, size_t first, int64_t count, int64_t step, int64_t size,
         int64_t overhead)
      : first_(first), overhead_(overhead) {
    cuts_ = {0, count};
    for (size_t t = first; t < taps.size(); ++t) {
      valid_.push_back(valid_positions(taps[t].origin, step, count, size));
      cuts_.push_back(valid_.back().begin);
      cuts_.push_back(valid_.back().end);
    }
    std::sort(cuts_.begin(), cuts_.end());
    cuts_.erase(std::unique(cuts_.begin(), cuts_.end()), cuts_.end());
  }

  // Calls emit(begin, end, first_tap, tap_count) for the cheapest cut.
  template <class Emit>
  void run(const Emit& emit) const {
    const size_t pieces = cuts_.size() - 1;
    std::vector<int64_t> cost(pieces + 1, 0);
    std::vector<size_t> from(pieces + 1, 0);
    for (size_t end = 1; end <= pieces; ++end) {
      cost[end] = INT64_MAX;
      for (size_t begin = end; begin-- > 0;) {
        const int64_t here = cost[begin] + price(begin, end);
        if (here < cost[end]) {
          cost[end] = here;
          from[end] = begin;
        }
      }
    }
    std::vector<size_t> ends;
    for (size_t end = pieces; end > 0; end = from[end]) ends.push_back(end);
    for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
      const auto [tap, tap_count] = reaching(from[*end], *end);
      emit(cuts_[from[*end]], cuts_[*end], first_ + tap, tap_count);
    }
  }

 private:
  // The taps that read inside the image somewhere in pieces [begin, end): a contiguous range, as
  // their origins are monotone.
  std::pair<size_t, size_t> reaching(size_t begin, size_t end) const {
    size_t first = valid_.size(), last = 0;
    for (size_t t = 0; t < valid_.size(); ++t)
      if (valid_[t].begin < cuts_[end] && valid_[t].end > cuts_[begin] &&
          valid_[t].begin < valid_[t].end) {
        first = std::min(first, t);
        last = t + 1;
      }
    return first < last ? std::pair{first, last - first} : std::pair{size_t(0), size_t(0)};
  }

  int64_t price(size_t begin, size_t end) const {
    const int64_t taps = int64_t(reaching(begin, end).second);
    return (16 * (cuts_[end] - cuts_[begin]) + overhead_) * taps + 1;
  }

  size_t first_;
  int64_t overhead_;
  std::vector<Range> valid_;
  std::vector<int64_t> cuts_;
};

// Positions [from, to) of a span.
AxisSpan part_of(AxisPlan& plan, AxisSpan span, int64_t from, int64_t to) {
  const size_t first = span.first_tap;
  span.first_tap = plan.taps.size();
  // The part counts its positions from `from`: its taps' origins shift with it.
  for (size_t t = first; t < first + span.tap_count; ++t)
    plan.taps.push_back({plan.taps[t].kernel, plan.taps[t].origin + from * span.read_step});
  span.begin += from * span.step;
  span.count = to - from;
  return span;
}

constexpr int64_t kNeverCut = -1;  // instead of an overhead: one span, with every tap

void add_spans(AxisPlan& plan, size_t first_tap, int64_t begin, int64_t step, int64_t count,
               int64_t read_step, int64_t read_size, int64_t overhead) {
  if (overhead == kNeverCut) {
    plan.spans.push_back(
        {begin, step, count, read_step, first_tap, plan.taps.size() - first_tap, false});
    return;
  }
  const Cutter cutter(plan.taps, first_tap, count, read_step, read_size, overhead);
  cutter.run([&](int64_t from, int64_t to, size_t tap, size_t tap_count) {
    const AxisSpan whole = {begin, step, count, read_step, tap, tap_count, false};
    plan.spans.push_back(part_of(plan, whole, from, to));
  });
}

constexpr int64_t kMostTapsToCut = 64;  // choosing the cut takes time cubic in the taps

AxisPlan plan_axis(const ConvProblem& p, int axis, int64_t overhead) {
  if (p.kernel[axis] > kMostTapsToCut) overhead = kNeverCut;
  AxisPlan plan;
  const int64_t stride = p.stride[axis], dilation = p.dilation[axis], pad = p.pad_before[axis];
  if (p.op != DILCONV_GRAD_INPUT) {
    for (int64_t k = 0; k < p.kernel[axis]; ++k) plan.taps.push_back({k, k * dilation - pad});
    add_spans(plan, 0, 0, 1, p.out_size[axis], stride, p.in_size[axis], overhead);
    return plan;
  }
  // Position i of x is read by tap k of output (i + pad - k * dilation) / stride, where that
  // divides.
  for (int64_t residue = 0; residue < std::min(stride, p.in_size[axis]); ++residue) {
    const size_t first = plan.taps.size();
    for (int64_t k = 0; k < p.kernel[axis]; ++k) {
      const int64_t distance = residue + pad - k * dilation;
      if (distance % stride == 0) plan.taps.push_back({k, distance / stride});
    }
    add_spans(plan, first, residue, stride, divide_up(p.in_size[axis] - residue, stride), 1,
              p.out_size[axis], overhead);
  }
  return plan;
}

// Cuts spans into positions that read inside the image with every tap, in multiples of `unit`, and
// the others.
void split_inside(AxisPlan& plan, int64_t read_size, int64_t unit) {
  std::vector<AxisSpan> spans;
  for (const AxisSpan& span : plan.spans) {
    Range inside = {0, span.tap_count > 0 ? span.count : 0};
    for (size_t t = span.first_tap; t < span.first_tap + span.tap_count; ++t) {
      const Range valid =
          valid_positions(plan.taps[t].origin, span.read_step, span.count, read_size);
      inside = {std::max(inside.begin, valid.begin), std::min(inside.end, valid.end)};
    }
    const int64_t whole = (inside.end - inside.begin) / unit * unit;
    if (whole <= 0) {
      spans.push_back(span);
      continue;
    }
    inside.end = inside.begin + whole;
    if (inside.begin > 0) spans.push_back(part_of(plan, span, 0, inside.begin));
    spans.push_back(part_of(plan, span, inside.begin, inside.end));
    spans.back().inside = true;
    if (inside.end < span.count) spans.push_back(part_of(plan, span, inside.end, span.count));
  }
  plan.spans = std::move(spans);
}

// A 1×1 convolution of dense planes is one of single rows: longer runs, fewer of them.
bool flattens(const ConvProblem& p) {
  for (int axis = 0; axis < 2; ++axis)
    if (p.kernel[axis] != 1 || p.stride[axis] != 1 || p.pad_before[axis] != 0 ||
        p.pad_after[axis] != 0)
      return false;
  return p.x_strides[2] == p.in_size[1] * p.x_strides[3] &&
         p.y_strides[2] == p.out_size[1] * p.y_strides[3];
}

// Whether vectors hold read channels: written ones would fill a small part of one.
bool is_dot_product(const GatherPlan& plan, const ConvProblem& p, int64_t lanes) {
  return 4 * plan.written_channels <= lanes && plan.read_strides[1] == 1 &&
         plan.read_channels > 0 && plan.read_channels % lanes == 0 && !is_16_bit_floating(p);
}

// What speaks for vectors of pixels when channels are not innermost.
struct PixelPlan {
  bool in_place;  // vectors are read where they are, if they can be
  bool preferred;
};

PixelPlan plan_pixels(const GatherPlan& plan, const ConvProblem& p, int64_t lanes,
                      int64_t element_bytes) {
  constexpr int64_t kFewChannels = 4, kLongRow = 6, kDeep = 8;  // in vectors
  constexpr int64_t kLineBytes = 64, kCacheBytes = 524288;      // the second level's
  const bool dense = p.stride[1] == 1 && plan.read_strides[3] == 1 && plan.written_strides[3] == 1;
  const bool few_channels = plan.written_channels <= kFewChannels * lanes;
  const bool long_rows = dense && plan.read_size[1] >= kLongRow * lanes;
  const bool one_tap = p.kernel[0] * p.kernel[1] == 1;
  // Reading in place saves packing, which costs the more the fewer written channels share a vector;
  // but what is left of rows makes pieces of its own.
  const bool in_place = dense && !is_16_bit_floating(p) && plan.read_channels > 0 &&
                        (few_channels || (one_tap && long_rows));
  // Vectors of channels need no packing, and planes may be cut finely; but the result has to be
  // transposed, and the last vector filled.
  const int64_t depth = p.kernel[0] * p.kernel[1] * plan.read_channels;
  const int64_t filled = round_up(plan.written_channels, lanes);
  // Few broadcast pixels, the register tile of narrow vectors, use little of each cache line: these
  // must not come from afar.
  const int64_t read_bytes =
      plan.read_channels * plan.read_size[0] * plan.read_size[1] * element_bytes;
  const bool near = lanes * element_bytes >= kLineBytes || read_bytes <= kCacheBytes;
  const bool channels = !is_16_bit_floating(p) && near && depth >= kDeep * lanes &&
                        8 * plan.written_channels >= 7 * filled && !(in_place && long_rows);
  return {in_place, !channels};
}

// Whether so few written channels share a vector of pixels that all planes are best copied with
// zeros around them.
bool pads_planes(const GatherPlan& plan, const ConvProblem& p, int64_t lanes) {
  constexpr int64_t kFew = 12, kManyTaps = 9, kLongRow = 4;  // in vectors
  const int64_t taps = p.kernel[0] * p.kernel[1];
  const bool channels_last = (plan.read_strides[1] == 1 && plan.read_strides[3] != 1) ||
                             (plan.written_strides[1] == 1 && plan.written_strides[3] != 1);
  const bool far = !channels_last && taps >= kManyTaps && plan.read_size[1] >= kLongRow * lanes;
  return plan.written_channels <= (far ? kFew : kFewWritten) && plan.read_channels > 0 &&
         taps > 1 && taps <= kPanelDepth && p.kernel[1] <= kMostTapsToCut &&
         !(channels_last && is_16_bit_floating(p)) &&
         (p.op == DILCONV_GRAD_INPUT || p.stride[1] == 1);
}

// How far apart a span's taps read: their origins are monotone.
int64_t reach_of(const Span& span) {
  return span.tap_count > 0 ? std::abs(span.taps[span.tap_count - 1].origin - span.taps->origin)
                            : 0;
}

// Copies and sums that stay in the second-level cache, and enough tiles for threads. What is summed
// at a time must not depend on the batch, as the bits of the result depend on it.
void set_tiles(GatherPlan& plan, int64_t element_bytes) {
  constexpr int64_t kCacheBytes = 131072, kRows = 8, kColumns = 512, kTasks = 8;
  int64_t reach[2] = {0, 0}, rows = 1, columns = 1, step = 1;
  for (const Region* region = plan.regions; region < plan.regions + plan.region_count; ++region) {
    rows = std::max(rows, region->h.count);
    columns = std::max(columns, region->w.count);
    step = region->h.read_step;
    reach[0] = std::max(reach[0], std::min(plan.read_size[0], reach_of(region->h)));
    reach[1] = std::max(reach[1], reach_of(region->w));
  }
  plan.tile[1] = std::min(columns, std::max(kColumns, 4 * reach[1]));
  const int64_t row_bytes = (plan.tile[1] + reach[1]) * element_bytes;
  const int64_t fewest_rows = std::min(rows, std::max(kRows, reach[0]));
  const int64_t least_reads = std::min(plan.read_size[0], fewest_rows * step + reach[0]);
  const int64_t taps = plan.kernel[0] * plan.kernel[1];
  plan.plane_channels = std::clamp<int64_t>(
      kCacheBytes / std::max<int64_t>(1, least_reads * row_bytes), 1, kPanelDepth / taps);
  const int64_t planes_row = std::min(plan.read_channels, plan.plane_channels) * row_bytes;
  const int64_t sums_row = plan.written_channels * plan.tile[1] * element_bytes;
  const int64_t fitting = (kCacheBytes - reach[0] * planes_row) / (step * planes_row + sums_row);
  const int64_t others =
      plan.batch * plan.groups * plan.region_count * divide_up(columns, plan.tile[1]);
  const int64_t shared = divide_up(rows, divide_up(kTasks, std::max<int64_t>(1, others)));
  plan.tile[0] = std::min(std::max(fitting, fewest_rows), shared);
}

// How many samples are worked on together: as many as stay in the cache, or as it takes to fill
// tiles of `tile` pixels. pixels: written ones of a sample.
int64_t choose_samples(const GatherPlan& plan, int64_t pixels, int64_t tile, int element_bytes) {
  constexpr int64_t kCacheBytes = 524288;  // of the second level, for what is read and written
  const int64_t sample_bytes =
      plan.groups * element_bytes *
      (plan.read_channels * plan.read_size[0] * plan.read_size[1] + plan.written_channels * pixels);
  const int64_t filling = divide_up(tile * plan.region_count, std::max<int64_t>(1, pixels));
  return std::clamp(kCacheBytes / std::max<int64_t>(1, sample_bytes), std::min(filling, plan.batch),
                    plan.batch);
}

}  // namespace

ConvProblem flattened(const ConvProblem& problem) {
  ConvProblem p = problem;
  if (!flattens(p)) return p;
  p.in_size[1] *= p.in_size[0];
  p.out_size[1] *= p.out_size[0];
  p.in_size[0] = p.out_size[0] = 1;
  return p;
}

std::vector<Range> valid_taps(const ConvProblem& p, int axis) {
  std::vector<Range> valid;
  for (int64_t k = 0; k < p.kernel[axis]; ++k) valid.push_back(valid_outputs(p, axis, k));
  return valid;
}

int64_t count_products(const ConvProblem& p, int axis) {
  int64_t count = 0;
  for (int64_t k = 0; k < p.kernel[axis]; ++k) {
    const Range valid = valid_outputs(p, axis, k);
    count += valid.end - valid.begin;
  }
  return count;
}

void set_roles(GatherPlan& plan, const ConvProblem& p) {
  const bool forward = p.op == DILCONV_CONV2D;
  const int64_t in = p.in_channels / p.groups, out = p.out_channels / p.groups;
  plan.batch = p.batch;
  plan.groups = p.groups;
  plan.read_channels = forward ? in : out;
  plan.written_channels = forward ? out : in;
  plan.weight_group_stride = out * p.w_strides[0];
  for (int i = 0; i < 4; ++i) {
    plan.read_strides[i] = forward ? p.x_strides[i] : p.y_strides[i];
    plan.written_strides[i] = forward ? p.y_strides[i] : p.x_strides[i];
    plan.weight_strides[i] = p.w_strides[i < 2 && !forward ? 1 - i : i];
  }
  for (int axis = 0; axis < 2; ++axis) {
    plan.read_size[axis] = forward ? p.in_size[axis] : p.out_size[axis];
    plan.kernel[axis] = p.kernel[axis];
  }
}

OwnedRegions::OwnedRegions(AxisPlan h, AxisPlan w)
    : taps_h_(std::move(h.taps)), taps_w_(std::move(w.taps)) {
  const auto span = [](const AxisSpan& s, const std::vector<Tap>& taps) {
    return Span{
        s.begin, s.step, s.count, s.read_step, taps.data() + s.first_tap, int64_t(s.tap_count)};
  };
  regions_.reserve(h.spans.size() * w.spans.size());
  for (const AxisSpan& row : h.spans)
    for (const AxisSpan& column : w.spans)
      regions_.push_back({span(row, taps_h_), span(column, taps_w_), row.inside && column.inside});
}

OwnedRegions whole_regions(const ConvProblem& problem) {
  return OwnedRegions(plan_axis(problem, 0, kNeverCut), plan_axis(problem, 1, kNeverCut));
}

OwnedRegions cut_regions(const ConvProblem& p, int64_t row_overhead, int64_t run_overhead) {
  return OwnedRegions(plan_axis(p, 0, row_overhead), plan_axis(p, 1, run_overhead));
}

OwnedGatherPlan::OwnedGatherPlan(const ConvProblem& problem, int vector_bytes, int element_bytes) {
  const ConvProblem p = flattened(problem);
  set_roles(plan, p);

  const int64_t lanes = vector_bytes / element_bytes;
  const bool channels_last = plan.written_strides[1] == 1;
  const PixelPlan pixel_vectors = plan_pixels(plan, p, lanes, element_bytes);
  const bool dots = is_dot_product(plan, p, lanes);
  if (!dots && pads_planes(plan, p, lanes)) {
    // A piece of columns has copies of its own; rows leave out their taps one by one.
    const int64_t piece_overhead = 128 * lanes;
    set_regions(cut_regions(p, kNeverCut, piece_overhead));
    plan.vectors = VectorsHold::kPaddedPixels;
    set_tiles(plan, element_bytes);
    return;
  }
  const bool by_channels = channels_last ? plan.written_channels > 1 : !pixel_vectors.preferred;
  // With written channels in vectors a piece costs little more than the last register tile, which
  // it may not fill. With pixels in vectors it may not fill the last vector either, and a cut along
  // the width makes runs shorter: packing one takes about five steps of the register tile's loop,
  // each of which multiplies `lanes` pixels by one written channel.
  const int64_t row_overhead = by_channels || dots ? 2 : 8;
  const int64_t run_overhead =
      by_channels || dots ? 2 : 8 + 80 * lanes / std::max<int64_t>(1, plan.written_channels);
  AxisPlan h = plan_axis(p, 0, row_overhead), w = plan_axis(p, 1, run_overhead);
  if (!by_channels && !dots && pixel_vectors.in_place) {
    split_inside(h, plan.read_size[0], 1);
    split_inside(w, plan.read_size[1], lanes);
  }
  set_regions(OwnedRegions(std::move(h), std::move(w)));
  int64_t pixels = 0;
  for (int64_t r = 0; r < plan.region_count; ++r)
    pixels += plan.regions[r].h.count * plan.regions[r].w.count;

  // Both orientations add in the same order and give the same bits, so the choice may look at the
  // batch.
  const bool few_pixels = pixels * plan.batch * 2 <= lanes && plan.written_channels >= lanes;
  plan.vectors = dots                        ? VectorsHold::kReadChannels
                 : by_channels || few_pixels ? VectorsHold::kWrittenChannels
                                             : VectorsHold::kWrittenPixels;
  plan.samples = choose_samples(plan, pixels, kMaxVectors * lanes, element_bytes);
  plan.panel_depth = std::min(kPanelDepth, p.kernel[0] * p.kernel[1] * plan.read_channels);
  // A panel of pixel vectors is to stay in the first-level cache; one of packed rows passes through
  // it.
  constexpr int64_t kPanelBytes = 24576;
  const int64_t tile = kMaxVectors * lanes;
  const int64_t fitting =
      kPanelBytes / (element_bytes * std::max<int64_t>(1, plan.panel_depth)) / tile * tile;
  plan.block_pixels = plan.vectors != VectorsHold::kWrittenPixels
                          ? 384 / element_bytes
                          : std::clamp(fitting, tile, 4 * tile);
  plan.block_pixels = std::min(plan.block_pixels, round_up(pixels * plan.samples, lanes));
  plan.split_channels = std::min<int64_t>(256, round_up(plan.written_channels, lanes));
}

void OwnedGatherPlan::set_regions(OwnedRegions regions) {
  regions_ = std::move(regions);
  plan.regions = regions_.data();
  plan.region_count = regions_.size();
}

}  // namespace dilconv
