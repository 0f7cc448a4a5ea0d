// What the implicit GEMM kernels are told: plain data, made by planner.cpp.
//
// conv2d and grad_input are one matrix product, the gather: pixels of the written image by channels
// of the written image, summed over (tap, channel of the read image). grad_weight is another:
// output channels by (tap, input channel), summed over pixels. Channel counts are per group.
#pragma once

#include <stdint.h>

namespace dilconv::cuda {

// One axis of the gather. The written positions of residue r modulo `residues` are r + j *
// residues. They share their taps: those k for which r + pad - k * dilation is a multiple of
// `residues`, every kernel_step-th. conv2d has one residue.
struct GatherAxis {
  int written, read;  // sizes
  int residues;
  int read_step;    // from what position j reads to what j + 1 reads
  int kernel;       // size
  int kernel_step;  // from a tap of a residue to the next
  int tap_step;     // from what a tap reads to what the next one reads
  int dilation, pad;
  int sign;  // -1 where k reads at k * dilation - pad, 1 where at (r + pad - k * dilation) /
             // residues
};

// An image as a matrix of pixels by channels. Strides count elements.
struct ImageParams {
  const void* data;
  int64_t sample, channel, row, column, group;
  int height, width;
  int channels;
  int padded_channels;  // as a sum over (tap, channel) counts them
};

struct GatherParams {
  GatherAxis h, w;
  ImageParams read;
  ImageParams weight;  // a pixel for each kernel element, a sample for each written channel
  void* written;       // the result, or partial sums of the samples from first_written on
  int64_t written_sample, written_channel, written_row, written_column, written_group;
  int first_written;
  const void* bias;
  int written_channels;
  bool stores_together;  // neighbouring written channels, by one store
  // A tile of pixels lies in `samples_per_tile` whole samples or in one strip of columns of a
  // sample.
  int batch, first_sample, sample_groups;
  int samples_per_tile, strips, strip_width, tiles_per_strip;
  int channel_tiles;
  // Each split of the sum takes split_channels read channels, and writes an image of its own.
  int splits, split_channels;
  int64_t written_split;
};

struct PackParams {
  const void* source;
  void* packed;
  int64_t group, written, read, row, column;  // strides of the source
  int groups, written_channels, read_channels, padded_channels, kernel_height, kernel_width;
};

// Equidistant taps; steps count pixels.
struct TapGrid {
  int rows, columns;
  int row_step, column_step;
};

// One of the two images of grad_weight: tap 0 of output position (i, j) reads the pixel
// (i * step[0] + origin[0], j * step[1] + origin[1]).
struct WeightOperand {
  ImageParams image;
  TapGrid taps;  // one tap for y
  int origin[2], step[2];
};

struct WeightParams {
  // The product's rows are (tap, input channel) and its columns output channels, or the other way.
  WeightOperand left, right;
  bool taps_are_rows;
  int kernel[2], stride[2], dilation[2], pad[2], in_size[2], out_size[2];
  int padded_depths;
  int batch, groups;
  int rows, columns, row_tiles, column_tiles;
  int splits;
  void* partial;  // sums: (split, group, row, column), rows `pitch` apart
  int pitch;
};

// Adding up the partial sums of a gather: dense images, in the order of the result's dimensions.
struct AddParams {
  const void* partial;
  int splits, first_sample;
  int64_t elements;  // of a split
  bool channels_last;
  int channels, height, width;
  void* written;
  int64_t sample, channel, row, column;  // strides of the result
  const void* bias;
};

struct ReduceParams {
  const void* partial;
  bool taps_are_rows;
  int groups, rows, columns, pitch, splits;
  int channels, depths;  // channels per group
  void* weight;
  int64_t channel, depth, row, column;  // strides of the weight
};

}  // namespace dilconv::cuda
