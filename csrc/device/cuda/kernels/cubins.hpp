#pragma once
#include <cstddef>
#include <vector>
namespace nntap::cuda {
struct Cubin { int architecture; const void* data; std::size_t size; };
inline const Cubin* best_cubin(int, int) { static const Cubin c{90, "x", 1}; return &c; }
inline const char* ptx() { return nullptr; }
}
