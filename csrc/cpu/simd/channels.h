// Copies between tensors and channel vectors: pixel after pixel, kLanes<T> channels each.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// to[r * to_pitch + i] = from[r * from_pitch + i] for i < count, at most a vector.
template <class T, class S>
inline void widen_rows(T* to, int64_t to_pitch, const S* from, int64_t from_pitch, int64_t rows,
                       int64_t count) {
  if constexpr (kSame<T, S>)
    return copy_rows(to, to_pitch, from, from_pitch, rows, count);
  else
    for (int64_t r = 0; r < rows; ++r) gather(to + r * to_pitch, from + r * from_pitch, 1, count);
}

template <class S, class T>
inline void narrow_rows(S* to, int64_t to_pitch, const T* from, int64_t from_pitch, int64_t rows,
                        int64_t count) {
  if constexpr (kSame<T, S>)
    return copy_rows(to, to_pitch, from, from_pitch, rows, count);
  else
    for (int64_t r = 0; r < rows; ++r) scatter(to + r * to_pitch, 1, from + r * from_pitch, count);
}

// to[q * kLanes<T> + c] = from[q * pixel_stride + c * channel_stride] for c < channels; other lanes
// become zero or stay as they are.
template <class T, class S>
inline void load_channels(T* to, const S* from, int64_t pixels, int64_t channels,
                          int64_t pixel_stride, int64_t channel_stride) {
  constexpr int64_t lanes = kLanes<T>;
  if (channel_stride == 1) return widen_rows(to, lanes, from, pixel_stride, pixels, channels);
  if (pixel_stride != 1) {
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t q = 0; q < pixels; ++q)
        to[q * lanes + c] = widen(from[c * channel_stride + q * pixel_stride]);
    return;
  }
  for (int64_t q = 0; q < pixels; q += lanes)
    transpose<T>(to + q * lanes, lanes, from + q, channel_stride, channels,
                 least(lanes, pixels - q), lanes);
}

// And back.
template <class S, class T>
inline void store_channels(S* to, int64_t pixel_stride, int64_t channel_stride, const T* from,
                           int64_t pixels, int64_t channels) {
  constexpr int64_t lanes = kLanes<T>;
  if (channel_stride == 1) return narrow_rows(to, pixel_stride, from, lanes, pixels, channels);
  if (pixel_stride != 1) {
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t q = 0; q < pixels; ++q)
        narrow(from[q * lanes + c], to[c * channel_stride + q * pixel_stride]);
    return;
  }
  for (int64_t q = 0; q < pixels; q += lanes)
    transpose<T>(to + q, channel_stride, from + q * lanes, lanes, least(lanes, pixels - q),
                 channels, least(lanes, pixels - q));
}
