/* The entry point of a fuzz target, as libFuzzer calls it too. */
#ifndef PV_FUZZ_TARGET_H
#define PV_FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
