#pragma once

namespace nntap {

/// The arrival of a record's bytes, for devices whose copies are asynchronous. Shared by the records of one copy.
class Landing {
 public:
  virtual ~Landing() = default;

  /// Returns when the bytes are there. Starts the copy if nobody has. Any thread; the caller must not hold the GIL.
  /// Throws CudaError if they will never be.
  virtual void wait() = 0;
};

}  // namespace nntap
