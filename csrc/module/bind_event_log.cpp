#include "module/bind.hpp"
#include "support/event_log.hpp"

namespace py = pybind11;

namespace nntap {

void bind_event_log(py::module_& m) {
  m.def("start_event_log", EventLog::start, py::arg("most"), "Logs what the engine does, up to that many events.");
  m.def(
      "stop_event_log",
      [] {
        py::list out;
        for (const LoggedEvent& event : EventLog::stop()) {
          out.append(py::make_tuple(event.what, event.begin_ns, event.end_ns, event.bytes, event.thread));
        }
        return out;
      },
      "Ends the log; (what, begin_ns, end_ns, bytes, thread) of each event, in time.perf_counter_ns().");
}

}  // namespace nntap
