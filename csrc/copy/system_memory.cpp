#include "copy/system_memory.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <sstream>

namespace nntap {
namespace {

// The files of a control group. See "Memory" in the kernel's admin-guide/cgroup-v2 and cgroup-v1/memory.
struct Version {
  const char* controller;  // what its lines in /proc/self/cgroup name
  const char* mount;
  const char* limit;
  const char* used;
  const char* file_cache;  // in memory.stat: the part of `used` that goes when memory is wanted
};
constexpr Version kVersions[] = {
    {"", "", "/memory.max", "/memory.current", "inactive_file"},
    {"memory", "/memory", "/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file"},
};

// The number in a file, or `otherwise`: there is no such file, or it says "max".
std::size_t number_in(const std::string& file, std::size_t otherwise) {
  std::size_t number = 0;
  return std::ifstream(file) >> number ? number : otherwise;
}

// The number behind a name, one pair a line.
std::size_t number_of(const std::string& name, const std::string& file, std::size_t otherwise) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first;
    std::size_t number = 0;
    if (words >> first >> number && first == name) return number;
  }
  return otherwise;
}

bool names(const std::string& controllers, const std::string& controller) {
  std::istringstream each(controllers);
  for (std::string one; std::getline(each, one, ',');) {
    if (one == controller) return true;
  }
  return controllers == controller;
}

// This process's group, below the mount; "" where it is the topmost, or where the file does not say.
std::string group_of(const Version& version, const SystemFiles& files) {
  std::ifstream lines(files.proc + "/self/cgroup");
  for (std::string id, controllers, path;
       std::getline(lines, id, ':') && std::getline(lines, controllers, ':') && std::getline(lines, path);) {
    if (names(controllers, version.controller)) return path == "/" ? "" : path;
  }
  return "";
}

// The least of `of(folder, version)` over the groups that this process is in. A container may not see them all: its own
// is then the topmost.
template <typename Of>
std::size_t least_of_groups(const SystemFiles& files, Of of) {
  std::size_t least = SIZE_MAX;
  for (const Version& version : kVersions) {
    std::string group = group_of(version, files);
    for (;;) {
      least = std::min(least, of(files.cgroups + version.mount + group, version));
      if (group.empty()) break;
      group.resize(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
    }
  }
  return least;
}

std::size_t limit_of(const std::string& folder, const Version& version) {
  return number_in(folder + version.limit, SIZE_MAX);
}

std::size_t room_in(const std::string& folder, const Version& version) {
  const std::size_t limit = limit_of(folder, version);
  if (limit == SIZE_MAX) return limit;
  const std::size_t used = number_in(folder + version.used, 0);
  const std::size_t kept = used - std::min(used, number_of(version.file_cache, folder + "/memory.stat", 0));
  return limit - std::min(limit, kept);
}

}  // namespace

std::size_t memory_of_this_system(const SystemFiles& files) {
  const auto machine =
      static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return std::min(machine, least_of_groups(files, limit_of));
}

std::size_t memory_to_be_had(const SystemFiles& files) {
  constexpr std::size_t kUnknown = SIZE_MAX / 1024;
  const std::size_t machine = number_of("MemAvailable:", files.proc + "/meminfo", kUnknown) * 1024;
  return std::min({memory_of_this_system(files), machine, least_of_groups(files, room_in)});
}

}  // namespace nntap
