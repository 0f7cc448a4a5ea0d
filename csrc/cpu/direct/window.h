// What grad_weight reads of x for one chunk of output pixels.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// Output rows [rows.begin, rows.end), counted through the batch, by columns [columns.begin,
// columns.end).
struct Chunk {
  Range rows, columns;
};

// x as the rows of the product read it: the tensor itself, or a window of it.
template <class T>
struct Source {
  const T* window = nullptr;
  int64_t strides[3];          // channel, height, width
  int64_t tops[kChunkPixels];  // of the window: per row of the chunk, what its first tap reads
};

// The window of x that a chunk reads, copied with zeros around: taps read it everywhere in place.
template <class S, class T>
class Window {
 public:
  Window(const WeightPlan& plan, const S* x)
      : p_(plan), problem_(*plan.problem), x_(x), elements_(choose_elements()) {}

  // 0 if x is better read where it is.
  int64_t elements() const { return elements_; }

  void fill(const Chunk& chunk, int64_t group, T* window, Source<T>& source) const {
    const int64_t width = columns_read();
    const int64_t left = chunk.columns.begin * problem_.stride[1] - problem_.pad_before[1];
    const int64_t begin = least(width, most(0, -left));
    const int64_t end = most(begin, least(width, problem_.in_size[1] - left));
    source.window = window;
    source.strides[0] = elements_ / p_.in_channels;
    source.strides[1] = width;
    source.strides[2] = 1;
    int64_t top = 0;
    for (int64_t row = chunk.rows.begin, rows; row < chunk.rows.end; row += rows) {
      const int64_t n = row / problem_.out_size[0], i = row % problem_.out_size[0];
      rows = least(chunk.rows.end - row, problem_.out_size[0] - i);
      for (int64_t r = 0; r < rows; ++r)
        source.tops[row - chunk.rows.begin + r] = (top + r * problem_.stride[0]) * width;
      for (int64_t r = 0; r < rows_read(rows); ++r, ++top) {
        const int64_t h = i * problem_.stride[0] - problem_.pad_before[0] + r;
        const bool inside = h >= 0 && h < problem_.in_size[0] && begin < end;
        for (int64_t c = 0; c < p_.in_channels; ++c) {
          T* to = window + c * source.strides[0] + top * width;
          clear(to, inside ? begin : width);
          if (!inside) continue;
          gather(to + begin,
                 x_ + n * problem_.x_strides[0] +
                     (group * p_.in_channels + c) * problem_.x_strides[1] +
                     h * problem_.x_strides[2] + (left + begin) * problem_.x_strides[3],
                 problem_.x_strides[3], end - begin);
          clear(to + end, width - end);
        }
      }
    }
  }

 private:
  // Rows of the window that so many output rows of one sample read.
  int64_t rows_read(int64_t rows) const {
    return (rows - 1) * problem_.stride[0] + (problem_.kernel[0] - 1) * problem_.dilation[0] + 1;
  }

  int64_t columns_read() const {
    return (p_.chunk_columns - 1) * problem_.stride[1] +
           (problem_.kernel[1] - 1) * problem_.dilation[1] + 1;
  }

  // Output positions along an axis whose taps all read inside x.
  int64_t positions_inside(const Range* valid, int axis) const {
    Range all = {0, problem_.out_size[axis]};
    for (int64_t k = 0; k < problem_.kernel[axis]; ++k)
      all = {most(all.begin, valid[k].begin), least(all.end, valid[k].end)};
    return most(0, all.end - all.begin);
  }

  int64_t choose_elements() const {
    // Many channels fill register tiles with one tap, whose rows need no zeros.
    constexpr int64_t kFewChannels = 16, kLargest = 16384;
    const int64_t inside = positions_inside(p_.valid_h, 0) * positions_inside(p_.valid_w, 1);
    const int64_t outputs = problem_.out_size[0] * problem_.out_size[1];
    if (!kSame<S, T> || inside == outputs || p_.in_channels > kFewChannels) return 0;
    const int64_t samples = least(p_.chunk_rows, 1 + p_.chunk_rows / problem_.out_size[0]) + 1;
    const int64_t rows = p_.chunk_rows * problem_.stride[0] + samples * rows_read(1);
    const double elements = double(p_.in_channels) * double(rows) * double(columns_read());
    if (elements > kLargest) return 0;
    // Dense pixels are copied fast, beside the products; others take four times as long as what is
    // packed otherwise, each row's pixels near the edges.
    const double pixels = double(p_.chunk_rows * p_.chunk_columns);
    const double products = double(p_.rows) * pixels * double(p_.padded_channels / kLanes<T>);
    const double packed = double(p_.rows) * pixels * double(outputs - inside) / double(outputs);
    const bool pays = problem_.x_strides[3] == 1 ? 2 * elements < products : 4 * elements < packed;
    return pays ? p_.in_channels * rows * columns_read() : 0;
  }

  const WeightPlan& p_;
  const dilconv_problem& problem_;
  const S* x_;
  int64_t elements_;
};
