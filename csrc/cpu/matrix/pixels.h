// The pixels of a block: where they read and write, and packing what a chunk of taps reads.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

struct Pixel {
  const BFloat16* sample;
  int64_t h, w;         // what a tap with origin 0 reads
  BFloat16* written;    // the first channel
  const BFloat16* all;  // what the first tap reads, if every tap reads inside the image; else null
};

// Pixels of a block that follow each other in a row of the region.
struct PixelRun {
  int64_t begin, count;
};

class Pixels {
 public:
  Pixels(const GatherPlan& plan, const BFloat16* read, BFloat16* written)
      : p_(plan), read_(read), written_(written) {}

  // Returns how many runs there are.
  int64_t place(const Block& block, Pixel* pixels, PixelRun* runs) const {
    const Region& region = *block.region;
    int64_t j = block.begin % region.w.count, i = block.begin / region.w.count % region.h.count;
    int64_t n = block.sample + block.begin / (region.w.count * region.h.count);
    int64_t count = 0;
    for (int64_t q = 0; q < block.end - block.begin; j = 0) {
      const PixelRun run = {q, least(block.end - block.begin - q, region.w.count - j)};
      place_run(region, n, i, j, run.count, pixels + q);
      runs[count++] = run;
      q += run.count;
      if (++i == region.h.count) i = 0, ++n;
    }
    return count;
  }

 private:
  void place_run(const Region& region, int64_t n, int64_t i, int64_t j, int64_t count,
                 Pixel* pixels) const {
    const int64_t last_h = region.h.tap_count - 1, last_w = region.w.tap_count - 1;
    Pixel pixel = {read_ + n * p_.read_strides[0], i * region.h.read_step, j * region.w.read_step,
                   written_ + n * p_.written_strides[0] +
                       (region.h.begin + i * region.h.step) * p_.written_strides[2] +
                       (region.w.begin + j * region.w.step) * p_.written_strides[3],
                   nullptr};
    // Pixels that read inside the image with every tap; the taps' origins are monotone.
    int64_t low = 0, high = -1;
    if (last_h >= 0 && last_w >= 0 && inside_rows(pixel.h + region.h.taps[0].origin) &&
        inside_rows(pixel.h + region.h.taps[last_h].origin)) {
      const int64_t a = region.w.taps[0].origin, b = region.w.taps[last_w].origin;
      low = -least(a, b);
      high = p_.read_size[1] - 1 - most(a, b);
    }
    for (int64_t q = 0; q < count; ++q) {
      const bool all = pixel.w >= low && pixel.w <= high;
      pixel.all = nullptr;
      if (all)
        pixel.all = pixel.sample + (pixel.h + region.h.taps->origin) * p_.read_strides[2] +
                    (pixel.w + region.w.taps->origin) * p_.read_strides[3];
      pixels[q] = pixel;
      pixel.w += region.w.read_step;
      pixel.written += region.w.step * p_.written_strides[3];
    }
  }

  bool inside_rows(int64_t h) const { return h >= 0 && h < p_.read_size[0]; }

  const GatherPlan& p_;
  const BFloat16* read_;
  BFloat16* written_;
};

// A division takes as long as ten products.
inline int64_t divide(int64_t a, int64_t step) { return step == 1 ? a : a / step; }

// What a stretch of the summation reads of `count` pixels that follow each other: as lanes and
// products. Those that read inside the image are put into `inside`.
inline SquareSource source_of(const GatherPlan& plan, const Region& region, const Pixel& first,
                              int64_t count, int64_t group, const Stretch& stretch, Range& inside) {
  const int64_t h = first.h + stretch.origin_h, w = first.w + stretch.origin_w;
  const int64_t step = region.w.read_step;
  inside = {w >= 0 ? 0 : least(count, divide(step - 1 - w, step)),
            w >= plan.read_size[1] ? 0 : least(count, divide(plan.read_size[1] - 1 - w, step) + 1)};
  if (h < 0 || h >= plan.read_size[0] || inside.begin >= inside.end) inside = {0, 0};
  return {first.sample + h * plan.read_strides[2] +
              (w + inside.begin * step) * plan.read_strides[3] + group * plan.read_channels +
              stretch.channel,
          step * plan.read_strides[3],
          1,
          inside.end - inside.begin,
          0,
          stretch.count};
}

// The read tensor with each pixel's channels dense, and those of a group in whole steps: as it is,
// or copied so.
struct DenseCopy {
  explicit DenseCopy(const GatherPlan& original) : p(original), plan(original) {
    plan.read_channels = round_up(p.read_channels, kShape.step);
    needed = p.read_strides[1] != 1 || plan.read_channels != p.read_channels;
    if (!needed) return;
    const int64_t pixel = p.groups * plan.read_channels;
    const int64_t strides[] = {pixel * p.read_size[0] * p.read_size[1], 1, pixel * p.read_size[1],
                               pixel};
    for (int i = 0; i < 4; ++i) plan.read_strides[i] = strides[i];
    // Dense planes are one long row.
    const bool dense = p.read_strides[2] == p.read_size[1] * p.read_strides[3];
    rows = dense ? 1 : p.read_size[0];
    columns = dense ? p.read_size[0] * p.read_size[1] : p.read_size[1];
  }

  int64_t tasks() const { return rows * Cut(columns, kColumns).parts; }

  // One task of one sample, counted from `from`.
  void run(const BFloat16* from, int64_t index) const {
    const Cut cut(columns, kColumns);
    const int64_t n = index / tasks(), row = index % tasks() / cut.parts, part = index % cut.parts;
    const int64_t column = cut.begin(part);
    from += n * p.read_strides[0] + row * p.read_strides[2] + column * p.read_strides[3];
    BFloat16* at =
        to + n * plan.read_strides[0] + row * plan.read_strides[2] + column * plan.read_strides[3];
    // Few channels at a time: their planes are far from each other, so each is another page.
    for (int64_t group = 0; group < p.groups; ++group)
      for (int64_t c = 0; c < p.read_channels; c += kSquareProducts)
        pack_rows(
            at + group * plan.read_channels + c, plan.read_strides[3],
            {from + (group * p.read_channels + c) * p.read_strides[1], p.read_strides[3],
             p.read_strides[1], cut.size(part), 0, least(kSquareProducts, p.read_channels - c)},
            least(kSquareProducts, plan.read_channels - c));
  }

  static constexpr int64_t kColumns = 256;  // of a task
  const GatherPlan& p;
  GatherPlan plan;  // its strides and read channels
  bool needed;
  int64_t rows = 0, columns = 0;
  BFloat16* to = nullptr;
};
