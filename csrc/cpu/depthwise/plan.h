// The plan of the depthwise kernel: where each tap reads. Plain data, as direct/plan.h explains.
#pragma once

#include "../direct/plan.h"

namespace dilconv {

// Positions that are a dilation apart, at least, for tiles of 3x3 layers.
constexpr int64_t kSquarePhase = 2;

// Of a pixel, in one vector, where bfloat16 is multiplied in pairs.
constexpr int kPairedChannels = 32;

// What a vector holds, and whether it is packed first.
enum class DepthwiseForm {
  kInPlace,  // neighbouring channels of a pixel, read and written where they are
  kBlocks,   // the same, packed block by block
  kPlanes,   // neighbouring pixels of a row
};

// One input channel per group, or groups of `group` channels in and out. For conv2d and grad_input,
// regions as in a GatherPlan, but never cut: one per residue of the position modulo grad_input's
// stride. For grad_weight, the one region of conv2d.
struct DepthwisePlan {
  DepthwiseForm form;
  // Channels of what is written; grad_weight: of y. Written channel c gathers, for each d < depth,
  // read channel (c * depth + d) / divisor; or, depth and divisor being 1, all `group` of its
  // group.
  int64_t batch, channels, depth, divisor, group;
  int64_t read_size[2], written_size[2], kernel[2];
  int64_t read_strides[4], written_strides[4];
  // Of the weights: group, kernel height and width; written and gathered channels within a group.
  int64_t weight_strides[3], lane_stride, mix_stride;
  const Region* regions;
  int64_t region_count;
  // Written positions (grad_weight: positions of y) are worked on in tiles. A tile of blocks reads
  // at most tile_reads rows and columns.
  int64_t tile[2], tile_reads[2];
  // In place, tiles are of one part of the channels each.
  int64_t channel_parts = 1;
  bool paired;     // in place: by native products of bfloat16, of pairs of taps or positions
  bool squares;    // planes: the kernel is 3x3, of stride 1, and rows are at least a vector long
  int64_t splits;  // partial sums of grad_weight, added in order: fixed by the problem
  // Planes: rows are packed with margins, and with every read_step-th element together, so that a
  // vector of any tap lies inside: element read_step * m + phase is at phase * phase_length + m -
  // first.
  int64_t first, phase_length;
};

}  // namespace dilconv
