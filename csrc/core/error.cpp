#include "pycnn/error.h"

#include <utility>

// The destructors are here so that each class has one home for its type information: an exception
// thrown inside the shared library is then caught by its name outside of it.
namespace pycnn {

Error::~Error() = default;
ShapeError::~ShapeError() = default;
DTypeError::~DTypeError() = default;
ArgumentError::~ArgumentError() = default;
GraphError::~GraphError() = default;
DeviceError::~DeviceError() = default;
FormatError::~FormatError() = default;
UnsupportedError::~UnsupportedError() = default;
LabelError::~LabelError() = default;
FileError::~FileError() = default;
MemoryLimitError::~MemoryLimitError() = default;
TrainingError::~TrainingError() = default;
InternalError::~InternalError() = default;

FileError::FileError(const std::string& message, std::string path, int code)
    : Error(message), path_(std::move(path)), code_(code) {}

MemoryLimitError::MemoryLimitError(const std::string& message, std::size_t wanted_bytes,
                                   std::size_t available_bytes)
    : Error(message), wanted_bytes_(wanted_bytes), available_bytes_(available_bytes) {}

}  // namespace pycnn
