# SPDX-License-Identifier: MIT
"""A client of a debugger's stub, as far as the tests need it: GDB's remote protocol over a socket, for x86-64."""

import socket

from qmp import Failure

NAMES = ('rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp', *(f'r{n}' for n in range(8, 16)), 'rip')


class Gdb:
    """A connection. To connect stops the machine."""

    def __init__(self, path, timeout):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.rest = b''
        self._send('qSupported:xmlRegisters=i386')
        while not self._answer().startswith('PacketSize'):
            pass        # that the machine stops is told first, unasked
        if not self.ask('?').startswith('T'):
            raise Failure('the machine does not stop for the debugger')

    def _byte(self):
        if not self.rest:
            try:
                self.rest = self.socket.recv(4096)
            except TimeoutError as err:
                raise Failure('the debugger\'s stub does not answer') from err
            if not self.rest:
                raise Failure('the debugger\'s stub has gone')
        first, self.rest = self.rest[:1], self.rest[1:]
        return first

    def _send(self, text):
        data = text.encode()
        self.socket.sendall(b'$' + data + b'#%02x' % (sum(data) & 0xff))

    def _answer(self):
        while self._byte() != b'$':
            pass        # acknowledgements
        data = b''
        while (byte := self._byte()) != b'#':
            data += byte
        check = int(self._byte() + self._byte(), 16)
        if check != sum(data) & 0xff:
            raise Failure('the debugger\'s stub answers with a wrong sum')
        self.socket.sendall(b'+')
        return data.decode()

    def ask(self, text, wanted=None):
        self._send(text)
        answer = self._answer()
        if wanted is not None and answer != wanted:
            raise Failure(f'the debugger\'s stub answers {answer!r} to {text}')
        return answer

    def resume(self):
        """Let the machine run, and do not wait."""
        self._send('c')

    def go(self, how):
        """Continue ('c') or step ('s') to the next stop, which has to be SIGTRAP."""
        answer = self.ask(how)
        if not answer.startswith('T05'):
            raise Failure(f'the machine stops with {answer!r}')

    def interrupt(self):
        self.socket.sendall(b'\x03')
        answer = self._answer()
        if not answer.startswith('T02'):
            raise Failure(f'the machine stops with {answer!r}, not because it was asked to')

    def registers(self):
        data = bytes.fromhex(self.ask('g'))
        return {name: int.from_bytes(data[8 * n:8 * n + 8], 'little') for n, name in enumerate(NAMES)}

    def at(self, address):
        rip = self.registers()['rip']
        if rip != address:
            raise Failure(f'the machine stops at {rip:#x}, not at {address:#x}')

    def close(self):
        self.socket.close()
