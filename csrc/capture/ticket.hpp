#pragma once

#include <memory>

#include "copy/record.hpp"
#include "python/python.hpp"

namespace nntap {

/// Makes the Ticket type known to Python. Called once, by the module.
void init_ticket_type();

/// The Python object that stands for a recorded tensor inside a recorded nest until somebody reads it. There is one a
/// record, so places that share a record read the same tensor.
Ref ticket_for(std::shared_ptr<Record> record);
bool is_ticket(PyObject* object);

/// The torch tensor of the ticket, the same object every time. Throws PythonErrorSet.
Ref redeem(PyObject* ticket);

}  // namespace nntap
