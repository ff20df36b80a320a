# SPDX-License-Identifier: MIT
"""Kernels, initial file systems and disks of the boot tests, below build/assets."""

import random
import struct
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent


class Assets:
    """Kernels, file systems and images, made when first asked for."""

    def __init__(self, where):
        self.where = where
        self.images = where / 'images'

    def _make(self, *command):
        done = subprocess.run(command, check=False)
        if done.returncode:
            raise RuntimeError(f'{Path(command[0]).name} failed')

    def fetch(self, kernel):
        width = 'i386' if kernel.startswith('686') else 'amd64'
        names = [kernel, f'busybox-{width}'] + (['libc32'] if width == 'i386' else [])
        self._make(TOP / 'tools/fetch-assets', '--dir', self.where, *names)

    def kernel(self, name):
        if name.startswith('/'):
            return Path(name)
        if name.startswith('made:'):
            return self._spoiled(name.removeprefix('made:'))
        if name.startswith('guest:'):
            name = name.removeprefix('guest:')
            found = sorted(TOP.glob(f'build/**/tests/guest/fatal/{name}.elf'),
                           key=lambda f: f.stat().st_mtime)
            if not found:
                raise RuntimeError(f'{name}.elf is not built')
            return found[-1]
        self.fetch(name)
        return self.where / name / 'vmlinuz'

    def _spoiled(self, how):
        """Files that look like kernels, more or less."""
        self.fetch('cloud')
        whole = (self.where / 'cloud/vmlinuz').read_bytes()
        setup = (whole[0x1f1] + 1) * 512
        content = {
            'empty': b'',
            'garbage': random.Random(1).randbytes(1 << 20),
            'truncated': whole[:len(whole) // 2],
            'setup-only': whole[:setup - 100],
            # An ELF header whose one segment lies beyond the end of the file.
            'elf': b'\x7fELF\x02\x01\x01' + bytes(9) +
                   struct.pack('<HHIQQQIHHHHHH', 2, 62, 1, 0x100000, 64, 0, 0, 64, 56, 1, 0, 0, 0) +
                   struct.pack('<IIQQQQQQ', 1, 7, 1 << 40, 0x100000, 0x100000, 1 << 41, 1 << 41, 4096),
        }[how]
        path = self.images / f'{how}'
        path.write_bytes(content)
        return path

    def initramfs(self, kernel):
        path = self.images / f'initramfs-{kernel}'
        made_of = [TOP / 'tools/mkinitramfs-test', TOP / 'tests/boot/selfcheck.c', TOP / 'tests/boot/churn.c',
                   self.where / kernel / '.packages']
        if not path.exists() or any(f.stat().st_mtime > path.stat().st_mtime for f in made_of):
            self._make(made_of[0], '--assets', self.where, '--kernel', kernel, 'selftest', path)
        return path

    def disk(self, name):
        path = self.images / f'{name}.img'
        if name == 'sparse':
            with open(path, 'wb') as new:
                new.truncate(64 << 20)
            return path
        if name in ('debian', 'programs'):
            if not path.exists():
                option = ['--programs'] if name == 'programs' else []
                self._make(TOP / 'tools/mkdisk-debian', '--assets', self.where, *option, path)
            return path
        tool = TOP / 'tools/mkinitramfs-test'
        if not path.exists() or tool.stat().st_mtime > path.stat().st_mtime:
            kernel = name.removeprefix('disk-')
            self._make(tool, '--assets', self.where, '--kernel', kernel, 'disk', path)
        return path
