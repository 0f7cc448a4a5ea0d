// conv2d and grad_input: an implicit product of packed weights with the pixels that each tap reads.
//
// Either pixels are rows and written channels are in vectors, or the other way round. A task owns a
// block of written pixels (of one region, across samples) and a range of written channels. Every
// written element is one chain of sums, cut at the same places whatever the task and the batch, so
// its bits depend on its sample alone.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

class MatrixGather {
 public:
  MatrixGather(const GatherPlan& plan, int workers, const void* read, const void* weight,
               const void* bias, void* written, void* workspace)
      : p_(plan),
        samples_(plan.batch, plan.samples),
        weights_(plan, static_cast<const BFloat16*>(weight)),
        pixels_(plan, static_cast<const BFloat16*>(read), static_cast<BFloat16*>(written)),
        bias_(static_cast<const BFloat16*>(bias)),
        summed_(plan),
        parts_(weights_.tiles.parts, tiles_per_part(workers)) {
    summed_.read_channels = weights_.read_channels;
    Arena arena(workspace);
    weights_.packed = arena.take<BFloat16>(plan.groups * weights_.group_size());
    worker_bytes_ = Scratch(nullptr, plan.block_pixels, part_channels()).bytes;
    workers_ = workspace ? static_cast<char*>(workspace) + arena.used() : nullptr;
    bytes_ = arena.used() + workers * worker_bytes_;
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    pool.run(
        pool, weights_.pack_tasks(),
        [](void* self, int64_t index, int) {
          static_cast<MatrixGather*>(self)->weights_.pack(index);
        },
        this);
    const int64_t units = p_.groups * parts_.parts;
    splits_ = least(units, (4 * pool.workers + pixel_blocks() - 1) / pixel_blocks());
    if (pool.workers == 1) splits_ = 1;
    pool.run(
        pool, pixel_blocks() * splits_,
        [](void* self, int64_t index, int worker) {
          static_cast<MatrixGather*>(self)->task(index, worker);
        },
        this);
  }

 private:
  static constexpr int64_t kPitch = kShape.depth + kSquareProducts;  // of packed rows
  static constexpr int64_t kMostPieces = kShape.depth / kShape.step;

  // What one worker needs while it runs a task.
  struct Scratch {
    Scratch(char* base, int64_t block_pixels, int64_t channels) {
      const int64_t block = round_up(block_pixels, kSquareLanes);
      Arena arena(base);
      panel = arena.take<BFloat16>(block * kPitch);
      sums = arena.take<float>(block * channels);
      bias = arena.take<float>(channels);
      pixels = arena.take<Pixel>(block);
      runs = arena.take<PixelRun>(block);
      rows = arena.take<const BFloat16*>(block);
      in_place = arena.take<bool>(block);
      bytes = arena.used();
    }
    BFloat16* panel;  // what a chunk's taps read
    float* sums;
    float* bias;
    Pixel* pixels;
    PixelRun* runs;
    int64_t run_count = 0;
    const BFloat16** rows;  // per pixel, if pixels are rows
    bool* in_place;         // per register tile of them
    int64_t bytes;
  };

  // One chunk of the summation.
  struct Chunk {
    Stretch stretches[kMostPieces];
    int count;
    int64_t depth;
    bool add;
  };

  int64_t part_channels() const {
    int64_t largest = 0;
    for (int64_t part = 0; part < parts_.parts; ++part)
      largest = most(largest, weights_.channels(parts_.begin(part + 1)) -
                                  weights_.channels(parts_.begin(part)));
    return largest;
  }

  int64_t tiles_per_part(int workers) const {
    const int64_t largest = most(1, p_.split_channels / weights_.channels(1));
    const int64_t wanted = 2 * workers / (pixel_blocks() * p_.groups);
    return workers == 1 || wanted <= 1 ? largest
                                       : least(largest, most(1, weights_.tiles.parts / wanted));
  }

  Cut region_blocks(const Region& region) const {
    return Cut(p_.samples * region.h.count * region.w.count, p_.block_pixels);
  }

  int64_t sample_blocks() const {
    int64_t count = 0;
    for (int64_t r = 0; r < p_.region_count; ++r) count += region_blocks(p_.regions[r]).parts;
    return count;
  }

  int64_t pixel_blocks() const { return samples_.parts * sample_blocks(); }

  void task(int64_t index, int worker) const {
    const int64_t split = index % splits_, blocks = sample_blocks();
    const int64_t samples = index / splits_ / blocks;
    int64_t block_index = index / splits_ % blocks;
    const Region* region = p_.regions;
    while (block_index >= region_blocks(*region).parts)
      block_index -= region_blocks(*region++).parts;
    const Cut cut = region_blocks(*region);
    const int64_t pixels = samples_.size(samples) * region->h.count * region->w.count;
    const int64_t begin = cut.begin(block_index), end = least(cut.begin(block_index + 1), pixels);
    if (begin >= end) return;

    const Block block = {region, samples_.begin(samples), begin, end};
    Scratch scratch(workers_ + worker * worker_bytes_, p_.block_pixels, part_channels());
    scratch.run_count = pixels_.place(block, scratch.pixels, scratch.runs);
    if (weights_.in_vectors) find_rows(end - begin, scratch);
    const Session session;
    const int64_t units = p_.groups * parts_.parts;
    for (int64_t unit = units * split / splits_; unit < units * (split + 1) / splits_; ++unit) {
      const int64_t part = unit % parts_.parts;
      compute(block, unit / parts_.parts, {parts_.begin(part), parts_.begin(part + 1)}, scratch);
    }
  }

  static Cut row_tiles(int64_t pixels) {
    return Cut((pixels + kShape.row_unit - 1) / kShape.row_unit, kRowUnits);
  }

  static Cut vector_tiles(int64_t pixels) {
    return Cut((pixels + kLanes<float> - 1) / kLanes<float>, kTileVectors);
  }

  // A register tile's pixels are read in place if every tap of theirs reads inside the image, and
  // those of a unit are the same distance apart.
  void find_rows(int64_t pixels, const Scratch& scratch) const {
    const Cut tiles = row_tiles(pixels);
    const bool dense = p_.read_strides[1] == 1 && p_.read_channels == weights_.read_channels;
    for (int64_t t = 0; t < tiles.parts; ++t) {
      const int64_t begin = tiles.begin(t) * kShape.row_unit;
      const int64_t end = tiles.begin(t + 1) * kShape.row_unit;
      bool in_place = dense && end <= pixels;
      for (int64_t q = begin; in_place && q < end; ++q) {
        scratch.rows[q] = scratch.pixels[q].all;
        const int64_t unit = q - q % kShape.row_unit;
        in_place = scratch.rows[q] &&
                   (q < unit + 2 || scratch.rows[q] - scratch.rows[q - 1] ==
                                        scratch.rows[unit + 1] - scratch.rows[unit]);
      }
      scratch.in_place[t] = in_place;
      for (int64_t q = begin; !in_place && q < end; ++q)
        scratch.rows[q] = scratch.panel + q * kPitch;
    }
  }

  void compute(const Block& block, int64_t group, Range tiles, const Scratch& scratch) const {
    const int64_t depth = region_depth(summed_, *block.region);
    const int64_t first = weights_.channels(tiles.begin);
    const int64_t channels = weights_.channels(tiles.end) - first;
    const int64_t pixels = block.end - block.begin;
    const int64_t written = least(channels, p_.written_channels - first);
    if (bias_) gather(scratch.bias, bias_ + group * p_.written_channels + first, 1, written);
    if (depth == 0) clear(scratch.sums, channels * round_up(pixels, kSquareLanes));
    const Cut chunks(depth / kShape.step, kMostPieces);
    for (int64_t c = 0; c < chunks.parts; ++c) {
      Chunk chunk;
      chunk.depth = chunks.size(c) * kShape.step;
      chunk.count = list_stretches(summed_, *block.region, chunks.begin(c) * kShape.step,
                                   chunk.depth, chunk.stretches);
      chunk.add = c > 0;
      if (weights_.in_vectors)
        multiply_pixel_rows(block, group, tiles, chunk, scratch);
      else
        multiply_pixel_vectors(block, group, tiles, chunk, scratch);
    }
    write(block, group * p_.written_channels + first, written, channels, scratch);
  }

  // ---- pixels are rows

  void multiply_pixel_rows(const Block& block, int64_t group, Range weight_tiles,
                           const Chunk& chunk, const Scratch& scratch) const {
    const Region& region = *block.region;
    const Cut tiles = row_tiles(block.end - block.begin);
    Piece in_place[kMostPieces], packed[kMostPieces];
    int64_t offsets[kMostPieces];
    list_offsets(summed_, region, group, chunk.stretches, chunk.count, kShape.depth, offsets);
    for (int64_t s = 0, k = 0; s < chunk.count; k += chunk.stretches[s++].count) {
      const int64_t steps = chunk.stretches[s].count / kShape.step;
      in_place[s] = {offsets[s], chunk.stretches[s].packed, steps};
      packed[s] = {k, chunk.stretches[s].packed, steps};
    }
    pack_pixel_rows(block, group, tiles, chunk, scratch);
    const int64_t pitch = weights_.channels(weight_tiles.end) - weights_.channels(weight_tiles.begin);
    float* sums = scratch.sums;
    for (int64_t b = weight_tiles.begin; b < weight_tiles.end; ++b) {
      for (int64_t t = 0; t < tiles.parts; ++t) {
        const int64_t q = tiles.begin(t) * kShape.row_unit;
        pair_tile(int(tiles.size(t)), int(weights_.tiles.size(b)))(
            scratch.rows + q, weights_.at(group, b), scratch.in_place[t] ? in_place : packed,
            chunk.count, sums + q * pitch, pitch, chunk.add);
      }
      sums += weights_.channels(b + 1) - weights_.channels(b);
    }
  }

  // What register tiles that are not in place read: at once for as many pixels of a run as follow
  // each other.
  void pack_pixel_rows(const Block& block, int64_t group, const Cut& tiles, const Chunk& chunk,
                       const Scratch& scratch) const {
    const int64_t pixels = block.end - block.begin;
    const PixelRun* run = scratch.runs;
    for (int64_t t = 0, end; t < tiles.parts; t = end) {
      for (end = t + 1; end < tiles.parts && scratch.in_place[end] == scratch.in_place[t];) ++end;
      if (scratch.in_place[t]) continue;
      const int64_t last = least(tiles.begin(end) * kShape.row_unit, pixels);
      for (int64_t q = tiles.begin(t) * kShape.row_unit, count; q < last; q += count) {
        while (run->begin + run->count <= q) ++run;
        count = least(last, run->begin + run->count) - q;
        BFloat16* to = scratch.panel + q * kPitch;
        for (int s = 0; s < chunk.count; to += chunk.stretches[s++].count)
          pack_run_rows(*block.region, scratch.pixels[q], count, group, chunk.stretches[s], to);
      }
    }
    // Rows that fill up the last unit: their sums are not written.
    for (int64_t q = pixels; q < tiles.total * kShape.row_unit; ++q)
      clear_products(scratch.panel + q * kPitch, chunk.depth);
  }

  void pack_run_rows(const Region& region, const Pixel& first, int64_t count, int64_t group,
                     const Stretch& stretch, BFloat16* to) const {
    Range inside;
    const SquareSource source = pixels_.source(region, first, count, group, stretch, inside);
    pack_rows(to + inside.begin * kPitch, kPitch, source, stretch.count);
    for (int64_t q = 0; q < inside.begin; ++q) clear_products(to + q * kPitch, stretch.count);
    for (int64_t q = inside.end; q < count; ++q) clear_products(to + q * kPitch, stretch.count);
  }

  // ---- pixels are in vectors

  void multiply_pixel_vectors(const Block& block, int64_t group, Range weight_tiles,
                              const Chunk& chunk, const Scratch& scratch) const {
    const Cut tiles = vector_tiles(block.end - block.begin);
    pack_pixel_vectors(block, group, tiles, chunk, scratch);
    Piece pieces[kMostPieces];
    int64_t k = 0;
    for (int s = 0; s < chunk.count; k += chunk.stretches[s++].count)
      pieces[s] = {chunk.stretches[s].packed, k, chunk.stretches[s].count / kShape.step};
    const int64_t pitch = tiles.total * kLanes<float>;
    for (int64_t t = 0; t < tiles.parts; ++t) {
      const int64_t begin = tiles.begin(t) * kLanes<float>;
      float* sums = scratch.sums + begin;
      for (int64_t b = weight_tiles.begin; b < weight_tiles.end; ++b) {
        const int64_t channels = weights_.channels(b + 1) - weights_.channels(b);
        const BFloat16* rows[kRowUnits * kShape.row_unit];
        for (int64_t r = 0; r < channels; ++r) rows[r] = weights_.at(group, b) + r * weights_.pitch;
        pair_tile(int(weights_.tiles.size(b)), int(tiles.size(t)))(
            rows, scratch.panel + begin * chunk.depth, pieces, chunk.count, sums, pitch, chunk.add);
        sums += channels * pitch;
      }
    }
  }

  void pack_pixel_vectors(const Block& block, int64_t group, const Cut& tiles, const Chunk& chunk,
                          const Scratch& scratch) const {
    const int64_t pixels = block.end - block.begin;
    const PixelRun* run = scratch.runs;
    for (int64_t t = 0; t < tiles.parts; ++t) {
      const int64_t begin = tiles.begin(t) * kLanes<float>, width = tiles.size(t) * kLanes<float>;
      BFloat16* panel = scratch.panel + begin * chunk.depth;
      for (int64_t q = begin, count; q < least(begin + width, pixels); q += count) {
        while (run->begin + run->count <= q) ++run;
        count = least(least(begin + width, pixels), run->begin + run->count) - q;
        BFloat16* to = panel + 2 * (q - begin);
        for (int s = 0; s < chunk.count; to += chunk.stretches[s++].count * width) {
          Range inside;
          const SquareSource source = pixels_.source(*block.region, scratch.pixels[q], count, group,
                                                     chunk.stretches[s], inside);
          pack_vectors(to + 2 * inside.begin, width, source, chunk.stretches[s].count, false);
          clear_lanes(to, width, {0, inside.begin}, chunk.stretches[s].count);
          clear_lanes(to, width, {inside.end, count}, chunk.stretches[s].count);
        }
      }
      clear_lanes(panel, width, {most(0, pixels - begin), width}, chunk.depth);
    }
  }

  // ---- sums, rounded, become the result

  void write(const Block& block, int64_t channel, int64_t channels, int64_t padded,
             const Scratch& scratch) const {
    const int64_t stride = p_.written_strides[1], pixels = block.end - block.begin;
    const float* bias = bias_ ? scratch.bias : nullptr;
    if (weights_.in_vectors) {
      for (int64_t q = 0; q < pixels; ++q)
        round_sums(scratch.pixels[q].written + channel * stride, stride, scratch.sums + q * padded,
                   bias, 1, channels);
      return;
    }
    const int64_t pitch = round_up(pixels, kLanes<float>);
    const int64_t step = block.region->w.step * p_.written_strides[3];
    for (const PixelRun* run = scratch.runs; run < scratch.runs + scratch.run_count; ++run) {
      BFloat16* to = scratch.pixels[run->begin].written + channel * stride;
      for (int64_t c = 0; c < channels; ++c)
        round_sums(to + c * stride, step, scratch.sums + c * pitch + run->begin,
                   bias ? bias + c : nullptr, 0, run->count);
    }
  }

  const GatherPlan& p_;
  Cut samples_;
  PackedWeights weights_;
  Pixels pixels_;
  const BFloat16* bias_;
  GatherPlan summed_;  // the plan, its read channels in whole steps
  Cut parts_;          // register tiles of written channels, cut into what a task takes at a time
  char* workers_;
  int64_t worker_bytes_, bytes_, splits_ = 1;
};

inline size_t matrix_gather_workspace(const GatherPlan& plan, int workers) {
  return MatrixGather(plan, workers, nullptr, nullptr, nullptr, nullptr, nullptr).workspace_bytes();
}

inline void run_matrix_gather(const GatherPlan& plan, const void* read, const void* weight,
                              const void* bias, void* written, void* workspace,
                              const TaskPool& pool) {
  MatrixGather(plan, pool.workers, read, weight, bias, written, workspace).run(pool);
}
