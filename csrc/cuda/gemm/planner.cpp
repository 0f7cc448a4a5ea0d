#include "planner.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "sizes.h"

namespace dilconv::cuda {
namespace {

// With room for the rest of a tile, and for a step of all threads of a pass.
constexpr int64_t kIntLimit = INT32_MAX - (1 << 21);

// What keeps a large GPU busy, two blocks for each of an H100's 132 multiprocessors; and the
// shortest part that a sum is worth splitting into. Constants, so that results have the same bits
// on every GPU. Tests set less, for small problems to be cut as large ones are.
#ifndef DILCONV_BUSY_BLOCKS
#define DILCONV_BUSY_BLOCKS 264
#define DILCONV_FEWEST_PRODUCTS 4096
#endif
constexpr int64_t kBusyBlocks = DILCONV_BUSY_BLOCKS;
constexpr int64_t kFewestProducts = DILCONV_FEWEST_PRODUCTS;

constexpr TileSize kTiles[] = {
    {TileName::kLarge, 128, 128}, {TileName::kMedium, 128, 64}, {TileName::kNarrow, 128, 32}};
constexpr TileSize kMediumTile = kTiles[1];
constexpr TileSize kSmallTile = {TileName::kSmall, 64, 64};
// What an element of a tile costs, relatively: wider tiles read each operand less often.
double cost_of_element(const TileSize& tile) { return 1 + 16.0 / tile.columns; }

GatherAxis make_axis(const ConvProblem& p, int axis) {
  const int stride = int(p.stride[axis]), dilation = int(p.dilation[axis]);
  GatherAxis a;
  a.kernel = int(p.kernel[axis]);
  a.dilation = dilation;
  a.pad = int(p.pad_before[axis]);
  if (p.op == DILCONV_CONV2D) {
    a.written = int(p.out_size[axis]);
    a.read = int(p.in_size[axis]);
    a.residues = a.kernel_step = 1;
    a.read_step = stride;
    a.tap_step = dilation;
    a.sign = -1;
    return a;
  }
  const int common = std::gcd(stride, dilation);
  a.written = int(p.in_size[axis]);
  a.read = int(p.out_size[axis]);
  a.residues = stride;
  a.read_step = 1;
  a.kernel_step = stride / common;
  a.tap_step = -(dilation / common);
  a.sign = 1;
  return a;
}

// Positions of the first, and so a largest, residue.
int positions(const GatherAxis& axis) { return int(divide_up(axis.written, axis.residues)); }
// Residues that have positions.
int residues(const GatherAxis& axis) { return std::min(axis.residues, axis.written); }

// The weights as the gather reads them: a sample for each written channel.
ImageParams weights_in_place(const ConvProblem& p, const Tensors& t) {
  const bool forward = p.op == DILCONV_CONV2D;
  ImageParams w = make_image(p, t.w, p.w_strides, p.kernel, read_channels(p));
  w.sample = p.w_strides[forward ? 0 : 1];
  w.channel = p.w_strides[forward ? 1 : 0];
  w.group = out_per_group(p) * p.w_strides[0];
  return w;
}

ImageParams packed_weights(const ConvProblem& p, const Tensors& t) {
  ImageParams w = weights_in_place(p, t);
  w.data = t.workspace;
  w.channels = w.padded_channels;
  w.channel = 1;
  w.column = w.padded_channels;
  w.row = w.column * p.kernel[1];
  w.sample = w.row * p.kernel[0];
  w.group = w.sample * written_channels(p);
  return w;
}

// Taps that read inside the image for some position in [from, to] of the first residue.
int reaching_taps(const GatherAxis& axis, int from, int to) {
  int count = 0;
  for (int k = 0; k < axis.kernel; ++k) {
    const int distance = axis.pad - k * axis.dilation;
    if (distance % axis.residues != 0) continue;
    const int origin = axis.sign * (distance / axis.residues);
    count += origin + to * axis.read_step >= 0 && origin + from * axis.read_step < axis.read;
  }
  return count;
}

// Products of all tiles of a sample that is cut into strips of this width.
int64_t strip_cost(const GatherParams& g, int width, int tile_rows) {
  const int rows = positions(g.h), columns = positions(g.w);
  int64_t cost = 0;
  for (int first = 0; first < columns; first += width) {
    const int across = std::min(width, columns - first);
    const int taps = reaching_taps(g.w, first, first + across - 1);
    for (int pixel = 0; pixel < rows * across; pixel += tile_rows) {
      const int last = std::min(pixel + tile_rows, rows * across) - 1;
      cost += 1 + int64_t(taps) * reaching_taps(g.h, pixel / across, last / across);
    }
  }
  return cost;
}

int samples_per_tile(int64_t pixels, int tile_rows) {
  return std::max<int>(1, int(tile_rows / std::max<int64_t>(pixels, 1)));
}

// Small images share a tile. Of large ones a tile takes a strip of columns, all of them unless
// narrower strips have fewer taps to multiply: those whose columns all lie in the padding drop out.
void plan_tiles(GatherParams& g, int tile_rows) {
  constexpr int kMostStrips = 4;
  constexpr int64_t kMostTilesToCompare = 1024, kMostTapsToCompare = 64;
  const int64_t columns = positions(g.w), pixels = positions(g.h) * columns;
  g.samples_per_tile = samples_per_tile(pixels, tile_rows);
  g.strip_width = int(columns);
  const int64_t reach = int64_t(g.w.kernel - 1) * g.w.dilation / g.w.residues;
  if (g.samples_per_tile == 1 && 4 * reach >= g.w.read &&
      pixels <= kMostTilesToCompare * tile_rows && g.h.kernel + g.w.kernel <= kMostTapsToCompare) {
    int64_t best = strip_cost(g, g.strip_width, tile_rows);
    for (int strips = 2; strips <= kMostStrips; ++strips) {
      const int width = int(divide_up(columns, strips));
      const int64_t cost = strip_cost(g, width, tile_rows);
      if (cost < best) {
        best = cost;
        g.strip_width = width;
      }
    }
  }
  if (pixels == 0) return;
  g.strips = int(divide_up(columns, g.strip_width));
  g.tiles_per_strip = g.samples_per_tile > 1
                          ? 1
                          : int(divide_up(int64_t(positions(g.h)) * g.strip_width, tile_rows));
}

// Of a residue of one sample.
int64_t written_positions(const ConvProblem& p) {
  return int64_t(positions(make_axis(p, 0))) * positions(make_axis(p, 1));
}

// Blocks for each part of a gather's sum, if no image is cut into strips.
int64_t blocks_of_part(const ConvProblem& p, const TileSize& tile, int64_t samples) {
  const int64_t pixels = written_positions(p);
  return divide_up(samples, samples_per_tile(pixels, tile.rows)) * divide_up(pixels, tile.rows) *
         residues(make_axis(p, 0)) * residues(make_axis(p, 1)) *
         divide_up(written_channels(p), tile.columns) * p.groups;
}

// How a gather's sum is split: into parts of so many read channels, whole slices.
struct Splits {
  int count, channels;
};

// Splits the sums of few blocks, down to a length that keeps adding them up cheap even in a batch
// that needs no splits: by one sample's sizes, so that its bits do not depend on the batch.
Splits split_gather(const ConvProblem& p, TileName tile) {
  const int64_t slice = 64 / dtype_bytes(p.dtype);
  const GatherAxis h = make_axis(p, 0), w = make_axis(p, 1);
  const int64_t channels = read_channels(p);
  const int64_t products =
      channels * divide_up(h.kernel, h.kernel_step) * divide_up(w.kernel, w.kernel_step);
  const int64_t blocks = blocks_of_part(p, tile == TileName::kSmall ? kSmallTile : kMediumTile, 1);
  const int64_t most = std::min(products / kFewestProducts, divide_up(channels, slice));
  const int64_t wanted = std::min(kBusyBlocks / std::max<int64_t>(blocks, 1), most);
  if (wanted < 2) return {1, padded_channels(p, channels)};
  const int64_t part = round_up(divide_up(channels, wanted), slice);
  return {int(divide_up(channels, part)), int(part)};
}

// Of one sample.
int64_t written_elements(const ConvProblem& p) {
  return p.op == DILCONV_CONV2D ? p.out_channels * p.out_size[0] * p.out_size[1]
                                : p.in_channels * p.in_size[0] * p.in_size[1];
}

// Has the gather write partial sums, dense images in the order of the result's dimensions.
void write_splits(const ConvProblem& p, const Tensors& t, const Splits& splits, GatherParams& g) {
  const int64_t channels = g.written_channels * p.groups;
  const int64_t pixels = int64_t(g.h.written) * g.w.written;
  const bool channels_last = g.written_channel == 1;
  g.read.padded_channels = g.weight.padded_channels = splits.channels;
  g.written = static_cast<char*>(t.workspace) + packed_bytes(p);
  g.written_sample = channels * pixels;
  g.written_channel = channels_last ? 1 : pixels;
  g.written_column = channels_last ? channels : 1;
  g.written_row = g.written_column * g.w.written;
  g.bias = nullptr;
}

bool fits_int(int64_t a, int64_t b) { return a == 0 || b <= kIntLimit / a; }

// By an upper bound for the blocks of one sample: each residue has its own last tiles.
bool fits_grid(const ConvProblem& p) {
  const GatherAxis h = make_axis(p, 0), w = make_axis(p, 1);
  const double tiles = double(h.written) * w.written / 16 + 16.0 * residues(h) * residues(w);
  return tiles * double(written_channels(p) / 32 + 1) * double(p.groups) < double(kIntLimit);
}

}  // namespace

const char* gemm_refuses(const ConvProblem& p) {
  if (!is_floating(p)) return "integers are left to the reference";
  constexpr int64_t kLimit = int64_t(1) << 27;
  for (int axis = 0; axis < 2; ++axis)
    if (std::max({p.in_size[axis], p.out_size[axis], p.stride[axis], std::abs(p.pad_before[axis]),
                  p.kernel[axis]}) >= kLimit ||
        p.dilation[axis] >= kLimit || p.dilation[axis] * p.kernel[axis] >= kLimit)
      return "a size, stride, dilation or pad beyond 2^27";
  if (std::max(p.in_channels, p.out_channels) >= kLimit || p.batch >= kIntLimit)
    return "channels beyond 2^27";
  if (!fits_int(p.in_size[0], p.in_size[1]) || !fits_int(p.out_size[0], p.out_size[1]))
    return "an image of more than 2^31 pixels";
  if (!fits_int(kernel_size(p), std::max(in_per_group(p), out_per_group(p)) + 16))
    return "a sum over more than 2^31 products";
  if (is_gather(p) && !fits_grid(p)) return "a sample of more than 2^31 tiles";
  return nullptr;
}

TileSize choose_tile(const ConvProblem& p, TileName largest) {
  if (largest == TileName::kSmall) return kSmallTile;
  const int64_t depths = kernel_size(p) * padded_channels(p, in_per_group(p));
  const int splits = split_gather(p, largest).count;
  const auto cost = [&](const TileSize& tile) {
    const auto area = [&](int64_t rows, int64_t columns) {
      return double(round_up(rows, tile.rows)) * double(round_up(columns, tile.columns));
    };
    const int64_t channels = out_per_group(p);
    if (!is_gather(p))
      return cost_of_element(tile) * std::min(area(depths, channels), area(channels, depths));
    // Fewer blocks than keep a GPU busy take as long as those. This looks at the batch: tiles have
    // the same rows, so which of them it is makes no difference to the bits.
    const int64_t blocks = std::max(kBusyBlocks, blocks_of_part(p, tile, p.batch) * splits);
    return cost_of_element(tile) * tile.columns * double(blocks);
  };
  const TileSize* const first = kTiles + int(largest);
  return *std::min_element(first, std::end(kTiles),
                           [&](const TileSize& a, const TileSize& b) { return cost(a) < cost(b); });
}

int64_t gemm_workspace_bytes(const ConvProblem& p, const TileSize& tile) {
  if (is_gather(p)) {
    const int splits = split_gather(p, tile.name).count;
    if (splits == 1) return packed_bytes(p);
    const int together = samples_per_tile(written_positions(p), tile.rows);
    const int64_t samples = std::min(p.batch, most_sample_groups(p, splits, together) * together);
    return packed_bytes(p) + splits * samples * written_elements(p) * sum_bytes(p);
  }
  const WeightParams w = make_grad_weight(p, {}, tile);
  return partial_elements(w) * w.splits * sum_bytes(p);
}

GatherParams make_gather(const ConvProblem& p, const Tensors& t, const TileSize& tile) {
  const bool forward = p.op == DILCONV_CONV2D;
  GatherParams g = {};
  g.h = make_axis(p, 0);
  g.w = make_axis(p, 1);
  g.read = forward ? make_image(p, t.x, p.x_strides, p.in_size, in_per_group(p))
                   : make_image(p, t.y, p.y_strides, p.out_size, out_per_group(p));
  g.weight = packs_weights(p, t) ? packed_weights(p, t) : weights_in_place(p, t);
  const int64_t (&strides)[4] = forward ? p.y_strides : p.x_strides;
  g.written = forward ? t.y : t.x;
  g.written_sample = strides[0];
  g.written_channel = strides[1];
  g.written_row = strides[2];
  g.written_column = strides[3];
  g.written_channels = int(written_channels(p));
  g.bias = p.has_bias ? t.bias : nullptr;
  g.batch = int(p.batch);
  g.channel_tiles = int(divide_up(g.written_channels, tile.columns));
  plan_tiles(g, tile.rows);
  const Splits splits = split_gather(p, tile.name);
  g.splits = splits.count;
  g.split_channels = splits.channels;
  if (g.splits > 1) write_splits(p, t, splits, g);
  g.written_group = g.written_channels * g.written_channel;
  return g;
}

int64_t blocks_per_sample_group(const ConvProblem& p, const GatherParams& g) {
  return int64_t(g.strips) * g.tiles_per_strip * g.channel_tiles * residues(g.h) * residues(g.w) *
         g.splits * p.groups;
}

int64_t most_sample_groups(const ConvProblem& p, int splits, int samples_per_tile) {
  if (splits == 1) return INT32_MAX;
  constexpr int64_t kMostBytes = kBusyBlocks << 18;  // 66 MiB
  const int64_t bytes = splits * samples_per_tile * written_elements(p) * sum_bytes(p);
  return std::max<int64_t>(1, kMostBytes / std::max<int64_t>(1, bytes));
}

AddParams make_add(const ConvProblem& p, const Tensors& t, const GatherParams& g, int64_t samples) {
  const bool forward = p.op == DILCONV_CONV2D;
  const int64_t (&strides)[4] = forward ? p.y_strides : p.x_strides;
  return {g.written,
          g.splits,
          g.first_written,
          samples * written_elements(p),
          g.written_channel == 1,
          int(g.written_channels * p.groups),
          g.h.written,
          g.w.written,
          forward ? t.y : t.x,
          strides[0],
          strides[1],
          strides[2],
          strides[3],
          p.has_bias ? t.bias : nullptr};
}

bool packs_weights(const ConvProblem& p, const Tensors& t) {
  return read_channels(p) >= chunk_elements(p) && !copies_chunks(p, weights_in_place(p, t));
}

int64_t packed_bytes(const ConvProblem& p) {
  if (read_channels(p) < chunk_elements(p)) return 0;
  return packed_weights(p, {}).group * p.groups * dtype_bytes(p.dtype);
}

PackParams make_pack(const ConvProblem& p, const Tensors& t) {
  const ImageParams source = weights_in_place(p, t);
  return {t.w,
          t.workspace,
          source.group,
          source.sample,
          source.channel,
          source.row,
          source.column,
          int(p.groups),
          int(written_channels(p)),
          source.channels,
          source.padded_channels,
          int(p.kernel[0]),
          int(p.kernel[1])};
}

bool stores_together(const ConvProblem& p, const GatherParams& g, int neighbours) {
  const int64_t bytes = g.splits > 1 ? sum_bytes(p) : dtype_bytes(p.dtype);
  return g.written_channel == 1 && g.written_channels % neighbours == 0 &&
         g.written_sample % neighbours == 0 && g.written_row % neighbours == 0 &&
         g.written_column % neighbours == 0 &&
         reinterpret_cast<uintptr_t>(g.written) % (neighbours * bytes) == 0;
}

bool copies_chunks(const ConvProblem& p, const ImageParams& image) {
  const int chunk = chunk_elements(p);
  return image.channel == 1 && image.channels % chunk == 0 && image.sample % chunk == 0 &&
         image.row % chunk == 0 && image.column % chunk == 0 && image.group % chunk == 0 &&
         reinterpret_cast<uintptr_t>(image.data) % 16 == 0;
}

}  // namespace dilconv::cuda
