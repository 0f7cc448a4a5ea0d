// What the orientations of a gather share: which products a block of written pixels sums.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// Written pixels [begin, end) of a region, counted through samples that start at `sample`.
struct Block {
  const Region* region;
  int64_t sample;
  int64_t begin, end;
};

// Read channels of one tap that follow each other in the summation.
struct Stretch {
  int64_t packed;  // the first product's place in the packed weights
  int64_t origin_h, origin_w;
  int64_t channel, count;
};

// A stretch of the packed weights.
struct DepthRange {
  int64_t begin, depth;
};

// The operands, the packed weights among them: cut into blocks of written channels, in the order
// (group, block, kernel row, kernel column, read channel, written channel of the block).
template <class S, class T>
struct GatherOperands {
  const GatherPlan& plan;
  const S* read;
  const S* weight;
  const S* bias;
  S* written;
  int64_t depth;  // products per written channel
  int64_t unit;   // written channels in a unit
  Cut blocks;     // written channels of a group, in units, cut into register tiles
  T* packed;
  bool overlaps;  // the last vector holds the last channels that there are, though others do, too

  // Of a block of vectors of channels: the place of its last one.
  int64_t last_vector(int64_t block) const {
    const int64_t whole = channels(block, block + 1) - unit;
    return overlaps && block + 1 == blocks.parts ? plan.written_channels - channels(0, block) - unit
                                                 : whole;
  }

  T* packed_block(int64_t group, int64_t block) const {
    return packed + (group * blocks.total + blocks.begin(block)) * unit * depth;
  }

  // Written channels of blocks [from, to).
  int64_t channels(int64_t from, int64_t to) const {
    return (blocks.begin(to) - blocks.begin(from)) * unit;
  }
};

inline int64_t region_depth(const GatherPlan& plan, const Region& region) {
  return region.h.tap_count * region.w.tap_count * plan.read_channels;
}

// Products [begin, begin + depth) of the region's (tap, channel) order; returns how many stretches.
inline int list_stretches(const GatherPlan& plan, const Region& region, int64_t begin,
                          int64_t depth, Stretch* stretches) {
  int count = 0;
  int64_t tap = begin / plan.read_channels, channel = begin % plan.read_channels;
  int64_t row = tap / region.w.tap_count, column = tap % region.w.tap_count;
  for (int64_t done = 0; done < depth;) {
    const Tap& h = region.h.taps[row];
    const Tap& w = region.w.taps[column];
    const int64_t channels = least(plan.read_channels - channel, depth - done);
    const int64_t packed = (h.kernel * plan.kernel[1] + w.kernel) * plan.read_channels + channel;
    stretches[count++] = {packed, h.origin, w.origin, channel, channels};
    done += channels;
    channel = 0;
    if (++column == region.w.tap_count) column = 0, ++row;
  }
  return count;
}

// The stretches of packed weights that they multiply; returns how many.
inline int merge_stretches(const Stretch* stretches, int count, DepthRange* ranges) {
  int merged = 0;
  for (int s = 0; s < count; ++s)
    if (merged > 0 && ranges[merged - 1].begin + ranges[merged - 1].depth == stretches[s].packed)
      ranges[merged - 1].depth += stretches[s].count;
    else
      ranges[merged++] = {stretches[s].packed, stretches[s].count};
  return merged;
}

// Where every step-th product is, counted from what the first tap reads of channel 0 of the first
// group.
inline void list_offsets(const GatherPlan& plan, const Region& region, int64_t group,
                         const Stretch* stretches, int count, int64_t step, int64_t* offsets) {
  for (int s = 0; s < count; ++s) {
    const Stretch& stretch = stretches[s];
    const int64_t from = (stretch.origin_h - region.h.taps->origin) * plan.read_strides[2] +
                         (stretch.origin_w - region.w.taps->origin) * plan.read_strides[3] +
                         (group * plan.read_channels + stretch.channel) * plan.read_strides[1];
    for (int64_t c = 0; c < stretch.count; c += step) *offsets++ = from + c * plan.read_strides[1];
  }
}
