#pragma once

// What the machine has, as the system's files tell it.

#include <cstddef>
#include <string>

namespace nntap {

/// Where those files are.
struct SystemFiles {
  std::string proc = "/proc";
  std::string cgroups = "/sys/fs/cgroup";
};

/// What this process may use of the machine's memory, in bytes: all of it, or what its control groups (a container, a
/// batch job, a service) allow.
std::size_t memory_of_this_system(const SystemFiles& files = {});

/// What of it is free, or can be made so without swapping. Where the system does not say, all of it.
std::size_t memory_to_be_had(const SystemFiles& files = {});

}  // namespace nntap
