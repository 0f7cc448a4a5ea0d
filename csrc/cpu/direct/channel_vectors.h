// A gather with written channels in vectors: read pixels are broadcast, in place where all taps of
// a register tile's pixels read inside the image, else from a packed panel.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// Written pixels of a block that follow each other in a row of the region.
struct PixelRun {
  int64_t begin, count;
};

template <class S, class T>
class ChannelVectors {
 public:
  struct Pixel {
    const S* sample;
    int64_t h, w;  // what a tap with origin 0 reads
    S* written;    // the first channel
  };

  // What one worker needs while it runs a task.
  struct Scratch {
    Scratch(char* base, const GatherPlan& plan, int64_t channels) {
      const int64_t block = plan.block_pixels;
      Arena arena(base);
      panel = arena.take<T>(block * kPanelPitch);
      sums = arena.take<T>((block + kLanes<T>)*channels);
      bias = arena.take<T>(channels);
      pixels = arena.take<Pixel>(block);
      runs = arena.take<PixelRun>(block);
      rows = arena.take<const T*>(block);
      written = arena.take<T*>(block);
      summed = arena.take<T*>(block);
      in_place = arena.take<bool>(block);
      bytes = arena.used();
    }
    T* panel;
    T* sums;
    T* bias;
    Pixel* pixels;
    PixelRun* runs;
    int64_t run_count = 0;
    const T** rows;  // per pixel: where offsets count from
    T** written;     // per pixel: where sums go, directly or for write() to copy
    T** summed;
    bool* in_place;  // per tile
    int64_t bytes;
  };

  explicit ChannelVectors(const GatherOperands<S, T>& operands) : o_(operands), p_(operands.plan) {}

  void begin(const Block& block, Scratch& scratch) const {
    const Region& region = *block.region;
    int64_t j = block.begin % region.w.count, i = block.begin / region.w.count % region.h.count;
    int64_t n = block.sample + block.begin / (region.w.count * region.h.count);
    const int64_t pixels = block.end - block.begin;
    scratch.run_count = 0;
    for (int64_t q = 0, count; q < pixels; q += count) {
      count = least(pixels - q, region.w.count - j);
      scratch.runs[scratch.run_count++] = {q, count};
      place_run(region, n, i, j, {q, count}, scratch);
      j = 0;
      if (++i == region.h.count) i = 0, ++n;
    }
    const Cut tiles(pixels, kMaxRows);
    for (int64_t t = 0; t < tiles.parts; ++t) {
      bool inside = true;
      for (int64_t q = tiles.begin(t); q < tiles.begin(t + 1); ++q)
        inside = inside && scratch.rows[q] != nullptr;
      scratch.in_place[t] = inside;
      for (int64_t q = tiles.begin(t); !inside && q < tiles.begin(t + 1); ++q)
        scratch.rows[q] = scratch.panel + q * kPanelPitch;
    }
  }

  void compute(const Block& block, int64_t group, Range blocks, Scratch& scratch) const {
    const int64_t depth = region_depth(p_, *block.region);
    const Cut chunks(depth, kPanelDepth);
    const int64_t first = o_.channels(0, blocks.begin);
    const int64_t channels = o_.channels(blocks.begin, blocks.end);
    const int64_t written = least(channels, p_.written_channels - first);
    if (o_.bias) gather(scratch.bias, o_.bias + group * p_.written_channels + first, 1, written);
    clear(scratch.bias + written, o_.bias ? channels - written : 0);
    // Blocks whose vectors hold nothing but channels are summed up where they are written.
    int64_t direct = blocks.begin;
    if (kSame<S, T> && p_.written_strides[1] == 1)
      while (direct < blocks.end && o_.channels(blocks.begin, direct + 1) <= written) ++direct;
    const int64_t done = o_.channels(blocks.begin, direct);
    for (int64_t q = 0; direct < blocks.end && q < block.end - block.begin; ++q)
      scratch.summed[q] = scratch.sums + q * (channels - done);

    for (int64_t chunk = 0; chunk < most(1, chunks.parts); ++chunk) {
      Panel panel;
      panel.count = 0;
      if (depth > 0) pack(block, group, chunks.begin(chunk), chunks.size(chunk), scratch, panel);
      panel.add = chunk > 0;
      panel.bias = o_.bias && chunk + 1 >= chunks.parts ? scratch.bias : nullptr;
      multiply(block, group, {blocks.begin, direct}, panel, scratch, scratch.written,
               group * p_.written_channels + first);
      if (panel.bias) panel.bias += done;
      multiply(block, group, {direct, blocks.end}, panel, scratch, scratch.summed, 0);
    }
    if (direct < blocks.end)
      write(block, group * p_.written_channels + first + done, written - done, channels - done,
            scratch);
  }

 private:
  // One chunk of the summation.
  struct Panel {
    int64_t offsets[kPanelDepth], steps[kPanelDepth];  // of tiles in place, of packed ones
    DepthRange ranges[kPanelDepth];
    int count;
    bool add;
    const T* bias;
  };

  void place_run(const Region& region, int64_t n, int64_t i, int64_t j, const PixelRun& run,
                 const Scratch& scratch) const {
    const int64_t last_h = region.h.tap_count - 1, last_w = region.w.tap_count - 1;
    Pixel pixel = {o_.read + n * p_.read_strides[0], i * region.h.read_step, j * region.w.read_step,
                   o_.written + n * p_.written_strides[0] +
                       (region.h.begin + i * region.h.step) * p_.written_strides[2] +
                       (region.w.begin + j * region.w.step) * p_.written_strides[3]};
    // Pixels that read inside the image with every tap; the taps' origins are monotone.
    int64_t low = 0, high = -1;
    if (last_h >= 0 && last_w >= 0 && inside(pixel.h + region.h.taps[0].origin, 0) &&
        inside(pixel.h + region.h.taps[last_h].origin, 0)) {
      const int64_t a = region.w.taps[0].origin, b = region.w.taps[last_w].origin;
      low = -least(a, b);
      high = p_.read_size[1] - 1 - most(a, b);
    }
    for (int64_t q = run.begin; q < run.begin + run.count; ++q) {
      scratch.pixels[q] = pixel;
      if constexpr (kSame<S, T>) {
        const bool in_place = pixel.w >= low && pixel.w <= high;
        scratch.rows[q] =
            in_place ? at(pixel, region.h.taps->origin, region.w.taps->origin) : nullptr;
        scratch.written[q] = pixel.written;
      } else {
        scratch.rows[q] = nullptr;
      }
      pixel.w += region.w.read_step;
      pixel.written += region.w.step * p_.written_strides[3];
    }
  }

  bool inside(int64_t position, int axis) const {
    return position >= 0 && position < p_.read_size[axis];
  }

  const S* at(const Pixel& pixel, int64_t origin_h, int64_t origin_w) const {
    return pixel.sample + (pixel.h + origin_h) * p_.read_strides[2] +
           (pixel.w + origin_w) * p_.read_strides[3];
  }

  void pack(const Block& block, int64_t group, int64_t begin, int64_t depth, const Scratch& scratch,
            Panel& panel) const {
    Stretch stretches[kPanelDepth];
    const Region& region = *block.region;
    const int count = list_stretches(p_, region, begin, depth, stretches);
    panel.count = merge_stretches(stretches, count, panel.ranges);
    list_offsets(p_, region, group, stretches, count, panel.offsets);
    for (int64_t s = 0; s < depth; ++s) panel.steps[s] = s;

    const Cut tiles(block.end - block.begin, kMaxRows);
    for (int64_t t = 0; t < tiles.parts; ++t)
      for (int64_t q = tiles.begin(t); !scratch.in_place[t] && q < tiles.begin(t + 1); ++q)
        pack_pixel(scratch.pixels[q], group, stretches, count, scratch.panel + q * kPanelPitch);
  }

  void pack_pixel(const Pixel& pixel, int64_t group, const Stretch* stretches, int count,
                  T* to) const {
    for (int s = 0; s < count; ++s) {
      const Stretch& stretch = stretches[s];
      const int64_t h = pixel.h + stretch.origin_h, w = pixel.w + stretch.origin_w;
      if (!inside(h, 0) || !inside(w, 1))
        clear(to, stretch.count);
      else
        gather(to,
               at(pixel, stretch.origin_h, stretch.origin_w) +
                   (group * p_.read_channels + stretch.channel) * p_.read_strides[1],
               p_.read_strides[1], stretch.count);
      to += stretch.count;
    }
  }

  // Packed weights stay in the first-level cache while the pixels pass by. Sums go to to[pixel] +
  // channel.
  void multiply(const Block& block, int64_t group, Range blocks, const Panel& panel,
                const Scratch& scratch, T* const* to, int64_t channel) const {
    const Cut tiles(block.end - block.begin, kMaxRows);
    const T* bias = panel.bias;
    for (int64_t b = blocks.begin; b < blocks.end; ++b) {
      const int64_t vectors = o_.blocks.size(b), width = vectors * kLanes<T>;
      const T* weights = o_.packed_block(group, b);
      Steps<T> steps[kPanelDepth];
      for (int s = 0; s < panel.count; ++s)
        steps[s] = {weights + panel.ranges[s].begin * width, panel.ranges[s].depth};
      for (int64_t t = 0; t < tiles.parts; ++t) {
        const int64_t q = tiles.begin(t);
        row_tile<T>(int(tiles.size(t)), int(vectors))(
            scratch.rows + q, scratch.in_place[t] ? panel.offsets : panel.steps, steps, panel.count,
            to + q, channel, panel.add, bias);
      }
      channel += width;
      if (bias) bias += width;
    }
  }

  void write(const Block& block, int64_t channel, int64_t channels, int64_t pitch,
             const Scratch& scratch) const {
    const int64_t step = block.region->w.step * p_.written_strides[3];
    for (int64_t r = 0; r < scratch.run_count; ++r) {
      const PixelRun& run = scratch.runs[r];
      const T* sums = scratch.sums + run.begin * pitch;
      S* to = scratch.pixels[run.begin].written + channel * p_.written_strides[1];
      if constexpr (kSame<S, T>) {
        // What is not summed up in place is less than one block, of at most three vectors.
        if (p_.written_strides[1] == 1) {
          copy_rows(to, step, sums, pitch, run.count, channels);
          continue;
        }
        transpose(to, step, sums, pitch, run.count, channels);
      } else {
        for (int64_t q = 0; q < run.count; ++q, to += step, sums += pitch)
          scatter(to, p_.written_strides[1], sums, channels);
      }
    }
  }

  // Writes sums of `count` pixels by `channels`; reads whole squares of them.
  void transpose(T* to, int64_t step, const T* sums, int64_t pitch, int64_t count,
                 int64_t channels) const {
    constexpr int64_t lanes = kLanes<T>;
    const int64_t stride = p_.written_strides[1];
    for (int64_t q = 0; q < count; q += lanes)
      for (int64_t c = 0; c < channels; c += lanes) {
        const int64_t width = least(lanes, count - q), rows = least(lanes, channels - c);
        const T* from = sums + q * pitch + c;
        T* at = to + q * step + c * stride;
        if (step == 1 && width == lanes && rows == lanes) {
          transpose_square(at, stride, from, pitch);
          continue;
        }
        T square[lanes * lanes];
        transpose_square(square, lanes, from, pitch);
        for (int64_t r = 0; r < rows; ++r)
          scatter(at + r * stride, step, square + r * lanes, width);
      }
  }

  const GatherOperands<S, T>& o_;
  const GatherPlan& p_;
};
