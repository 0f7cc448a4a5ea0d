// A gather with written pixels in vectors: weights are broadcast, and vectors are read in place
// where they lie densely inside the image, else from a packed panel.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// Written pixels of a tile that follow each other in a row of the region.
struct Run {
  int64_t column, count;  // where in the block
  int64_t n, i, j;        // the first one: sample, row and column in the region
  int64_t tile_begin, tile_width;
};

template <class S, class T>
class PixelVectors {
 public:
  // What one worker needs while it runs a task.
  struct Scratch {
    Scratch(char* base, const GatherPlan& plan, int64_t channels) {
      const int64_t columns = round_up(plan.block_pixels, kLanes<T>);
      Arena arena(base);
      panel = arena.take<T>(columns * plan.panel_depth);
      sums = arena.take<T>(columns * channels);
      runs = arena.take<Run>(columns);
      read = arena.take<const T*>(columns / kLanes<T>);
      written = arena.take<T*>(columns / kLanes<T>);
      bytes = arena.used();
    }
    T* panel;
    T* sums;
    Run* runs;
    int64_t run_count = 0;
    const T** read;  // per vector of a region in place: what the first tap reads
    T** written;
    int64_t bytes;
  };

  explicit PixelVectors(const GatherOperands<S, T>& operands) : o_(operands), p_(operands.plan) {}

  void begin(const Block& block, Scratch& scratch) const {
    if constexpr (kSame<S, T>) {
      if (block.region->in_place) return place_vectors(block, scratch);
    }
    const Cut tiles = block_tiles(block);
    const int64_t columns = block.region->w.count, pixels = block.region->h.count * columns;
    int64_t tile = 0;
    scratch.run_count = 0;
    for (int64_t q = block.begin; q < block.end;) {
      const int64_t column = q - block.begin;
      Run& run = scratch.runs[scratch.run_count++];
      while (column >= tiles.begin(tile + 1) * kLanes<T>) ++tile;
      run.tile_begin = tiles.begin(tile) * kLanes<T>;
      run.tile_width = tiles.size(tile) * kLanes<T>;
      run.column = column;
      run.n = block.sample + q / pixels;
      run.i = q % pixels / columns;
      run.j = q % columns;
      run.count =
          least(least(block.end - q, run.tile_begin + run.tile_width - column), columns - run.j);
      q += run.count;
    }
  }

  void compute(const Block& block, int64_t group, Range blocks, Scratch& scratch) const {
    if constexpr (kSame<S, T>) {
      if (block.region->in_place) return compute_in_place(block, group, blocks, scratch);
    }
    const int64_t depth = region_depth(p_, *block.region);
    const int64_t channels = o_.channels(blocks.begin, blocks.end);
    const int64_t columns = block_tiles(block).total * kLanes<T>;
    if (depth == 0) clear(scratch.sums, channels * columns);
    const Cut chunks(depth, kPanelDepth);
    for (int64_t chunk = 0; chunk < chunks.parts; ++chunk) {
      Stretch stretches[kPanelDepth];
      const int count =
          list_stretches(p_, *block.region, chunks.begin(chunk), chunks.size(chunk), stretches);
      pack(block, group, stretches, count, chunks.size(chunk), scratch);
      DepthRange ranges[kPanelDepth];
      multiply(block, group, blocks, ranges, merge_stretches(stretches, count, ranges),
               chunks.size(chunk), scratch, columns, chunk > 0);
    }
    write(block, group, o_.channels(0, blocks.begin), channels, columns, scratch);
  }

 private:
  static Cut block_tiles(const Block& block) {
    return Cut((block.end - block.begin + kLanes<T> - 1) / kLanes<T>, kMaxVectors);
  }

  void place_vectors(const Block& block, const Scratch& scratch) const {
    const Region& region = *block.region;
    for (int64_t q = block.begin, v = 0; q < block.end; q += kLanes<T>, ++v) {
      const int64_t j = q % region.w.count, row = q / region.w.count;
      const int64_t i = row % region.h.count, n = block.sample + row / region.h.count;
      scratch.read[v] = o_.read + n * p_.read_strides[0] +
                        (region.h.taps->origin + i * region.h.read_step) * p_.read_strides[2] +
                        region.w.taps->origin + j;
      scratch.written[v] = o_.written + n * p_.written_strides[0] +
                           (region.h.begin + i * region.h.step) * p_.written_strides[2] +
                           region.w.begin + j;
    }
  }

  // Sums are added up where they are written.
  void compute_in_place(const Block& block, int64_t group, Range blocks,
                        const Scratch& scratch) const {
    const Cut chunks(region_depth(p_, *block.region), kPanelDepth), tiles = block_tiles(block);
    for (int64_t chunk = 0; chunk < chunks.parts; ++chunk) {
      Stretch stretches[kPanelDepth];
      DepthRange ranges[kPanelDepth];
      int64_t offsets[kPanelDepth];
      int count =
          list_stretches(p_, *block.region, chunks.begin(chunk), chunks.size(chunk), stretches);
      list_offsets(p_, *block.region, group, stretches, count, 1, offsets);
      count = merge_stretches(stretches, count, ranges);
      for (int64_t t = 0; t < tiles.parts; ++t)
        for (int64_t b = blocks.begin; b < blocks.end; ++b) {
          const int64_t rows = o_.blocks.size(b), vectors = tiles.size(t);
          const int64_t channel = group * p_.written_channels + o_.channels(0, b);
          Segment<T> segments[kPanelDepth];
          for (int s = 0; s < count; ++s)
            segments[s] = {o_.packed_block(group, b) + ranges[s].begin * rows, nullptr,
                           ranges[s].depth};
          T* to[kMaxVectors];
          for (int64_t v = 0; v < vectors; ++v)
            to[v] = scratch.written[tiles.begin(t) + v] + channel * p_.written_strides[1];
          vector_tile<T>(int(rows), int(vectors))(
              scratch.read + tiles.begin(t), offsets, segments, count, to, p_.written_strides[1],
              chunk > 0, o_.bias && chunk + 1 == chunks.parts ? o_.bias + channel : nullptr);
        }
    }
  }

  void pack(const Block& block, int64_t group, const Stretch* stretches, int count, int64_t depth,
            const Scratch& scratch) const {
    int64_t done = 0;
    for (int s = 0; s < count; ++s) {
      const Stretch& stretch = stretches[s];
      if (!covers(block, scratch, stretch))
        clear_products(block, done, stretch.count, depth, scratch.panel);
      const S* from = o_.read + (group * p_.read_channels + stretch.channel) * p_.read_strides[1];
      for (int64_t r = 0; r < scratch.run_count; ++r)
        pack_run(*block.region, scratch.runs[r], stretch, from, scratch.panel, done, depth);
      done += stretch.count;
    }
  }

  void pack_run(const Region& region, const Run& run, const Stretch& stretch, const S* from,
                T* panel, int64_t done, int64_t depth) const {
    const int64_t i = stretch.origin_h + run.i * region.h.read_step;
    const int64_t j = stretch.origin_w + run.j * region.w.read_step, step = region.w.read_step;
    if (i < 0 || i >= p_.read_size[0]) return;
    // Pixels [begin, end) of the run read inside the image.
    const int64_t begin = j >= 0 ? 0 : least(run.count, (step - 1 - j) / step);
    const int64_t end =
        j >= p_.read_size[1] ? 0 : least(run.count, (p_.read_size[1] - 1 - j) / step + 1);
    if (begin >= end) return;
    from += run.n * p_.read_strides[0] + i * p_.read_strides[2] +
            (j + begin * step) * p_.read_strides[3];
    const int64_t pixel_stride = step * p_.read_strides[3], channel_stride = p_.read_strides[1];
    T* to = panel + run.tile_begin * depth + done * run.tile_width + run.column - run.tile_begin;
    if constexpr (kSame<S, T>) {
      if (pixel_stride == 1)
        return copy_rows(to + begin, run.tile_width, from, channel_stride, stretch.count,
                         end - begin);
    }
    for (int64_t c = 0; c < stretch.count; ++c, to += run.tile_width, from += channel_stride)
      gather(to + begin, from, pixel_stride, end - begin);
  }

  // Whether a tap reads inside the image for every pixel of the block, and every lane of its
  // vectors is a pixel.
  bool covers(const Block& block, const Scratch& scratch, const Stretch& stretch) const {
    if (block.end - block.begin < block_tiles(block).total * kLanes<T>) return false;
    const Region& region = *block.region;
    for (int64_t r = 0; r < scratch.run_count; ++r) {
      const Run& run = scratch.runs[r];
      const int64_t i = stretch.origin_h + run.i * region.h.read_step,
                    j = stretch.origin_w + run.j * region.w.read_step;
      const int64_t last = j + (run.count - 1) * region.w.read_step;
      if (i < 0 || i >= p_.read_size[0] || j < 0 || last >= p_.read_size[1]) return false;
    }
    return true;
  }

  // Zeroes `channels` products of every pixel: in one stroke, as the panels' tiles are dense there.
  void clear_products(const Block& block, int64_t done, int64_t channels, int64_t depth,
                      T* panel) const {
    const Cut tiles = block_tiles(block);
    for (int64_t t = 0; t < tiles.parts; ++t) {
      const int64_t begin = tiles.begin(t) * kLanes<T>, width = tiles.size(t) * kLanes<T>;
      clear(panel + begin * depth + done * width, channels * width);
    }
  }

  // A tile of the panel stays in the first-level cache while the weights pass by.
  void multiply(const Block& block, int64_t group, Range blocks, const DepthRange* ranges,
                int count, int64_t depth, const Scratch& scratch, int64_t pitch, bool add) const {
    const Cut tiles = block_tiles(block);
    Segment<T> segments[kPanelDepth];
    for (int64_t t = 0; t < tiles.parts; ++t) {
      const int64_t begin = tiles.begin(t) * kLanes<T>, vectors = tiles.size(t);
      T* sums = scratch.sums + begin;
      for (int64_t b = blocks.begin; b < blocks.end; ++b) {
        const int64_t rows = o_.blocks.size(b);
        const T* weights = o_.packed_block(group, b);
        const T* panel = scratch.panel + begin * depth;
        for (int s = 0; s < count; ++s) {
          segments[s] = {weights + ranges[s].begin * rows, panel, ranges[s].depth};
          panel += ranges[s].depth * vectors * kLanes<T>;
        }
        tile<T, Order::kByStep>(int(rows), int(vectors))(segments, count, rows, sums, pitch, add);
        sums += rows * pitch;
      }
    }
  }

  void write(const Block& block, int64_t group, int64_t first, int64_t channels, int64_t pitch,
             const Scratch& scratch) const {
    const Region& region = *block.region;
    const int64_t step = region.w.step * p_.written_strides[3];
    const int64_t channel = group * p_.written_channels + first, stride = p_.written_strides[1];
    for (int64_t c = 0; o_.bias && c < channels; ++c) {
      const T bias = widen(o_.bias[channel + c]);
      for (int64_t q = 0; q < pitch; ++q) scratch.sums[c * pitch + q] += bias;
    }
    for (int64_t r = 0; r < scratch.run_count; ++r) {
      const Run& run = scratch.runs[r];
      const T* sums = scratch.sums + run.column;
      S* to = o_.written + run.n * p_.written_strides[0] + channel * stride +
              (region.h.begin + run.i * region.h.step) * p_.written_strides[2] +
              (region.w.begin + run.j * region.w.step) * p_.written_strides[3];
      if constexpr (kSame<S, T>) {
        if (step == 1) {
          copy_rows(to, stride, sums, pitch, channels, run.count);
          continue;
        }
      }
      for (int64_t c = 0; c < channels; ++c)
        scatter(to + c * stride, step, sums + c * pitch, run.count);
    }
  }

  const GatherOperands<S, T>& o_;
  const GatherPlan& p_;
};
