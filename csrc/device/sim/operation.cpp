#include "device/sim/operation.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace nntap::sim {
namespace {

constexpr std::uint64_t kMostCuts = 4;

}  // namespace

Write::Write(void* out, const void* bytes, std::size_t count)
    : out_(static_cast<char*>(out)), bytes_(static_cast<const char*>(bytes), static_cast<const char*>(bytes) + count) {}

bool Write::advance() {
  std::memcpy(out_, bytes_.data(), bytes_.size());
  return true;
}

bool Move::advance() {
  std::memmove(out_, source_, bytes_);
  return true;
}

Launch::Launch(const Kernel& kernel, unsigned grid_x, void** parameters) : kernel_(kernel), grid_x_(grid_x) {
  for (std::size_t i = 0; i < kernel.parameter_bytes.size(); ++i) {
    const char* value = static_cast<const char*>(parameters[i]);
    values_.emplace_back(value, value + kernel.parameter_bytes[i]);
  }
  for (auto& value : values_) parameters_.push_back(value.data());
}

bool Launch::advance() {
  kernel_.run(parameters_.data(), grid_x_);
  return true;
}

Copy::Copy(const void* source, void* out, std::size_t bytes, Random& random)
    : source_(static_cast<const char*>(source)), out_(static_cast<char*>(out)), bytes_(bytes) {
  std::vector<std::size_t> cuts{0, bytes};
  for (std::uint64_t n = random.below(kMostCuts); n > 0; --n) cuts.push_back(random.below(bytes));
  std::sort(cuts.begin(), cuts.end());
  for (std::size_t i = 1; i < cuts.size(); ++i) {
    if (cuts[i] > cuts[i - 1]) pieces_.push_back({cuts[i - 1], cuts[i]});
  }
  for (std::size_t i = pieces_.size(); i > 1; --i) std::swap(pieces_[i - 1], pieces_[random.below(i)]);
}

bool Copy::advance() {
  const Piece piece = pieces_.back();
  pieces_.pop_back();
  std::memcpy(out_ + piece.begin, source_ + piece.begin, piece.end - piece.begin);
  return pieces_.empty();
}

}  // namespace nntap::sim
