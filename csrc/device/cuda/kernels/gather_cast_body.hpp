#pragma once

// The work of one thread of the gather+cast kernel: on a GPU what the kernel calls, on the host what host_kernels.cpp
// calls for every thread of every block. Reads nothing but elements of the source, writes nothing but its part of
// `out`.

#include "device/cuda/kernels/convert.hpp"
#include "device/cuda/kernels/gather_cast.hpp"

namespace nntap::cuda {

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

// A mover loads vectors of kLanes elements and stores them as the vector-th of `out`.

/// Copies elements of sizeof(Word) bytes, 16 bytes a vector.
template <typename Word>
struct CopyMover {
  static constexpr int kLanes = 16 / sizeof(Word);
  using Vector = Bytes16;

  const GatherJob& job;

  static constexpr i64 item() { return sizeof(Word); }
  static bool row_is_aligned(const u8* row) { return misalignment(row, 16) == 0; }

  static Word load_element(const u8* element) {
    return misalignment(element, sizeof(Word)) ? load_bytes<Word>(element) : load<Word>(element);
  }

  template <int kVectors>
  void load_aligned(Vector (&vectors)[kVectors], const u8* row, i64 apart) const {
    NNTAP_UNROLL
    for (int i = 0; i < kVectors; ++i) vectors[i] = load<Bytes16>(row + i * apart);
  }

  /// From a row that lies anywhere: from the two aligned pieces that it lies in, where both are the row's own.
  Vector load_row(const u8* row, i64 before, i64 left) const {
    const u32 shift = misalignment(row, 16);
    if (shift == 0) return load<Bytes16>(row);
    if (before * item() < shift || left * item() < 32 - shift) return load_strided(row, item());
    const Bytes16 pieces[2] = {load<Bytes16>(row - shift), load<Bytes16>(row - shift + 16)};
    u64 from[4];
    memcpy(from, pieces, sizeof from);
    const u32 bits = shift % 8 * 8;
    u64 to[2];
    NNTAP_UNROLL
    for (int i = 0; i < 2; ++i) {
      const u64 low = shift < 8 ? from[i] : from[i + 1], high = shift < 8 ? from[i + 1] : from[i + 2];
      to[i] = low >> bits | high << 1 << (63 - bits);
    }
    Vector vector;
    memcpy(&vector, to, sizeof vector);
    return vector;
  }

  Vector load_strided(const u8* first, i64 apart) const {
    Vector vector{};
    NNTAP_UNROLL
    for (int i = 0; i < kLanes; ++i) {
      const Word word = load_element(first + i * apart);
      if constexpr (sizeof(Word) < 4) {
        vector.word[i * item() / 4] |= u32{word} << (i * item() % 4 * 8);
      } else {
        memcpy(&vector.word[i * item() / 4], &word, sizeof word);
      }
    }
    return vector;
  }

  template <int kVectors>
  void store_vectors(const Vector (&vectors)[kVectors], i64 first, i64 apart) const {
    NNTAP_UNROLL
    for (int i = 0; i < kVectors; ++i) store(static_cast<u8*>(job.out) + (first + i * apart) * 16, vectors[i]);
  }

  void move_element(const u8* from, i64 index) const {
    store(static_cast<u8*>(job.out) + index * item(), load_element(from));
  }
};

/// Calls `use` with a value of the format's type.
template <typename Use>
inline void with_format(Element element, const Use& use) {
  switch (element) {
    case Element::kF64:
      return use(F64{});
    case Element::kF32:
      return use(F32{});
    case Element::kF16:
      return use(F16{});
    case Element::kBF16:
      return use(BF16{});
    case Element::kF8E4M3FN:
      return use(F8E4M3FN{});
    case Element::kF8E5M2:
      return use(F8E5M2{});
    case Element::kF8E4M3FNOverflowing:
      return use(F8E4M3FNOverflowing{});
    case Element::kCopy:
      return;
  }
}

/// Converts elements through float32, kCastLanes of them a vector. The types are looked at once for several vectors,
/// and alike by all threads of a block; so one piece of code for each serves all pairs.
struct CastMover {
  static constexpr int kLanes = kCastLanes;
  struct Vector {
    float lane[kLanes];
  };
  template <typename Bits>
  struct alignas(kLanes * sizeof(Bits) < 16 ? kLanes * sizeof(Bits) : 16) Packed {
    Bits lane[kLanes];
  };

  const GatherJob& job;

  i64 item() const { return job.item; }
  bool row_is_aligned(const u8* row) const { return misalignment(row, job.item < 4 ? job.item * 4 : 16) == 0; }

  template <typename Format>
  static float load_element(const u8* element) {
    using Bits = typename Format::Bits;
    return Format::widen(misalignment(element, sizeof(Bits)) ? load_bytes<Bits>(element) : load<Bits>(element));
  }

  template <int kVectors>
  void load_aligned(Vector (&vectors)[kVectors], const u8* row, i64 apart) const {
    with_format(job.from, [&](auto format) {
      using Format = decltype(format);
      Packed<typename Format::Bits> packed[kVectors];
      NNTAP_UNROLL
      for (int i = 0; i < kVectors; ++i) packed[i] = load<Packed<typename Format::Bits>>(row + i * apart);
      NNTAP_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        NNTAP_UNROLL
        for (int k = 0; k < kLanes; ++k) vectors[i].lane[k] = Format::widen(packed[i].lane[k]);
      }
    });
  }

  Vector load_row(const u8* row, i64 /*before*/, i64 /*left*/) const {
    if (!row_is_aligned(row)) return load_strided(row, item());
    Vector vectors[1];
    load_aligned(vectors, row, 0);
    return vectors[0];
  }

  Vector load_strided(const u8* first, i64 apart) const {
    Vector vector{};
    with_format(job.from, [&](auto format) {
      NNTAP_UNROLL
      for (int i = 0; i < kLanes; ++i) vector.lane[i] = load_element<decltype(format)>(first + i * apart);
    });
    return vector;
  }

  template <int kVectors>
  void store_vectors(const Vector (&vectors)[kVectors], i64 first, i64 apart) const {
    with_format(job.to, [&](auto format) {
      using Format = decltype(format);
      using Bits = typename Format::Bits;
      NNTAP_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        Packed<Bits> packed;
        NNTAP_UNROLL
        for (int k = 0; k < kLanes; ++k) packed.lane[k] = Format::narrow(vectors[i].lane[k]);
        store(static_cast<u8*>(job.out) + (first + i * apart) * i64{sizeof packed}, packed);
      }
    });
  }

  void move_element(const u8* from, i64 index) const {
    float value = 0;
    with_format(job.from, [&](auto format) { value = load_element<decltype(format)>(from); });
    with_format(job.to, [&](auto format) {
      using Format = decltype(format);
      store(static_cast<u8*>(job.out) + index * i64{sizeof(typename Format::Bits)}, Format::narrow(value));
    });
  }
};

/// The vector that the n-th thread works on. Where it is the second last dimension that is contiguous, neighbouring
/// threads go down a column of 32 rows, so that what they read lies side by side.
template <int kLanes>
inline i64 down_the_rows(const GatherJob& job, i64 n, i64 vectors) {
  const int last = job.ndim - 1;
  if (last < 1 || job.wide || job.strides[last] == 1 || job.strides[last - 1] != 1) return n;
  const u32 row = static_cast<u32>(job.shape[last]) / kLanes, all = static_cast<u32>(vectors);
  if (row * kLanes != job.shape[last] || row > all / 32) return n;
  const u32 tile = 32 * row, start = static_cast<u32>(n) / tile * tile, within = static_cast<u32>(n) - start;
  return start + tile <= all ? start + within % 32 * row + within / 32 : n;
}

template <typename Mover>
inline void gather_vector(const Mover& mover, i64 vector) {
  constexpr int kLanes = Mover::kLanes;
  const GatherJob& job = mover.job;
  const auto* source = static_cast<const u8*>(job.source);
  const i64 element = vector * kLanes, left = job.count - element, stride = job.strides[job.ndim - 1];
  const Place place = locate(job, job.first + element);
  if (left >= kLanes && place.left >= kLanes) {
    const u8* from = source + place.offset * mover.item();
    typename Mover::Vector vectors[1] = {stride == 1 ? mover.load_row(from, place.before, place.left)
                                                     : mover.load_strided(from, stride * mover.item())};
    mover.store_vectors(vectors, vector, 0);
    return;
  }
  NNTAP_NO_UNROLL
  for (int i = 0; i < kLanes && i < left; ++i) {
    mover.move_element(source + locate(job, job.first + element + i).offset * mover.item(), element + i);
  }
}

template <typename Mover>
inline void gather_block(const Mover& mover, int block, int thread) {
  constexpr int kLanes = Mover::kLanes;
  const GatherJob& job = mover.job;
  const i64 start = i64{block} * kBlockVectors, vectors = (job.count + kLanes - 1) / kLanes;
  const bool flat = job.ndim == 1 && job.strides[0] == 1;
  const u8* row = static_cast<const u8*>(job.source) + (job.first + (start + thread) * kLanes) * mover.item();
  if (flat && (start + kBlockVectors) * kLanes <= job.count && mover.row_is_aligned(row)) {
    typename Mover::Vector loaded[kThreadVectors];
    mover.load_aligned(loaded, row, kBlockThreads * kLanes * mover.item());
    mover.store_vectors(loaded, start + thread, kBlockThreads);
    return;
  }
  NNTAP_NO_UNROLL
  for (i64 n = start + thread; n < start + kBlockVectors && n < vectors; n += kBlockThreads) {
    gather_vector(mover, down_the_rows<kLanes>(job, n, vectors));
  }
}

inline void gather_cast(const GatherBatch& batch, int block, int thread) {
  int j = 0;
  while (j + 1 < batch.jobs && block >= batch.job[j + 1].first_block) ++j;
  const GatherJob& job = batch.job[j];
  block -= job.first_block;
  if (job.from != Element::kCopy) return gather_block(CastMover{job}, block, thread);
  switch (job.item) {
    case 1:
      return gather_block(CopyMover<u8>{job}, block, thread);
    case 2:
      return gather_block(CopyMover<u16>{job}, block, thread);
    case 4:
      return gather_block(CopyMover<u32>{job}, block, thread);
    case 8:
      return gather_block(CopyMover<u64>{job}, block, thread);
    case 16:
      return gather_block(CopyMover<Bytes16>{job}, block, thread);
  }
}

}  // namespace nntap::cuda
