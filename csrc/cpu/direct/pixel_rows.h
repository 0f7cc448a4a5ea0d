// Pixels as the rows of a register tile: read in place where all taps of a tile's pixels read
// inside the image, else from a packed panel.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <class S, class T>
class PixelRows {
 public:
  // Written pixels of a block that follow each other in a row of the region, from `begin` on.
  struct Run {
    int64_t begin, count;
    const S* sample;
    int64_t h, w;       // what a tap with origin 0 reads for the first of them
    int64_t low, high;  // columns from which every tap reads inside the image
    S* written;         // the first one's first channel
  };

  struct RowScratch {
    RowScratch(Arena& arena, int64_t block, int64_t pitch) {
      panel = arena.take<T>(block * pitch);
      runs = arena.take<Run>(block);
      rows = arena.take<const T*>(block);
      written = arena.take<T*>(block);
      in_place = arena.take<bool>(block);
    }
    T* panel;
    Run* runs;
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
      const Run run = place_run(region, n, i, j, q, count);
      scratch.runs[scratch.run_count++] = run;
      if constexpr (kSame<S, T>) list_rows(region, run, scratch);
      j = 0;
      if (++i == region.h.count) i = 0, ++n;
    }
    const Cut tiles(pixels, kMaxRows);
    for (int64_t t = 0; t < tiles.parts; ++t) {
      bool inside = kSame<S, T>;
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
    int64_t depth;
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
    const Run* run = scratch.runs;
    for (int64_t t = 0; t < tiles.parts; ++t)
      for (int64_t q = tiles.begin(t); !scratch.in_place[t] && q < tiles.begin(t + 1); ++q) {
        while (q >= run->begin + run->count) ++run;
        pack_pixel(pixel_of(region, *run, q), group, stretches, count, depth, panel.offsets,
                   scratch.panel + q * pitch_);
      }
  }

  const GatherOperands<S, T>& o_;
  const GatherPlan& p_;
  int64_t pitch_, step_;

 private:
  struct Pixel {
    const S* sample;
    int64_t h, w;  // what a tap with origin 0 reads
    const S* all;  // what the first tap reads, if every tap reads inside the image; else null
  };

  Run place_run(const Region& region, int64_t n, int64_t i, int64_t j, int64_t begin,
                int64_t count) const {
    const int64_t last_h = region.h.tap_count - 1, last_w = region.w.tap_count - 1;
    Run run = {begin,
               count,
               o_.read + n * p_.read_strides[0],
               i * region.h.read_step,
               j * region.w.read_step,
               0,
               -1,
               o_.written + n * p_.written_strides[0] +
                   (region.h.begin + i * region.h.step) * p_.written_strides[2] +
                   (region.w.begin + j * region.w.step) * p_.written_strides[3]};
    // The taps' origins are monotone.
    if (last_h >= 0 && last_w >= 0 && inside(run.h + region.h.taps[0].origin, 0) &&
        inside(run.h + region.h.taps[last_h].origin, 0)) {
      const int64_t a = region.w.taps[0].origin, b = region.w.taps[last_w].origin;
      run.low = -least(a, b);
      run.high = p_.read_size[1] - 1 - most(a, b);
    }
    return run;
  }

  // Null where a tap reads outside the image.
  void list_rows(const Region& region, const Run& run, const RowScratch& scratch) const {
    const int64_t step = region.w.read_step, read_step = step * p_.read_strides[3];
    const int64_t written_step = region.w.step * p_.written_strides[3];
    const T** rows = scratch.rows + run.begin;
    T** written = scratch.written + run.begin;
    T* to = run.written;
    for (int64_t q = 0; q < run.count; ++q, to += written_step) written[q] = to;
    int64_t q = 0;
    for (; q < run.count && run.w + q * step < run.low; ++q) rows[q] = nullptr;
    if (q < run.count && run.w + q * step <= run.high) {
      const T* from = pixel_of(region, run, run.begin + q).all;
      for (; q < run.count && run.w + q * step <= run.high; ++q, from += read_step) rows[q] = from;
    }
    for (; q < run.count; ++q) rows[q] = nullptr;
  }

  Pixel pixel_of(const Region& region, const Run& run, int64_t q) const {
    Pixel pixel = {run.sample, run.h, run.w + (q - run.begin) * region.w.read_step, nullptr};
    if (pixel.w >= run.low && pixel.w <= run.high)
      pixel.all = at(pixel, region.h.taps->origin, region.w.taps->origin);
    return pixel;
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
