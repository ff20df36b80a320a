# SPDX-License-Identifier: MIT
"""What a machine of QEMU shows on its screen, read from a screen dump; and the tests of tests/boot/screen.S."""

from pathlib import Path

from qmp import Failure


class Picture:
    """A screen dump (portable pixmap): width, height and 3 bytes a pixel."""

    def __init__(self, vm, path):
        vm.qmp('screendump', filename=str(path))
        magic, size, most, self.data = Path(path).read_bytes().split(b'\n', 3)
        if magic != b'P6' or most != b'255':
            raise Failure('the screen dump is no pixmap')
        self.width, self.height = map(int, size.split())

    def pixel(self, i):
        return self.data[3 * i:3 * i + 3]

    def cell(self, column, row, columns=80, rows=25):
        """The pixels of one character, as one string of bytes."""
        width, height = self.width // columns, self.height // rows
        lines = (((row * height + y) * self.width + column * width) * 3 for y in range(height))
        return b''.join(self.data[at:at + 3 * width] for at in lines)


def one_to_one(pairs, what):
    """Each of the first is always shown as the same second, and two of the first never alike."""
    shown, means = {}, {}
    for value, look in pairs:
        if shown.setdefault(value, look) != look:
            raise Failure(f'{what} {value} has two looks')
        if means.setdefault(look, value) != value:
            raise Failure(f'{what} {value} looks like {means[look]}')
    return shown


def check_text(picture, step):
    if (picture.width, picture.height) != (720, 400):
        raise Failure(f'a text of {picture.width}x{picture.height} pixels')
    glyphs = one_to_one(((chr(0x20 + (7 * i + step) % 95), picture.cell(i % 80, i // 80)) for i in range(2000)),
                        'the character')
    line = 3 * 9
    if any(glyphs[' ']) or any(glyphs['_'][:9 * line]) or not any(glyphs['_'][9 * line:]):
        raise Failure('the characters do not look like themselves')


def check_palette(picture, step):
    """Colours may be alike in the palette; one colour is always the same."""
    if (picture.width, picture.height) != (640, 400):   # each pixel is shown as four
        raise Failure(f'mode 0x13 has {picture.width}x{picture.height} pixels')
    colours = {}
    for y in range(200):
        for x in range(320):
            look = picture.pixel(2 * y * 640 + 2 * x)
            if colours.setdefault((x + y + step) & 0xff, look) != look:
                raise Failure(f'the pixel at {x}, {y} has another colour')
    if len(set(colours.values())) < 100 or len(colours) != 256:
        raise Failure('the palette has few colours')


def check_frame(picture, step, dot=False):
    if (picture.width, picture.height) != (640, 400):
        raise Failure(f'a frame of {picture.width}x{picture.height} pixels')
    wanted = bytearray()
    for i in range(640 * 400):
        wanted += ((0x123456 * step + 0x10101 * i) & 0xffffff).to_bytes(3, 'big')
    if dot:
        at = 3 * (640 * 200 + 320)
        wanted[at:at + 3] = b'\xff\xff\xff'
    if wanted != picture.data:
        wrong = next(i for i in range(640 * 400) if wanted[3 * i:3 * i + 3] != picture.pixel(i))
        raise Failure(f'the pixel {wrong} is {picture.pixel(wrong).hex()}, wanted {wanted[3 * wrong:3 * wrong + 3].hex()}')


STAGES = (('a', check_text, 0), ('b', check_text, 1), ('c', check_palette, 0), ('d', check_palette, 1),
          ('e', check_frame, 0), ('f', check_frame, 1), ('g', check_frame, 1, True))
