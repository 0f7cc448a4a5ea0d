#include "planner.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace dilconv {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kCopyBytes = 1048576;  // so many samples at a time that they stay in the cache

// Whether all kernel columns' channels side by side take half as many products as each column's in
// whole steps, or fewer. Those of a strided grad_input differ from column to column.
bool folds(const ConvProblem& p, int64_t read_channels, int64_t step) {
  const int64_t columns = p.kernel[1];
  return columns > 1 && (p.op == DILCONV_CONV2D || p.stride[1] == 1) &&
         2 * round_up(columns * read_channels, step) <= columns * round_up(read_channels, step);
}

// How long a written pixel of all groups takes, about, if so many of them are joined: in steps of a
// tile's row.
double price_groups(const ConvProblem& p, int64_t joined, const MatrixShape& shape) {
  const bool forward = p.op == DILCONV_CONV2D;
  const int64_t in = p.in_channels / p.groups * joined, out = p.out_channels / p.groups * joined;
  const int64_t read = forward ? in : out, written = forward ? out : in;
  const bool folded = joined == 1 && folds(p, read, shape.step);
  const int64_t depth = round_up(folded ? p.kernel[1] * read : read, shape.step);
  const int64_t taps = folded ? p.kernel[0] : p.kernel[0] * p.kernel[1];
  const bool dense = (forward ? p.x_strides : p.y_strides)[1] == 1;
  const double row = double(shape.unit_cost + shape.row_unit) / double(shape.row_unit);
  const double copy = folded || depth != read || !dense ? double(shape.copy_cost) : 0;
  return double(p.groups / joined * depth / shape.step) *
         (double(taps * divide_up(written, 2 * kLanes)) * row + copy);
}

// The problem whose read columns are its written ones, each with all that it reads.
ConvProblem fold_columns(const ConvProblem& problem) {
  ConvProblem p = problem;
  const int64_t columns = p.op == DILCONV_CONV2D ? p.out_size[1] : p.in_size[1];
  p.in_size[1] = p.out_size[1] = columns;
  p.kernel[1] = p.stride[1] = p.dilation[1] = 1;
  p.pad_before[1] = p.pad_after[1] = 0;
  return p;
}

// The read positions along an axis, inside the image or not, from the first to the last.
Range reach(const GatherPlan& plan, int axis) {
  Range all = {0, plan.read_size[axis]};
  for (int64_t r = 0; r < plan.region_count; ++r) {
    const Span& span = axis == 0 ? plan.regions[r].h : plan.regions[r].w;
    for (int64_t t = 0; t < span.tap_count; ++t) {
      const int64_t origin = span.taps[t].origin;
      all.begin = std::min(all.begin, origin);
      all.end = std::max(all.end, origin + (span.count - 1) * span.read_step + 1);
    }
  }
  return all;
}

void set_fold(MatrixGatherPlan& plan, const ConvProblem& p) {
  const bool forward = p.op == DILCONV_CONV2D;
  plan.folded_columns = p.kernel[1];
  plan.fold_origin = forward ? -p.pad_before[1] : p.pad_before[1];
  plan.fold_step = forward ? p.stride[1] : 1;
  plan.fold_dilation = forward ? p.dilation[1] : -p.dilation[1];
}

// What the products see, given the regions: the tensor itself if that will do.
void set_products(MatrixGatherPlan& plan, const MatrixShape& shape) {
  GatherPlan& q = plan.products;
  const GatherPlan& t = plan.tensors;
  const Range h = reach(q, 0), w = reach(q, 1);
  const bool outside =
      h.begin < 0 || h.end > q.read_size[0] || w.begin < 0 || w.end > q.read_size[1];
  q.read_channels = round_up(t.read_channels * plan.folded_columns, shape.step);
  plan.copied = outside || plan.folded_columns > 1 || t.read_strides[1] != 1 ||
                q.read_channels != t.read_channels;
  plan.before[0] = plan.copied ? -h.begin : 0;
  plan.before[1] = plan.copied ? -w.begin : 0;
  q.samples = q.batch;
  if (!plan.copied) return;
  q.read_size[0] = h.end - h.begin;
  q.read_size[1] = w.end - w.begin;
  const int64_t pixel = q.groups * q.read_channels;
  const int64_t strides[] = {pixel * q.read_size[0] * q.read_size[1], 1, pixel * q.read_size[1],
                             pixel};
  std::copy(strides, strides + 4, q.read_strides);
  q.samples =
      std::min(q.batch, std::max<int64_t>(1, kCopyBytes / std::max<int64_t>(1, 2 * strides[0])));
}

// How many squares of sums are turned around for planes of written pixels, which lie in runs.
int64_t squares_of(const GatherPlan& plan, const Region& region) {
  if (plan.written_strides[1] == 1) return 0;
  const bool rows = region.w.count * region.w.step * plan.written_strides[3] ==
                    region.h.step * plan.written_strides[2];
  const int64_t runs = rows ? 1 : region.h.count;
  const int64_t run = (rows ? region.h.count : 1) * region.w.count;
  return plan.samples * runs * divide_up(run, 2 * kLanes) *
         divide_up(plan.written_channels, kLanes);
}

// The time that a region's pixels take as these lines: in rows' steps of one product.
double price(const GatherPlan& plan, const Region& region, const PixelLines& lines,
             const MatrixShape& shape) {
  constexpr int64_t kFarBytes = 4096;  // rows that far apart are each in another page
  constexpr double kScattered = 128;   // one element written by itself
  const PixelAxis& axis = lines.axes[2];
  const int64_t unit_cost = shape.unit_cost * (2 * axis.read >= kFarBytes ? 2 : 1);
  const int64_t products = region.h.tap_count * region.w.tap_count * plan.read_channels;
  const int64_t vectors = divide_up(plan.written_channels, 2 * kLanes);
  const bool scattered = plan.written_strides[1] != 1 && axis.written != 1;
  const double written =
      scattered ? double(lines.units * lines.rows) * kScattered * double(plan.written_channels)
                : double(squares_of(plan, region)) * double(shape.turn_cost);
  return double(lines.units) * double(unit_cost + lines.rows) * double(products) * double(vectors) +
         written;
}

// How long the plan takes, about: in rows' steps of one product.
double estimate(const MatrixGatherPlan& plan, const MatrixShape& shape) {
  const GatherPlan& q = plan.products;
  double steps = 0;
  for (int64_t r = 0; r < q.region_count; ++r)
    steps += find_lines(plan, q.regions[r], q.samples, shape).cost;
  const double copied = double(q.samples * q.read_size[0] * q.read_size[1] * shape.copy_cost) *
                        double(q.read_channels);
  return (steps + (plan.copied ? copied : 0)) / double(q.samples);
}

// How long planes.h takes for a sample, about: in multiply-adds of vectors.
double estimate(const MatrixPlanesPlan& plan) {
  // Weights are packed once for all samples; how many these are must not matter, as sums may be
  // paired otherwise than in gather.h.
  constexpr double kTileCost = 40, kRowCost = 4, kPartedCost = 3, kCopyCost = 8, kWeightCost = 0.5;
  constexpr int64_t kRows = 8, kVectors = 3, kLatency = 6;
  const GatherPlan& q = plan.tensors;
  const int64_t taps = q.kernel[0] * q.kernel[1];
  const int64_t vectors = plan.lines * divide_up(plan.line, kLanes);
  const int64_t rows = std::min(q.written_channels, kRows);
  const double busy = std::max(1.0, double(kLatency) / double(rows * kVectors));
  const double parted = plan.lines_dense || plan.lines > 1 ? 0 : kPartedCost;
  const double row = double(taps * plan.pairs) * busy + kRowCost + parted;
  const double tiles = double(vectors) / kVectors * double(divide_up(q.written_channels, kRows));
  const double weights = double(q.written_channels * q.read_channels * taps);
  return double(q.groups) *
         (double(vectors * q.written_channels) * row + tiles * kTileCost +
          double(plan.pairs * divide_up(plan.plane, kLanes)) * kCopyCost + weights * kWeightCost);
}

// Whether planes.h can run the problem.
bool has_planes(const ConvProblem& p, const MatrixShape& shape) {
  const bool forward = p.op == DILCONV_CONV2D;
  const int64_t read = (forward ? p.in_channels : p.out_channels) / p.groups;
  return shape.row_unit == 1 && read > 0 && p.x_strides[3] == 1 && p.y_strides[3] == 1 &&
         (forward || (p.op == DILCONV_GRAD_INPUT && p.stride[0] == 1 && p.stride[1] == 1)) &&
         round_up(read, 2) * p.kernel[0] * p.kernel[1] <= shape.read_depth;
}

}  // namespace

PixelLines find_lines(const MatrixGatherPlan& plan, const Region& region, int64_t samples,
                      const MatrixShape& shape) {
  const GatherPlan& q = plan.products;
  PixelAxis n = {samples, q.read_strides[0], q.written_strides[0]};
  PixelAxis h = {region.h.count, region.h.read_step * q.read_strides[2],
                 region.h.step * q.written_strides[2]};
  PixelAxis w = {region.w.count, region.w.read_step * q.read_strides[3],
                 region.w.step * q.written_strides[3]};
  // Rows that follow each other are one long row, and so are planes.
  for (PixelAxis* outer : {&h, &n}) {
    if (outer->read != w.count * w.read || outer->written != w.count * w.written) break;
    w.count *= outer->count;
    *outer = {1, 0, 0};
  }
  PixelLines best = {};
  const PixelAxis orders[3][3] = {{n, h, w}, {n, w, h}, {h, w, n}};
  for (const PixelAxis(&axes)[3] : orders) {
    PixelLines lines;
    std::copy(axes, axes + 3, lines.axes);
    lines.line_units = divide_up(axes[2].count, shape.row_unit);
    lines.rows = divide_up(axes[2].count, lines.line_units);
    lines.units = axes[0].count * axes[1].count * lines.line_units;
    lines.cost = price(q, region, lines, shape);
    if (best.units == 0 || lines.cost < best.cost) best = lines;
  }
  return best;
}

bool mostly_inside(const ConvProblem& p) {
  for (int axis = 0; axis < 2; ++axis)
    if (2 * (p.kernel[axis] - 1) * p.dilation[axis] > p.in_size[axis] + p.pad_before[axis])
      return false;
  return true;
}

bool fits_planes(const ConvProblem& p, const MatrixShape& shape) {
  return has_planes(p, shape) && mostly_inside(p);
}

int64_t groups_to_join(const ConvProblem& p, const MatrixShape& shape) {
  int64_t best = 1;
  if (shape.row_unit == 1) return best;
  const int64_t channels = std::max<int64_t>(1, std::min(p.in_channels, p.out_channels) / p.groups);
  for (int64_t joined = 2; joined <= p.groups && joined * channels <= 2 * shape.step; ++joined)
    if (p.groups % joined == 0 && price_groups(p, joined, shape) < price_groups(p, best, shape))
      best = joined;
  return best;
}

bool joins_well(const ConvProblem& p, const MatrixShape& shape) {
  constexpr int64_t kFewTaps = 3;
  return p.kernel[0] * p.kernel[1] > kFewTaps && groups_to_join(p, shape) > 1;
}

OwnedMatrixGatherPlan::OwnedMatrixGatherPlan(const ConvProblem& problem, const MatrixShape& shape) {
  plan = {};
  constexpr int64_t kBlockRows = 1024, kBlockBytes = 524288;  // of a task
  ConvProblem p = problem;
  plan.joined_groups = groups_to_join(p, shape);
  p.groups /= plan.joined_groups;
  set_roles(plan.tensors, p);
  const int64_t channels = plan.tensors.read_channels;
  plan.folded_columns = 1;
  if (plan.joined_groups == 1 && folds(p, channels, shape.step)) set_fold(plan, p);
  const ConvProblem seen = plan.folded_columns > 1 ? fold_columns(p) : p;
  // Cut where taps enter or leave the image, finely or not: pieces may not fill units, what they
  // leave uncut multiplies zeros.
  double least_cost = 0;
  for (const int64_t overhead : {0, 64, 256, 4096}) {
    OwnedRegions regions = cut_regions(seen, overhead, overhead);
    MatrixGatherPlan candidate = plan;
    set_roles(candidate.products, seen);
    candidate.products.regions = regions.data();
    candidate.products.region_count = regions.size();
    set_products(candidate, shape);
    const double cost = estimate(candidate, shape);
    if (overhead > 0 && cost >= least_cost) continue;
    least_cost = cost;
    plan = candidate;
    regions_ = std::move(regions);
    if (regions_.size() == 1) break;  // coarser cuts are the same
  }
  const int64_t depth = plan.products.read_channels;
  const int64_t taps = std::max<int64_t>(1, seen.kernel[0] * seen.kernel[1]);
  plan.chunk_channels = std::max(shape.step, shape.read_depth / taps / shape.step * shape.step);
  const int64_t rows =
      std::clamp<int64_t>(kBlockBytes / std::max<int64_t>(1, 2 * depth), 8 * kLanes, kBlockRows);
  plan.block_units = rows / shape.row_unit;
  if (has_planes(problem, shape)) consider_planes(problem, shape, least_cost * double(p.groups));
}

// Takes planes.h instead if it can run the problem and takes less.
void OwnedMatrixGatherPlan::consider_planes(const ConvProblem& problem, const MatrixShape& shape,
                                            double cost) {
  const ConvProblem p = flattened(problem);
  MatrixPlanesPlan planes = {};
  GatherPlan& t = planes.tensors;
  set_roles(t, p);
  planes.pairs = divide_up(t.read_channels, 2);
  OwnedRegions whole = whole_regions(p);
  if (whole.size() != 1) return;
  const Region& region = *whole.data();
  const bool forward = p.op == DILCONV_CONV2D;
  const int64_t (&written)[2] = forward ? p.out_size : p.in_size;
  for (int axis = 0; axis < 2; ++axis) {
    const Span& span = axis == 0 ? region.h : region.w;
    if (span.step != 1 || span.count != written[axis] || span.tap_count != t.kernel[axis]) return;
    Range all = {span.taps[0].origin, span.taps[0].origin};
    for (int64_t k = 0; k < span.tap_count; ++k)
      all = {std::min(all.begin, span.taps[k].origin), std::max(all.end, span.taps[k].origin)};
    planes.before[axis] = -all.begin;
    const int64_t step = span.count > 1 ? span.read_step : 1;
    planes.step[axis] = step;
    planes.unit[axis] = span.tap_count > 1 ? std::gcd(p.dilation[axis], step) : step;
    planes.phases[axis] = step / planes.unit[axis];
    planes.size[axis] = divide_up(all.end - all.begin + 1, step) + span.count - 1;
  }
  double extent = 1;
  for (int axis = 0; axis < 2; ++axis)
    extent *= double(planes.phases[axis]) * double(planes.size[axis]);
  constexpr double kMostPositions = 1 << 28;
  if (extent > kMostPositions) return;
  const int64_t positions = int64_t(extent);
  constexpr int64_t kLine = 16;  // pairs; planes an odd number of cache lines apart
  planes.plane = (divide_up(positions, kLine) | 1) * kLine;
  planes.lines_dense =
      planes.size[1] == written[1] && t.written_strides[2] == written[1] * t.written_strides[3];
  t.regions = &region;
  t.region_count = 1;
  const int64_t sample_bytes = 4 * t.groups * planes.pairs * planes.plane;
  t.samples = std::min(t.batch, std::max<int64_t>(1, kCopyBytes / sample_bytes));
  for (const bool joined : {true, false}) {
    planes.lines = joined ? 1 : written[0];
    planes.line = joined ? (written[0] - 1) * planes.size[1] + written[1] : written[1];
    const double took = estimate(planes);
    if (took >= cost) continue;
    cost = took;
    plan.in_planes = true;
    plan.planes = planes;
  }
  whole_ = std::move(whole);
}

}  // namespace dilconv
