// A gather with written channels in vectors: read pixels are broadcast.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <class S, class T>
class ChannelVectors : public PixelRows<S, T> {
  using Base = PixelRows<S, T>;
  using Base::o_, Base::p_;
  using typename Base::Panel;

 public:
  // What one worker needs while it runs a task.
  struct Scratch : Base::RowScratch {
    Scratch(char* base, const GatherPlan& plan, int64_t channels)
        : Scratch(Arena(base), plan, channels) {}
    T* sums;
    T* bias;
    T** summed;  // per pixel: where sums go that write() copies
    int64_t bytes;

   private:
    Scratch(Arena arena, const GatherPlan& plan, int64_t channels)
        : Base::RowScratch(arena, plan.block_pixels, kPanelPitch) {
      sums = arena.take<T>(plan.block_pixels * channels);
      bias = arena.take<T>(channels);
      summed = arena.take<T*>(plan.block_pixels);
      bytes = arena.used();
    }
  };

  explicit ChannelVectors(const GatherOperands<S, T>& operands) : Base(operands, kPanelPitch, 1) {}

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
      while (direct < blocks.end &&
             (o_.overlaps || o_.channels(blocks.begin, direct + 1) <= written))
        ++direct;
    const int64_t done = o_.channels(blocks.begin, direct);
    for (int64_t q = 0; direct < blocks.end && q < block.end - block.begin; ++q)
      scratch.summed[q] = scratch.sums + q * (channels - done);

    for (int64_t chunk = 0; chunk < most(1, chunks.parts); ++chunk) {
      Panel panel;
      panel.count = 0;
      panel.depth = depth > 0 ? chunks.size(chunk) : 0;
      if (panel.depth > 0)
        this->pack(block, group, chunks.begin(chunk), panel.depth, scratch, panel);
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
  // Packed weights stay in the first-level cache while the pixels pass by. Sums go to to[pixel] +
  // channel.
  void multiply(const Block& block, int64_t group, Range blocks, const Panel& panel,
                const Scratch& scratch, T* const* to, int64_t channel) const {
    const Cut tiles(block.end - block.begin, kMaxRows);
    const T* bias = panel.bias;
    for (int64_t b = blocks.begin; b < blocks.end; ++b) {
      const int64_t vectors = o_.blocks.size(b), width = vectors * kLanes<T>;
      const T* weights = o_.packed_block(group, b);
      const int64_t last = o_.last_vector(b);
      Steps<T> steps[kPanelDepth];
      for (int s = 0; s < panel.count; ++s)
        steps[s] = {weights + panel.ranges[s].begin * width, panel.ranges[s].depth};
      for (int64_t t = 0; t < tiles.parts; ++t) {
        const int64_t q = tiles.begin(t);
        if (b == blocks.begin && p_.groups > 1 && t + 1 < tiles.parts)
          fetch(tiles, t + 1, panel, scratch);
        row_tile<T>(int(tiles.size(t)), int(vectors))(
            scratch.rows + q, scratch.in_place[t] ? panel.offsets : panel.steps, steps, panel.count,
            to + q, channel, last, panel.add, bias);
      }
      channel += width;
      if (bias) bias += width;
    }
  }

  // What a tile's pixels read with their last tap: of channels_last, a group's channels are a part
  // of what lies there, and, with some lines to a pixel, not what the hardware would fetch. GCC
  // drops calls of what does nothing but fetch, so it must be inlined.
  __attribute__((always_inline)) void fetch(const Cut& tiles, int64_t t, const Panel& panel,
                                            const Scratch& scratch) const {
    constexpr int64_t kLine = 64 / int64_t(sizeof(T));
    if (p_.read_strides[1] != 1 || p_.read_strides[3] < 2 * kLine || !scratch.in_place[t]) return;
    const int64_t first = most(0, panel.depth - p_.read_channels);
    for (int64_t q = tiles.begin(t); q < tiles.begin(t + 1); ++q)
      for (int64_t step = panel.depth - 1; step >= first; step -= kLine)
        __builtin_prefetch(scratch.rows[q] + panel.offsets[step]);
  }

  void write(const Block& block, int64_t channel, int64_t channels, int64_t pitch,
             const Scratch& scratch) const {
    const int64_t step = block.region->w.step * p_.written_strides[3];
    for (int64_t r = 0; r < scratch.run_count; ++r) {
      const typename Base::Run& run = scratch.runs[r];
      const T* sums = scratch.sums + run.begin * pitch;
      S* to = run.written + channel * p_.written_strides[1];
      if (p_.written_strides[1] != 1) {
        turn(to, step, sums, pitch, run.count, channels);
      } else if constexpr (kSame<S, T>) {
        // What is not summed up in place is less than one block, of at most three vectors.
        copy_rows(to, step, sums, pitch, run.count, channels);
      } else {
        for (int64_t q = 0; q < run.count; ++q, to += step, sums += pitch)
          scatter(to, 1, sums, channels);
      }
    }
  }

  // Writes sums of `count` pixels by `channels`.
  void turn(S* to, int64_t step, const T* sums, int64_t pitch, int64_t count,
            int64_t channels) const {
    constexpr int64_t lanes = kLanes<T>;
    const int64_t stride = p_.written_strides[1];
    for (int64_t q = 0; q < count; q += lanes)
      for (int64_t c = 0; c < channels; c += lanes) {
        const int64_t width = least(lanes, count - q), rows = least(lanes, channels - c);
        const T* from = sums + q * pitch + c;
        S* at = to + q * step + c * stride;
        if (step == 1) {
          transpose<T>(at, stride, from, pitch, width, rows, width);
          continue;
        }
        T square[lanes * lanes];
        transpose<T>(square, lanes, from, pitch, width, rows, width);
        for (int64_t r = 0; r < rows; ++r)
          scatter(at + r * stride, step, square + r * lanes, width);
      }
  }
};
