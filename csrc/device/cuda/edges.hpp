#pragma once

// The ordering edges of the engine, by name, and the switch with which `nntap.testing.mutations` takes one away.
// In use nothing is ever taken away; a look at the switch costs a load per chunk.

#include <atomic>

namespace nntap::cuda {

/// X(name, what would go wrong without it)
#define NNTAP_EDGES(X)                                                                                             \
  X(gathers_launched_first, "the launch of a chunk's gathers, before its copy is enqueued")                        \
  X(record_gathered, "the event after a chunk's gathers, on the compute stream")                                   \
  X(copy_waits_for_gathers, "the side stream's wait for that event, before the copy")                              \
  X(record_landed, "the event after a chunk's copy, on the side stream")                                           \
  X(reader_waits_for_landing, "a reader's wait for that event")                                                    \
  X(reader_flushes, "a reader's start of the copy that it wants")                                                  \
  X(gathers_wait_for_chunk, "the compute stream's wait for a chunk's last copy, before the chunk is filled again") \
  X(fresh_chunk_keeps_stream, "a new chunk is first filled on the stream that torch's allocator gave it to")       \
  X(open_chunk_holds_records, "a chunk's hold on its records' memory until its copy is enqueued")                  \
  X(quarantine_records_compute, "the event on each compute stream behind memory that came back")                   \
  X(quarantine_records_side, "the event on each side stream behind memory that came back")                         \
  X(quarantine_waits, "the wait for those events before the memory is used again")                                 \
  X(staging_waits_for_landing, "the copy threads' wait for the landing in staging memory")                         \
  X(staging_reader_waits, "a reader's wait for the copy threads")                                                  \
  X(staging_held_until_copied, "staging memory is kept until it has been copied out")                              \
  X(staging_holds_records, "the copy threads' hold on the memory that they copy to")                               \
  X(large_record_waits_for_all, "a reader's wait for all pieces of a large record")                                \
  X(close_drains_staging, "the wait for the copy threads before a platform is left")                               \
  X(close_drains, "the wait for everything in flight before a platform is left")

enum class Edge : int {
  kNone = -1,
#define NNTAP_EDGE(name, text) name,
  NNTAP_EDGES(NNTAP_EDGE)
#undef NNTAP_EDGE
};

inline std::atomic<Edge> removed_edge{Edge::kNone};

inline bool keeps(Edge edge) { return removed_edge.load(std::memory_order_relaxed) != edge; }

}  // namespace nntap::cuda
