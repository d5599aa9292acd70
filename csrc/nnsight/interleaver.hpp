#pragma once

// What nnsight 0.8's Interleaver keeps of a run, and what it does with a value that nobody waits for.

#include <functional>

#include "python/python.hpp"

namespace nntap::interleaver {

/// Interns the names that the functions below look up. Called once.
void init_names();

/// Whether some worker waits at the location.
bool is_awaited(PyObject* interleaver, PyObject* provider);

/// The (worker, cache, what to keep) tuples of a location, or an empty reference.
Ref observers_of(PyObject* interleaver, PyObject* provider);

/// Whether some values of this model are pieces that must be made whole before anybody sees them.
bool may_hold_pieces(PyObject* interleaver);

void count_visit(PyObject* interleaver, PyObject* provider);

/// Gives the value to the caches that observe the location, the rows of their worker only.
void show(PyObject* interleaver, PyObject* observers, PyObject* value);

/// Gives the whole value to each of the observers.
void show_whole(PyObject* observers, PyObject* value);

/// A visit that changes nothing: counts it and shows the value, which is made only then, to the observers, if there are
/// any. False, with nothing done, where a worker waits or the value may be a piece: that visit is nnsight's own.
bool pass(PyObject* interleaver, PyObject* provider, const std::function<Ref()>& value);

}  // namespace nntap::interleaver
