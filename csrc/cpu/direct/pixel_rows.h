// Pixels as the rows of a register tile: read in place where all taps of a tile's pixels read
// inside the image, else from a packed panel.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// Written pixels of a block that follow each other in a row of the region.
struct PixelRun {
  int64_t begin, count;
};

template <class S, class T>
class PixelRows {
 public:
  struct Pixel {
    const S* sample;
    int64_t h, w;  // what a tap with origin 0 reads
    S* written;    // the first channel
    const S* all;  // what the first tap reads, if every tap reads inside the image; else null
  };

  struct RowScratch {
    RowScratch(Arena& arena, int64_t block, int64_t pitch) {
      panel = arena.take<T>(block * pitch);
      pixels = arena.take<Pixel>(block);
      runs = arena.take<PixelRun>(block);
      rows = arena.take<const T*>(block);
      written = arena.take<T*>(block);
      in_place = arena.take<bool>(block);
    }
    T* panel;
    Pixel* pixels;
    PixelRun* runs;
    int64_t run_count = 0;
    const T** rows;  // per pixel: where offsets count from
    T** written;     // per pixel, if nothing is narrowed
    bool* in_place;  // per tile
  };

  // pitch: between the panel's rows. step: between the products that a register tile reads one by
  // one.
  PixelRows(const GatherOperands<S, T>& operands, int64_t pitch, int64_t step)
      : o_(operands), p_(operands.plan), pitch_(pitch), step_(step) {}

  void begin(const Block& block, RowScratch& scratch) const {
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
        scratch.rows[q] = scratch.panel + q * pitch_;
    }
  }

 protected:
  // One chunk of the summation.
  struct Panel {
    int64_t offsets[kPanelDepth], steps[kPanelDepth];  // of tiles in place, of packed ones
    DepthRange ranges[kPanelDepth];
    int count;
    bool add;
    const T* bias;
  };

  void pack(const Block& block, int64_t group, int64_t begin, int64_t depth,
            const RowScratch& scratch, Panel& panel) const {
    Stretch stretches[kPanelDepth];
    const Region& region = *block.region;
    const int count = list_stretches(p_, region, begin, depth, stretches);
    panel.count = merge_stretches(stretches, count, panel.ranges);
    list_offsets(p_, region, group, stretches, count, step_, panel.offsets);
    for (int64_t s = 0; s * step_ < depth; ++s) panel.steps[s] = s * step_;

    const Cut tiles(block.end - block.begin, kMaxRows);
    for (int64_t t = 0; t < tiles.parts; ++t)
      for (int64_t q = tiles.begin(t); !scratch.in_place[t] && q < tiles.begin(t + 1); ++q)
        pack_pixel(scratch.pixels[q], group, stretches, count, depth, panel.offsets,
                   scratch.panel + q * pitch_);
  }

  const GatherOperands<S, T>& o_;
  const GatherPlan& p_;
  int64_t pitch_, step_;

 private:
  void place_run(const Region& region, int64_t n, int64_t i, int64_t j, const PixelRun& run,
                 const RowScratch& scratch) const {
    const int64_t last_h = region.h.tap_count - 1, last_w = region.w.tap_count - 1;
    Pixel pixel = {o_.read + n * p_.read_strides[0], i * region.h.read_step, j * region.w.read_step,
                   o_.written + n * p_.written_strides[0] +
                       (region.h.begin + i * region.h.step) * p_.written_strides[2] +
                       (region.w.begin + j * region.w.step) * p_.written_strides[3],
                   nullptr};
    // Pixels that read inside the image with every tap; the taps' origins are monotone.
    int64_t low = 0, high = -1;
    if (last_h >= 0 && last_w >= 0 && inside(pixel.h + region.h.taps[0].origin, 0) &&
        inside(pixel.h + region.h.taps[last_h].origin, 0)) {
      const int64_t a = region.w.taps[0].origin, b = region.w.taps[last_w].origin;
      low = -least(a, b);
      high = p_.read_size[1] - 1 - most(a, b);
    }
    for (int64_t q = run.begin; q < run.begin + run.count; ++q) {
      const bool all = pixel.w >= low && pixel.w <= high;
      pixel.all = all ? at(pixel, region.h.taps->origin, region.w.taps->origin) : nullptr;
      scratch.pixels[q] = pixel;
      scratch.rows[q] = nullptr;
      if constexpr (kSame<S, T>) {
        scratch.rows[q] = pixel.all;
        scratch.written[q] = pixel.written;
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

  void pack_pixel(const Pixel& pixel, int64_t group, const Stretch* stretches, int count,
                  int64_t depth, const int64_t* offsets, T* to) const {
    constexpr int64_t kShort = 8;
    if (pixel.all && step_ == 1 && depth < count * kShort) {
      for (int64_t s = 0; s < depth; ++s) to[s] = widen(pixel.all[offsets[s]]);
      return;
    }
    for (int s = 0; s < count; ++s) {
      const Stretch& stretch = stretches[s];
      const int64_t h = pixel.h + stretch.origin_h, w = pixel.w + stretch.origin_w;
      if (pixel.all)
        gather(to, pixel.all + *offsets, p_.read_strides[1], stretch.count);
      else if (!inside(h, 0) || !inside(w, 1))
        clear(to, stretch.count);
      else
        gather(to,
               at(pixel, stretch.origin_h, stretch.origin_w) +
                   (group * p_.read_channels + stretch.channel) * p_.read_strides[1],
               p_.read_strides[1], stretch.count);
      to += stretch.count;
      offsets += stretch.count / step_;
    }
  }
};
