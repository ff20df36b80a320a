# SPDX-License-Identifier: MIT
# A thin cover over Meson.  No target needs a command before it.
#
#   make build      build/umbra, build/libumbra.so
#   make run        boot Debian's cloud kernel to a shell on this terminal
#   make test       everything that can be checked in half an hour; last line "N passed, N failed"
#   make test-full  that, and what takes long (a systemd root file system, long fuzzing)
#   make bench      speed beside QEMU TCG and native
#   make format     clang-format all sources in place
#   make clean

B := build

.PHONY: build run test test-full bench format clean deps

build: deps
	@test -f $(B)/release/build.ninja || meson setup $(B)/release --buildtype=release -Db_ndebug=false >/dev/null
	@ninja -C $(B)/release --quiet
	@ln -sfn release/vmm/umbra $(B)/umbra
	@ln -sfn release/src/api/libumbra.so $(B)/libumbra.so

deps:
	@tools/install-deps

run: build
	@tools/fetch-assets cloud busybox-amd64
	@test -f $(B)/assets/shell.cpio.gz || tools/mkinitramfs-test --kernel cloud shell $(B)/assets/shell.cpio.gz
	$(B)/umbra run --kernel $(B)/assets/cloud/vmlinuz --initrd $(B)/assets/shell.cpio.gz \
		--append "console=ttyS0 quiet"

test: build
	@tests/run

test-full: build
	@tests/run --full

bench: build
	@bench/run

format:
	clang-format -i $$(git ls-files '*.c' '*.h')

clean:
	rm -rf $(B)/release $(B)/clang $(B)/asan $(B)/umbra $(B)/libumbra.so
