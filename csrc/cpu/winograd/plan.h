// The plan of the winograd kernel. Plain data, as direct/plan.h explains.
#pragma once

#include "../../core/dilconv.h"

namespace dilconv {

// One axis of the plane that is written (of y, for grad_weight), split into `dilation` phases:
// position phase + dilation * u is the u-th of its phase, and reads, with tap k, position origin +
// phase + dilation * (u + k) of the other plane. Phases are dense, so Winograd's algorithm applies
// to each; tile t of a phase writes u in [tile * t, tile * (t + 1)).
//
// The kernel is cut into pieces of `taps`, the last with zeros where it ends sooner. A piece reads
// `piece_step` positions after the one before.
struct WinogradAxis {
  int64_t tile, taps;
  int64_t kernel, pieces, piece_step;
  int64_t read_size, written_size;
  int64_t origin, dilation;
  int64_t tiles;                    // of the longest phase
  int64_t tile_block, phase_block;  // tiles and phases of one block
};

// What the algorithm is compiled for: pieces of a kernel (height × width) and the positions that a
// tile writes; squares of 3 for the 16-bit types, too.
enum WinogradForms {
  kWinograd3x3Tile2,
  kWinograd3x3Tile3,
  kWinograd3x3Tile4,
  kWinograd16BitForms,
  kWinograd4x4Tile3 = kWinograd16BitForms,
  kWinograd5x5Tile2,
  kWinograd1x2Tile5,
  kWinograd1x3Tile4,
  kWinograd1x4Tile3,
  kWinograd1x5Tile2,
  kWinograd3x1Tile4,
  kWinograd4x1Tile3,
  kWinograd5x1Tile2,
  kWinogradForms
};

struct WinogradPlan {
  int64_t form;                                            // one of WinogradForms
  int64_t batch, groups, read_channels, written_channels;  // channels per group
  int64_t read_strides[4], written_strides[4];
  int64_t weight_strides[4];  // written channel, read channel, kernel height, kernel width
  int64_t weight_group_stride;
  bool flipped;  // grad_input reads the kernel's elements in reverse order
  WinogradAxis h, w;
  int64_t pieces;        // of both axes: each reads the same channels, elsewhere
  int64_t task_tiles;    // that a task of conv2d or grad_input works on, about
  int64_t chunk_tiles;   // of a chunk of grad_weight's sums, about
  int64_t sums_bytes;    // of grad_weight's transformed gradients, at a time
  int64_t pass_vectors;  // vectors of written channels whose transformed weights exist at a time
};

// A kernel's pieces, at most.
constexpr int64_t kWinogradPieces = 16;

// Where summations over channels or tiles are cut.
constexpr int64_t kWinogradDepth = 128;
constexpr int64_t kWinogradChunks = 64;  // that are added up before they are added to the total
// Of a worker's sums of grad_weight, at most. They pass by for every chunk of tiles: with more of
// them it is faster to transform the tiles again.
constexpr int64_t kWinogradSumBytes = 3145728;

}  // namespace dilconv
