# SPDX-License-Identifier: MIT
# The compiler's assembly text, objects and programs, and what these print.
cp "$1"/compiled.c .
for how in -O0 -O1 "-O2 -g" "-O3 -mavx2 -mfma -ffp-contract=off" "-Os -m64 -fPIC -fstack-protector-all"; do
	gcc $how -frandom-seed=1 -S -o compiled.s compiled.c
	gcc $how -frandom-seed=1 -Wl,--build-id=sha1 -o compiled compiled.c -lm
	sha256sum compiled.s compiled
	./compiled | sha256sum
done
gcc -O2 -flto -frandom-seed=1 -o compiled compiled.c -lm && ./compiled
