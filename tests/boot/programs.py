# SPDX-License-Identifier: MIT
"""The programs of tests/boot/programs: run natively in the tree that their disk was made of, and compared with a guest's."""

import difflib
import os
import re
import subprocess
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / 'programs'

# What only guests do, and what they have to say then.
KERNEL = '300 programs return what they should\ntraced\ntraced\ntraced\n5 programs return what they should\n'
NATIVE = ('openssl', 'gcc', 'sqlite', 'scripts', 'node', 'java')

# In namespaces of their own: mounts and processes go when it ends. {tree} and {folder} are put in.
INSIDE = '''mount --bind "$0" "$1/programs"; mount -t proc proc "$1/proc"; mount -t tmpfs tmpfs "$1/tmp"
mount --rbind /dev "$1/dev"; exec chroot "$1" /programs/init "$2"'''


def archive(path):
    """What the guest finds on its second disk."""
    subprocess.run(['tar', '-c', '-C', FOLDER, '-b', '256', '-f', path, '.'], check=True)


def answers(text):
    """{program: what it printed}"""
    found = re.findall(r'UMBRA-TEST: begin (\w+)\n(.*?)UMBRA-TEST: end \1\n', text.replace('\r', ''), re.S)
    # The kernel's own messages stand between the lines.
    return {name: ''.join(f'{line[2:]}\n' for line in said.splitlines() if line.startswith('| ')) for name, said in found}


def natively(tree, names):
    done = subprocess.run(['unshare', '-m', '-p', '-f', 'sh', '-ec', INSIDE, FOLDER, tree, ','.join(names)], check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={k: v for k, v in os.environ.items() if k != 'programs'}, timeout=900)
    said = answers(done.stdout)
    if done.returncode or set(said) != set(names):
        raise RuntimeError(f'natively the programs failed:\n{done.stdout[-500:]}')
    return said


def compare(tree, text):
    """A guest's console against what the same programs say natively; '' or the first differences."""
    said = answers(text)
    wanted = natively(tree, [n for n in said if n != 'kernel'])
    if 'kernel' in said:
        wanted['kernel'] = KERNEL
    for name, right in wanted.items():
        if not right:
            return f'{name} says nothing natively'
        if said[name] != right:
            lines = difflib.unified_diff(right.splitlines(), said[name].splitlines(), 'native', 'guest', lineterm='', n=0)
            return f'{name} has other results:\n' + '\n'.join(f'    {line}' for line in list(lines)[:12])
    return ''
