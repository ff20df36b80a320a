# SPDX-License-Identifier: MIT
"""An interpreter's usual work: big numbers, text, compression, threads, generated code."""
import fractions
import hashlib
import json
import math
import random
import re
import struct
import threading
import zlib

rng = random.Random(7)
print("big", hashlib.sha256(hex(pow(3, 20000) * math.factorial(900)).encode()).hexdigest()[:16])
words = ["".join(rng.choices("abcdefgh", k=rng.randrange(3, 9))) for _ in range(30000)]
text = " ".join(words)
print("text", len(re.findall(r"\b(?:a\w*h|b[^c ]+)\b", text)), zlib.crc32(re.sub(r"(\w)\1", r"\1", text).encode()))
packed = zlib.compress(text.encode(), 9)
print("packed", len(packed), zlib.decompress(packed) == text.encode(), hashlib.blake2b(packed).hexdigest()[:16])
data = {w: {"n": len(w), "at": [i, i / 7]} for i, w in enumerate(words)}
print("json", hashlib.md5(json.dumps(json.loads(json.dumps(data)), sort_keys=True).encode()).hexdigest())
print("sort", zlib.crc32("".join(sorted(words, key=lambda w: (w[::-1], len(w)))).encode()))
print("floats", struct.pack("<d", math.fsum(math.sin(i) * math.exp(-i / 1000) for i in range(20000))).hex())
print("fractions", sum((fractions.Fraction(1, n * n) for n in range(1, 250)), fractions.Fraction(0)).numerator % 10**12)
total = 0
for n in range(300):
    scope = {}
    exec(compile(f"def f(x):\n  s = {n}\n  for i in range(50): s = (s * {n + 3} + x) & 0xffffffff\n  return s", "made", "exec"), scope)
    total ^= scope["f"](n)
print("made", total)
lock, counts = threading.Lock(), {}


def work(k):
    for i in range(5000):
        with lock:
            counts[i % 13] = counts.get(i % 13, 0) + i * k


threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print("threads", sorted(counts.items()))
