// A gather with written channels in vectors: read pixels are broadcast, in place where all taps of
// a register tile's pixels read inside the image, else from a packed panel.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

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
      const int64_t pixels = plan.block_pixels;
      Arena arena(base);
      panel = arena.take<T>(pixels * kPanelPitch);
      sums = arena.take<T>(pixels * channels);
      this->pixels = arena.take<Pixel>(pixels);
      rows = arena.take<const T*>(pixels);
      written = arena.take<T*>(pixels);
      in_place = arena.take<bool>(pixels);
      bytes = arena.used();
    }
    T* panel;
    T* sums;
    Pixel* pixels;
    const T** rows;  // per pixel: where offsets count from
    T** written;
    bool* in_place;  // per tile
    int64_t bytes;
  };

  explicit ChannelVectors(const GatherOperands<S, T>& operands) : o_(operands), p_(operands.plan) {}

  void begin(const Block& block, const Scratch& scratch) const {
    find_pixels(block, scratch.pixels);
    const Region& region = *block.region;
    const Cut tiles(block.end - block.begin, kMaxRows);
    for (int64_t t = 0; t < tiles.parts; ++t) {
      bool inside = kSame<S, T> && region.h.tap_count > 0 && region.w.tap_count > 0;
      for (int64_t q = tiles.begin(t); q < tiles.begin(t + 1); ++q)
        inside = inside && reads_inside(region.h, scratch.pixels[q].h, p_.read_size[0]) &&
                 reads_inside(region.w, scratch.pixels[q].w, p_.read_size[1]);
      scratch.in_place[t] = inside;
      for (int64_t q = tiles.begin(t); q < tiles.begin(t + 1); ++q) {
        scratch.rows[q] = scratch.panel + q * kPanelPitch;
        if constexpr (kSame<S, T>) {
          if (inside)
            scratch.rows[q] = at(scratch.pixels[q], region.h.taps->origin, region.w.taps->origin);
        }
      }
    }
  }

  void compute(const Block& block, int64_t group, Range blocks, const Scratch& scratch) const {
    const int64_t depth = region_depth(p_, *block.region);
    const Cut chunks(depth, kPanelDepth);
    const int64_t channels = o_.channels(blocks.begin, blocks.end);
    // Blocks whose vectors hold nothing but channels are summed up where they are written.
    int64_t direct = blocks.begin;
    if (kSame<S, T> && p_.written_strides[1] == 1)
      while (direct < blocks.end && o_.channels(0, direct + 1) <= p_.written_channels) ++direct;

    for (int64_t chunk = 0; chunk < most(1, chunks.parts); ++chunk) {
      Panel panel = {};
      if (depth > 0) pack(block, group, chunks.begin(chunk), chunks.size(chunk), scratch, panel);
      panel.first = chunk == 0;
      panel.last = chunk + 1 >= chunks.parts;
      if (direct > blocks.begin) {
        for (int64_t q = 0; q < block.end - block.begin; ++q)
          if constexpr (kSame<S, T>) scratch.written[q] = scratch.pixels[q].written;
        multiply(block, group, {blocks.begin, direct}, panel, scratch,
                 group * p_.written_channels + o_.channels(0, blocks.begin), true);
      }
      if (direct < blocks.end) {
        for (int64_t q = 0; q < block.end - block.begin; ++q)
          scratch.written[q] = scratch.sums + q * channels;
        multiply(block, group, {direct, blocks.end}, panel, scratch, 0, false);
      }
    }
    if (direct < blocks.end)
      write(block, group, o_.channels(0, direct), o_.channels(direct, blocks.end), channels,
            scratch);
  }

 private:
  // One chunk of the summation.
  struct Panel {
    int64_t offsets[kPanelDepth], steps[kPanelDepth];  // of tiles in place, of packed ones
    DepthRange ranges[kPanelDepth];
    int count;
    bool first, last;
  };

  void find_pixels(const Block& block, Pixel* pixels) const {
    const Region& region = *block.region;
    int64_t i = block.begin / region.w.count % region.h.count, j = block.begin % region.w.count;
    int64_t n = block.sample + block.begin / region.w.count / region.h.count;
    for (int64_t q = block.begin; q < block.end; ++q, ++pixels) {
      pixels->sample = o_.read + n * p_.read_strides[0];
      pixels->h = i * region.h.read_step;
      pixels->w = j * region.w.read_step;
      pixels->written = o_.written + n * p_.written_strides[0] +
                        (region.h.begin + i * region.h.step) * p_.written_strides[2] +
                        (region.w.begin + j * region.w.step) * p_.written_strides[3];
      if (++j < region.w.count) continue;
      j = 0;
      if (++i < region.h.count) continue;
      i = 0;
      ++n;
    }
  }

  // Taps' origins are monotone.
  static bool reads_inside(const Span& span, int64_t at, int64_t size) {
    const int64_t first = at + span.taps[0].origin,
                  last = at + span.taps[span.tap_count - 1].origin;
    return first >= 0 && first < size && last >= 0 && last < size;
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
    int64_t* offset = panel.offsets;
    for (int s = 0; s < count; ++s) {
      const Stretch& stretch = stretches[s];
      const int64_t from = (stretch.origin_h - region.h.taps->origin) * p_.read_strides[2] +
                           (stretch.origin_w - region.w.taps->origin) * p_.read_strides[3] +
                           (group * p_.read_channels + stretch.channel) * p_.read_strides[1];
      for (int64_t c = 0; c < stretch.count; ++c) *offset++ = from + c * p_.read_strides[1];
    }
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
      if (h < 0 || h >= p_.read_size[0] || w < 0 || w >= p_.read_size[1])
        clear(to, stretch.count);
      else
        gather(to,
               at(pixel, stretch.origin_h, stretch.origin_w) +
                   (group * p_.read_channels + stretch.channel) * p_.read_strides[1],
               p_.read_strides[1], stretch.count);
      to += stretch.count;
    }
  }

  // Packed weights stay in the first-level cache while the pixels pass by.
  void multiply(const Block& block, int64_t group, Range blocks, const Panel& panel,
                const Scratch& scratch, int64_t channel, bool direct) const {
    const Cut tiles(block.end - block.begin, kMaxRows);
    for (int64_t b = blocks.begin; b < blocks.end; ++b) {
      const int64_t vectors = o_.blocks.size(b), width = vectors * kLanes<T>;
      const T* weights = o_.packed_block(group, b);
      Steps<T> steps[kPanelDepth];
      for (int s = 0; s < panel.count; ++s)
        steps[s] = {weights + panel.ranges[s].begin * width, panel.ranges[s].depth};
      const T* bias = nullptr;
      if constexpr (kSame<S, T>) {
        if (direct && panel.last && o_.bias) bias = o_.bias + channel;
      }
      for (int64_t t = 0; t < tiles.parts; ++t) {
        const int64_t q = tiles.begin(t);
        row_tile<T>(int(tiles.size(t)), int(vectors))(
            scratch.rows + q, scratch.in_place[t] ? panel.offsets : panel.steps, steps, panel.count,
            scratch.written + q, channel, !panel.first, bias);
      }
      channel += width;
    }
  }

  void write(const Block& block, int64_t group, int64_t first, int64_t channels, int64_t pitch,
             const Scratch& scratch) const {
    channels = least(channels, p_.written_channels - first);
    const int64_t channel = group * p_.written_channels + first;
    T* sums = scratch.sums;
    for (int64_t q = 0; q < block.end - block.begin; ++q, sums += pitch) {
      if (o_.bias)
        for (int64_t c = 0; c < channels; ++c) sums[c] += widen(o_.bias[channel + c]);
      scatter(scratch.pixels[q].written + channel * p_.written_strides[1], p_.written_strides[1],
              sums, channels);
    }
  }

  const GatherOperands<S, T>& o_;
  const GatherPlan& p_;
};
