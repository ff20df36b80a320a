# SPDX-License-Identifier: MIT
"""The cases of tests/boot/run-qemu: what QEMU is asked to do, and what has to come of it."""

import hashlib
import http.server
import random
import re
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import picture
from gdbclient import Gdb
from qmp import TOP, Failure, Qemu

FATAL = (r'SELFCHECK FAIL.*|Kernel panic.*|BUG: .*|Oops.*|general protection.*|soft lockup.*|self-detected stall.*|'
         r'KVM internal error.*')
POWER_DOWN = r'reboot: Power down'
OVMF = Path('/usr/share/OVMF')
# Given more than 40 bits of physical address, Debian's OVMF maps all of them with pages of 2 MiB, which takes
# more memory than the machine has.
OVMF_CPU = 'host,host-phys-bits-limit=40'


@dataclass
class Case:
    name: str
    play: object                    # function(run, *args); raises Failure
    args: tuple = ()


class Run:
    """The machines of one case, and what it needs besides."""

    def __init__(self, args, assets, case, scratch):
        self.args, self.assets, self.case, self.dir = args, assets, case, Path(scratch)
        self.machines = []

    def machine(self, *options, irqchip='on', cpu='host'):
        if not self.args.umbra:
            cpu = cpu.replace('host', 'max', 1).replace('host-phys-bits-limit', 'phys-bits')
        new = Qemu(['-cpu', cpu, *options], self.args.umbra, f'kvm,kernel-irqchip={irqchip}')
        self.machines.append(new)
        return new

    def linux(self, do, kernel='cloud', append='quiet'):
        """QEMU's options for a kernel that it loads itself."""
        return ['-m', 512, '-kernel', self.assets.kernel(kernel), '-initrd', self.assets.initramfs(kernel), '-append',
                f'console=ttyS0 {append} umbra.do={do}']

    def expect(self, vm, *patterns, timeout=120, forbid=FATAL):
        for pattern in patterns:
            found = vm.console.expect(pattern, timeout * self.args.patience, forbid)
        return found

    def ends(self, vm, status=0):
        got = vm.wait(30 * self.args.patience)
        if got != status:
            raise Failure(f'QEMU\'s exit status is {got}')

    def copy(self, image):
        """A copy of a disk, which the case may change."""
        new = self.dir / image.name
        subprocess.run(['cp', '--sparse=always', image, new], check=True)
        return new

    def stop(self):
        for vm in self.machines:
            vm.stop()


class Shell:
    """The shell of a guest that was started with umbra.do=shell."""

    def __init__(self, run, vm, timeout=120):
        self.run, self.vm, self.count = run, vm, 0
        run.expect(vm, r'# $', timeout=timeout)
        # Neither prompts nor echoes from now on. What is typed before this shell is done with the line may be lost.
        vm.console.type('stty -echo; echo ready-$((6 * 7)); while read -r l; do eval "$l"; done\n')
        run.expect(vm, '^ready-42$')

    def start(self, command):
        self.count += 1
        self.vm.console.type(f'{{ {command}; }} 2>&1; printf "\\nSTATUS {self.count} $?\\n"\n')

    def finish(self, timeout=60):
        before = self.vm.console.position
        found = self.run.expect(self.vm, rf'^STATUS {self.count} (\d+)$', timeout=timeout)
        return int(found[1]), self.vm.console.text[before:found.start()].strip()

    def ask(self, command, timeout=60):
        """What a command prints. It has to succeed."""
        self.start(command)
        status, text = self.finish(timeout)
        if status:
            raise Failure(f'in the guest: {command}: status {status}: {text[-300:]}')
        return text

    def power_off(self):
        self.vm.console.type('poweroff -f\n')
        self.run.expect(self.vm, POWER_DOWN)
        self.run.ends(self.vm)


def boots(run, machine, cpu='host', kernel='cloud', cpus=1, irqchip='on'):
    """A kernel that QEMU loads; the guest checks itself."""
    vm = run.machine('-machine', machine, '-smp', cpus, '-no-reboot', '-device', 'virtio-rng-pci' if
                     'microvm' not in machine else 'virtio-rng-device', *run.linux('self', kernel), cpu=cpu,
                     irqchip=irqchip)
    run.expect(vm, rf'UMBRA-TEST: init \S+ {cpus} cpus', 'SELFCHECK OK', POWER_DOWN)
    run.ends(vm)


def microvm_disk(run):
    """virtio over MMIO, as the machine without PCI has it."""
    disk = run.copy(run.assets.disk('disk-cloud'))
    vm = run.machine('-machine', 'microvm', '-no-reboot', '-drive', f'id=d,file={disk},format=raw,if=none', '-device',
                     'virtio-blk-device,drive=d', *run.linux('root'), irqchip='split')
    run.expect(vm, 'UMBRA-TEST: root on /dev/vda ext4', 'UMBRA-TEST: data intact', 'UMBRA-TEST: written and read back',
               POWER_DOWN)
    run.ends(vm)


def grub(run, machine, interface):
    """From the BIOS to the disk's boot record, GRUB, its menu, and the kernel that it reads."""
    image = run.assets.images / 'grub-cloud.img'
    name = {'virtio': 'vda1', 'ide': 'sda1'}[interface]
    make_bootable(run, 'disk-cloud', image, name)
    disk = run.copy(image)
    for boot in (1, 2):
        vm = run.machine('-machine', machine, '-m', 512, '-no-reboot', '-drive', f'file={disk},format=raw,if={interface}')
        run.expect(vm, 'umbra first entry')
        vm.console.type('\x1b[B\n' if boot == 1 else '\n')
        run.expect(vm, r'Command line:.*umbra.entry=2' if boot == 1 else r'Command line: .*umbra.do=\S+\n',
                   f'UMBRA-TEST: root on /dev/{name} ext4', 'UMBRA-TEST: data intact',
                   'UMBRA-TEST: written and read back', rf'UMBRA-TEST: boot number {boot}\b', POWER_DOWN)
        run.ends(vm)


def make_bootable(run, partition, image, root, *options):
    """A disk with GRUB from the image of a file system, which will be the guest's root."""
    tool = TOP / 'tools/mkdisk-grub'
    done = subprocess.run([tool, '--kernel', run.assets.kernel('cloud'), '--initrd', run.assets.initramfs('cloud'),
                           '--append', f'console=ttyS0 umbra.more umbra.do=root:{root}', *options,
                           run.assets.disk(partition), image], check=False)
    if done.returncode:
        raise Failure(f'{tool.name} failed')


def debian(run, machine, cpus):
    """The same with a whole distribution, which the power button turns off."""
    disk = run.dir / 'debian.img'
    make_bootable(run, 'debian', disk, 'vda1', '--root', '/dev/vda1')
    vm = run.machine('-machine', machine, '-smp', cpus, '-m', 1024, '-no-reboot', '-device', 'virtio-rng-pci', '-drive',
                     f'file={disk},format=raw,if=virtio')
    run.expect(vm, 'umbra first entry')
    run.expect(vm, 'umbra login:', timeout=900)
    vm.console.type('root\n')
    run.expect(vm, r'root@umbra.*# ')
    vm.console.type('systemctl --failed --no-legend | wc -l; findmnt -no SOURCE /; nproc\n')
    run.expect(vm, rf'^0\n/dev/vda1\n{cpus}\n')
    vm.qmp('system_powerdown')
    run.expect(vm, POWER_DOWN, timeout=300)
    run.ends(vm)


def ovmf(run, machine='q35'):
    """UEFI: firmware in flash, its shell, a kernel from a FAT file system, variables that are kept."""
    code, variables = OVMF / 'OVMF_CODE_4M.fd', run.dir / 'vars.fd'
    shutil.copyfile(OVMF / 'OVMF_VARS_4M.fd', variables)
    fat = run.dir / 'fat'
    fat.mkdir()
    shutil.copyfile(run.assets.kernel('cloud'), fat / 'vmlinuz.efi')
    shutil.copyfile(run.assets.initramfs('cloud'), fat / 'initrd')
    (fat / 'startup.nsh').write_text('echo startup-script-runs\r\nfs0:\r\nvmlinuz.efi initrd=\\initrd console=tty0 '
                                     'console=ttyS0 quiet umbra.more umbra.do=shell\r\n')
    vm = run.machine('-machine', machine, '-m', 512, '-vga', 'std', '-drive',
                     f'if=pflash,format=raw,readonly=on,file={code}', '-drive',
                     f'if=pflash,format=raw,file={variables}', '-drive', f'file=fat:{fat},format=raw,if=virtio,readonly=on',
                     cpu=OVMF_CPU)
    name = '/sys/firmware/efi/efivars/Umbra-5eed1234-0bad-cafe-8000-0123456789ab'
    mount = 'mount -t efivarfs efivarfs /sys/firmware/efi/efivars'
    run.expect(vm, 'UEFI Interactive Shell', 'startup-script-runs', timeout=180)
    shell = Shell(run, vm)
    shell.ask(f'{mount}; [ ! -e {name} ] && printf "\\007\\000\\000\\000kept-{{}}" > {name}')
    # The kernel's console on the firmware's frame buffer.
    shell.ask(r'printf "\033[2J\033[H" > /dev/tty0; sleep 1')
    empty = picture.Picture(vm, run.dir / 'empty.ppm')
    shell.ask(r'printf "\033[47m\033[2J\033[H" > /dev/tty0; sleep 1')
    full = picture.Picture(vm, run.dir / 'full.ppm')
    lit = [sum(map(bool, p.data)) for p in (empty, full)]
    if not lit[0] < len(empty.data) / 50 or not lit[1] > len(full.data) / 2:
        raise Failure(f'the screen does not show what the guest prints ({lit} of {len(full.data)})')
    vm.console.type('reboot -f\n')
    run.expect(vm, 'UEFI Interactive Shell', timeout=180)
    shell = Shell(run, vm)
    if 'kept-{}' not in shell.ask(f'{mount}; cat {name}'):
        raise Failure('the variable is lost')
    shell.power_off()


def screen(run, machine='pc', irqchip='on'):
    """What a guest draws is what the screen shows, again and again."""
    image = run.dir / 'screen.bin'
    for command in (['gcc', '-c', '-m32', '-o', run.dir / 'screen.o', TOP / 'tests/boot/screen.S'],
                    ['ld', '-m', 'elf_i386', '-Ttext', '0x7c00', '--oformat', 'binary', '-o', image,
                     run.dir / 'screen.o']):
        subprocess.run(command, check=True)
    with open(image, 'r+b') as disk:
        disk.truncate(1 << 20)
    vm = run.machine('-machine', machine, '-m', 64, '-vga', 'std', '-drive', f'file={image},format=raw', irqchip=irqchip)
    for letter, check, *args in picture.STAGES:
        found = run.expect(vm, '^[a-g!]$')[0]
        if found != letter:
            raise Failure(f'the guest is at {found}, not at {letter}')
        for again in range(2):
            check(picture.Picture(vm, run.dir / f'{letter}{again}.ppm'), *args)
        vm.qmp('send-key', keys=[{'type': 'qcode', 'data': 'spc'}])
    vm.quit()


def reset(run, machine, cpus=1, irqchip='on'):
    """The guest starts again when it asks to, when the monitor asks; and the power button reaches it."""
    vm = run.machine('-machine', machine, '-smp', cpus, *run.linux('shell', append='quiet umbra.more'), irqchip=irqchip)
    vm.qmp('query-status')      # events come only to those who are there
    Shell(run, vm).ask(f'[ $(nproc) = {cpus} ]')
    vm.console.type('reboot -f\n')
    Shell(run, vm).ask('uptime')
    vm.event('RESET')
    vm.qmp('system_reset')
    shell = Shell(run, vm)
    shell.ask('uptime')
    found = shell.ask(r'grep -l "Power Button" /sys/class/input/event*/device/name')
    shell.start(f'head -c 24 /dev/input/{found.split()[0].split("/")[4]} | wc -c')
    time.sleep(0.5)
    vm.qmp('system_powerdown')
    if shell.finish() != (0, '24'):
        raise Failure('no event of the power button')
    shell.power_off()


class Server(http.server.BaseHTTPRequestHandler):
    """One file, for guests to fetch."""
    content = random.Random(5).randbytes(3 << 20)

    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def do_PUT(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        self.server.came = hashlib.sha256(body).hexdigest()
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


DHCP = r'''printf '#!/bin/sh\n[ "$1" = bound ] || exit 0\nifconfig $interface $ip netmask $subnet\nroute add default gw $router\n' \
> /tmp/dhcp; chmod +x /tmp/dhcp; ip link set eth0 up; udhcpc -q -n -i eth0 -s /tmp/dhcp >/dev/null'''.replace('\\\n', '')


def network(run, machine, card, irqchip='on', cpus=1, kernel='cloud'):
    """DHCP, and a file fetched from a server on the host; through QEMU's own network."""
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        vm = run.machine('-machine', machine, '-smp', cpus, '-no-reboot', '-netdev', 'user,id=n', '-device',
                         f'{card},netdev=n', *run.linux('shell', kernel, 'quiet umbra.more'), irqchip=irqchip)
        shell = Shell(run, vm)
        shell.ask(DHCP)
        shell.ask('ping -c 3 10.0.2.2 >/dev/null')
        shell.ask(f'wget -q -O /tmp/file http://10.0.2.2:{server.server_port}/file', timeout=120)
        wanted = hashlib.sha256(Server.content).hexdigest()
        if shell.ask('sha256sum < /tmp/file').split()[0] != wanted:
            raise Failure('another file came through the network')
        shell.power_off()
    finally:
        server.shutdown()
        server.server_close()


def resident(vm):
    """MiB of the machine's process that are in memory."""
    status = Path(f'/proc/{vm.process.pid}/status').read_text()
    return int(re.search(r'VmRSS:\s+(\d+) kB', status)[1]) >> 10


def balloon(run, machine='q35'):
    """What the guest gives back leaves the host's memory; it gets it again."""
    vm = run.machine('-machine', machine, '-no-reboot', '-device', 'virtio-balloon-pci', *run.linux('shell',
                     append='quiet umbra.more'))
    shell = Shell(run, vm)
    shell.ask('dd if=/dev/urandom of=/tmp/data bs=1M count=200 2>/dev/null; rm /tmp/data', timeout=180)
    before = resident(vm)
    vm.hmp('balloon 200')
    deadline = time.monotonic() + 60 * run.args.patience
    while resident(vm) > before - 150 or 'actual=200' not in vm.hmp('info balloon'):
        if time.monotonic() > deadline:
            raise Failure(f'{before} MiB before, {resident(vm)} after; {vm.hmp("info balloon").strip()}')
        time.sleep(0.2)
    total = int(shell.ask("free -m | awk '/^Mem/ {print $2}'"))
    if not 100 < total < 200:
        raise Failure(f'the guest has {total} MiB left')
    vm.hmp('balloon 512')
    while 'actual=512' not in vm.hmp('info balloon'):
        if time.monotonic() > deadline:
            raise Failure('the balloon does not shrink')
        time.sleep(0.2)
    shell.ask('dd if=/dev/zero of=/tmp/data bs=1M count=200 2>/dev/null && tr -d "\\000" < /tmp/data | wc -c | grep -qx 0',
              timeout=180)
    shell.power_off()


def devices(run, machine='q35', cpus=1):
    """Files of the host by 9p, random numbers, a virtio serial port."""
    shared = run.dir / 'shared'
    shared.mkdir()
    data = random.Random(9).randbytes(1 << 20)
    (shared / 'from-host').write_bytes(data)
    vm = run.machine('-machine', machine, '-smp', cpus, '-no-reboot', '-virtfs',
                     f'local,path={shared},mount_tag=share,security_model=none', '-device', 'virtio-rng-pci',
                     '-device', 'virtio-serial-pci', '-chardev', f'file,id=c,path={run.dir}/port', '-device',
                     'virtserialport,chardev=c,name=umbra.port', *run.linux('shell', 'amd64', 'quiet umbra.more'))
    shell = Shell(run, vm)
    shell.ask('mount -t 9p -o trans=virtio,version=9p2000.L share /mnt')
    if shell.ask('sha256sum < /mnt/from-host').split()[0] != hashlib.sha256(data).hexdigest():
        raise Failure('9p: the guest reads another file')
    text = shell.ask('cp /mnt/from-host /tmp/f; for i in 1 2 3; do cat /tmp/f; done > /mnt/from-guest; sync; '
                     'cat /sys/class/misc/hw_random/rng_current; head -c 64 /dev/hwrng | base64 -w 0')
    if (shared / 'from-guest').read_bytes() != data * 3:
        raise Failure('9p: the guest wrote another file')
    found = re.search(r'virtio_rng\.\d+\s+([A-Za-z0-9+/=]{88})$', text)
    if not found or len(set(found[1])) < 20:
        raise Failure(f'no random numbers: {text!r}')
    shell.ask('for port in /dev/vport*; do cat /tmp/f > $port; done')
    deadline = time.monotonic() + 30 * run.args.patience
    while (run.dir / 'port').read_bytes() != data:
        if time.monotonic() > deadline:
            raise Failure('virtio-serial: other bytes came')
        time.sleep(0.2)
    shell.power_off()


def gdbstub(run, cpus=1):
    """Breakpoints in hardware and in code, watchpoints, single steps, registers and memory, for a debugger."""
    path = run.dir / 'gdb'
    vm = run.machine('-smp', cpus, '-no-reboot', '-chardev', f'socket,id=g,path={path},server=on,wait=off', '-gdb',
                     'chardev:g', *run.linux('shell'))
    shell = Shell(run, vm)
    address = {name: int(shell.ask(f"awk '$3 == \"{name}\" {{print $1; exit}}' /proc/kallsyms"), 16)
               for name in ('do_sys_openat2', 'jiffies')}
    gdb = Gdb(path, 30 * run.args.patience)
    opens = 'cat /proc/version'
    # A breakpoint register, twice; then steps.
    gdb.ask(f'Z1,{address["do_sys_openat2"]:x},1', 'OK')
    for _ in range(2):
        shell.start(opens)
        gdb.go('c')
        gdb.at(address['do_sys_openat2'])
        # A breakpoint that stays hits again before each try to step over it.
        gdb.ask(f'z1,{address["do_sys_openat2"]:x},1', 'OK')
        before = gdb.registers()
        for _ in range(20):
            last = gdb.registers()['rip']
            gdb.go('s')
            if gdb.registers()['rip'] == last:
                raise Failure('a step goes nowhere')
        if abs(gdb.registers()['rsp'] - before['rsp']) > 4096:
            raise Failure('the stack is elsewhere after some steps')
        gdb.resume()
        shell.finish()
        gdb.interrupt()
        gdb.ask(f'Z1,{address["do_sys_openat2"]:x},1', 'OK')
    gdb.ask(f'z1,{address["do_sys_openat2"]:x},1', 'OK')
    # A breakpoint in the code, which the guest cannot see once it is gone.
    code = gdb.ask(f'm{address["do_sys_openat2"]:x},8')
    gdb.ask(f'Z0,{address["do_sys_openat2"]:x},1', 'OK')
    shell.start(opens)
    gdb.go('c')
    gdb.at(address['do_sys_openat2'])
    gdb.ask(f'z0,{address["do_sys_openat2"]:x},1', 'OK')
    if gdb.ask(f'm{address["do_sys_openat2"]:x},8') != code:
        raise Failure('the code is not what it was')
    # A watchpoint: who writes the clock?
    gdb.ask(f'Z2,{address["jiffies"]:x},8', 'OK')
    ticks = []
    for _ in range(3):
        gdb.go('c')
        ticks.append(int.from_bytes(bytes.fromhex(gdb.ask(f'm{address["jiffies"]:x},8')), 'little'))
    if not ticks[0] < ticks[1] < ticks[2]:
        raise Failure(f'a watchpoint stops without a write: {ticks}')
    gdb.ask(f'z2,{address["jiffies"]:x},8', 'OK')
    gdb.resume()
    shell.finish()
    gdb.close()
    shell.ask(opens)
    shell.power_off()


def vmbus(run, irqchip='on'):
    """Linux's driver finds QEMU's VMBus: hypercalls, messages both ways. And timers tell by messages."""
    vm = run.machine('-machine', 'q35', '-smp', 2, '-no-reboot', '-device', 'vmbus-bridge', *run.linux(
        'shell', append='quiet umbra.more'), irqchip=irqchip, cpu='host,kvm=off,hv-vpindex,hv-time,hv-synic,hv-stimer')
    shell = Shell(run, vm)
    shell.ask('dmesg | grep "Vmbus version"')
    shell.ask('grep "Hyper-V clockevent" /sys/devices/system/clockevents/clockevent1/current_device')
    count = 'awk \'/^HYP/ { print $2 + $3 }\' /proc/interrupts'
    before = int(shell.ask(count))
    shell.ask('sleep 1; sleep 0.1')
    if int(shell.ask(count)) <= before:
        raise Failure('no interrupts of timers')
    shell.power_off()


def ovmf_smm(run):
    """UEFI whose variables only code in system-management mode may write, for which all processors stop."""
    variables = run.dir / 'vars.fd'
    shutil.copyfile(OVMF / 'OVMF_VARS_4M.fd', variables)
    names = [f'/sys/firmware/efi/efivars/Umbra{n}-5eed1234-0bad-cafe-8000-0123456789ab' for n in range(10)]
    for boot in (1, 2):
        vm = run.machine('-machine', 'q35,smm=on', '-smp', 2, '-no-reboot', '-global',
                         'driver=cfi.pflash01,property=secure,value=on', '-drive',
                         f'if=pflash,format=raw,readonly=on,file={OVMF}/OVMF_CODE_4M.secboot.fd', '-drive',
                         f'if=pflash,format=raw,file={variables}', *run.linux('shell', append='quiet umbra.more'),
                         cpu=OVMF_CPU)
        shell = Shell(run, vm, timeout=180)
        shell.ask('mount -t efivarfs efivarfs /sys/firmware/efi/efivars')
        if boot == 1:
            # The other processor's work goes on between SMIs.
            shell.ask('(while [ ! -e /tmp/end ]; do echo $((6 * 7)); done | uniq > /tmp/work) & true')
            for name in names:
                shell.ask(f'printf "\\007\\000\\000\\000kept-by-smm" > {name}')
            shell.ask('touch /tmp/end; wait; [ "$(cat /tmp/work)" = 42 ]')
        if shell.ask(f'cat {" ".join(names)}; echo').count('kept-by-smm') != len(names):
            raise Failure('the variables are not what was written')
        shell.power_off()


CASES = [
    # This machine's second IOAPIC is QEMU's in any case, and hears of an EOI only with a split irqchip.
    Case('microvm', boots, ('microvm', 'host', 'cloud', 1, 'split')),
    Case('microvm-disk', microvm_disk),
    Case('q35-max-split', boots, ('q35', 'max', 'cloud', 1, 'split')),
    Case('pc-686-pae', boots, ('pc', 'host', '686-pae')),
    Case('grub', grub, ('pc', 'virtio')),
    Case('ovmf', ovmf),
    Case('screen', screen),
    Case('reset', reset, ('q35',)),
    Case('network', network, ('pc', 'virtio-net-pci')),
    Case('balloon', balloon),
    Case('devices', devices),
    Case('gdbstub', gdbstub),
    Case('vmbus', vmbus),
]
FULL = [
    *(Case(f'cpu-{cpu}', boots, ('q35', cpu)) for cpu in ('qemu64', 'Haswell-noTSX', 'Skylake-Client', 'EPYC', 'kvm64',
                                                          'Nehalem')),
    *(Case(f'{machine}-{kernel}', boots, (machine, 'host', kernel)) for machine, kernel in
      (('q35', '686'), ('q35', '686-pae'), ('pc', '686'), ('q35', 'amd64'), ('pc', 'amd64'))),
    Case('cpu-kvm32', boots, ('pc', 'kvm32', '686')),
    Case('q35-686-pae-2cpu', boots, ('q35', 'host', '686-pae', 2)),
    Case('microvm-plain', boots, ('microvm,pit=off,pic=off,rtc=on', 'max', 'cloud', 2, 'split')),
    Case('grub-ide', grub, ('pc', 'ide')),
    Case('grub-debian', debian, ('q35', 2)),
    Case('ovmf-pc', ovmf, ('pc',)),
    Case('ovmf-smm', ovmf_smm),
    *(Case(f'screen-{machine}-{irqchip}', screen, (machine, irqchip)) for machine, irqchip in
      (('q35', 'on'), ('pc', 'split'), ('pc', 'off'))),
    Case('reset-2cpu', reset, ('pc', 2)),
    Case('reset-split', reset, ('q35', 1, 'split')),
    Case('reset-off', reset, ('pc', 1, 'off')),
    Case('network-e1000', network, ('pc', 'e1000', 'on', 1, 'amd64')),
    Case('network-split-2cpu', network, ('q35', 'virtio-net-pci', 'split', 2)),
    Case('network-off', network, ('pc', 'virtio-net-pci', 'off')),
    Case('gdbstub-2cpu', gdbstub, (2,)),
]
