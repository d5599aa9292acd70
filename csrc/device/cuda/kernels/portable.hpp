#pragma once

// What kernel code needs of its compiler. Kernels are compiled by NVRTC for the GPU, without any header, and by the
// host's compiler for the simulated driver and the tests: what these see is what runs on a GPU.

#ifndef __CUDACC_RTC__
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#endif

namespace nntap::cuda {

#ifdef __CUDACC_RTC__
using i64 = long long;
using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned;
using u64 = unsigned long long;
#define NNTAP_UNROLL _Pragma("unroll")
#define NNTAP_NO_UNROLL _Pragma("unroll 1")
#else
using i64 = std::int64_t;
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
#define NNTAP_UNROLL
#define NNTAP_NO_UNROLL
using std::memcpy;
#endif

/// The same bits as another type.
template <typename To, typename From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "only types of the same size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

/// What the widest memory access moves.
struct alignas(16) Bytes16 {
  u32 word[4];
};

inline u32 misalignment(const void* address, u32 bytes) {
  return static_cast<u32>(reinterpret_cast<u64>(address)) & (bytes - 1);
}

// One access of sizeof(T) bytes, or two of 16. The GPU has a dereference, because its compiler would take a memcpy to
// pieces; the host has a memcpy, because the memory holds objects of another type, and is as strict about alignment as
// the GPU.
#ifdef __CUDACC_RTC__
template <typename T>
inline T load(const void* address) {
  return *static_cast<const T*>(address);
}
template <typename T>
inline void store(void* address, T value) {
  *static_cast<T*>(address) = value;
}
#else
inline thread_local void (*on_load)(const void* address, std::size_t bytes) = nullptr;  // for tests of what is read

template <typename T>
inline T load(const void* address) {
  if (on_load != nullptr) on_load(address, sizeof(T));
  if (misalignment(address, alignof(T))) throw std::logic_error("a kernel loads from a misaligned address");
  T value;
  memcpy(&value, address, sizeof value);
  return value;
}
template <typename T>
inline void store(void* address, T value) {
  if (misalignment(address, alignof(T))) throw std::logic_error("a kernel stores to a misaligned address");
  memcpy(address, &value, sizeof value);
}
#endif

/// load() from anywhere: byte by byte, the first the lowest.
template <typename T>
inline T load_bytes(const void* address) {
  constexpr int kWords = (sizeof(T) + 7) / 8, kBytes = sizeof(T) < 8 ? sizeof(T) : 8;
  u64 words[kWords];
  NNTAP_UNROLL
  for (int w = 0; w < kWords; ++w) {
    words[w] = 0;
    NNTAP_NO_UNROLL
    for (int i = 0; i < kBytes; ++i) {
      words[w] |= u64{load<u8>(static_cast<const u8*>(address) + w * 8 + i)} << (i * 8);
    }
  }
  T value;
  memcpy(&value, words, sizeof value);
  return value;
}

}  // namespace nntap::cuda
