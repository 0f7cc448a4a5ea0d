// The copy of some samples that products read where the tensor as it lies will not do.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

class PixelCopy {
 public:
  explicit PixelCopy(const MatrixGatherPlan& plan)
      : p_(plan), from_(plan.tensors), to_(plan.products) {
    // Dense planes without zeros around them are one long row.
    dense_ = plan.folded_columns == 1 && to_.read_size[0] == from_.read_size[0] &&
             to_.read_size[1] == from_.read_size[1] &&
             from_.read_strides[2] == from_.read_size[1] * from_.read_strides[3];
    rows_ = dense_ ? 1 : to_.read_size[0];
    columns_ = dense_ ? from_.read_size[0] * from_.read_size[1] : from_.read_size[1];
    parts_ = dense_ ? Cut(columns_, kColumns).parts : 1;
  }

  // Of one worker, in elements.
  int64_t scratch() const {
    return p_.folded_columns > 1 && !dense_pixels() ? columns_ * row_pitch() : 0;
  }

  // Of one sample.
  int64_t tasks() const { return rows_ * parts_; }

  // One task of the samples, counted from `read`.
  void run(const BFloat16* read, BFloat16* copy, int64_t index, BFloat16* scratch) const {
    const int64_t n = index / tasks(), row = index % tasks() / parts_, part = index % parts_;
    const int64_t h = row - p_.before[0], pixel = to_.read_strides[3];
    const BFloat16* from = read + n * from_.read_strides[0] + h * from_.read_strides[2];
    BFloat16* to = copy + n * to_.read_strides[0] + row * to_.read_strides[2];
    if (parts_ > 1) {
      const int64_t begin = columns_ * part / parts_, end = columns_ * (part + 1) / parts_;
      return pack_pixels(from + begin * from_.read_strides[3], to + begin * pixel, end - begin);
    }
    if (!dense_ && (h < 0 || h >= from_.read_size[0]))
      return clear_products(to, to_.read_strides[2]);
    if (p_.folded_columns > 1) return fold(from, to, scratch);
    const int64_t left = p_.before[1] * pixel, inside = columns_ * pixel;
    clear_products(to, left);
    pack_pixels(from, to + left, columns_);
    if (!dense_) clear_products(to + left + inside, to_.read_strides[2] - left - inside);
  }

 private:
  static constexpr int64_t kColumns = 256;  // of a task, of planes without rows

  bool dense_pixels() const { return from_.read_strides[1] == 1; }
  int64_t row_pitch() const { return round_up(from_.read_channels, 2); }

  // Few channels at a time: their planes are far from each other, so each is another page.
  void pack_pixels(const BFloat16* from, BFloat16* to, int64_t count) const {
    for (int64_t group = 0; group < to_.groups; ++group)
      for (int64_t c = 0; c < to_.read_channels; c += kSquareProducts)
        pack_rows(to + group * to_.read_channels + c, to_.read_strides[3],
                  {from + (group * from_.read_channels + c) * from_.read_strides[1],
                   from_.read_strides[3], from_.read_strides[1], count,
                   least(kSquareProducts, from_.read_channels - c)},
                  least(kSquareProducts, to_.read_channels - c));
  }

  // Every written pixel's columns side by side.
  void fold(const BFloat16* from, BFloat16* to, BFloat16* scratch) const {
    const int64_t channels = from_.read_channels;
    clear_products(to, to_.read_strides[2]);
    for (int64_t group = 0; group < to_.groups; ++group, from += channels * from_.read_strides[1]) {
      const BFloat16* pixels = from;
      int64_t pitch = from_.read_strides[3];
      if (!dense_pixels()) {
        pitch = row_pitch();
        pack_rows(scratch, pitch,
                  {from, from_.read_strides[3], from_.read_strides[1], columns_, channels}, pitch);
        pixels = scratch;
      }
      const Range joined = copy_joined(to + group * to_.read_channels, pixels, pitch);
      for (int64_t k = 0; k < p_.folded_columns; ++k) {
        const Range inside = written_inside(k);
        BFloat16* at = to + group * to_.read_channels + k * channels;
        // Before and after those that are copied already.
        const BFloat16* column = pixels + column_of(k) * pitch;
        copy_written(at, column, pitch, {inside.begin, least(inside.end, joined.begin)}, channels);
        copy_written(at, column, pitch, {most(inside.begin, joined.end), inside.end}, channels);
      }
    }
  }

  // `count` products to each written pixel.
  void copy_written(BFloat16* to, const BFloat16* from, int64_t pitch, Range written,
                    int64_t count) const {
    const int64_t pixel = to_.read_strides[3], step = p_.fold_step * pitch;
    for (int64_t j = written.begin; j < written.end; ++j)
      copy_products(to + j * pixel, from + j * step, count);
  }

  // The column that kernel column k reads for the first written one.
  int64_t column_of(int64_t k) const { return p_.fold_origin + k * p_.fold_dilation; }

  // The written columns for which that is inside the image.
  Range written_inside(int64_t k) const {
    const int64_t origin = column_of(k), step = p_.fold_step;
    return {origin >= 0 ? 0 : (step - 1 - origin) / step,
            origin >= columns_ ? 0 : least(to_.read_size[1], (columns_ - 1 - origin) / step + 1)};
  }

  // Where all kernel columns read neighbours inside the image, they are one piece; returns for
  // which written columns.
  Range copy_joined(BFloat16* to, const BFloat16* pixels, int64_t pitch) const {
    if (p_.fold_dilation != 1 || pitch != from_.read_channels) return {0, 0};
    const Range all = {written_inside(0).begin, written_inside(p_.folded_columns - 1).end};
    copy_written(to, pixels + column_of(0) * pitch, pitch, all, p_.folded_columns * pitch);
    return all.begin < all.end ? all : Range{0, 0};
  }

  const MatrixGatherPlan& p_;
  const GatherPlan& from_;
  const GatherPlan& to_;
  bool dense_;
  int64_t rows_, columns_, parts_;
};
