# SPDX-License-Identifier: MIT
"""QEMU as tests use it: a client of its monitor (QMP), and a machine whose serial console is read.

    with Qemu(['-machine', 'q35', ...], umbra=PATH) as vm:      # QEMU under `umbra exec`
        vm.console.expect(r'login:', 60)
        vm.console.type('root\\n')
        vm.qmp('system_reset')                                   # what 'return' holds
        vm.hmp('info status')                                    # the text that a person would see
        vm.event('SHUTDOWN', 10)

What goes wrong raises Failure, whose text says what was awaited and what came.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
WITHOUT_NODE = TOP / 'tests/shim/without-node'
ESCAPES = re.compile(r'\x1b[\[(][?0-9;=]*[a-zA-Z]|\x1bc')


class Failure(Exception):
    """A test's reason to fail."""


class Qmp:
    """One connection to a monitor socket. Answers come in order; events are kept until asked for."""

    def __init__(self, path, timeout=30, alive=lambda: True):
        deadline = time.monotonic() + timeout
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(str(path))
                break
            except OSError as err:
                self.socket.close()
                if time.monotonic() > deadline or not alive():
                    raise Failure(f'no monitor at {path}: {err}') from err
                time.sleep(0.05)
        self.rest, self.events = b'', []
        self._message(deadline)
        self.execute('qmp_capabilities', timeout=timeout)

    def _message(self, deadline):
        while b'\n' not in self.rest:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                part = self.socket.recv(1 << 16)
            except TimeoutError as err:
                raise Failure('the monitor does not answer') from err
            except ConnectionError:
                part = b''
            if not part:
                raise Failure('the monitor has gone')
            self.rest += part
        line, self.rest = self.rest.split(b'\n', 1)
        return json.loads(line)

    def execute(self, command, timeout=60, **arguments):
        """Run a command (underscores in argument names stand for hyphens) and return its result."""
        request = {'execute': command}
        if arguments:
            request['arguments'] = {k.replace('_', '-'): v for k, v in arguments.items()}
        try:
            self.socket.settimeout(timeout)
            self.socket.sendall(json.dumps(request).encode() + b'\n')
        except OSError as err:
            raise Failure(f'{command}: the monitor has gone') from err
        deadline = time.monotonic() + timeout
        while True:
            answer = self._message(deadline)
            if 'event' in answer:
                self.events.append(answer)
            elif 'error' in answer:
                raise Failure(f'{command}: {answer["error"]["desc"]}')
            elif 'return' in answer:
                return answer['return']

    def hmp(self, line, timeout=60):
        """A command of the monitor for people; what it prints."""
        return self.execute('human-monitor-command', timeout, command_line=line).replace('\r', '')

    def event(self, name, timeout=60):
        """The next event of this name, which may have come before."""
        deadline = time.monotonic() + timeout
        while True:
            for n, event in enumerate(self.events):
                if event['event'] == name:
                    return self.events.pop(n)
            try:
                message = self._message(deadline)
            except Failure as err:
                raise Failure(f'the event {name} does not come: {err}') from err
            if 'event' in message:
                self.events.append(message)

    def close(self):
        self.socket.close()


class Console:
    """What a process prints, as it comes, and what is typed. `position` is behind what was expected so far."""

    def __init__(self, process):
        self.process = process
        self.text, self.position, self.closed = '', 0, False
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        while chunk := os.read(self.process.stdout.fileno(), 65536):
            with self.changed:
                self.text = ESCAPES.sub('', self.text + chunk.decode(errors='replace').replace('\r', ''))
                self.changed.notify_all()
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def expect(self, pattern, timeout, forbid=''):
        """Wait for a regular expression (multi-line) behind the position; returns the match."""
        deadline = time.monotonic() + timeout
        expression = re.compile(pattern, re.M)
        with self.changed:
            while True:
                wrong = re.search(forbid, self.text) if forbid else None
                if wrong:
                    raise Failure(f'the console says {wrong[0]!r}')
                found = expression.search(self.text, min(self.position, len(self.text)))
                if found:
                    self.position = found.end()
                    return found
                if self.closed:
                    raise Failure(f'it ended before {pattern[:70]!r} came')
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Failure(f'{pattern[:70]!r} did not come in {timeout:.0f} s')
                self.changed.wait(left)

    def type(self, data):
        data = data.encode() if isinstance(data, str) else data
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except (BrokenPipeError, OSError):
            pass  # that it has ended shows in what does not come


class Qemu:
    """
    QEMU under `umbra exec`, where there is no /dev/kvm, with its first serial port on a pipe and a
    monitor. Neither devices nor a display but those of `options`; `umbra=None` is QEMU's own emulator.
    """

    def __init__(self, options, umbra=TOP / 'build/umbra', accel='kvm', env=None, exec_options=()):
        self.dir = tempfile.mkdtemp(prefix='umbra-qemu-')
        self.argv = ['qemu-system-x86_64', '-accel', accel if umbra else 'tcg', '-display', 'none', '-nodefaults',
                     '-serial', 'stdio', '-qmp', f'unix:{self.dir}/qmp,server=on,wait=off',
                     *(str(o) for o in options)]
        if umbra:
            self.argv = [str(WITHOUT_NODE), 'absent', str(umbra), 'exec', '--accel', 'soft', *exec_options, '--',
                         *self.argv]
        # It does not outlive the test, however that ends.
        self.process = subprocess.Popen(['setpriv', '--pdeathsig', 'KILL', *self.argv], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        env={**os.environ, **(env or {})})
        self.console = Console(self.process)
        self.monitor = None

    def _connected(self):
        if not self.monitor:
            try:
                self.monitor = Qmp(f'{self.dir}/qmp', alive=lambda: self.process.poll() is None)
            except Failure as err:
                self.console.reader.join(1)
                raise Failure(f'{err}\n{self.console.text[-2000:]}') from err
        return self.monitor

    def qmp(self, command, timeout=60, **arguments):
        return self._connected().execute(command, timeout, **arguments)

    def hmp(self, line, timeout=60):
        return self._connected().hmp(line, timeout)

    def event(self, name, timeout=60):
        return self._connected().event(name, timeout)

    def wait(self, timeout=30):
        """The exit status, when it ends by itself."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired as err:
            raise Failure('QEMU does not end') from err
        self.console.reader.join(5)  # what it said last is still on its way
        return status

    def quit(self, timeout=30):
        """End it by the monitor; the exit status."""
        try:
            self.qmp('quit')
        except Failure:
            pass  # it may go before it answers
        return self.wait(timeout)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.monitor:
            self.monitor.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
