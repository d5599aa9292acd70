#pragma once

// The work of one thread of the gather+cast kernel: on a GPU what the kernel calls, on the host what host_kernel.cpp
// calls for every thread of every block. Reads nothing but elements of the source, writes nothing but its part of
// `out`.
//
// There is one way through for all types. What differs is looked up where memory is touched (with_format); all threads
// of a block look up the same.

#include "device/cuda/kernels/convert.hpp"
#include "device/cuda/kernels/gather_cast.hpp"

namespace nntap::cuda {

/// What travels in a vector: job.lanes elements, as 16 bytes of a copy or as float32s.
using Vector = Bytes16;

/// Elements that are copied as they are.
template <typename Word>
struct Raw {
  using Bits = Word;
  static constexpr int kLanes = 16 / sizeof(Word);

  static Vector load_row(const u8* row) { return load<Bytes16>(row); }
  static void store_row(u8* out, const Vector& vector, u32 /*overflow*/) { store(out, vector); }

  static void put(Vector& vector, int lane, Word word) {
    if constexpr (sizeof(Word) < 4) {
      vector.word[lane * sizeof(Word) / 4] |= u32{word} << (lane * sizeof(Word) % 4 * 8);
    } else {
      memcpy(&vector.word[lane * sizeof(Word) / 4], &word, sizeof word);
    }
  }
  static Word first(const Vector& vector, u32 /*overflow*/) {
    Word word;
    memcpy(&word, &vector, sizeof word);
    return word;
  }
};

/// Elements that are converted, with F32 and its like from convert.hpp.
template <typename Format>
struct Converted {
  using Bits = typename Format::Bits;
  static constexpr int kLanes = kCastLanes;
  struct alignas(kLanes * sizeof(Bits) < 16 ? kLanes * sizeof(Bits) : 16) Row {
    Bits lane[kLanes];
  };

  static Vector load_row(const u8* address) {
    const Row row = load<Row>(address);
    Vector vector;
    NNTAP_UNROLL
    for (int i = 0; i < kLanes; ++i) put(vector, i, row.lane[i]);
    return vector;
  }
  static void store_row(u8* out, const Vector& vector, u32 overflow) {
    Row row;
    NNTAP_UNROLL
    for (int i = 0; i < kLanes; ++i) row.lane[i] = Format::narrow(bits_as<float>(vector.word[i]), overflow);
    store(out, row);
  }

  static void put(Vector& vector, int lane, Bits bits) { vector.word[lane] = bits_as<u32>(Format::widen(bits)); }
  static Bits first(const Vector& vector, u32 overflow) {
    return Format::narrow(bits_as<float>(vector.word[0]), overflow);
  }
};

/// Calls `use` with a Raw or a Converted.
template <typename Use>
inline void with_format(Element element, u8 item, const Use& use) {
  switch (element) {
    case Element::kF64:
      return use(Converted<F64>{});
    case Element::kF32:
      return use(Converted<F32>{});
    case Element::kF16:
      return use(Converted<F16>{});
    case Element::kBF16:
      return use(Converted<BF16>{});
    case Element::kF8E4M3FN:
      return use(Converted<F8E4M3FN>{});
    case Element::kF8E5M2:
      return use(Converted<F8E5M2>{});
    case Element::kCopy:
      break;
  }
  switch (item) {
    case 1:
      return use(Raw<u8>{});
    case 2:
      return use(Raw<u16>{});
    case 4:
      return use(Raw<u32>{});
    case 8:
      return use(Raw<u64>{});
    case 16:
      return use(Raw<Bytes16>{});
  }
}

/// What one access of a row of job.lanes elements must be aligned to.
inline u32 row_alignment(const GatherJob& job) {
  return job.from == Element::kCopy || job.item > 4 ? 16 : job.item * kCastLanes;
}

/// Whole vectors from a row that is aligned, and from the rows each `apart` bytes after the one before.
template <int kVectors>
inline void load_rows(const GatherJob& job, Vector (&vectors)[kVectors], const u8* row, i64 apart) {
  with_format(job.from, job.item, [&](auto format) {
    NNTAP_UNROLL
    for (int i = 0; i < kVectors; ++i) vectors[i] = decltype(format)::load_row(row + i * apart);
  });
}

/// To `out`, as its vectors number first, first + apart ...
template <int kVectors>
inline void store_rows(const GatherJob& job, const Vector (&vectors)[kVectors], i64 first, i64 apart) {
  with_format(job.to, job.item, [&](auto format) {
    using Format = decltype(format);
    constexpr i64 kBytes = Format::kLanes * sizeof(typename Format::Bits);
    NNTAP_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      Format::store_row(static_cast<u8*>(job.out) + (first + i * apart) * kBytes, vectors[i], job.overflow);
    }
  });
}

/// 16 bytes from the two aligned pieces that they lie in.
inline Vector load_between(const u8* address) {
  const u32 shift = misalignment(address, 16);
  const Bytes16 pieces[2] = {load<Bytes16>(address - shift), load<Bytes16>(address - shift + 16)};
  u64 from[4], to[2];
  memcpy(from, pieces, sizeof from);
  NNTAP_UNROLL
  for (int i = 0; i < 2; ++i) {
    const u64 low = shift < 8 ? from[i] : from[i + 1], high = shift < 8 ? from[i + 1] : from[i + 2];
    to[i] = low >> (shift % 8 * 8) | high << 1 << (63 - shift % 8 * 8);
  }
  Vector vector;
  memcpy(&vector, to, sizeof vector);
  return vector;
}

/// Elements `apart` bytes from each other, each aligned to its size.
inline Vector load_strided(const GatherJob& job, const u8* element, i64 apart) {
  Vector vector{};
  with_format(job.from, job.item, [&](auto format) {
    using Format = decltype(format);
    NNTAP_UNROLL
    for (int i = 0; i < Format::kLanes; ++i) {
      Format::put(vector, i, load<typename Format::Bits>(element + i * apart));
    }
  });
  return vector;
}

inline void move_element(const GatherJob& job, const u8* element, i64 index) {
  Vector vector{};
  with_format(job.from, job.item, [&](auto format) {
    using Bits = typename decltype(format)::Bits;
    decltype(format)::put(vector, 0,
                          misalignment(element, sizeof(Bits)) ? load_bytes<Bits>(element) : load<Bits>(element));
  });
  with_format(job.to, job.item, [&](auto format) {
    const auto bits = decltype(format)::first(vector, job.overflow);
    store(static_cast<u8*>(job.out) + index * i64{sizeof bits}, bits);
  });
}

/// Where an element lies in the source, and how many elements of its row (the last dimension) are before and from it.
struct Place {
  i64 offset, before, left;
};

template <typename Index>
inline Place locate_in(const GatherJob& job, Index element) {
  int d = job.ndim - 1;
  const Index row = static_cast<Index>(job.shape[d]), column = element % row;
  i64 offset = static_cast<i64>(column) * job.strides[d];
  element /= row;
  NNTAP_NO_UNROLL
  while (--d > 0) {
    const Index size = static_cast<Index>(job.shape[d]);
    offset += static_cast<i64>(element % size) * job.strides[d];
    element /= size;
  }
  offset += static_cast<i64>(element) * job.strides[0];
  return {offset, static_cast<i64>(column), static_cast<i64>(row - column)};
}

/// Of an element in the gather's order.
inline Place locate(const GatherJob& job, i64 element) {
  if (job.ndim == 1) return {element * job.strides[0], element, job.shape[0] - element};
  return job.wide ? locate_in<u64>(job, static_cast<u64>(element)) : locate_in<u32>(job, static_cast<u32>(element));
}

/// Loads a vector whose elements are in one row, if there is a way to.
inline bool load_vector(const GatherJob& job, Vector (&vector)[1], const u8* from, const Place& place) {
  const i64 apart = job.strides[job.ndim - 1] * job.item;
  if (apart == job.item) {
    if (misalignment(from, row_alignment(job)) == 0) {
      load_rows(job, vector, from, 0);
      return true;
    }
    const u32 shift = misalignment(from, 16);
    if (job.from == Element::kCopy && place.before * job.item >= shift && place.left * job.item >= 32 - shift) {
      vector[0] = load_between(from);
      return true;
    }
  }
  if (misalignment(from, job.item)) return false;
  vector[0] = load_strided(job, from, apart);
  return true;
}

/// Writes the n-th vector of `out`: at once where its elements are in one row, else element by element.
inline void gather_vector(const GatherJob& job, i64 n) {
  const int lanes = job.lanes;
  const i64 start = n * lanes, left = job.count - start;
  NNTAP_NO_UNROLL
  for (int i = 0; i < lanes && i < left; ++i) {
    const Place place = locate(job, job.first + start + i);
    const u8* from = static_cast<const u8*>(job.source) + place.offset * job.item;
    Vector vector[1];
    if (i == 0 && left >= lanes && place.left >= lanes && load_vector(job, vector, from, place)) {
      return store_rows(job, vector, n, 0);
    }
    move_element(job, from, start + i);
  }
}

/// The vector that the n-th thread works on. Where it is the second last dimension that is contiguous, neighbouring
/// threads go down a column of 32 rows, so that what they read lies side by side.
inline i64 down_the_rows(const GatherJob& job, i64 n) {
  const int last = job.ndim - 1;
  if (last < 1 || job.wide || job.strides[last] == 1 || job.strides[last - 1] != 1) return n;
  const u32 row = static_cast<u32>(job.shape[last]) / job.lanes, all = static_cast<u32>(job.count) / job.lanes;
  if (row * job.lanes != job.shape[last] || row > all / 32) return n;
  const u32 tile = 32 * row, start = static_cast<u32>(n) / tile * tile, within = static_cast<u32>(n) - start;
  return start + tile <= all ? start + within % 32 * row + within / 32 : n;
}

inline void gather_block(const GatherJob& job, int block, int thread) {
  const i64 start = i64{block} * kBlockVectors, end = (start + kBlockVectors) * job.lanes;
  const u8* row = static_cast<const u8*>(job.source) + (job.first + (start + thread) * job.lanes) * job.item;
  const bool flat = job.ndim == 1 && job.strides[0] == 1;
  if (flat && end <= job.count && misalignment(row, row_alignment(job)) == 0) {
    Vector loaded[kThreadVectors];
    load_rows(job, loaded, row, kBlockThreads * job.lanes * job.item);
    return store_rows(job, loaded, start + thread, kBlockThreads);
  }
  NNTAP_NO_UNROLL
  for (i64 n = start + thread; n < start + kBlockVectors && n * job.lanes < job.count; n += kBlockThreads) {
    gather_vector(job, down_the_rows(job, n));
  }
}

inline void gather_cast(const GatherBatch& batch, int block, int thread) {
  int j = 0;
  while (j + 1 < batch.jobs && block >= batch.job[j + 1].first_block) ++j;
  gather_block(batch.job[j], block - batch.job[j].first_block, thread);
}

}  // namespace nntap::cuda
