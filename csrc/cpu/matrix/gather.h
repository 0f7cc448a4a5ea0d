// conv2d and grad_input: an implicit product of packed weights with the pixels that each tap reads.
//
// Pixels are rows, written channels are in vectors. A tensor whose channels do not lie densely, in
// whole steps, is first copied so that they do: as many samples at a time as fit into a bounded
// copy. A task owns a block of written pixels (of one region, across samples) and a range of
// written channels. Every written element is one chain of sums, cut at the same places whatever the
// task and the batch, so its bits depend on its sample alone.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

class MatrixGather {
 public:
  MatrixGather(const GatherPlan& plan, int workers, const void* read, const void* weight,
               const void* bias, void* written, void* workspace)
      : p_(plan),
        copy_(plan),
        weights_(plan, static_cast<const BFloat16*>(weight)),
        read_(static_cast<const BFloat16*>(read)),
        bias_(static_cast<const BFloat16*>(bias)),
        written_(static_cast<BFloat16*>(written)),
        samples_(copied_samples(workers), plan.samples),
        parts_(weights_.tiles.parts, tiles_per_part(workers)) {
    Arena arena(workspace);
    weights_.packed = arena.take<BFloat16>(plan.groups * weights_.group_size());
    const int64_t channels = part_channels();
    worker_bytes_ = Scratch(nullptr, plan.block_pixels, channels).bytes;
    if (copy_.needed) copy_.to = arena.take<BFloat16>(samples_.total * copy_.plan.read_strides[0]);
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
    for (int64_t left = p_.batch, count; left > 0; left -= count) {
      count = least(left, samples_.total);
      samples_ = Cut(count, p_.samples);
      run_samples(pool);
      read_ += count * p_.read_strides[0];
      written_ += count * p_.written_strides[0];
    }
  }

 private:
  static constexpr int64_t kPitch = kShape.depth + kSquareProducts;  // of packed rows
  static constexpr int64_t kMostPieces = kShape.depth / kShape.step;

  void run_samples(const TaskPool& pool) {
    if (copy_.needed)
      pool.run(
          pool, samples_.total * copy_.tasks(),
          [](void* self, int64_t index, int) {
            static_cast<MatrixGather*>(self)->copy_.run(static_cast<MatrixGather*>(self)->read_,
                                                        index);
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

  // What one worker needs while it runs a task.
  struct Scratch {
    Scratch(char* base, int64_t block_pixels, int64_t channels) {
      const int64_t block = round_up(block_pixels, kSquareLanes);
      Arena arena(base);
      panel = arena.take<BFloat16>(block * kPitch);
      // Squares of sums are transposed, the last ones beyond the block.
      sums = arena.take<float>((block + kSquareLanes) * channels);
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
    const BFloat16** rows;  // per pixel
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

  // All, or as many as fit into a bounded copy.
  int64_t copied_samples(int workers) const {
    constexpr int64_t kCopyBytes = 1048576;
    if (!copy_.needed) return p_.batch;
    const int64_t fitting = kCopyBytes / most(1, 2 * copy_.plan.read_strides[0]);
    return least(p_.batch, most(most(fitting, workers), p_.samples));
  }

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
    const Pixels pixels_of(copy_.plan, copy_.needed ? copy_.to : read_, written_);
    scratch.run_count = pixels_of.place(block, scratch.pixels, scratch.runs);
    find_rows(end - begin, scratch);
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

  // A register tile's pixels are read in place if every tap of theirs reads inside the image, and
  // those of a unit are the same distance apart.
  void find_rows(int64_t pixels, const Scratch& scratch) const {
    const Cut tiles = row_tiles(pixels);
    for (int64_t t = 0; t < tiles.parts; ++t) {
      const int64_t begin = tiles.begin(t) * kShape.row_unit;
      const int64_t end = tiles.begin(t + 1) * kShape.row_unit;
      bool in_place = end <= pixels;
      for (int64_t q = begin; in_place && q < end; ++q) {
        scratch.rows[q] = scratch.pixels[q].all;
        const int64_t unit = q - q % kShape.row_unit;
        in_place =
            scratch.rows[q] && (q < unit + 2 || scratch.rows[q] - scratch.rows[q - 1] ==
                                                    scratch.rows[unit + 1] - scratch.rows[unit]);
      }
      scratch.in_place[t] = in_place;
      for (int64_t q = begin; !in_place && q < end; ++q)
        scratch.rows[q] = scratch.panel + q * kPitch;
    }
  }

  void compute(const Block& block, int64_t group, Range tiles, const Scratch& scratch) const {
    const int64_t depth = region_depth(copy_.plan, *block.region);
    const int64_t first = weights_.channels(tiles.begin);
    const int64_t channels = weights_.channels(tiles.end) - first;
    const int64_t pixels = block.end - block.begin;
    const int64_t written = least(channels, p_.written_channels - first);
    if (bias_) gather(scratch.bias, bias_ + group * p_.written_channels + first, 1, written);
    if (depth == 0) clear(scratch.sums, channels * pixels);
    const Cut chunks(depth / kShape.step, kMostPieces);
    for (int64_t c = 0; c < chunks.parts; ++c) {
      Chunk chunk;
      chunk.depth = chunks.size(c) * kShape.step;
      chunk.count = list_stretches(copy_.plan, *block.region, chunks.begin(c) * kShape.step,
                                   chunk.depth, chunk.stretches);
      chunk.add = c > 0;
      multiply(block, group, tiles, chunk, scratch);
    }
    write(block, group * p_.written_channels + first, written, channels, scratch);
  }

  void multiply(const Block& block, int64_t group, Range weight_tiles, const Chunk& chunk,
                const Scratch& scratch) const {
    const Region& region = *block.region;
    const Cut tiles = row_tiles(block.end - block.begin);
    Piece in_place[kMostPieces], packed[kMostPieces];
    int64_t offsets[kMostPieces];
    list_offsets(copy_.plan, region, group, chunk.stretches, chunk.count, kShape.depth, offsets);
    for (int64_t s = 0, k = 0; s < chunk.count; k += chunk.stretches[s++].count) {
      const int64_t steps = chunk.stretches[s].count / kShape.step;
      in_place[s] = {offsets[s], chunk.stretches[s].packed, steps};
      packed[s] = {k, chunk.stretches[s].packed, steps};
    }
    pack_pixels(block, group, tiles, chunk, scratch);
    const int64_t pitch =
        weights_.channels(weight_tiles.end) - weights_.channels(weight_tiles.begin);
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
  void pack_pixels(const Block& block, int64_t group, const Cut& tiles, const Chunk& chunk,
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
          pack_run(*block.region, scratch.pixels[q], count, group, chunk.stretches[s], to);
      }
    }
    // Rows that fill up the last unit: their sums are not written.
    for (int64_t q = pixels; q < tiles.total * kShape.row_unit; ++q)
      clear_products(scratch.panel + q * kPitch, chunk.depth);
  }

  void pack_run(const Region& region, const Pixel& first, int64_t count, int64_t group,
                const Stretch& stretch, BFloat16* to) const {
    Range inside;
    const SquareSource source = source_of(copy_.plan, region, first, count, group, stretch, inside);
    pack_rows(to + inside.begin * kPitch, kPitch, source, stretch.count);
    for (int64_t q = 0; q < inside.begin; ++q) clear_products(to + q * kPitch, stretch.count);
    for (int64_t q = inside.end; q < count; ++q) clear_products(to + q * kPitch, stretch.count);
  }

  // Sums, rounded, become the result.
  void write(const Block& block, int64_t channel, int64_t channels, int64_t pitch,
             const Scratch& scratch) const {
    const int64_t stride = p_.written_strides[1];
    const int64_t step = block.region->w.step * p_.written_strides[3];
    const float* bias = bias_ ? scratch.bias : nullptr;
    for (const PixelRun* run = scratch.runs; run < scratch.runs + scratch.run_count; ++run) {
      BFloat16* to = scratch.pixels[run->begin].written + channel * stride;
      const float* sums = scratch.sums + run->begin * pitch;
      if (stride != 1) {
        transpose_sums(to, stride, step, sums, pitch, bias, run->count, channels);
        continue;
      }
      for (int64_t q = 0; q < run->count; ++q)
        round_sums(to + q * step, 1, sums + q * pitch, bias, channels);
    }
  }

  static void transpose_sums(BFloat16* to, int64_t stride, int64_t step, const float* sums,
                             int64_t pitch, const float* bias, int64_t count, int64_t channels) {
    for (int64_t q = 0; q < count; q += kSquareLanes)
      for (int64_t c = 0; c < channels; c += kSquareLanes) {
        Pairs square[kSquareLanes];
#pragma GCC unroll 16
        for (int row = 0; row < kSquareLanes; ++row)
          square[row] = Pairs(load(sums + (q + row) * pitch + c));
        transpose(square);
        for (int64_t row = 0; row < least(kSquareLanes, channels - c); ++row) {
          Vector<float> total = Vector<float>(square[row]);
          if (bias) total += bias[c + row];
          round_vector(to + (c + row) * stride + q * step, step, total,
                       least(kSquareLanes, count - q));
        }
      }
  }

  const GatherPlan& p_;
  DenseCopy copy_;
  PackedWeights weights_;
  const BFloat16* read_;
  const BFloat16* bias_;
  BFloat16* written_;
  Cut samples_;  // those worked on between two copies
  Cut parts_;    // register tiles of written channels, cut into what a task takes at a time
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
