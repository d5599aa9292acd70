#include "nnsight/interleaver.hpp"

#include "python/python_error.hpp"
#include "support/error.hpp"

namespace nntap::interleaver {
namespace {

// Interned, for the life of the process.
struct Names {
  PyObject *parked, *observers, *counts, *fragments, *batcher, *batching, *batch_group, *narrow, *observe_selected,
      *enabled;
} names;

// The rows of the value that belong to the worker; the value itself where the run has one invoke.
Ref rows_of(PyObject* batcher, PyObject* worker, PyObject* value) {
  if (batcher == Py_None || !is_true(attribute(batcher, names.batching).get())) return Ref::share(value);
  const Ref group = attribute(worker, names.batch_group);
  return checked(PyObject_CallMethodObjArgs(batcher, names.narrow, value, group.get(), nullptr));
}

template <typename Body>
void for_each(PyObject* observers, Body body) {
  const Ref all = checked(PySequence_Tuple(observers));  // a cache may run Python code
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(all.get()); ++i) {
    PyObject* entry = PyTuple_GET_ITEM(all.get(), i);
    NNTAP_CHECK(PyTuple_Check(entry) && PyTuple_GET_SIZE(entry) == 3, InvalidArgument,
                "an entry of Interleaver.observers is no (worker, cache, selected)");
    body(PyTuple_GET_ITEM(entry, 0), PyTuple_GET_ITEM(entry, 1), PyTuple_GET_ITEM(entry, 2));
  }
}

void observe(PyObject* cache, PyObject* selected, PyObject* value) {
  PyObject* arguments[] = {cache, selected, value};
  checked(PyObject_VectorcallMethod(names.observe_selected, arguments, 3, nullptr));
}

}  // namespace

void init_names() {
  names = {interned("parked"),           interned("observers"), interned("counts"),      interned("fragments"),
           interned("batcher"),          interned("batching"),  interned("batch_group"), interned("narrow"),
           interned("observe_selected"), interned("enabled")};
}

bool is_awaited(PyObject* interleaver, PyObject* provider) {
  const Ref parked = attribute(interleaver, names.parked);
  const int found = PySequence_Contains(parked.get(), provider);
  checked(found);
  return found != 0;
}

Ref observers_of(PyObject* interleaver, PyObject* provider) {
  const Ref observers = attribute(interleaver, names.observers);
  NNTAP_CHECK(PyDict_Check(observers.get()), InvalidArgument, "Interleaver.observers is no dict");
  return item(observers.get(), provider);
}

bool may_hold_pieces(PyObject* interleaver) {
  const Ref fragments = attribute(interleaver, names.fragments);
  return fragments.get() != Py_None && is_true(attribute(fragments.get(), names.enabled).get());
}

void count_visit(PyObject* interleaver, PyObject* provider) {
  const Ref counts = attribute(interleaver, names.counts);
  NNTAP_CHECK(PyDict_Check(counts.get()), InvalidArgument, "Interleaver.counts is no dict");
  const Ref count = item(counts.get(), provider);
  const Py_ssize_t visits = count ? as_number(count.get()) : 0;
  checked(PyDict_SetItem(counts.get(), provider, checked(PyLong_FromSsize_t(visits + 1)).get()));
}

void show(PyObject* interleaver, PyObject* observers, PyObject* value) {
  const Ref batcher = attribute(interleaver, names.batcher);
  for_each(observers, [&](PyObject* worker, PyObject* cache, PyObject* selected) {
    observe(cache, selected, rows_of(batcher.get(), worker, value).get());
  });
}

void show_whole(PyObject* observers, PyObject* value) {
  for_each(observers, [&](PyObject*, PyObject* cache, PyObject* selected) { observe(cache, selected, value); });
}

bool pass(PyObject* interleaver, PyObject* provider, const std::function<Ref()>& value) {
  if (is_awaited(interleaver, provider)) return false;
  const Ref observers = observers_of(interleaver, provider);
  if (observers && may_hold_pieces(interleaver)) return false;
  count_visit(interleaver, provider);
  if (observers) show(interleaver, observers.get(), value().get());
  return true;
}

}  // namespace nntap::interleaver
