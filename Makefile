# pvol: a thin front to meson. `make help` lists the targets.
BUILD ?= build
PREFIX ?= /usr/local
MESON_ARGS ?=

.PHONY: all deps help demo check check-vm crash fuzz bench install clean format

all: deps $(BUILD)/build.ninja
	@ninja -C $(BUILD)

deps:
	@tools/deps build

$(BUILD)/build.ninja:
	@meson setup $(BUILD) --prefix=$(PREFIX) $(MESON_ARGS) >/dev/null

help:
	@echo 'make            build into $(BUILD)/'
	@echo 'make demo       the whole tour on real files, under two minutes'
	@echo 'make check      all self-contained tests'
	@echo 'make check-vm   compatibility with kernel OpenZFS and dm-crypt in a virtual machine'
	@echo 'make crash      crash cuts of a recorded trace (N=200 seeds)'
	@echo 'make fuzz       the fuzzers (SECONDS=60 each)'
	@echo 'make bench      speed, side by side with other user-space file systems'
	@echo 'make install    into PREFIX=$(PREFIX) (DESTDIR is honoured)'

demo: all
	@tools/demo

check:
	@tools/deps build test
	@tests/run

check-vm: all
	@tools/deps vm
	@tests/vm/run

crash: all
	@tools/deps test
	@tests/crash/run $(N)

fuzz:
	@tools/deps build test
	@fuzz/run $(SECONDS)

bench: all
	@tools/deps bench
	@bench/compare

install: all
	@meson install -C $(BUILD)

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf $(BUILD) $(BUILD)-*
