// Selection and codec of joulewise: one file, a plain C ABI, called through numpy.ctypeslib.
//
// The same algorithms are written in NumPy beside it (prefix.py, codec.py): they are the fallback where this file was
// not built, and the oracle that it is tested against, to the last bit. So nothing here may depend on the order in which
// threads run, on contracted multiply-adds, or on the width of vectors.

#include <cstdint>

// Raised with every change of a signature below: a library of another number is not used.
extern "C" std::int32_t joulewise_kernel_abi() { return 1; }

#include "codec.inc"
