// conv2d and grad_input: an implicit product of packed weights with the pixels that each tap reads.
//
// A task owns a block of written pixels (of one region, across the batch) and a range of written
// channels. It packs what the block reads into a panel, kPanelDepth products at a time, and
// multiplies the panel with the packed weights, tile by tile. Every written element is one chain of
// sums, cut at the same places whatever the task, the batch and the orientation, so its bits depend
// on its sample alone.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// Written pixels of a block that follow each other in a row of the region (and, in pixel vectors,
// of a tile).
struct Run {
  int64_t column, count;  // where in the block
  int64_t n, i, j;        // the first one: sample, row and column in the region
  int64_t tile_begin, tile_width;
};

// A stretch of the packed weights that a panel multiplies.
struct DepthRange {
  int64_t begin, depth;
};

template <class S, class T>
class Gather {
 public:
  Gather(const GatherPlan& plan, int workers, const void* read, const void* weight,
         const void* bias, void* written, void* workspace)
      : p_(plan),
        read_(static_cast<const S*>(read)),
        weight_(static_cast<const S*>(weight)),
        bias_(static_cast<const S*>(bias)),
        written_(static_cast<S*>(written)),
        depth_(plan.kernel[0] * plan.kernel[1] * plan.read_channels),
        samples_(plan.batch, plan.samples),
        unit_(plan.channels_in_vectors ? kLanes<T> : 1),
        blocks_((plan.written_channels + unit_ - 1) / unit_,
                plan.channels_in_vectors ? kMaxVectors : kMaxRows),
        parts_(blocks_.parts, choose_blocks_per_part(workers)) {
    Arena arena(workspace);
    packed_ = arena.take<T>(plan.groups * blocks_.total * unit_ * depth_);
    worker_bytes_ = Scratch(nullptr, *this).bytes;
    workers_ = workspace ? static_cast<char*>(workspace) + arena.used() : nullptr;
    bytes_ = arena.used() + workers * worker_bytes_;
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    pool.run(
        pool, p_.groups * blocks_.parts,
        [](void* self, int64_t index, int) { static_cast<Gather*>(self)->pack_weights(index); },
        this);
    const int64_t units = p_.groups * parts_.parts;
    splits_ = least(units, (4 * pool.workers + pixel_blocks() - 1) / pixel_blocks());
    if (pool.workers == 1) splits_ = 1;
    pool.run(
        pool, pixel_blocks() * splits_,
        [](void* self, int64_t index, int worker) {
          static_cast<Gather*>(self)->task(index, worker);
        },
        this);
  }

 private:
  // What one worker needs while it runs a task.
  struct Scratch {
    Scratch(char* base, const Gather& gather) {
      const GatherPlan& p = gather.p_;
      const int64_t columns = round_up(p.block_pixels, kLanes<T>);
      const int64_t channels = gather.part_channels();
      Arena arena(base);
      panel =
          arena.take<T>(p.channels_in_vectors ? columns * kPanelPitch : columns * p.panel_depth);
      sums = arena.take<T>(columns * channels);
      runs = arena.take<Run>(columns);
      bytes = arena.used();
    }
    T* panel;
    T* sums;
    Run* runs;
    int64_t bytes;
  };

  struct Block {
    const Region* region;
    int64_t sample;      // the first one
    int64_t begin, end;  // pixels of the region, counted through the samples
    int64_t run_count;
    Cut vectors;  // pixel vectors, cut into tiles
  };

  int64_t choose_blocks_per_part(int workers) const {
    const int64_t largest =
        most(1, p_.split_channels / (unit_ * (p_.channels_in_vectors ? kMaxVectors : kMaxRows)));
    const int64_t wanted = 2 * workers / (pixel_blocks() * p_.groups);
    return workers == 1 || wanted <= 1 ? largest : least(largest, most(1, blocks_.parts / wanted));
  }

  // Written channels, in whole units, of the largest part.
  int64_t part_channels() const {
    int64_t largest = 0;
    for (int64_t part = 0; part < parts_.parts; ++part)
      largest =
          most(largest, blocks_.begin(parts_.begin(part + 1)) - blocks_.begin(parts_.begin(part)));
    return largest * unit_;
  }

  // The pixel vectors of a region, cut into blocks.
  Cut region_blocks(const Region& region) const {
    const int64_t pixels = p_.samples * region.h.count * region.w.count;
    return Cut((pixels + kLanes<T> - 1) / kLanes<T>, most(1, p_.block_pixels / kLanes<T>));
  }

  int64_t sample_blocks() const {
    int64_t count = 0;
    for (int64_t r = 0; r < p_.region_count; ++r) count += region_blocks(p_.regions[r]).parts;
    return count;
  }

  int64_t pixel_blocks() const { return samples_.parts * sample_blocks(); }

  T* packed_block(int64_t group, int64_t block) const {
    return packed_ + (group * blocks_.total + blocks_.begin(block)) * unit_ * depth_;
  }

  // The packed order is (kernel row, kernel column, read channel), then the block's written
  // channels.
  void pack_weights(int64_t index) const {
    constexpr int64_t kChannels = 16;  // keeps the strided side in the cache
    const int64_t group = index / blocks_.parts, block = index % blocks_.parts;
    const int64_t first = blocks_.begin(block) * unit_, width = blocks_.size(block) * unit_;
    const int64_t valid = least(width, p_.written_channels - first);
    const S* from = weight_ + group * p_.weight_group_stride + first * p_.weight_strides[0];
    T* to = packed_block(group, block);
    const int64_t kernel_width = p_.kernel[1], taps = p_.kernel[0] * p_.kernel[1];
    for (int64_t c0 = 0; c0 < p_.read_channels; c0 += kChannels)
      for (int64_t channel = 0; channel < width; ++channel)
        for (int64_t c = c0; c < least(c0 + kChannels, p_.read_channels); ++c) {
          const S* element = from + channel * p_.weight_strides[0] + c * p_.weight_strides[1];
          for (int64_t tap = 0; tap < taps; ++tap) {
            const int64_t a = tap / kernel_width, b = tap % kernel_width;
            to[(tap * p_.read_channels + c) * width + channel] =
                channel < valid
                    ? T(widen(element[a * p_.weight_strides[2] + b * p_.weight_strides[3]]))
                    : T(0);
          }
        }
  }

  void task(int64_t index, int worker) const {
    const int64_t split = index % splits_, blocks = sample_blocks();
    const int64_t samples = index / splits_ / blocks;
    int64_t block_index = index / splits_ % blocks;
    const Region* region = p_.regions;
    while (block_index >= region_blocks(*region).parts)
      block_index -= region_blocks(*region++).parts;

    const Cut cut = region_blocks(*region);
    const int64_t pixels = samples_.size(samples) * region->h.count * region->w.count;
    const int64_t begin = cut.begin(block_index) * kLanes<T>;
    const int64_t end = least(cut.begin(block_index + 1) * kLanes<T>, pixels);
    if (begin >= end) return;
    Block block = {region, samples_.begin(samples),
                   begin,  end,
                   0,      Cut((end - begin + kLanes<T> - 1) / kLanes<T>, kMaxVectors)};
    const Scratch scratch(workers_ + worker * worker_bytes_, *this);
    find_runs(block, scratch.runs);
    const int64_t units = p_.groups * parts_.parts;
    for (int64_t unit = units * split / splits_; unit < units * (split + 1) / splits_; ++unit)
      compute(block, unit / parts_.parts, unit % parts_.parts, scratch);
  }

  void find_runs(Block& block, Run* runs) const {
    const int64_t columns = block.region->w.count, pixels = block.region->h.count * columns;
    int64_t tile = 0;
    for (int64_t q = block.begin; q < block.end;) {
      const int64_t column = q - block.begin;
      int64_t limit = block.end - q;
      Run& run = runs[block.run_count++];
      if (!p_.channels_in_vectors) {
        while (column >= block.vectors.begin(tile + 1) * kLanes<T>) ++tile;
        run.tile_begin = block.vectors.begin(tile) * kLanes<T>;
        run.tile_width = block.vectors.size(tile) * kLanes<T>;
        limit = least(limit, run.tile_begin + run.tile_width - column);
      }
      run.column = column;
      run.n = block.sample + q / pixels;
      run.i = q % pixels / columns;
      run.j = q % columns;
      run.count = least(limit, columns - run.j);
      q += run.count;
    }
  }

  void compute(const Block& block, int64_t group, int64_t part, const Scratch& scratch) const {
    const Region& region = *block.region;
    const int64_t depth = region.h.tap_count * region.w.tap_count * p_.read_channels;
    const Cut chunks(depth, kPanelDepth);
    const int64_t first = parts_.begin(part), last = parts_.begin(part + 1);
    const int64_t channels = (blocks_.begin(last) - blocks_.begin(first)) * unit_;
    const int64_t columns = block.vectors.total * kLanes<T>;
    if (depth == 0) clear(scratch.sums, channels * columns);
    for (int64_t chunk = 0; chunk < chunks.parts; ++chunk) {
      DepthRange ranges[kPanelDepth];
      const int count =
          pack_panel(block, group, chunks.begin(chunk), chunks.size(chunk), scratch, ranges);
      if (p_.channels_in_vectors)
        multiply_channels(block, group, {first, last}, ranges, count, scratch, channels, chunk > 0);
      else
        multiply_pixels(block, group, {first, last}, ranges, count, chunks.size(chunk), scratch,
                        columns, chunk > 0);
    }
    if (p_.channels_in_vectors)
      write_channels(block, group, blocks_.begin(first) * unit_, channels, scratch);
    else
      write_pixels(block, group, blocks_.begin(first), channels, columns, scratch);
  }

  // Packs products [begin, begin + depth) of the region's (tap, channel) order; returns the number
  // of stretches of packed weights that they meet.
  int pack_panel(const Block& block, int64_t group, int64_t begin, int64_t depth,
                 const Scratch& scratch, DepthRange* ranges) const {
    const Region& region = *block.region;
    int count = 0;
    for (int64_t done = 0; done < depth;) {
      const int64_t tap = (begin + done) / p_.read_channels,
                    channel = (begin + done) % p_.read_channels;
      const int64_t channels = least(p_.read_channels - channel, depth - done);
      const Tap& h = region.h.taps[tap / region.w.tap_count];
      const Tap& w = region.w.taps[tap % region.w.tap_count];
      const int64_t packed = (h.kernel * p_.kernel[1] + w.kernel) * p_.read_channels + channel;
      if (count > 0 && ranges[count - 1].begin + ranges[count - 1].depth == packed)
        ranges[count - 1].depth += channels;
      else
        ranges[count++] = {packed, channels};
      const S* from = read_ + (group * p_.read_channels + channel) * p_.read_strides[1];
      if (!p_.channels_in_vectors && !covers(block, scratch.runs, h.origin, w.origin))
        clear_products(block, done, channels, depth, scratch.panel);
      for (int64_t r = 0; r < block.run_count; ++r)
        pack_run(region, scratch.runs[r], h.origin, w.origin, from, channels, scratch.panel, done,
                 depth);
      done += channels;
    }
    return count;
  }

  void pack_run(const Region& region, const Run& run, int64_t origin_h, int64_t origin_w,
                const S* from, int64_t channels, T* panel, int64_t done, int64_t depth) const {
    const int64_t i = origin_h + run.i * region.h.read_step;
    const int64_t j = origin_w + run.j * region.w.read_step, step = region.w.read_step;
    // Pixels [begin, end) of the run read inside the image.
    int64_t begin = 0, end = 0;
    if (i >= 0 && i < p_.read_size[0]) {
      begin = j >= 0 ? 0 : least(run.count, (step - 1 - j) / step);
      end = j >= p_.read_size[1] ? 0 : least(run.count, (p_.read_size[1] - 1 - j) / step + 1);
      end = most(begin, end);
      from += run.n * p_.read_strides[0] + i * p_.read_strides[2] +
              (j + begin * step) * p_.read_strides[3];
    }
    const int64_t pixel_stride = step * p_.read_strides[3], channel_stride = p_.read_strides[1];
    if (p_.channels_in_vectors) {
      T* to = panel + run.column * kPanelPitch + done;
      for (int64_t q = 0; q < run.count; ++q, to += kPanelPitch) {
        if (q < begin || q >= end)
          clear(to, channels);
        else
          gather(to, from + (q - begin) * pixel_stride, channel_stride, channels);
      }
      return;
    }
    T* to = panel + run.tile_begin * depth + done * run.tile_width + run.column - run.tile_begin;
    if (begin == end) return;
    if constexpr (kSame<S, T>) {
      if (pixel_stride == 1)
        return copy_rows(to + begin, run.tile_width, from, channel_stride, channels, end - begin);
    }
    for (int64_t c = 0; c < channels; ++c, to += run.tile_width, from += channel_stride)
      gather(to + begin, from, pixel_stride, end - begin);
  }

  // Whether a tap reads inside the image for every pixel of the block, and every lane of its
  // vectors is a pixel.
  bool covers(const Block& block, const Run* runs, int64_t origin_h, int64_t origin_w) const {
    if (block.end - block.begin < block.vectors.total * kLanes<T>) return false;
    const Region& region = *block.region;
    for (int64_t r = 0; r < block.run_count; ++r) {
      const int64_t i = origin_h + runs[r].i * region.h.read_step,
                    j = origin_w + runs[r].j * region.w.read_step;
      const int64_t last = j + (runs[r].count - 1) * region.w.read_step;
      if (i < 0 || i >= p_.read_size[0] || j < 0 || last >= p_.read_size[1]) return false;
    }
    return true;
  }

  // Zeroes `channels` products of every pixel: in one stroke, as the panels' tiles are dense there.
  void clear_products(const Block& block, int64_t done, int64_t channels, int64_t depth,
                      T* panel) const {
    for (int64_t t = 0; t < block.vectors.parts; ++t) {
      const int64_t begin = block.vectors.begin(t) * kLanes<T>,
                    width = block.vectors.size(t) * kLanes<T>;
      clear(panel + begin * depth + done * width, channels * width);
    }
  }

  // A tile of the panel stays in the first-level cache while the weights pass by.
  void multiply_pixels(const Block& block, int64_t group, Range blocks, const DepthRange* ranges,
                       int count, int64_t depth, const Scratch& scratch, int64_t pitch,
                       bool add) const {
    Segment<T> segments[kPanelDepth];
    for (int64_t t = 0; t < block.vectors.parts; ++t) {
      const int64_t begin = block.vectors.begin(t) * kLanes<T>, vectors = block.vectors.size(t);
      T* sums = scratch.sums + begin;
      for (int64_t b = blocks.begin; b < blocks.end; ++b) {
        const int64_t rows = blocks_.size(b);
        const T* weights = packed_block(group, b);
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

  // Packed weights stay in the cache while the pixels pass by.
  void multiply_channels(const Block& block, int64_t group, Range blocks, const DepthRange* ranges,
                         int count, const Scratch& scratch, int64_t pitch, bool add) const {
    const Cut tiles(block.end - block.begin, kMaxRows);
    Segment<T> segments[kPanelDepth];
    T* sums = scratch.sums;
    for (int64_t b = blocks.begin; b < blocks.end; ++b) {
      const int64_t vectors = blocks_.size(b);
      const T* weights = packed_block(group, b);
      for (int64_t t = 0; t < tiles.parts; ++t) {
        const T* panel = scratch.panel + tiles.begin(t) * kPanelPitch;
        for (int s = 0; s < count; ++s) {
          segments[s] = {panel, weights + ranges[s].begin * vectors * kLanes<T>, ranges[s].depth};
          panel += ranges[s].depth;
        }
        tile<T, Order::kByRow>(int(tiles.size(t)), int(vectors))(
            segments, count, kPanelPitch, sums + tiles.begin(t) * pitch, pitch, add);
      }
      sums += vectors * kLanes<T>;
    }
  }

  S* written_at(const Block& block, const Run& run, int64_t channel) const {
    const Region& region = *block.region;
    return written_ + run.n * p_.written_strides[0] + channel * p_.written_strides[1] +
           (region.h.begin + run.i * region.h.step) * p_.written_strides[2] +
           (region.w.begin + run.j * region.w.step) * p_.written_strides[3];
  }

  void write_pixels(const Block& block, int64_t group, int64_t first, int64_t channels,
                    int64_t pitch, const Scratch& scratch) const {
    const int64_t step = block.region->w.step * p_.written_strides[3];
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t channel = group * p_.written_channels + first + c;
      T* sums = scratch.sums + c * pitch;
      if (bias_) {
        const T bias = widen(bias_[channel]);
        for (int64_t q = 0; q < pitch; ++q) sums[q] += bias;
      }
      for (int64_t r = 0; r < block.run_count; ++r) {
        const Run& run = scratch.runs[r];
        scatter(written_at(block, run, channel), step, sums + run.column, run.count);
      }
    }
  }

  void write_channels(const Block& block, int64_t group, int64_t first, int64_t pitch,
                      const Scratch& scratch) const {
    const int64_t step = block.region->w.step * p_.written_strides[3];
    const int64_t channels = least(pitch, p_.written_channels - first);
    const int64_t channel = group * p_.written_channels + first;
    for (int64_t r = 0; r < block.run_count; ++r) {
      const Run& run = scratch.runs[r];
      S* to = written_at(block, run, channel);
      T* sums = scratch.sums + run.column * pitch;
      for (int64_t q = 0; q < run.count; ++q, to += step, sums += pitch) {
        if (bias_)
          for (int64_t c = 0; c < channels; ++c) sums[c] += widen(bias_[channel + c]);
        scatter(to, p_.written_strides[1], sums, channels);
      }
    }
  }

  const GatherPlan& p_;
  const S* read_;
  const S* weight_;
  const S* bias_;
  S* written_;
  int64_t depth_;
  Cut samples_;
  int64_t unit_;
  Cut blocks_;  // written channels of a group, in units, cut into register tiles
  Cut parts_;   // blocks, cut into what one task takes at a time
  T* packed_;
  char* workers_;
  int64_t worker_bytes_, bytes_, splits_ = 1;
};

template <class S, class T>
size_t gather_workspace(const GatherPlan& plan, int workers) {
  return Gather<S, T>(plan, workers, nullptr, nullptr, nullptr, nullptr, nullptr).workspace_bytes();
}

template <class S, class T>
void run_gather(const GatherPlan& plan, const void* read, const void* weight, const void* bias,
                void* written, void* workspace, const TaskPool& pool) {
  Gather<S, T>(plan, pool.workers, read, weight, bias, written, workspace).run(pool);
}
