// Copies between tensors and channel vectors: pixel after pixel, kLanes<T> channels each.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// to[q * kLanes<T> + c] = from[q * pixel_stride + c * channel_stride] for c < channels; the other
// lanes are not written.
template <class T, class S>
inline void load_channels(T* to, const S* from, int64_t pixels, int64_t channels,
                          int64_t pixel_stride, int64_t channel_stride) {
  constexpr int64_t lanes = kLanes<T>;
  if constexpr (kSame<T, S>) {
    if (channels == lanes && channel_stride == 1) {
      for (int64_t q = 0; q < pixels; ++q) store(to + q * lanes, load(from + q * pixel_stride));
      return;
    }
    if (channels == lanes && pixel_stride == 1 && pixels >= lanes) {
      // Squares; the last one overlaps the one before.
      for (int64_t q = 0; q < pixels; q += lanes) {
        const int64_t at = least(q, pixels - lanes);
        transpose_square(to + at * lanes, lanes, from + at, channel_stride);
      }
      return;
    }
    if (channels == lanes && pixel_stride == 1 && pixels > 0) {
      T rows[lanes * lanes] = {}, square[lanes * lanes];
      copy_rows(rows, lanes, from, channel_stride, lanes, least(pixels, lanes));
      transpose_square(square, lanes, rows, lanes);
      return copy_dense(to, square, pixels * lanes);
    }
  }
  if (channel_stride == 1) {
    for (int64_t q = 0; q < pixels; ++q)
      for (int64_t c = 0; c < channels; ++c) to[q * lanes + c] = widen(from[q * pixel_stride + c]);
    return;
  }
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t q = 0; q < pixels; ++q)
      to[q * lanes + c] = widen(from[c * channel_stride + q * pixel_stride]);
}

// And back.
template <class S, class T>
inline void store_channels(S* to, int64_t pixel_stride, int64_t channel_stride, const T* from,
                           int64_t pixels, int64_t channels) {
  constexpr int64_t lanes = kLanes<T>;
  if constexpr (kSame<T, S>) {
    if (channels == lanes && channel_stride == 1) {
      for (int64_t q = 0; q < pixels; ++q) store(to + q * pixel_stride, load(from + q * lanes));
      return;
    }
    if (channels == lanes && pixel_stride == 1 && pixels >= lanes) {
      for (int64_t q = 0; q < pixels; q += lanes) {
        const int64_t at = least(q, pixels - lanes);
        transpose_square(to + at, channel_stride, from + at * lanes, lanes);
      }
      return;
    }
    if (channels == lanes && pixel_stride == 1 && pixels > 0) {
      T square[lanes * lanes] = {}, rows[lanes * lanes];
      copy_dense(square, from, pixels * lanes);
      transpose_square(rows, lanes, square, lanes);
      return copy_rows(to, channel_stride, rows, lanes, lanes, least(pixels, lanes));
    }
  }
  if (channel_stride == 1) {
    for (int64_t q = 0; q < pixels; ++q)
      for (int64_t c = 0; c < channels; ++c) narrow(from[q * lanes + c], to[q * pixel_stride + c]);
    return;
  }
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t q = 0; q < pixels; ++q)
      narrow(from[q * lanes + c], to[c * channel_stride + q * pixel_stride]);
}
